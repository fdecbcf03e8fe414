"""Shapes that do not fit are refused by every backend alike, before any of them reads memory."""

import pytest
import torch

from atd import ops

QKV, TABLE, ORDER = torch.zeros(1, 32, 48), torch.zeros(49, 2), torch.arange(32)[None]
CONVOLUTION = torch.zeros(18, 1, 3, 3)


def convolve(hidden=QKV[:, :12, :16], grid=(3, 4), weight=CONVOLUTION, bias=None, *of_categories):
    return ops.category_feedforward(hidden, grid, weight, bias, *of_categories)


def look_up(key=(1, 40, 4), value=(1, 40, 8), scales=1):
    return ops.dictionary_attention(QKV[..., :4], torch.zeros(key), torch.zeros(value), torch.ones(scales))


CASES = {
    "heads that do not divide the channels": (
        lambda: ops.category_attention(QKV, ORDER, ORDER, 16, 5, 1.0),
        r"qkv is \(1, 32, 48\).*5 heads",
    ),
    "an order of other tokens": (
        lambda: ops.category_attention(QKV, ORDER[:, :31], ORDER, 16, 2, 1.0),
        r"order is torch.int64 of \(1, 31\); expected torch.int64 of \(1, 32\)",
    ),
    "an inverse of 32 bits": (
        lambda: ops.category_attention(QKV, ORDER, ORDER.int(), 16, 2, 1.0),
        "inverse is torch.int32 of .* expected torch.int64",
    ),
    "groups of nothing": (lambda: ops.category_attention(QKV, ORDER, ORDER, 0, 2, 1.0), "group_size is 0"),
    "tokens of another grid": (
        lambda: ops.window_attention(QKV, TABLE, (4, 4), 4, 2, 2),
        "32 tokens are not a grid of 4x4",
    ),
    "a grid that windows do not fill": (
        lambda: ops.window_attention(QKV, TABLE, (2, 16), 4, 2, 2),
        "a grid of 2x16 with windows of 4",
    ),
    "a shift as wide as a window": (
        lambda: ops.window_attention(QKV, TABLE, (8, 4), 4, 4, 2),
        "shifted by 4; expected",
    ),
    "a table for other heads": (
        lambda: ops.window_attention(QKV, TABLE[:, :1], (8, 4), 4, 2, 2),
        r"bias table is \(49, 1\); expected \(49, 2\)",
    ),
    "keys of another rank": (lambda: look_up(key=(1, 40, 5)), "do not fit together"),
    "more values than keys": (lambda: look_up(value=(1, 41, 8)), "do not fit together"),
    "scales for other entries": (lambda: look_up(scales=3), r"logit_scale is \(3,\); expected \(1,\) or \(40,\)"),
    "a hidden map of another grid": (lambda: convolve(grid=(4, 4)), r"hidden is \(1, 12, 16\).*grid of 4x4"),
    "a convolution of other channels": (
        lambda: convolve(QKV[:, :12, :16], (3, 4), CONVOLUTION, None, torch.zeros(1, 5, 4), ORDER[:, :12] % 5),
        "are 20, those of the convolution 18",
    ),
    "a kernel with even sides": (lambda: convolve(weight=torch.zeros(16, 1, 4, 4)), "k odd"),
    "features without categories": (
        lambda: convolve(QKV[:, :12, :16], (3, 4), CONVOLUTION, None, torch.zeros(1, 5, 2)),
        "category is missing",
    ),
    "categories that are no integers": (
        lambda: ops.category_partition(torch.zeros(1, 32), 4),
        "category is torch.float32",
    ),
    "more categories than keys": (lambda: ops.category_partition(ORDER, 40_000), "num_categories is 40000"),
}


@pytest.mark.parametrize("backend", ["reference", "torch", "native", "auto"])
@pytest.mark.parametrize("case", CASES)
def test_shapes_that_do_not_fit_are_refused(case, backend):
    call, message = CASES[case]
    with torch.no_grad(), ops.use(backend), pytest.raises(ValueError, match=message):
        call()
