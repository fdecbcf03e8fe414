"""Print how each of the 24 published recipes differs from the authors' option file: ``python -m tools.recipe_audit``.

What the option files say is written down in ``authors_trainings.toml`` beside this file. Every key of it is compared
with the recipe that ``atd train`` runs. ``python -m tools.recipe_audit docs/differences.md`` rewrites the table between
the page's markers.
"""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from atd.evaluation.formatting import markdown_table, write_text
from atd.training import recipes
from atd.training.recipes import Recipe, toml

BEGIN, END = "<!-- recipes -->", "<!-- /recipes -->"

THEIRS = {"amp": "fp16"}
"""The value that comes nearest to what the option files say, where theirs is no value of ours."""


@dataclass(frozen=True)
class Difference:
    """A key of a recipe that is not as in the option file, with both values and the override that gives theirs."""

    key: str
    theirs: object
    ours: object

    @property
    def override(self) -> str:
        """What gives theirs, for `--set`."""
        value = THEIRS.get(self.key, self.theirs)
        return f"{self.key}={value if isinstance(value, str) else toml.write_value(value)}"


def authors_trainings() -> dict[str, dict[str, object]]:
    """For each training its keys and their values in the option file, lists as tuples."""
    content = tomllib.loads(Path(__file__).with_name("authors_trainings.toml").read_text(encoding="utf-8"))
    parts = {**content["families"], **content["data"]}
    trainings: dict[str, dict[str, object]] = {}
    for id, row in content["trainings"].items():
        keys: dict[str, object] = {}
        for part in (*(parts[name] for name in row.pop("use")), row):
            keys |= part
        trainings[id] = {key: tuple(value) if isinstance(value, list) else value for key, value in keys.items()}
    return trainings


def differences(recipe: Recipe, training: Mapping[str, object]) -> list[Difference]:
    """The keys in which `recipe` is not as its option file."""
    return [
        Difference(key, theirs, ours)
        for key, theirs in training.items()
        if (ours := getattr(recipe, key)) != (theirs if not isinstance(ours, tuple) else _as_tuple(theirs))
    ]


def _as_tuple(value: object) -> object:
    return value if isinstance(value, tuple) else (value,)


def table() -> str:
    """A Markdown table of all trainings, one row each."""
    rows = [["recipe", "keys compared", "different: theirs, ours", "the key that gives theirs"]]
    for id, training in authors_trainings().items():
        different = differences(recipes.get(id), training)
        shown = "; ".join(f"`{item.key}`: {_text(item.theirs)}, {_text(item.ours)}" for item in different)
        overrides = ", ".join(f"`{item.override}`" for item in different)
        rows.append([id, str(len(training)), shown or "nothing", overrides or "–"])
    return markdown_table(rows)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def main() -> None:
    """Print the table, or write it into a page."""
    parser = argparse.ArgumentParser(prog="python -m tools.recipe_audit", description=__doc__)
    parser.add_argument("page", nargs="?", type=Path, help="page whose table is rewritten")
    page: Path | None = parser.parse_args().page
    if page is None:
        print(table())
        return
    text = page.read_text(encoding="utf-8")
    begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    write_text(page, f"{text[:begin]}\n{table()}\n{text[end:]}")


if __name__ == "__main__":
    main()
