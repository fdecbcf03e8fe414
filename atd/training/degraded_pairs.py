"""Pairs of clean and degraded images as files, with what was drawn for each: `atd degrade`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from atd import degrade
from atd.degrade import RealWorld, RealWorldDraw
from atd.errors import AtdError, ImageError, InputError
from atd.images import samples_to_tensor, tensor_to_samples
from atd.system import atomic_write, check_exists
from atd.tasks import Denoising, JpegArtefacts, SuperResolution, Task
from atd.tasks import RealWorld as RealWorldTask
from atd.training.contact_sheet import ContactSheet, format_of
from atd.training.data import check_output_names, find_images, read_pixels

CLEAN, DEGRADED, PARAMETERS = "hr", "lq", "degradations.jsonl"
"""In the output folder: clean images, degraded ones of the same names, and a line of JSON for each pair."""


@dataclass(frozen=True)
class DegradedFolder:
    """What `degrade_folder` has done.

    pairs     how many have been written
    failures  one sentence for each image that could not be used
    """

    pairs: int
    failures: list[str] = field(default_factory=list[str])


def degrade_folder(
    source: Path,
    out: Path,
    task: Task,
    *,
    seed: int = 0,
    crop: int = 0,
    sharpen: bool = False,
    faults: RealWorld | None = None,
    sheet: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> DegradedFolder:
    """Write `out/hr` and `out/lq`, PNG files of the same names, and `out/degradations.jsonl`.

    What happens to an image is a function of the seed and its number in the order of the names. Denoising's input is
    clipped and rounded to 8 bits, as files must be. With `hr` and `lq` as `images` and `lr_images`, recipes of
    super-resolution train on such pairs.

    Args:
        source: folder of 8-bit images, searched with its subfolders, or one image.
        out: folder for the pairs; subfolders are kept.
        task: what the degraded images need a network for.
        seed: of everything that is drawn.
        crop: side of the clean images, cut at random from each pair; 0: whole images. Smaller images stay whole.
        sharpen: the clean images are sharpened first (`atd.degrade.sharpen`), as Real-ESRGAN's targets are.
        faults: of real photos; None: the published ones.
        sheet: image file for a sheet of pairs that a person can look at.
        progress: called with the images done and the images in all.

    Raises:
        InputError: there are no images, or two would get the same output name, or `sheet` is no image file.
    """
    check_exists(source)
    images = [source] if source.is_file() else find_images(source)
    if not images:
        raise InputError(f"no images in {source}")
    folder = source.parent if source.is_file() else source
    names = [path.relative_to(folder).with_suffix(".png") for path in images]
    check_output_names(images, names)
    if sheet:
        format_of(sheet)
    shown = ContactSheet.places(len(images)) if sheet else []
    contact_sheet = ContactSheet(task.scale)
    failures: list[str] = []
    out.mkdir(parents=True, exist_ok=True)
    with (out / PARAMETERS).open("w", encoding="utf-8") as lines:
        for number, (path, name) in enumerate(zip(images, names, strict=True)):
            try:
                pair = _pair(path, task, np.random.default_rng([seed, 3, number]), crop, sharpen, faults or RealWorld())
                _write(pair.clean, out / CLEAN / name)
                _write(pair.degraded, out / DEGRADED / name)
                facts = {"name": name.as_posix(), "task": task.key, "scale": task.scale, "seed": seed, "number": number}
                lines.write(json.dumps({**facts, **pair.parameters}, ensure_ascii=False) + "\n")
                lines.flush()
                if number in shown:
                    contact_sheet.add(pair.clean, pair.degraded, pair.label)
            except AtdError as error:
                failures.append(f"{path}: {error}")
            if progress:
                progress(number + 1, len(images))
    if sheet:
        contact_sheet.save(sheet)
    return DegradedFolder(len(images) - len(failures), failures)


@dataclass(frozen=True)
class _Pair:
    clean: np.ndarray
    degraded: np.ndarray
    parameters: dict[str, object]
    label: str


def _pair(path: Path, task: Task, rng: np.random.Generator, crop: int, sharpen: bool, faults: RealWorld) -> _Pair:
    scale = task.scale
    clean = degrade.crop_to_multiple(read_pixels(path, 3), scale)
    if not clean.size:
        raise ImageError(f"smaller than {scale} pixels, of which nothing is left at 1/{scale}")
    if sharpen:
        clean = tensor_to_samples(degrade.sharpen(samples_to_tensor(clean)[None])[0], clean.dtype)
    side = max(crop // scale, 1 if crop else 0)  # of the degraded crop
    lengths: tuple[int, ...] = clean.shape[:2]
    top, left = (int(rng.integers(max(length // scale - side, 0) + 1)) if side else 0 for length in lengths)
    if isinstance(task, RealWorldTask):
        draw = faults.draw(rng)
        degraded = tensor_to_samples(
            degrade.degrade_batch(samples_to_tensor(clean)[None], [draw], scale)[0], clean.dtype
        )
        parameters, label = dataclasses.asdict(draw), label_of(draw)
    else:
        made = degrade.for_task(clean, task, rng)
        degraded = made if made.dtype == np.uint8 else np.floor(made.clip(0, 1) * 255 + 0.5).astype(np.uint8)
        parameters, label = _level_of(task), task.label
    if side:
        degraded = degraded[top : top + side, left : left + side]
        clean = clean[top * scale : (top + side) * scale, left * scale : (left + side) * scale]
    place = {"top": top * scale, "left": left * scale, "height": clean.shape[0], "width": clean.shape[1]}
    return _Pair(clean, degraded, {"place": place, "sharpened": sharpen, "parameters": parameters}, label)


def _level_of(task: SuperResolution | Denoising | JpegArtefacts) -> dict[str, object]:
    if isinstance(task, Denoising):
        return {"sigma": task.sigma}
    return {"quality": task.quality} if isinstance(task, JpegArtefacts) else {"kernel": "bicubic"}


def label_of(draw: RealWorldDraw) -> str:
    """The strongest facts of a draw, in a few words."""
    parts: list[str] = []
    for order in (draw.first, draw.second):
        if order.blur:
            strength = f"{order.blur.cutoff:.1f}" if order.blur.kind == "sinc" else f"{max(order.blur.sigma):.1f}"
            parts.append(f"blur {order.blur.kind} {strength}")
        parts += [
            f"size {order.resize.factor:.2f}",
            f"noise {'gray ' if order.noise.gray else ''}{order.noise.kind} {order.noise.strength:.3g}",
            f"{order.compression.format} {order.compression.quality}",
        ]
    return ", ".join(parts)


def _write(image: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        Image.fromarray(np.ascontiguousarray(image)).save(temporary, "PNG", compress_level=3)
