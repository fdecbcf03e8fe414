"""What network a state dict belongs to, read from its keys and shapes (the authors' key names, all three families)."""

import math
import re
from collections.abc import Callable, Mapping

from torch import Tensor

from atd.errors import LoadError

INDEX_BUFFER = "relative_position_index_SA"


def detect(state_dict: Mapping[str, Tensor]) -> tuple[str, dict[str, object]]:
    """The network that `state_dict` belongs to: architecture ("ATD", "ATDU", "ATDCVPR" or "ATDReal") and keywords.

    `category_size` and `img_range` leave no trace in a checkpoint: the published category sizes are assumed (128 for
    embed_dim 48, for ATD-U and for ATD-Real, else 256) and `img_range` is left at its default.

    Raises:
        LoadError: it is another network's.
    """
    keys = state_dict.keys()
    try:
        if any(key.startswith("encoders.") for key in keys):
            return "ATDU", _atd_u_config(state_dict)
        # Before the next rule: ATD-Real has the keys of the CVPR network, and a norm in every group.
        if any(re.match(r"layers\.\d+\.patch_embed\.norm\.", key) for key in keys):
            return "ATDReal", _atd_real_config(state_dict)
        if any(key.endswith("attn_aca.logit_scale") for key in keys):
            return "ATDCVPR", _atd_config(state_dict) | ({"no_norm": True} if "no_norm" in keys else {})
        if any(key.endswith("fc_td.weight") for key in keys):
            return "ATD", _atd_config(state_dict) | {
                "dim_ffn_td": _rows(state_dict, "layers.0.residual_group.layers.0.fc_td.weight")
            }
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise LoadError(
            f"The weights look like those of an ATD network but cannot be read as one: {type(error).__name__}: {error}."
        ) from error
    some = ", ".join(list(keys)[:5]) or "none"
    raise LoadError(
        f"The weights are not those of ATD, ATD-U, ATD-Real or ATD of CVPR 2024; their first keys are: {some}."
    )


def _atd_config(sd: Mapping[str, Tensor]) -> dict[str, object]:
    depths = _depths(sd, r"layers\.(\d+)\.residual_group\.layers\.(\d+)\.")
    first = "layers.0.residual_group.layers.0."
    embed_dim, in_chans = sd["conv_first.weight"].shape[:2]
    upsampler, upscale = _upsampler(sd, in_chans)
    window_size, _ = _window_and_heads(sd, first)
    return {
        "in_chans": in_chans,
        "embed_dim": embed_dim,
        "depths": depths,
        "num_heads": [_window_and_heads(sd, f"layers.{i}.residual_group.layers.0.")[1] for i in range(len(depths))],
        "window_size": window_size,
        "category_size": 128 if embed_dim == 48 else 256,
        "num_tokens": _rows(sd, "layers.0.residual_group.td"),
        "reducted_dim": _rows(sd, f"{first}attn_atd.wq.weight"),
        "convffn_kernel_size": sd[f"{first}convffn.dwconv.depthwise_conv.0.weight"].shape[-1],
        "mlp_ratio": _mlp_ratio(sd),
        "qkv_bias": f"{first}wqkv.bias" in sd,
        "patch_norm": "patch_embed.norm.weight" in sd,
        "resi_connection": "3conv" if "conv_after_body.0.weight" in sd else "1conv",
        "upsampler": upsampler,
        "upscale": upscale,
    }


def _atd_real_config(sd: Mapping[str, Tensor]) -> dict[str, object]:
    return _atd_config(sd) | {"category_size": 128}


def _atd_u_config(sd: Mapping[str, Tensor]) -> dict[str, object]:
    encoders = _depths(sd, r"encoders\.(\d+)\.block\.layers\.(\d+)\.")
    blocks = [f"encoders.{level}.block." for level in range(len(encoders))] + ["middle_blks.block."]
    embed_dim, in_chans = sd["conv_first.weight"].shape[:2]

    def per_level(value: Callable[[str], int]) -> list[int]:
        return [value(block) for block in blocks]

    return {
        "in_chans": in_chans,
        "embed_dim": embed_dim,
        "depths": encoders + _depths(sd, r"(middle_blks)\.block\.layers\.(\d+)\."),
        "num_heads": per_level(lambda block: _window_and_heads(sd, f"{block}layers.0.")[1]),
        "window_size": per_level(lambda block: _window_and_heads(sd, f"{block}layers.0.")[0]),
        "category_size": [128] * len(blocks),
        "num_tokens": per_level(lambda block: _rows(sd, f"{block}td")),
        "reducted_dim": per_level(lambda block: _rows(sd, f"{block}layers.0.attn_atd.wq.weight")),
        "dim_ffn_td": per_level(lambda block: _rows(sd, f"{block}layers.0.fc_td.weight")),
        "convffn_kernel_size": sd[f"{blocks[0]}layers.0.convffn.dwconv.depthwise_conv.0.weight"].shape[-1],
        "mlp_ratio": _mlp_ratio(sd),
        "bias": "conv_first.bias" in sd,
    }


def _rows(sd: Mapping[str, Tensor], key: str) -> int:
    return sd[key].shape[0]


def _depths(sd: Mapping[str, Tensor], pattern: str) -> list[int]:
    """Number of layers in each block, in the order of the blocks' numbers; `pattern` captures block and layer."""
    layers: dict[str, set[str]] = {}
    for key in sd:
        if match := re.match(pattern, key):
            layers.setdefault(match[1], set()).add(match[2])
    if not layers:
        raise KeyError(pattern)
    return [len(layers[block]) for block in sorted(layers, key=lambda name: int(name) if name.isdigit() else 0)]


def _window_and_heads(sd: Mapping[str, Tensor], layer: str) -> tuple[int, int]:
    entries, heads = sd[f"{layer}attn_win.relative_position_bias_table"].shape
    return (math.isqrt(entries) + 1) // 2, heads


def _mlp_ratio(sd: Mapping[str, Tensor]) -> float:
    """The shortest decimal r with int(C·r) = hidden width in every block.

    Failing one, the widest block decides: half a unit is added because int(C·(h/C)) can fall one short of h.
    """
    shapes = {tuple(weight.shape) for key, weight in sd.items() if key.endswith("convffn.fc1.weight")}
    hidden, width = max(shapes, key=lambda shape: shape[1])
    exact = (hidden + 0.5) / width
    for digits in range(6):
        for ratio in (round(hidden / width, digits), round(exact, digits)):
            if all(int(c * ratio) == h for h, c in shapes):
                return int(ratio) if ratio == int(ratio) else ratio
    return exact


def _upsampler(sd: Mapping[str, Tensor], in_chans: int) -> tuple[str, int]:
    convolutions = [key for key in sd if re.fullmatch(r"upsample\.\d+\.weight", key)]
    if "conv_before_upsample.0.weight" in sd:
        if "conv_up1.weight" in sd:
            return "nearest+conv", 4
        if convolutions and _rows(sd, "upsample.0.weight") == 576:
            return "pixelshuffle", 3
        return "pixelshuffle", 2 ** len(convolutions)
    if convolutions:
        return "pixelshuffledirect", math.isqrt(_rows(sd, "upsample.0.weight") // in_chans)
    if "conv_last.weight" not in sd:
        raise KeyError("conv_last.weight")
    return "", 1
