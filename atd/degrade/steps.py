"""The faults that were drawn for each image, applied to a batch of images."""

from __future__ import annotations

import io
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from atd.degrade import published
from atd.degrade.blur import Blur, blur_batch
from atd.degrade.jpeg_codec import jpeg_batch
from atd.degrade.noise import Noise, add_noise_batch
from atd.degrade.real_world import Compression, RealWorldDraw, Resize, ResizeMode
from atd.errors import InputError


def degrade_batch(images: Tensor, draws: Sequence[RealWorldDraw], scale: int) -> Tensor:
    """Each image with the faults that were drawn for it, at 1/scale of its size.

    Images that have the same size at a step take it together. On the CPU, JPEG is Pillow's; elsewhere it is
    `atd.degrade.jpeg_batch`, which gives the same. Noise is not the same on another device.

    Args:
        images: (n, c, h, w) float32 in [0, 1], c 1 (gray) or 3 (RGB), h and w multiples of `scale`.
        draws: n of them.
        scale: of the super-resolution; 1 keeps the size.

    Returns:
        (n, c, h // scale, w // scale) float32, multiples of 1/255 in [0, 1].

    Raises:
        InputError: the shape is another, or there are not n draws.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3) or len(images) != len(draws):
        raise InputError(
            f"expected images of shape (n, 1 or 3, h, w) and n draws, got {tuple(images.shape)} and {len(draws)}"
        )
    height, width = images.shape[2:]
    if height % scale or width % scale:
        raise InputError(f"both sides must be multiples of {scale}, got {height}x{width}")
    size = height // scale, width // scale
    batch = list(images)

    batch = _blur(batch, [draw.first.blur for draw in draws])
    batch = _resize(batch, [(_scaled(images.shape[2:], draw.first.resize), draw.first.resize.mode) for draw in draws])
    batch = _add_noise(batch, [draw.first.noise for draw in draws])
    batch = _compress(batch, [draw.first.compression for draw in draws])

    batch = _blur(batch, [draw.second.blur for draw in draws])
    batch = _resize(batch, [(_scaled(size, draw.second.resize), draw.second.resize.mode) for draw in draws])
    batch = _add_noise(batch, [draw.second.noise for draw in draws])

    batch = _compress(batch, [None if draw.compressed_last else draw.second.compression for draw in draws])
    batch = _resize(batch, [(size, draw.final_mode) for draw in draws])
    batch = _blur(batch, [draw.final_sinc for draw in draws])
    batch = _compress(batch, [draw.second.compression if draw.compressed_last else None for draw in draws])
    return (torch.stack(batch).clamp(0, 1) * 255).round() / 255


Step = TypeVar("Step")


def _blur(images: list[Tensor], blurs: Sequence[Blur | None]) -> list[Tensor]:
    return _in_stacks(images, blurs, lambda stack, some: blur_batch(stack, [blur.kernel() for blur in some]))


def _resize(images: list[Tensor], targets: Sequence[tuple[tuple[int, int], ResizeMode]]) -> list[Tensor]:
    """To the size of each target; an image that has this size stays as it is."""
    needed = [None if image.shape[1:] == target[0] else target for image, target in zip(images, targets, strict=True)]
    return _in_stacks(
        images, needed, lambda stack, same: interpolate(stack, same[0][0], mode=same[0][1]), key=lambda target: target
    )


def _add_noise(images: list[Tensor], noises: Sequence[Noise]) -> list[Tensor]:
    return _in_stacks(images, noises, add_noise_batch)


def _compress(images: list[Tensor], compressions: Sequence[Compression | None]) -> list[Tensor]:
    return _in_stacks(images, compressions, _compressed, key=lambda compression: compression.format)


def _compressed(images: Tensor, compressions: list[Compression]) -> Tensor:
    """(n, c, h, w) in [0, 1], each through a file of the one format that all have."""
    samples = (images.clamp(0, 1) * 255).round().to(torch.uint8)
    qualities = [compression.quality for compression in compressions]
    if compressions[0].format == "webp" or images.device.type == "cpu":
        through_file = _webp if compressions[0].format == "webp" else published.jpeg
        pixels = samples.movedim(1, -1).cpu().numpy()
        files = [through_file(image, quality) for image, quality in zip(pixels, qualities, strict=True)]
        decoded = torch.as_tensor(np.stack(files), device=images.device).movedim(-1, 1)
    else:
        decoded = jpeg_batch(samples, qualities)
    return decoded.to(images.dtype) / 255


def _webp(image: np.ndarray, quality: int) -> np.ndarray:
    """(h, w, 1 or 3) uint8, compressed as lossy WebP and decoded again; gray goes through as RGB."""
    buffer = io.BytesIO()
    rgb = np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))
    Image.fromarray(rgb).save(buffer, "WEBP", quality=quality)
    return np.asarray(Image.open(buffer).convert("RGB"))[..., : image.shape[2]]


def _in_stacks(
    images: list[Tensor],
    steps: Sequence[Step | None],
    operation: Callable[[Tensor, list[Step]], Tensor],
    key: Callable[[Step], Hashable] = lambda step: None,
) -> list[Tensor]:
    """`operation` on stacks of the images that have one size and one `key`; images whose step is None stay."""
    together: dict[Hashable, list[tuple[int, Step]]] = {}
    for place, (image, step) in enumerate(zip(images, steps, strict=True)):
        if step is not None:
            together.setdefault((image.shape, key(step)), []).append((place, step))
    results = list(images)
    for members in together.values():
        stack = torch.stack([images[place] for place, _ in members])
        for (place, _), result in zip(members, operation(stack, [step for _, step in members]), strict=True):
            results[place] = result
    return results


def _scaled(size: Sequence[int], resize: Resize) -> tuple[int, int]:
    return max(1, int(size[0] * resize.factor)), max(1, int(size[1] * resize.factor))
