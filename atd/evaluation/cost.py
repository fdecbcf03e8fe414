"""What a network costs: parameters and multiply-adds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from atd import ops

if TYPE_CHECKING:
    from atd.models import RestorationModel


def parameters(model: nn.Module) -> int:
    """Number of trainable values."""
    return sum(parameter.numel() for parameter in model.parameters())


def stated_size(scale: int) -> tuple[int, int]:
    """Height and width of the input for which multiply-adds are stated.

    Super-resolution papers count for an output of 1280x720 pixels; restoration papers for 256x256.
    """
    return (256, 256) if scale == 1 else (720 // scale, 1280 // scale)


def multiply_adds(model: RestorationModel, height: int, width: int) -> int:
    """Multiply-adds of matrix products and convolutions for one (1, in_channels, height, width) input.

    Counted by running the network on tensors without data through the reference ops. They consist of plain matrix
    products and convolutions, which every version of torch counts alike; of the fused attention that other backends
    call, what is counted depends on torch's version and on the device. The size is padded as ``forward`` pads it, and
    dictionary refinement (CVPR 2024) forms its attention map anew, as its op does. Softmax, normalisation and sorting
    are not counted, as is customary.
    """
    parameter = next(model.parameters())
    # The counter's module hooks follow gradient functions, which exist only where gradients are enabled.
    with (
        ops.use("reference"),
        torch.enable_grad(),
        FakeTensorMode(allow_non_fake_inputs=True),
        FlopCounterMode(display=False) as counter,
    ):
        model(torch.empty(1, model.in_channels, height, width, dtype=parameter.dtype, device=parameter.device))
    return counter.get_total_flops() // 2
