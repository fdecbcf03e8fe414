"""From what was measured to networks and commands: every threshold and every choice between networks is here."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from atd import registry
from atd.advice.measurements import Measurements
from atd.advice.results import Recommendation, Verdict
from atd.registry import ModelInfo
from atd.tasks import Denoising, JpegArtefacts, RealWorld, SuperResolution

NOISY = 8.0
"""Sigma from which on a picture is called noisy: grain and texture of clean ones stay below (benchmarks/advice.py)."""
VISIBLE_JPEG = 90
"""Quality below which JPEG is undone: the bundled network gains at 85 and loses at 90 (benchmarks/advice.py gain)."""
GRAY_NOISE_SHARE = 0.5
"""Noise of the channels below this share of that of the brightness: it is nearly the same in all of them."""
TRAINED_LEVEL_REACH = 6
"""Up to so many above its own quality a network for one quality is recommended."""
LARGEST_RESULT = 100_000_000
"""Pixels of a result up to which four times the size is recommended rather than twice."""

Result = tuple[Verdict, str, list[Recommendation]]


def recommend(found: Measurements, source: str | None) -> Result:
    """What the measurements speak for: the verdict, a summary, and what to do.

    Args:
        found: what was measured.
        source: the file, for the commands; None: they say INPUT and OUTPUT.
    """
    files = _Files(source)
    noisy = found.noise.strength is not None and found.noise.strength >= NOISY
    quality = _jpeg_quality(found)
    jpeg = quality is not None and quality < VISIBLE_JPEG
    webp = found.compression is not None and found.compression.kind == "WebP"
    detail = found.resolution
    if detail is not None and detail.enlarged is not None and not noisy:
        return _reduce(found, files, detail.enlarged)
    if noisy and (jpeg or webp):
        kind = "jpeg" if jpeg else "webp"
        summary = (
            "Noise and lossy compression together: no network here undoes both at the picture's own size; those for "
            "photos do while they enlarge (--outscale 1 keeps the size)."
        )
        return "mixed", summary, _for_photos(found, files, {"noise", kind}, quality if jpeg else None)
    if noisy:
        return _denoise(found, files)
    if jpeg and quality is not None:
        return _remove_jpeg(found, files, quality)
    if webp:
        summary = "Lossy WebP, whose strength cannot be told. Where its faults show, networks for photos undo them."
        return "unclear", summary, _for_photos(found, files, {"webp"})
    if detail is not None and detail.soft is not None:
        summary = (
            "It is soft, and no network here sharpens at the same size; those for photos undo blur as they enlarge."
        )
        return "mixed", summary, _for_photos(found, files, {"blur"})
    if found.noise.strength is None or detail is None:
        summary = "Too little of it could be measured to call it clean; to enlarge it is right if it is."
        return "unclear", summary, _enlarge(found, files.source, "if it is clean")
    summary = "No fault was found: nothing needs to be repaired."
    enlarging = [*_enlarge(found, files.source, "for clean pictures"), *_for_photos(found, files, set())]
    return "clean", summary, enlarging


def _jpeg_quality(found: Measurements) -> int | None:
    lossy = found.compression
    if lossy is None or lossy.quality is None:
        return None
    return lossy.quality if lossy.earlier is None else lossy.earlier


def _reduce(found: Measurements, files: _Files, factor: float) -> Result:
    width, height = (max(1, round(side / factor)) for side in (found.width, found.height))
    program = (
        "import sys; from PIL import Image, ImageOps; image = ImageOps.exif_transpose(Image.open(sys.argv[1])); "
        f"image.resize(({width}, {height}), Image.Resampling.LANCZOS).save(sys.argv[2])"
    )
    small = files.named("small")
    command = shlex.join(["python", "-c", program, files.source, small])
    first = Recommendation(
        purpose="reduce",
        network=None,
        weights=None,
        reason=f"{width} x {height} pixels hold all there is; then ask again: {shlex.join(['atd', 'advise', small])}",
        command=command,
    )
    scale = int(factor) if factor in (2, 3, 4) else 2
    after = _enlarge(found, small, "for the reduced picture, if nothing else is wrong with it", scale)
    summary = (
        f"It was enlarged before, by {factor:g}: networks restore nothing in it until it is reduced to what it holds."
    )
    return "reduce", summary, [first, *after]


def _denoise(found: Measurements, files: _Files) -> Result:
    noise, strength = found.noise, found.noise.strength or 0.0
    same = noise.colour is not None and noise.luma is not None and noise.colour < GRAY_NOISE_SHARE * noise.luma
    gray = noise.colour is None or same
    rows = [row for row in _rows() if isinstance(row.task, Denoising) and row.in_channels == (1 if gray else 3)]
    repairs: list[Recommendation] = []
    for row in _blind(rows):
        reason = f"small, finds the strength itself; measured: sigma {strength:.0f}"
        repairs.append(_restore(row, "bundled", "repair", files.source, reason))
    for row, level in _nearest_level(rows, strength):
        reason = f"the authors' network nearest to the measured sigma {strength:.0f}: trained for {level:g}"
        reason += "; it restores the brightness and keeps the colour" if same else ""
        repairs.append(_restore(row, "official", "repair", files.source, reason))
    kind = "noise that is the same in all channels" if same else "gray noise" if gray else "colour noise"
    summary = f"One fault: {kind}, about sigma {strength:.0f}."
    if gray:
        summary += " The bundled denoiser is for colour noise and leaves this in place."
    return "repair", summary, [*repairs, *_after(found, files, repairs), *_for_photos(found, files, {"noise"})]


def _remove_jpeg(found: Measurements, files: _Files, quality: int) -> Result:
    rows = [row for row in _rows() if isinstance(row.task, JpegArtefacts)]
    repairs = [
        _restore(row, "bundled", "repair", files.source, f"small, for any quality; measured: {quality}")
        for row in _blind(rows)
    ]
    for row, level in _nearest_level(rows, quality):
        if quality <= level + TRAINED_LEVEL_REACH:
            reason = f"the authors' network nearest to the measured quality {quality}: trained for {level:g}"
            reason += "" if found.gray else "; it restores the brightness and keeps the colour"
            repairs.append(_restore(row, "official", "repair", files.source, reason))
    summary = f"One fault: JPEG artefacts of quality {quality}."
    photos = _for_photos(found, files, {"jpeg"}, quality)
    return "repair", summary, [*repairs, *_after(found, files, repairs), *photos]


def _after(found: Measurements, files: _Files, repairs: list[Recommendation]) -> list[Recommendation]:
    """Enlarging what the first of the repairs has made."""
    first = next((item for item in repairs if item.network), None)
    if first is None or first.network is None:
        return []
    return _enlarge(found, files.named(first.network), f"enlarges the result of {first.network}", official=False)


def _enlarge(
    found: Measurements, source: str, when: str, scale: int | None = None, *, official: bool = True
) -> list[Recommendation]:
    """Super-resolution: the bundled network, and of the others the one with the best published score."""
    scale = scale or (4 if 16 * found.width * found.height <= LARGEST_RESULT else 2)
    rows = [row for row in _rows() if isinstance(row.task, SuperResolution) and row.scale == scale]
    items = [_restore(row, "bundled", "enlarge", source, f"{when}, x{scale}; small") for row in rows if row.bundled]
    scored = [row for row in rows if row.scores]
    if official and scored:
        best = max(scored, key=lambda row: next(iter(row.scores.values()))[0])
        items.append(_restore(best, "official", "enlarge", source, f"{when}, x{scale}; the best published scores"))
    return items


def _for_photos(
    found: Measurements, files: _Files, faults: set[str], quality: int | None = None
) -> list[Recommendation]:
    """Networks for photos that undo these faults, the authors' first, then those that undo the fewest others.

    For clean pictures, those that were made for clean photos.
    """
    rows = [row for row in _rows() if isinstance(row.task, RealWorld) and row.faults is not None]
    fitting = [
        row
        for row in rows
        if (faults <= set(row.faults or ()) if faults else not row.faults)
        and (quality is None or quality >= row.jpeg_from)
        and row.scale**2 * found.width * found.height <= LARGEST_RESULT
    ]
    fitting.sort(key=lambda row: (row.good_for is not None, len(row.faults or ())))
    return [
        _restore(row, "official", "enlarge", files.source, f"for {row.good_for or _photos_with(row.faults or ())}")
        for row in fitting
    ]


def _photos_with(faults: tuple[str, ...]) -> str:
    names = {"jpeg": "JPEG", "webp": "WebP"}
    return f"photos with {', '.join(names.get(fault, fault) for fault in faults)}" if faults else "clean photos"


def _rows() -> list[ModelInfo]:
    return [registry.get(name) for name in registry.list_models()]


def _blind(rows: list[ModelInfo]) -> list[ModelInfo]:
    """Those with bundled weights, for any strength."""
    return [row for row in rows if row.bundled and row.task.level is None]


def _nearest_level(rows: list[ModelInfo], strength: float) -> list[tuple[ModelInfo, float]]:
    """The network whose level is nearest to the strength, with its level; none where no row has a level."""
    levels = [(row, float(row.task.level)) for row in rows if row.task.level is not None]
    return sorted(levels, key=lambda pair: abs(pair[1] - strength))[:1]


@dataclass(frozen=True)
class _Files:
    """Names for the commands."""

    given: str | None

    @property
    def source(self) -> str:
        if self.given is None:
            return "INPUT"
        # A name that begins with a hyphen would be taken for an option.
        return f"./{self.given}" if self.given.startswith("-") else self.given

    def named(self, label: str) -> str:
        """A file beside the source, named after it and `label`."""
        return _beside(self.source, label)


def _beside(source: str, label: str) -> str:
    path = Path(source)
    folder = "./" if source.startswith("./") else ""
    return folder + str(path.with_name(f"{path.stem}_{label}.png"))


def _restore(
    row: ModelInfo,
    weights: Literal["bundled", "official"],
    purpose: Literal["repair", "enlarge"],
    source: str,
    reason: str,
) -> Recommendation:
    """A network with the command that runs it."""
    command = ["atd", "restore", "-i", source, "-o", _beside(source, row.name), "--model", row.name]
    command += ["--weights", weights] if weights == "bundled" else []
    return Recommendation(
        purpose=purpose, network=row.name, weights=weights, reason=reason, command=shlex.join(command)
    )
