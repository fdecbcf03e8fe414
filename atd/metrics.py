"""PSNR, SSIM and LPIPS as the image-restoration papers report them.

Every function takes two NumPy arrays, (H, W), (H, W, C) or (N, H, W, C), or two torch tensors, (H, W), (C, H, W) or
(N, C, H, W), of equal shape, and returns a float for one image, or one float64 value per image, array or tensor like
the input, for a batch. Computation is in float64 on the tensor's device. Images that do not suit each other or the
arguments are an `InputError`.
"""

import math
import warnings
from functools import cache
from typing import Literal, TypeVar

import numpy as np
import torch

from atd.errors import InputError
from atd.system import import_extra

Images = TypeVar("Images", np.ndarray, torch.Tensor)
"""An image or a batch, as an array or a tensor; the scores of a batch are of the same kind."""

Channel = Literal["y", "rgb", "gray"]
"""What is compared: studio-range luminance of RGB images, all three channels, or the one of gray images."""

# Studio-range luminance of ITU-R BT.601 for R, G, B in 0..255: Y = 16 + (65.481 R + 128.553 G + 24.966 B) / 255.
_Y_OFFSET = 16.0
_Y_WEIGHTS = (65.481 / 255, 128.553 / 255, 24.966 / 255)


def to_y(rgb: np.ndarray) -> np.ndarray:
    """Studio-range luminance (16..235, ITU-R BT.601) of RGB values in 0..255: (..., H, W, 3) -> (..., H, W) float64."""
    if rgb.shape[-1] != 3:
        raise InputError(f"luminance needs RGB in the last dimension, got shape {rgb.shape}")
    return rgb.astype(np.float64) @ np.array(_Y_WEIGHTS) + _Y_OFFSET


def psnr(a: Images, b: Images, *, crop: int = 0, channel: Channel = "y", peak: float | None = None) -> float | Images:
    """Peak signal-to-noise ratio in dB; infinite for equal images.

    Args:
        a, b: images or batches as described at the top of the module, integer or floating point. Nothing is clamped
            or rounded here: the super-resolution protocol rounds the network's output to uint8 first.
        crop: pixels left out along each border (the protocol: `scale` for super-resolution, else 0).
        channel: "y" the studio-range luminance of RGB images; "rgb" all three channels together; "gray" the single
            channel of gray images.
        peak: value of full intensity. None takes it from the dtype: 255 for uint8, 65535 for uint16, 1 for floats.

    Raises:
        InputError: the shapes differ, do not suit `channel` or are too small for `crop`; the values do not suit `peak`.
    """
    x, y, single = _prepare(a, b, crop, channel, peak)
    mse = (x - y).square().mean((1, 2, 3))
    return _like(20 * math.log10(255) - 10 * mse.log10(), a, single)


def ssim(a: Images, b: Images, *, crop: int = 0, channel: Channel = "y", peak: float | None = None) -> float | Images:
    """Structural similarity (Wang et al., IEEE TIP 13(4), 2004), averaged over the channels.

    11x11 Gaussian window of standard deviation 1.5, only where it fits inside the cropped image; K1 = 0.01, K2 = 0.03.
    Arguments and errors are those of `psnr`.
    """
    x, y, single = _prepare(a, b, crop, channel, peak)
    if min(x.shape[-2:]) < 11:
        raise InputError(f"SSIM needs at least 11x11 pixels after cropping, got {x.shape[-2]}x{x.shape[-1]}")
    mx, my, squares, product = (_gaussian(image) for image in (x, y, x * x + y * y, x * y))
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    means, mean_squares = mx * my, mx * mx + my * my
    luminance = (2 * means + c1) / (mean_squares + c1)
    structure = (2 * (product - means) + c2) / (squares - mean_squares + c2)
    return _like((luminance * structure).mean((1, 2, 3)), a, single)


def lpips(
    a: Images, b: Images, *, net: Literal["alex", "vgg", "squeeze"] = "alex", peak: float | None = None
) -> float | Images:
    """Learned perceptual distance (Zhang et al., CVPR 2018) of RGB images; 0 for equal images.

    Needs the extra `metrics` (`pip install atd-restoration[metrics]`). The first call for a `net` downloads the
    backbone that torchvision publishes; later calls use its cache. Float32, on the CPU or the tensors' device.
    """
    x, y, single = _prepare(a, b, 0, "rgb", peak)
    model = _lpips_model(net).to(x.device)
    with torch.no_grad():
        distance = model(x.float() / 127.5 - 1, y.float() / 127.5 - 1)
    return _like(distance.flatten().double(), a, single)


@cache
def _lpips_model(net: str) -> torch.nn.Module:
    lpips = import_extra("lpips", purpose="LPIPS", extra="metrics")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the package calls torchvision in a way that is deprecated
        return lpips.LPIPS(net=net, verbose=False).eval()


def _prepare(
    a: np.ndarray | torch.Tensor, b: np.ndarray | torch.Tensor, crop: int, channel: str, peak: float | None
) -> tuple[torch.Tensor, torch.Tensor, bool]:
    """Both images as float64 (N, C, H, W) on the scale 0..255, cropped and reduced to `channel`; True for one image."""
    if a.shape != b.shape:
        raise InputError(f"the images differ in shape: {tuple(a.shape)} and {tuple(b.shape)}")
    if peak is None and _peak(a) != _peak(b):
        raise InputError(f"the images differ in range ({a.dtype} and {b.dtype}): convert one of them, or state `peak`")
    return _standard(a, crop, channel, peak), _standard(b, crop, channel, peak), a.ndim < 4


def _peak(image: np.ndarray | torch.Tensor) -> float:
    name = str(image.dtype).removeprefix("torch.")
    if name in ("uint8", "uint16"):
        return 255.0 if name == "uint8" else 65535.0
    if "float" in name:
        return 1.0
    raise InputError(f"no usual range is known for {image.dtype}: state `peak`")


def _standard(image: np.ndarray | torch.Tensor, crop: int, channel: str, peak: float | None) -> torch.Tensor:
    if isinstance(image, np.ndarray):
        x = torch.as_tensor(np.ascontiguousarray(image, np.float64), device="cpu")
        x = x.movedim(-1, -3) if x.ndim > 2 else x
    else:
        x = image.detach()
        x = (x.cpu() if x.device.type == "mps" else x).double()  # MPS has no float64
    if not 2 <= x.ndim <= 4:
        raise InputError(f"expected one image or a batch of images, got shape {tuple(image.shape)}")
    x = x.reshape(-1, *((1,) * (3 - x.ndim)), *x.shape[-3:])
    if peak is None:
        peak = _peak(image)
        if peak == 1 and x.abs().max() > 4:
            raise InputError("floating-point images lie in [0, 1], these do not: pass peak=255 for values in 0..255")
    channels = x.shape[1]
    if channel not in ("y", "rgb", "gray"):
        raise InputError(f"channel must be 'y', 'rgb' or 'gray', got {channel!r}")
    if channels != (1 if channel == "gray" else 3):
        raise InputError(f"channel={channel!r} does not suit images of {channels} channels")
    if crop < 0 or 2 * crop >= min(x.shape[-2:]):
        raise InputError(f"cannot crop {crop} pixels off each border of a {x.shape[-2]}x{x.shape[-1]} image")
    x = x[..., crop : x.shape[-2] - crop, crop : x.shape[-1] - crop] * (255 / peak)
    if channel == "y":
        r, g, b = x.unbind(1)
        x = (_Y_OFFSET + _Y_WEIGHTS[0] * r + _Y_WEIGHTS[1] * g + _Y_WEIGHTS[2] * b)[:, None]
    return x


def _gaussian(x: torch.Tensor) -> torch.Tensor:
    """Valid-mode separable 11-tap Gaussian filter, standard deviation 1.5, over the last two dimensions."""
    taps = [math.exp(-(k**2) / (2 * 1.5**2)) for k in range(-5, 6)]
    total = sum(taps)
    for dim in (-2, -1):
        size = x.shape[dim] - 10
        filtered = x.narrow(dim, 5, size) * (taps[5] / total)
        for k in range(5):
            filtered.add_(x.narrow(dim, k, size), alpha=taps[k] / total)
            filtered.add_(x.narrow(dim, 10 - k, size), alpha=taps[k] / total)
        x = filtered
    return x


def _like(values: torch.Tensor, image: Images, single: bool) -> float | Images:
    """The number of one image; those of a batch in the kind of `image`."""
    if single:
        return values.item()
    if isinstance(image, np.ndarray):
        return values.numpy()
    return values
