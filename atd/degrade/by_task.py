"""The degradation that belongs to a task."""

from __future__ import annotations

import zlib

import numpy as np

from atd.degrade.published import Border, RandomSource, add_noise, bicubic_downscale, jpeg
from atd.degrade.real_world import RealWorld
from atd.degrade.steps import degrade_batch
from atd.errors import InputError
from atd.images import samples_to_tensor, tensor_to_samples
from atd.tasks import Denoising, SuperResolution, Task
from atd.tasks import RealWorld as RealWorldTask


def for_task(
    clean: np.ndarray, task: Task, generator: RandomSource | None = None, *, border: Border = "edge"
) -> np.ndarray:
    """The degraded image from which a network for `task` restores `clean`.

    Args:
        clean: uint8, (H, W) or (H, W, C); for super-resolution H and W are multiples of the scale.
        task: what is degraded, and how strongly; its sigma or quality must be given.
        generator: where noise, or what happens to a photo, is drawn from. None is the published test protocol for noise
            (see `add_noise`); for real photos, whose protocol does not exist, a seed made from the image itself.
        border: for super-resolution (see `bicubic_downscale`).

    Returns:
        float32 in [0, 1] and beyond for denoising; uint8 for the others, (H // scale, W // scale[, C]).
    """
    if isinstance(task, SuperResolution):
        return bicubic_downscale(clean, task.scale, border)
    if isinstance(task, RealWorldTask):
        return _as_photo(clean, task.scale, generator)
    if task.level is None:
        raise InputError(f"{task.label}, has no one strength to degrade an image with: give sigma or quality")
    if isinstance(task, Denoising):
        return add_noise(clean, task.level, generator)
    return jpeg(clean, int(task.level))


def _as_photo(clean: np.ndarray, scale: int, generator: RandomSource | None) -> np.ndarray:
    if clean.dtype != np.uint8:
        raise InputError(f"photos have 8 bits: expected a uint8 image, got {clean.dtype}")
    if generator is None:
        generator = np.random.default_rng(zlib.crc32(clean.tobytes()))
    elif not isinstance(generator, np.random.Generator):
        raise InputError("the faults of photos are drawn from a numpy.random.Generator, not from a RandomState")
    image = samples_to_tensor(clean if clean.ndim == 3 else clean[..., None])
    degraded = degrade_batch(image[None], [RealWorld().draw(generator)], scale)[0]
    pixels = tensor_to_samples(degraded, clean.dtype)
    return pixels if clean.ndim == 3 else pixels[..., 0]
