"""Crops of photos that are clean, and faults of known strength in them."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

KODAK = sorted((Path(__file__).parents[1] / "advice" / "kodak").glob("*.png"))


def crop_of(path: Path) -> Image.Image:
    return Image.open(path).convert("RGB")


def with_noise(image: Image.Image, sigma: float, *, same: bool = False, seed: int = 0) -> Image.Image:
    """Rounded and clipped as in a file; `same` noise in all channels."""
    samples = np.asarray(image).astype(np.float64)
    shape = (*samples.shape[:2], 1) if same else samples.shape
    noisy = samples + np.random.default_rng(seed).normal(0, sigma, shape)
    return Image.fromarray(np.clip(np.rint(noisy), 0, 255).astype(np.uint8))


def jpeg_file(image: Image.Image, quality: int, subsampling: str = "4:2:0") -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality, subsampling=subsampling)
    return Image.open(file)
