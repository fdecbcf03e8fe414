"""Values of a recipe as TOML text and back."""

from __future__ import annotations

import json
import tomllib

from atd.errors import RecipeError
from atd.system import is_list


def read_value(text: str) -> object:
    """The value of an override: TOML, or the text itself where it is no TOML, so that words need no quotes.

    Raises:
        RecipeError: a list that is no TOML; as text it would only be misunderstood later.
    """
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        if text.startswith("["):
            sentence = f"the override {text} is no TOML list: words in it need quotes, as {['a', 'b']}"
            raise RecipeError(sentence) from None
        return text


def write_value(value: object) -> str:
    """`value`, a bool, number, string or list of them, as TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    if is_list(value):
        return f"[{', '.join(write_value(item) for item in value)}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)  # what JSON escapes, TOML's basic strings escape alike
    return repr(value)
