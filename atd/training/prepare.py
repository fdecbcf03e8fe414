"""Cut training images into the pieces the published trainings read: `atd prepare sr` and `atd prepare dfwb`.

A piece is written under a temporary name and renamed, and an image whose pieces all exist is skipped: an interrupted
preparation is continued by running it again.
"""

from __future__ import annotations

import logging
import math
import multiprocessing
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from atd import degrade
from atd.errors import AtdError, ImageError, InputError
from atd.system import atomic_write, check_exists
from atd.training.data import check_output_names, find_images, image_size, read_pixels

SUB_IMAGE, SUB_STEP = 480, 240  # HR pixels; divisible by the scales 2, 3 and 4
LARGE, PATCH, OVERLAP = 1200, 768, 128

logger = logging.getLogger("atd.training")

_REDUCED = re.compile(r"(?i)(?:^|[_-])(?:lr|lrbi|lr[_-]?bicubic|lr[_-]?x?[234]|x[2348])(?:$|[_-])")
"""In names of folders as the data sets have them: DIV2K_train_LR_bicubic, LR, X4, Flickr2K_LR_bicubic."""


@dataclass(frozen=True)
class Preparation:
    """What a run of a preparation has done, in images.

    cut       cut, or copied, in this run
    skipped   their pieces were there already
    failures  one sentence for each that could not be cut
    """

    cut: int
    skipped: int
    failures: list[str]


def positions(length: int, size: int, step: int) -> list[int]:
    """Starts of pieces of `size` every `step`, the last one flush with the end; [0] when `length` ≤ `size`."""
    if length <= size:
        return [0]
    starts = list(range(0, length - size + 1, step))
    if starts[-1] + size < length:
        starts.append(length - size)
    return starts


def prepare_sr(
    hr: Path,
    out: Path,
    name: str,
    scales: Iterable[int] = (2, 3, 4),
    lr: Path | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Preparation:
    """Sub-images for super-resolution, `out/<name>_train_HR_sub` and `out/<name>_train_LR_bicubic/X<s>_sub`.

    HR images are cropped to a multiple of all scales, so that the folders match one to one. LR images come from
    `lr/X<s>` (`0001x2.png` or `0001.png`) or, without `lr`, from MATLAB's bicubic reduction of the whole image.

    Args:
        hr: folder of 8-bit images, searched with its subfolders.
        out: folder for the two folders of pieces.
        name: of the data set, as `DIV2K`.
        scales: divisors of 240 above 1.
        lr: folder with `X2`, `X3`, … of LR images.
        workers: processes; None: one for each core.
        progress: called with the images done and the images in all.

    Raises:
        InputError: a scale is impossible, there are no images, or two would get the same name.
    """
    scales = sorted(set(scales))
    for scale in scales:
        if scale < 2 or SUB_STEP % scale:
            raise InputError(f"scale must be a divisor of {SUB_STEP} above 1, got {scale}")
    job = partial(_cut_pair, out=out, name=name, scales=scales, lr=lr)
    return _run(job, _images_of([hr]), workers, progress)


def prepare_dfwb(
    folders: list[Path], out: Path, workers: int | None = None, progress: Callable[[int, int], None] | None = None
) -> Preparation:
    """Denoising images: those above 1200 pixels on both sides in 768-pixel patches, the others copied whole.

    Args:
        folders: folders of 8-bit images, searched with their subfolders.
        out: folder for the patches.
        workers: processes; None: one for each core.
        progress: called with the images done and the images in all.

    Raises:
        InputError: a folder has no images, or two images would get the same name.
    """
    images = _images_of(folders)
    _warn_of_reduced(folders, images)
    return _run(partial(_cut_large, out=out), images, workers, progress)


def _warn_of_reduced(folders: list[Path], images: list[Path]) -> None:
    """Say that images lie in folders that are named as those of reduced (LR) partners, which are no clean images."""
    for folder in folders:
        below = [path.relative_to(folder.parent).parent.parts for path in images if path.is_relative_to(folder)]
        reduced = [part for parts in below for part in parts if _REDUCED.search(part)]
        if reduced:
            logger.warning(
                "%s holds %d images in folders named as those of reduced images (%s), which would be trained on as "
                "clean ones: give the folder of HR images",
                folder,
                sum(any(map(_REDUCED.search, parts)) for parts in below),
                ", ".join(sorted(set(reduced))),
            )


def _images_of(folders: list[Path]) -> list[Path]:
    images: list[Path] = []
    for folder in folders:
        check_exists(folder)
        own = find_images(folder)
        if not own:
            raise InputError(f"no images in {folder}")
        images += own
    check_output_names(images, [path.stem for path in images])
    return images


def _run(
    job: Callable[[Path], bool], images: list[Path], workers: int | None, progress: Callable[[int, int], None] | None
) -> Preparation:
    cut, skipped = 0, 0
    failures: list[str] = []
    for done, (path, result) in enumerate(_results(job, images, workers), 1):
        try:
            if result():
                cut += 1
            else:
                skipped += 1
        except (AtdError, OSError) as error:
            failures.append(f"{path}: {error}")
        if progress:
            progress(done, len(images))
    return Preparation(cut, skipped, sorted(failures))


def _results(
    job: Callable[[Path], bool], images: list[Path], workers: int | None
) -> Iterator[tuple[Path, Callable[[], bool]]]:
    """Each image with a call that gives, or raises, what `job` does with it; in the order in which they are done."""
    if workers == 1:
        yield from ((path, partial(job, path)) for path in images)
        return
    # Not fork: a process that has used torch's threads cannot be forked safely.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(job, path): path for path in images}
        yield from ((futures[future], future.result) for future in as_completed(futures))


def _cut_pair(path: Path, out: Path, name: str, scales: list[int], lr: Path | None) -> bool:
    """Cut one HR image and its LR images; False when all pieces exist."""
    unit = math.lcm(*scales)
    height, width = (side // unit * unit for side in image_size(path))
    if not height or not width:
        raise ImageError(f"smaller than {unit} pixels on a side, of which {', '.join(map(str, scales))} are divisors")
    boxes = [(y, x) for y in positions(height, SUB_IMAGE, SUB_STEP) for x in positions(width, SUB_IMAGE, SUB_STEP)]
    names = [f"{path.stem}_s{number:03d}.png" for number in range(1, len(boxes) + 1)]
    folders = {1: out / f"{name}_train_HR_sub"}
    folders |= {scale: out / f"{name}_train_LR_bicubic" / f"X{scale}_sub" for scale in scales}
    if all((folder / piece).exists() for folder in folders.values() for piece in names):
        return False
    clean = read_pixels(path, 3)[:height, :width]
    for scale, folder in folders.items():
        image = clean if scale == 1 else _lr_image(clean, path, scale, lr)
        size = SUB_IMAGE // scale
        for piece, (y, x) in zip(names, boxes, strict=True):
            _write(image[y // scale : y // scale + size, x // scale : x // scale + size], folder / piece)
    return True


def _lr_image(clean: np.ndarray, path: Path, scale: int, lr: Path | None) -> np.ndarray:
    if lr is None:
        return degrade.bicubic_downscale(clean, scale)
    folder = lr / f"X{scale}"
    for stem in (f"{path.stem}x{scale}", path.stem):
        for candidate in folder.glob(f"{stem}.*"):
            image = read_pixels(candidate, 3)
            height, width = clean.shape[0] // scale, clean.shape[1] // scale
            if image.shape[0] < height or image.shape[1] < width:
                raise ImageError(
                    f"{candidate} has {image.shape[0]}x{image.shape[1]} pixels, "
                    f"expected {height}x{width}, 1/{scale} of {path}"
                )
            return image[:height, :width]
    raise ImageError(f"its LR partner {path.stem}x{scale} or {path.stem} is missing in {folder}")


def _cut_large(path: Path, out: Path) -> bool:
    height, width = image_size(path)
    if min(height, width) <= LARGE:
        target = out / path.name
        if target.exists():
            return False
        read_pixels(path, 3)  # an unreadable image is better found now than during the training
        out.mkdir(parents=True, exist_ok=True)
        with atomic_write(target) as temporary:
            shutil.copyfile(path, temporary)
        return True
    step = PATCH - OVERLAP
    boxes = [(y, x) for y in positions(height, PATCH, step) for x in positions(width, PATCH, step)]
    names = [f"{path.stem}_p{number:03d}.png" for number in range(1, len(boxes) + 1)]
    if all((out / piece).exists() for piece in names):
        return False
    image = read_pixels(path, 3)
    for piece, (y, x) in zip(names, boxes, strict=True):
        _write(image[y : y + PATCH, x : x + PATCH], out / piece)
    return True


def _write(image: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        Image.fromarray(np.ascontiguousarray(image)).save(temporary, "PNG", compress_level=3)
