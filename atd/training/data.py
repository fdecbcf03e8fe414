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
from atd.images import files


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
    """The image files below `folder`, sorted by path; hidden ones are left out."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in files.SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def read_image(path: Path, channels: int) -> np.ndarray:
    """An 8-bit image as (h, w, channels) uint8, `channels` 1 (BT.601 luma) or 3; transparency is left out."""
    pixels = files.read_image(path).pixels
    if pixels.dtype != np.uint8:
        raise ValueError(f"{path} has {pixels.dtype} samples, training takes 8-bit images")
    if pixels.shape[2] < 3:
        return np.repeat(pixels[..., :1], channels, axis=2)
    if channels == 3:
        return pixels[..., :3]
    return np.asarray(Image.fromarray(pixels[..., :3]).convert("L"))[..., None]


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) of the upright image, from the file's header."""
    return files.probe(path).shape[:2]


def lr_partners(images: Sequence[Path], hr_folder: Path, lr_folder: Path, scale: int) -> list[Path]:
    """The LR file of each HR image: same place in `lr_folder`, same stem or `<stem>x<scale>`; sizes are checked."""
    files = {path.relative_to(lr_folder).with_suffix(""): path for path in find_images(lr_folder)}
    partners, missing = [], []
    for path in images:
        key = path.relative_to(hr_folder).with_suffix("")
        partner = files.get(key) or files.get(key.with_name(f"{key.name}x{scale}"))
        if partner is None:
            missing.append(path)
        else:
            partners.append(partner)
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(images)} images of {hr_folder} have no LR partner in {lr_folder}, the first is "
            f"{missing[0].name}: expected the same name, or the name with x{scale} behind it"
        )
    for path, partner, large, small in zip(images, partners, _sizes(images), _sizes(partners), strict=True):
        expected = (large[0] // scale, large[1] // scale)
        if small != expected:
            raise ValueError(
                f"{partner} has {small[1]}x{small[0]} pixels, expected {expected[1]}x{expected[0]}: "
                f"1/{scale} of {path}, which has {large[1]}x{large[0]}"
            )
    return partners


def _sizes(paths: Sequence[Path]) -> list[tuple[int, int]]:
    with ThreadPoolExecutor() as pool:
        return list(pool.map(image_size, paths))


class ImageSource:
    """Clean images, with LR partners for super-resolution; decoded once when all fit in `cache_gb`, else on demand.

    Args:
        images: files of clean images.
        degradation: only its task and scale matter here.
        channels: 1 or 3.
        smallest: images with a side of fewer pixels are left out (`skipped` counts them).
        lr_images: files of LR images in the order of `images`; None: MATLAB bicubic on the fly.
        cache_gb: most memory for decoded images, in GiB.
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
        sizes = _sizes(images)
        keep = [i for i, size in enumerate(sizes) if min(size) >= smallest]
        self.skipped = len(images) - len(keep)
        if not keep:
            raise ValueError(
                f"none of the {len(images)} training images has {smallest} pixels on both sides: "
                "give larger images or a smaller patch"
            )
        self.images = [images[i] for i in keep]
        self.lr_images = None if lr_images is None else [lr_images[i] for i in keep]
        pixels = sum(sizes[i][0] * sizes[i][1] for i in keep)
        self.cached = pixels * channels * (1 + 1 / degradation.scale**2) <= cache_gb * 2**30
        self._cache: list[tuple[np.ndarray, np.ndarray | None]] = []
        if self.cached:
            with ThreadPoolExecutor() as pool:
                self._cache = list(pool.map(self._load, range(len(self.images))))

    def __len__(self) -> int:
        return len(self.images)

    def crop(self, index: int, rng: np.random.Generator, patch: int) -> tuple[np.ndarray, np.ndarray | None]:
        """A random clean patch of `patch·scale` pixels a side and its LR patch of `patch` (None if not SR)."""
        clean, lr = self._cache[index] if self.cached else self._load(index, whole_lr=False)
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

    def _load(self, index: int, whole_lr: bool = True) -> tuple[np.ndarray, np.ndarray | None]:
        clean = read_image(self.images[index], self.channels)
        if self.degradation.task != "sr":
            return clean, None
        clean = degrade.crop_to_multiple(clean, self.degradation.scale)
        if self.lr_images is not None:
            return clean, read_image(self.lr_images[index], self.channels)
        return clean, degrade.bicubic_downscale(clean, self.degradation.scale) if whole_lr else None


def _downscale_patch(clean: np.ndarray, top: int, left: int, patch: int, scale: int) -> np.ndarray:
    """The LR patch of the whole image's reduction, from the pixels it depends on (the kernel reaches 2 LR pixels)."""
    margin = 3
    y0, x0 = max(top - margin, 0), max(left - margin, 0)
    region = clean[y0 * scale : (top + patch + margin) * scale, x0 * scale : (left + patch + margin) * scale]
    reduced = degrade.bicubic_downscale(region, scale)
    return reduced[top - y0 : top - y0 + patch, left - x0 : left - x0 + patch]


class Patches(Dataset):
    """Sample number → (input, target), float32 (c, p, p) and (c, s·p, s·p) in [0, 1]; noise is not clipped.

    The images follow each other in a new random order every epoch, one patch of each.
    """

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
        if degradation.task == "denoise":
            degraded = degrade.add_noise(target, rng.uniform(*degradation.sigma), rng)
            return torch.from_numpy(degraded).movedim(2, 0), _to_tensor(target)
        low, high = degradation.quality
        return _to_tensor(degrade.jpeg(target, int(rng.integers(low, high + 1)))), _to_tensor(target)


def _turn(image: np.ndarray, symmetry: int) -> np.ndarray:
    """One of the eight flips and rotations of a square, copied into contiguous memory."""
    image = np.rot90(image, symmetry % 4)
    return np.ascontiguousarray(image[:, ::-1] if symmetry >= 4 else image)


def _to_tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).movedim(2, 0).float().div_(255)


class _Batches:
    """Sample numbers of each iteration; a process takes its share of every global batch."""

    def __init__(self, first: int, batch: int, iterations: int, rank: int, world: int):
        self.count = batch // world
        self.starts = [first + i * batch + rank * self.count for i in range(iterations)]

    def __iter__(self) -> Iterator[list[int]]:
        return (list(range(start, start + self.count)) for start in self.starts)

    def __len__(self) -> int:
        return len(self.starts)


def loader(
    dataset: Patches, first: int, batch: int, iterations: int, *, rank: int = 0, world: int = 1, workers: int = 0
) -> Iterator[list[torch.Tensor]]:
    """`iterations` batches from sample number `first` on; `batch` counts images over all `world` processes."""
    batches = DataLoader(
        dataset,
        batch_sampler=_Batches(first, batch, iterations, rank, world),
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        prefetch_factor=4 if workers else None,
    )
    try:
        yield from batches
    except ValueError as error:
        *traceback, sentence = str(error).strip().splitlines()
        if not traceback:
            raise
        # Errors of a worker process come as its whole traceback, with "<type>: <message>" at the end.
        raise ValueError(sentence.partition(": ")[2]) from None
