"""Whether modules still do what their classes say, so that others may compute with their parameters in their place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import nn

# Where torch keeps the hooks of a module.
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")


def are_untouched(parts: Sequence[nn.Module]) -> bool:
    """Whether none of the modules has a hook, a replaced or compiled forward, or a parameter of another kind.

    What stands in a module's own place, as an adapter does, the caller sees from its type.
    """
    return all(_is_untouched(vars(part)) for part in parts)


def _is_untouched(own: dict[str, object]) -> bool:
    parameters = cast("dict[str, nn.Parameter | None]", own["_parameters"])
    return (
        "forward" not in own
        and not any(own[hooks] for hooks in _HOOKS)
        and own.get("_compiled_call_impl") is None
        and all(parameter is None or type(parameter) is nn.Parameter for parameter in parameters.values())
    )
