"""What a weight file says of its network, checked before anything is built.

A description is a mapping of an architecture's constructor keywords. It comes from strangers: from config.json, from a
file's header, or from the keys and shapes of its tensors. Bounds are far above every published network and low enough
that whatever keeps to them is built in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from atd.errors import LoadError
from atd.system import is_list

MAX_LAYERS = 1_000
"""Layers in all blocks together; the largest published network has 36."""

Check = Callable[[object], str | None]
"""None when a value is good, else what was expected."""


def _whole(low: int, high: int) -> Check:
    def check(value: object) -> str | None:
        good = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        return None if good else f"a whole number from {low} to {high}"

    return check


def _number(low: float, high: float) -> Check:
    def check(value: object) -> str | None:
        if isinstance(value, int | float) and not isinstance(value, bool) and low < value <= high:
            return None
        return f"a number above {low:g} and up to {high:g}"

    return check


def _list_of(item: Check) -> Check:
    def check(value: object) -> str | None:
        if not is_list(value) or not 1 <= len(value) <= MAX_LAYERS:
            return "a list"
        return next((f"a list, each entry {fault}" for entry in value if (fault := item(entry))), None)

    return check


def _one_or_list(item: Check) -> Check:
    """ATD-U has one value for each level where ATD has a single one."""

    def check(value: object) -> str | None:
        return _list_of(item)(value) if is_list(value) else item(value)

    return check


def _truth(value: object) -> str | None:
    return None if isinstance(value, bool) else "true or false"


def _text(value: object) -> str | None:
    return None if value is None or isinstance(value, str) else "a word"


_CHANNELS, _COUNT = _whole(1, 8_192), _whole(1, 65_536)
_CHECKS: dict[str, Check] = {
    "img_size": _one_or_list(_COUNT),
    "in_chans": _whole(1, 64),
    "embed_dim": _CHANNELS,
    "depths": _list_of(_whole(1, MAX_LAYERS)),
    "num_heads": _list_of(_CHANNELS),
    "window_size": _one_or_list(_whole(1, 256)),
    "category_size": _one_or_list(_COUNT),
    "num_tokens": _one_or_list(_COUNT),
    "reducted_dim": _one_or_list(_CHANNELS),
    "dim_ffn_td": _one_or_list(_CHANNELS),
    "convffn_kernel_size": _whole(1, 63),
    "mlp_ratio": _number(0, 64),
    "qkv_bias": _truth,
    "patch_norm": _truth,
    "use_checkpoint": _truth,
    "bias": _truth,
    "no_norm": _truth,
    "upscale": _whole(1, 16),
    "img_range": _number(0, 1e6),
    "upsampler": _text,
    "resi_connection": _text,
}

_BY_LEVEL = ("category_size", "num_tokens", "reducted_dim", "dim_ffn_td")
"""Keywords of which ATD-U has one value for each level, as it has of window_size."""


def check_config(config: Mapping[str, object], tensors: int, source: str) -> None:
    """Raise `LoadError` unless `config` can be the constructor keywords of a network with `tensors` tensors.

    Args:
        config: constructor keywords; those that no network of this library has are left to its constructor.
        tensors: how many the weight file holds.
        source: where the description comes from, for the message.
    """
    for keyword, value in config.items():
        check = _CHECKS.get(keyword)
        if check and (expected := check(value)):
            raise LoadError(f"{source} does not describe a network: {keyword} is {_short(value)}, expected {expected}.")
    if isinstance(config.get("window_size"), int):
        for keyword in _BY_LEVEL:
            if is_list(value := config.get(keyword)):
                raise LoadError(
                    f"{source} does not describe a network: {keyword} is {_short(value)}, expected a single value, as "
                    "window_size has."
                )
    depths = config.get("depths")
    if is_list(depths):
        layers = sum(depth for depth in depths if isinstance(depth, int))  # nothing else passed the check above
        if layers > min(MAX_LAYERS, tensors):
            raise LoadError(
                f"{source} describes {layers} layers, but the file holds {tensors} tensors, and at most {MAX_LAYERS} "
                "layers are taken."
            )


def whole_number(config: Mapping[str, object], keyword: str, default: int) -> int:
    """The whole number that `keyword` has in `config`, or `default`; `LoadError` when it has something else."""
    value = config.get(keyword, default)
    if not isinstance(value, int):
        raise LoadError(f"{keyword} is {_short(value)}, expected a whole number.")
    return value


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
