"""Degradations: from a clean image to the input of a network that restores it.

The published protocols, MATLAB's bicubic reduction, Gaussian noise and JPEG, take NumPy arrays of shape (H, W) or
(H, W, C). The faults of real photos (`RealWorld`) are drawn at random and applied to batches of torch tensors. An
argument that is not one of those described is an `InputError`.
"""

from atd.degrade.blur import Blur, blur_batch
from atd.degrade.by_task import for_task
from atd.degrade.jpeg_codec import jpeg_batch
from atd.degrade.noise import Noise, add_noise_batch
from atd.degrade.published import (
    Border,
    RandomSource,
    add_noise,
    bicubic_downscale,
    bicubic_upscale,
    crop_to_multiple,
    jpeg,
    studio_y,
)
from atd.degrade.real_world import Compression, Order, OrderDraw, RealWorld, RealWorldDraw, Resize
from atd.degrade.sharpening import sharpen
from atd.degrade.steps import degrade_batch

__all__ = [
    "Blur",
    "Border",
    "Compression",
    "Noise",
    "Order",
    "OrderDraw",
    "RandomSource",
    "RealWorld",
    "RealWorldDraw",
    "Resize",
    "add_noise",
    "add_noise_batch",
    "bicubic_downscale",
    "bicubic_upscale",
    "blur_batch",
    "crop_to_multiple",
    "degrade_batch",
    "for_task",
    "jpeg",
    "jpeg_batch",
    "sharpen",
    "studio_y",
]
