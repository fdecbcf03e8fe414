# pyright: basic
"""Stable counting sort of tokens by category: count per block, add up, sort within the block, write.

Three launches whatever n, M and the batch are. Counts are integers and ranks are fixed by position, so the order is
the same on every run and every device.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportOperatorIssue=false
# Inside @triton.jit Python's types mean something else.

import torch
import triton
import triton.language as tl
from torch import Tensor

from atd.ops.kernels.launch import ceil_div, device_of, power_of_two

_BLOCK = 512


@triton.jit
def _count(category, counts, tokens, categories, blocks, BLOCK: tl.constexpr, BINS: tl.constexpr):
    """counts[batch, category, block] of int32; ``BINS`` exceeds the categories, so that padding has a bin."""
    block, batch = tl.program_id(0), tl.program_id(1).to(tl.int64)
    places = block.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    kind = tl.load(category + batch * tokens + places, mask=places < tokens, other=categories).to(tl.int32)
    bins = tl.arange(0, BINS)
    address = counts + (batch * categories + bins) * blocks + block
    # Through int64 and back: older interpreters of Triton (3.3, 3.5) call 64-bit counts int32 and store them so.
    tl.store(address, tl.histogram(kind, BINS).to(tl.int64).to(tl.int32), mask=bins < categories)


@triton.jit
def _run_length(kind_a, count_a, kind_b, count_b):
    """Adds up within runs of one kind; associative on sorted kinds."""
    return kind_b, tl.where(kind_a == kind_b, count_a, 0) + count_b


@triton.jit
def _place(category, ends, order, inverse, tokens, categories, blocks, BLOCK: tl.constexpr):
    """``ends`` is the running sum of the counts: the entry before a block's own is where its category starts.

    The place of a token in its block is part of its key: keys are unique, so that any sort is a stable one.
    """
    block, batch = tl.program_id(0), tl.program_id(1).to(tl.int64)
    local = tl.arange(0, BLOCK)
    token = block.to(tl.int64) * BLOCK + local
    kind = tl.load(category + batch * tokens + token, mask=token < tokens, other=categories).to(tl.int32)
    key = tl.sort(kind * BLOCK + local)
    kind, local = key // BLOCK, key % BLOCK
    _, count = tl.associative_scan((kind, tl.full((BLOCK,), 1, tl.int32)), 0, _run_length)
    valid = kind < categories
    token = block.to(tl.int64) * BLOCK + local
    entry = kind.to(tl.int64) * blocks + block
    start = tl.load(ends + batch * categories * blocks + entry - 1, mask=valid & (entry > 0), other=0)
    place = start.to(tl.int64) + count - 1
    tl.store(order + batch * tokens + place, token, mask=valid)
    tl.store(inverse + batch * tokens + token, place, mask=valid)


@torch.library.custom_op("atd::category_partition", mutates_args=())
def _category_partition(category: Tensor, num_categories: int) -> tuple[Tensor, Tensor]:
    category = category.contiguous()
    batch, tokens = category.shape
    order = torch.empty(batch, tokens, dtype=torch.int64, device=category.device)
    inverse = torch.empty_like(order)
    block = min(_BLOCK, power_of_two(tokens))
    blocks = ceil_div(tokens, block)
    counts = torch.empty(batch, num_categories * blocks, dtype=torch.int32, device=category.device)
    grid = (blocks, batch)
    sizes = (tokens, num_categories, blocks)
    with device_of(category):
        _count[grid](category, counts, *sizes, BLOCK=block, BINS=power_of_two(num_categories + 1), num_warps=4)
        ends = torch.cumsum(counts, dim=1, dtype=torch.int32)
        _place[grid](category, ends, order, inverse, *sizes, BLOCK=block, num_warps=4)
    return order, inverse


@_category_partition.register_fake
def _(category, num_categories):
    return tuple(category.new_empty(category.shape, dtype=torch.int64) for _ in range(2))


def category_partition(category: Tensor, num_categories: int) -> tuple[Tensor, Tensor]:
    """:func:`atd.ops.category_partition`."""
    return _category_partition(category, num_categories)
