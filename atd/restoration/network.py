"""What restoration wants to know of a network, for our own and for any module: scale, channels, device, precision."""

from __future__ import annotations

import logging
import weakref
from typing import cast

import torch
from torch import nn

from atd import registry
from atd.errors import InputError
from atd.models.layers import DictionaryLayer
from atd.system import named_device
from atd.system.dtypes import DTYPES
from atd.tasks import Denoising

logger = logging.getLogger("atd.restoration")

HALF = (torch.bfloat16, torch.float16)
"""The half precisions."""
_warned_of_gray_noise: weakref.WeakSet[nn.Module] = weakref.WeakSet()


def scale_of(model: nn.Module) -> int:
    """Output pixels per input pixel; 1 for a module that does not say."""
    return int(getattr(model, "scale", 1) or 1)


def channels_of(model: nn.Module) -> int | None:
    """Channels the network takes; None for a module that does not say and then takes what it is given."""
    return getattr(model, "in_channels", None)


def size_multiple_of(model: nn.Module) -> int:
    """What the sides of a tile should be a multiple of."""
    return int(getattr(model, "size_multiple", 1) or 1)


def check_strength(model: nn.Module, strength: float) -> None:
    """Refuse less than the full strength of a network that changes the size: there is no input to blend with.

    An enlargement by a filter is no weaker restoration, only a softer picture.

    Raises:
        InputError: the network enlarges, and `strength` is below 1.
    """
    if strength != 1 and (scale := scale_of(model)) != 1:
        raise InputError(
            f"strength {strength:g} blends a result with its input, and this network enlarges {scale} times: leave "
            f"strength out, or give a network that keeps the size (noise: --denoise, JPEG: --jpeg)"
        )


def layers_of(model: nn.Module) -> int:
    """How many layers a call of the network computes, of those that say when they are done; 0 where none does."""
    return sum(isinstance(module, DictionaryLayer) for module in model.modules())


def warn_of_gray_noise(model: nn.Module, *, is_gray: bool) -> None:
    """Say, once for a network, that a blind colour denoiser does not do for a gray image what its name promises.

    It was trained on noise that differs between the channels, and takes gray noise for a part of the picture.
    """
    row = registry.find(getattr(model, "name", None))
    if not is_gray or row is None or model in _warned_of_gray_noise:
        return
    if isinstance(row.task, Denoising) and row.task.sigma is None and row.in_channels == 3:
        _warned_of_gray_noise.add(model)
        logger.warning(
            "the image is gray, and %s was trained on colour noise only: it leaves gray noise in place (measured at "
            "sigma 25: 20.41 dB before, 20.64 dB after)",
            row.name,
        )


def device_of(model: nn.Module) -> torch.device:
    """Where the network's weights lie; the CPU for a network without any."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")


def dtype_of(model: nn.Module) -> torch.dtype:
    """The floating-point type of the weights; float32 for a network without any."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            return tensor.dtype
    return torch.float32


def check_device(model: nn.Module, device: str | torch.device | None) -> torch.device:
    """The device of `model`, after refusing a request for another one: a module that somebody holds is never moved.

    Raises:
        InputError: the module is elsewhere, or no device is called so.
    """
    own = device_of(model)
    if device is not None:
        wanted = named_device(device)
        # torch says that a device always has an index; torch.device("cuda") has none.
        index = cast("int | None", wanted.index)
        if wanted.type != own.type or (index is not None and index != own.index):
            raise InputError(
                f"the model is on {own}, but device={str(wanted)!r} was asked for: move it yourself with "
                f"model.to({str(wanted)!r}), or give the model's name instead of a module"
            )
    return own


def compute_dtype(model: nn.Module, dtype: torch.dtype | None) -> torch.dtype:
    """The precision tiles are computed in.

    As asked; else that of half-precision weights; else bfloat16 on a GPU that has it; else that of the weights.
    float16 is only ever used on request, here or by weights stored so.

    Raises:
        InputError: `dtype` is no floating-point type, or the weights cannot be computed in it.
    """
    weights = dtype_of(model)
    if dtype is None:
        if weights == torch.float32 and device_of(model).type == "cuda" and torch.cuda.is_bf16_supported(False):
            return torch.bfloat16
        return weights
    if dtype not in (torch.float32, torch.float64, *HALF):
        raise InputError(f"expected a dtype of {', '.join(DTYPES)}, got {dtype}")
    if dtype != weights and not (weights == torch.float32 and dtype in HALF):
        raise InputError(
            f"the model's weights are {weights}, which cannot be computed in {dtype}: "
            f"convert them with model.to({dtype}) or load them so"
        )
    return dtype
