"""Degradations: from a clean image to the input of a network that restores it.

Images are NumPy arrays of shape (H, W) or (H, W, C). An argument that is not one of those described is an `InputError`.
"""

from atd.degrade.published import (
    Border,
    RandomSource,
    add_noise,
    bicubic_downscale,
    bicubic_upscale,
    crop_to_multiple,
    for_task,
    jpeg,
    studio_y,
)

__all__ = [
    "Border",
    "RandomSource",
    "add_noise",
    "bicubic_downscale",
    "bicubic_upscale",
    "crop_to_multiple",
    "for_task",
    "jpeg",
    "studio_y",
]
