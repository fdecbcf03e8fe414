"""Training pairs: aligned patches of clean and degraded images, degraded on the fly.

Every sample is a function of (seed, sample number) alone. So the order of the data does not depend on the number of
workers or processes, a resumed training sees exactly what an uninterrupted one would have seen, and no worker can
repeat another one's random numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from atd import degrade

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True)
class Degradation:
    """How the network's input is made from a clean image.

    `task` is "sr" (MATLAB bicubic by `scale`), "denoise" (Gaussian noise, `sigma` on the 0–255 scale) or "jpeg"
    (`quality` of libjpeg). Ranges are inclusive; one value is drawn per patch.
    """

    task: str
    scale: int = 1
    sigma: tuple[float, float] = (0.0, 0.0)
    quality: tuple[int, int] = (100, 100)


def find_images(folder: Path) -> list[Path]:
    """The image files below `folder`, sorted by path."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def read_image(path: Path, channels: int) -> np.ndarray:
    """An 8-bit image as (h, w, channels) uint8; gray is the BT.601 luma."""
    try:
        with Image.open(path) as image:
            array = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    except OSError as error:
        raise ValueError(f"cannot read the training image {path}: {error}") from None
    return array[..., None] if channels == 1 else array


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) from the file's header."""
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except OSError as error:
        raise ValueError(f"cannot read the training image {path}: {error}") from None


class ImageSource:
    """Clean images, with LR partners for super-resolution; decoded once when all fit in `cache_gb`, else on demand.

    Args:
        images: files of clean images.
        degradation: only its task and scale matter here.
        channels: 1 or 3.
        smallest: images with a side of fewer pixels are left out (`skipped` counts them).
        lr_images: files of LR images in the order of `images`; None: MATLAB bicubic on the fly.
    """

    def __init__(
        self,
        images: Sequence[Path],
        degradation: Degradation,
        channels: int,
        smallest: int,
        lr_images: Sequence[Path] | None = None,
        cache_gb: float = 1.0,
    ):
        self.degradation = degradation
        self.channels = channels
        with ThreadPoolExecutor() as pool:
            sizes = list(pool.map(image_size, images))
        keep = [i for i, size in enumerate(sizes) if min(size) >= smallest]
        self.skipped = len(images) - len(keep)
        if not keep:
            raise ValueError(
                f"none of the {len(images)} training images has {smallest} pixels on both sides: "
                "give larger images or a smaller patch"
            )
        self.images = [images[i] for i in keep]
        self.lr_images = None if lr_images is None else [lr_images[i] for i in keep]
        bytes_needed = sum(sizes[i][0] * sizes[i][1] for i in keep) * channels
        self.cached = bytes_needed <= cache_gb * 2**30
        self._cache: list[tuple[np.ndarray, np.ndarray | None]] = []
        if self.cached:
            with ThreadPoolExecutor() as pool:
                self._cache = list(pool.map(self._load, range(len(self.images))))

    def __len__(self) -> int:
        return len(self.images)

    def crop(self, index: int, rng: np.random.Generator, patch: int) -> tuple[np.ndarray, np.ndarray | None]:
        """A random clean patch of `patch·scale` pixels a side and its LR patch of `patch` (None if not SR)."""
        clean, lr = self._cache[index] if self.cached else self._load(index, lazy_lr=True)
        scale = self.degradation.scale
        top = int(rng.integers(clean.shape[0] // scale - patch + 1))
        left = int(rng.integers(clean.shape[1] // scale - patch + 1))
        size = patch * scale
        target = clean[top * scale : top * scale + size, left * scale : left * scale + size]
        if self.degradation.task != "sr":
            return target, None
        if lr is not None:
            return target, lr[top : top + patch, left : left + patch]
        return target, _downscale_patch(clean, top, left, patch, scale)

    def _load(self, index: int, lazy_lr: bool = False) -> tuple[np.ndarray, np.ndarray | None]:
        clean = read_image(self.images[index], self.channels)
        if self.degradation.task != "sr":
            return clean, None
        scale = self.degradation.scale
        clean = clean[: clean.shape[0] // scale * scale, : clean.shape[1] // scale * scale]
        if self.lr_images is not None:
            return clean, read_image(self.lr_images[index], self.channels)
        return clean, None if lazy_lr else _downscale(clean, scale)


def _downscale(clean: np.ndarray, scale: int) -> np.ndarray:
    return degrade.bicubic_downscale(clean, scale).reshape(clean.shape[0] // scale, clean.shape[1] // scale, -1)


def _downscale_patch(clean: np.ndarray, top: int, left: int, patch: int, scale: int) -> np.ndarray:
    """The LR patch of the whole image's reduction, from the pixels it depends on (the kernel reaches 2 LR pixels)."""
    margin = 3
    y0, x0 = max(top - margin, 0), max(left - margin, 0)
    region = clean[y0 * scale : (top + patch + margin) * scale, x0 * scale : (left + patch + margin) * scale]
    return _downscale(region, scale)[top - y0 : top - y0 + patch, left - x0 : left - x0 + patch]


class Patches(Dataset):
    """Sample number → (input, target), float32 (c, p, p) and (c, s·p, s·p); in [0, 1] but for the noise, not clipped."""

    def __init__(self, source: ImageSource, patch: int, seed: int):
        self.source = source
        self.patch = patch
        self.seed = seed
        self._order = (-1, np.empty(0))

    def __getitem__(self, sample: int) -> tuple[torch.Tensor, torch.Tensor]:
        epoch, position = divmod(sample, len(self.source))
        if self._order[0] != epoch:
            self._order = epoch, np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.source))
        rng = np.random.default_rng([self.seed, 1, sample])
        target, lr = self.source.crop(int(self._order[1][position]), rng, self.patch)
        symmetry = int(rng.integers(8))
        target = _turn(target, symmetry)
        degradation = self.source.degradation
        if lr is not None:
            return _to_tensor(_turn(lr, symmetry)), _to_tensor(target)
        clean = _to_tensor(target)
        if degradation.task == "denoise":
            sigma = rng.uniform(*degradation.sigma) / 255
            noise = rng.standard_normal(clean.shape, dtype=np.float32)
            return clean + torch.from_numpy(noise) * sigma, clean
        low, high = degradation.quality
        squeezed = target if target.shape[2] == 3 else target[..., 0]
        return _to_tensor(degrade.jpeg(squeezed, int(rng.integers(low, high + 1))).reshape(target.shape)), clean


def _turn(image: np.ndarray, symmetry: int) -> np.ndarray:
    """One of the eight flips and rotations of a square, copied into contiguous memory."""
    image = np.rot90(image, symmetry % 4)
    return np.ascontiguousarray(image[:, ::-1] if symmetry >= 4 else image)


def _to_tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1).float().div_(255)


class _Batches:
    """Sample numbers of each iteration; a process takes its share of every global batch."""

    def __init__(self, first: int, batch: int, iterations: int, rank: int, world: int):
        self.starts = [first + i * batch + rank * (batch // world) for i in range(iterations)]
        self.count = batch // world

    def __iter__(self) -> Iterator[list[int]]:
        return (list(range(start, start + self.count)) for start in self.starts)

    def __len__(self) -> int:
        return len(self.starts)


def loader(
    dataset: Patches, first: int, batch: int, iterations: int, *, rank: int = 0, world: int = 1, workers: int = 0
) -> DataLoader:
    """Batches from sample number `first` on, `batch` images over all processes each."""
    return DataLoader(
        dataset,
        batch_sampler=_Batches(first, batch, iterations, rank, world),
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=False,
        prefetch_factor=4 if workers else None,
    )
