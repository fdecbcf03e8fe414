"""What the arguments of an op must look like; checked once, before any backend is chosen.

The kernels for cards and CPUs read memory directly: a shape that does not fit must reach none of them. Traced and
compiled calls are not checked, since a check would become part of the program; they come from the networks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from atd.ops.tracing import is_traced


def check_heads(qkv: Tensor, num_heads: int) -> None:
    """(b, n, 3C) with C a multiple of the heads.

    Raises:
        ValueError: it is not so.
    """
    if is_traced():
        return
    if qkv.ndim != 3 or qkv.shape[2] % (3 * num_heads):
        raise ValueError(
            f"qkv is {tuple(qkv.shape)}; expected (b, n, 3C) with C a multiple of the heads, here {num_heads} heads"
        )


def check_window(
    qkv: Tensor, bias_table: Tensor, grid: tuple[int, int], window: int, shift: int, num_heads: int
) -> None:
    """The arguments of :func:`atd.ops.window_attention`.

    Raises:
        ValueError: they do not fit together.
    """
    check_heads(qkv, num_heads)
    if is_traced():
        return
    height, width = grid
    if qkv.shape[1] != height * width:
        raise ValueError(f"{qkv.shape[1]} tokens are not a grid of {height}x{width}")
    if height % window or width % window or not 0 <= shift < window:
        raise ValueError(
            f"a grid of {height}x{width} with windows of {window} shifted by {shift}; expected sides that are "
            "multiples of the window, and 0 ≤ shift < window"
        )
    if bias_table.shape != ((2 * window - 1) ** 2, num_heads):
        raise ValueError(
            f"the bias table is {tuple(bias_table.shape)}; expected ({(2 * window - 1) ** 2}, {num_heads}): "
            "((2·window − 1)², heads)"
        )


def check_order(qkv: Tensor, order: Tensor, inverse: Tensor, group_size: int) -> None:
    """The category order of the tokens of qkv (b, n, 3C).

    Raises:
        ValueError: order or inverse are not (b, n) int64, or there are no tokens in a group.
    """
    if is_traced():
        return
    for name, index in (("order", order), ("inverse", inverse)):
        if index.shape != qkv.shape[:2] or index.dtype != torch.int64:
            raise ValueError(
                f"{name} is {index.dtype} of {tuple(index.shape)}; expected torch.int64 of {tuple(qkv.shape[:2])}"
            )
    if group_size < 1:
        raise ValueError(f"group_size is {group_size}; expected at least 1")


def check_dictionary(query: Tensor, key: Tensor, value: Tensor, logit_scale: Tensor) -> None:
    """The arguments of :func:`atd.ops.dictionary_attention`.

    Raises:
        ValueError: they do not fit together.
    """
    if is_traced():
        return
    shapes = [tuple(tensor.shape) for tensor in (query, key, value)]
    if (
        any(len(shape) != 3 for shape in shapes)
        or shapes[1] != (shapes[0][0], shapes[2][1], shapes[0][2])
        or shapes[2][0] != shapes[0][0]
    ):
        raise ValueError(
            f"query {shapes[0]}, key {shapes[1]} and value {shapes[2]} do not fit together; "
            "expected (b, n, r), (b, M, r) and (b, M, C)"
        )
    if logit_scale.shape not in ((1,), (shapes[1][1],)):
        raise ValueError(f"logit_scale is {tuple(logit_scale.shape)}; expected (1,) or ({shapes[1][1]},)")


def check_feedforward(
    hidden: Tensor,
    grid: tuple[int, int],
    weight: Tensor,
    bias: Tensor | None,
    features: Tensor | None,
    category: Tensor | None,
) -> None:
    """The arguments of :func:`atd.ops.category_feedforward`.

    Raises:
        ValueError: they do not fit together.
    """
    if is_traced():
        return
    if hidden.ndim != 3 or hidden.shape[1] != grid[0] * grid[1]:
        raise ValueError(f"hidden is {tuple(hidden.shape)}; expected (b, h·w, E) for a grid of {grid[0]}x{grid[1]}")
    batch, tokens, narrow = hidden.shape
    channels, side = weight.shape[0], weight.shape[-1]
    if tuple(weight.shape) != (channels, 1, side, side) or side % 2 == 0:
        raise ValueError(f"the convolution is {tuple(weight.shape)}; expected (channels, 1, k, k), k odd")
    if bias is not None and bias.shape != (channels,):
        raise ValueError(f"the convolution's bias is {tuple(bias.shape)}; expected ({channels},)")
    given = narrow + (0 if features is None else features.shape[-1])
    if given != channels:
        raise ValueError(f"the hidden and category channels are {given}, those of the convolution {channels}")
    if features is None:
        return
    if features.ndim != 3 or len(features) != batch:
        raise ValueError(f"features are {tuple(features.shape)}; expected (b, M, T), b = {batch}")
    if category is None or category.shape != (batch, tokens) or category.dtype != torch.int64:
        given_category = "missing" if category is None else f"{category.dtype} of {tuple(category.shape)}"
        raise ValueError(f"category is {given_category}; with features expected torch.int64 of {(batch, tokens)}")


def check_category(category: Tensor, num_categories: int) -> None:
    """The arguments of :func:`atd.ops.category_partition`.

    Raises:
        ValueError: the categories are no integers in rows, or are too many for the keys that are sorted.
    """
    if is_traced():
        return
    if category.ndim != 2 or category.is_floating_point() or category.dtype == torch.bool:
        raise ValueError(f"category is {category.dtype} of {tuple(category.shape)}; expected integers of (b, n)")
    if not 1 <= num_categories <= torch.iinfo(torch.int16).max:
        raise ValueError(f"num_categories is {num_categories}; expected 1 to {torch.iinfo(torch.int16).max}")
