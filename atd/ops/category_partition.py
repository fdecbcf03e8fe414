"""Category partition: the order that lays tokens of the same category side by side, and the way back.

CVPR 2024, section 3.3; TPAMI 2026, section 3.3.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from atd.ops.backend import pick
from atd.ops.shapes import check_category


def category_partition(category: Tensor, num_categories: int) -> tuple[Tensor, Tensor]:
    """Stable ordering of tokens by category, and its inverse.

    Stable means that tokens of one category keep their row-major order: the order is part of the network's result, and
    an unstable sort would give other images on other devices.

    Args:
        category: (b, n), integer, in [0, num_categories).
        num_categories: M, at most 32 767.

    Returns:
        order (b, n) int64: ``order[:, i]`` is the token at sorted place i; inverse (b, n) int64: ``inverse[:, t]`` is
        the sorted place of token t.

    Raises:
        ValueError: the categories are no integers of (b, n), or there are more kinds than that.
    """
    check_category(category, num_categories)
    implementation = pick(category, reference=_reference, fast=_sorted, triton=_triton)
    return implementation(category, num_categories)


def _inverse(order: Tensor) -> Tensor:
    places = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places)


def _reference(category: Tensor, num_categories: int) -> tuple[Tensor, Tensor]:
    # Keys without equals, because exported formats know no stable sort.
    tokens = category.shape[1]
    order = torch.sort(category.long() * tokens + torch.arange(tokens, device=category.device), dim=-1).indices
    return order, _inverse(order)


def _sorted(category: Tensor, num_categories: int) -> tuple[Tensor, Tensor]:
    # Radix sorts cost by the byte: narrow keys sort several times faster than int64.
    order = torch.sort(category.to(torch.int16), dim=-1, stable=True).indices
    return order, _inverse(order)


def _triton() -> Callable[[Tensor, int], tuple[Tensor, Tensor]]:
    from atd.ops.kernels.category_partition import category_partition

    return category_partition
