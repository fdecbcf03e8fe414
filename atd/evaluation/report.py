"""One HTML page that shows an evaluation or a comparison: means, crops of the worst cases and difference maps, images
behind a slider, all scores.

The page is a single file and asks for nothing from the network (see `atd.evaluation.html`).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from atd.evaluation import html
from atd.evaluation.comparison import Comparison, image_rows
from atd.evaluation.datasets import BenchmarkSet, ImagePair
from atd.evaluation.formatting import describe_protocol, describe_run, write_text
from atd.evaluation.protocol import Protocol, to_uint8
from atd.evaluation.results import Evaluation, Score
from atd.evaluation.scoring import output_path

Panels = list[tuple[str, np.ndarray]]
"""Captions and images, uint8 (H, W) or (H, W, 3)."""

WORST = 3
"""Cases shown of each set."""

CROP = 96
"""Side of the crops, in pixels of the output."""

SLIDERS = 24
"""Images of each set that are shown behind a slider, the worst first: the page holds them all."""

SLIDER_CROP = 256
"""Side of the part that a slider shows, in pixels of the output."""

FULL_SCALE = 64
"""Error, in levels of 255, at which difference maps are white."""

LEGEND = (
    f"Crops are {CROP}x{CROP} pixels, behind sliders at most {SLIDER_CROP}x{SLIDER_CROP}, where the difference is "
    "largest, without loss. Difference maps show the mean absolute difference of the channels: black 0, "
    f"red {FULL_SCALE // 3}, yellow {2 * FULL_SCALE // 3}, white {FULL_SCALE} of 255 or more."
)


def write_evaluation(evaluation: Evaluation, folder: Path) -> Path:
    """Write `folder`/report.html for an evaluation whose restored images are saved in `folder`/images."""
    protocol = evaluation.protocol
    means = [[name, str(len(scores.images)), *_cells(scores.mean)] for name, scores in evaluation.sets.items()]
    body = [
        html.paragraph(f"{describe_protocol(protocol)} {describe_run(evaluation.conditions)}"),
        html.table([["set", "images", "PSNR (dB)", "SSIM"], *means]),
        html.bullet_list(evaluation.notes()),
        html.paragraph(LEGEND),
    ]
    for name, scores in evaluation.sets.items():
        ranked = sorted(scores.images, key=lambda file: scores.images[file].psnr)
        body.append(html.heading(f"{name}: lowest PSNR", 2))
        for file in ranked[:WORST]:
            pair, inputs, reference = _load(protocol, scores.benchmark, file)
            restored = _read_output(output_path(folder / "images", scores.benchmark, pair), reference)
            body.append(html.heading(f"{file}: {scores.images[file]}", 3))
            body.append(html.figure_row(panels(inputs, [(evaluation.label, restored)], reference)))
        rows = [[file, *_cells(scores.images[file])] for file in ranked]
        all_images = html.table([["image", "PSNR (dB)", "SSIM"], *rows], sortable=True)
        body.append(html.folded(f"All {len(ranked)} images of {name}", all_images))
        sliders: list[str] = []
        for file in ranked[:SLIDERS]:
            pair, inputs, reference = _load(protocol, scores.benchmark, file)
            restored = _read_output(output_path(folder / "images", scores.benchmark, pair), reference)
            sliders += [html.heading(f"{file}: {scores.images[file]}", 3)]
            sliders += [_slider(inputs[0], (evaluation.label, restored), _error(restored, reference))]
        body.append(html.folded(f"Before and after: {_how_many(ranked)} of {name}", "".join(sliders)))
    return _write(folder, f"{evaluation.label}: evaluation", body)


def write_comparison(comparison: Comparison, folder: Path) -> Path:
    """Write `folder`/report.html for a comparison whose outputs are saved in `folder`/images."""
    body = [
        html.bullet_list(comparison.describe_sides()),
        html.paragraph(describe_protocol(comparison.protocol)),
        html.table(comparison.mean_rows()),
        html.paragraph(LEGEND),
    ]
    for name, compared in comparison.sets.items():
        body.append(html.heading(f"{name}: largest difference between A and B", 2))
        for file in compared.by_difference()[:WORST]:
            pair, inputs, reference = _load(comparison.protocol, compared.benchmark, file)
            paths = [(side, output_path(folder / "images" / side, compared.benchmark, pair)) for side in "ab"]
            outputs = [(side.upper(), _read_output(path, reference)) for side, path in paths]
            image = compared.images[file]
            body.append(html.heading(f"{file}: A {image.a}, B {image.b}", 3))
            body.append(html.figure_row(panels(inputs, outputs, reference)))
        all_images = html.table(image_rows(compared), sortable=True)
        body.append(html.folded(f"All {len(compared.images)} images of {name}", all_images))
        sliders: list[str] = []
        for file in compared.by_difference()[:SLIDERS]:
            pair, _, reference = _load(comparison.protocol, compared.benchmark, file)
            paths = [output_path(folder / "images" / side, compared.benchmark, pair) for side in "ab"]
            a, b = (_read_output(path, reference) for path in paths)
            image = compared.images[file]
            sliders += [html.heading(f"{file}: A {image.a}, B {image.b}", 3)]
            sliders += [_slider(("A", a), ("B", b), _error(a, b))]
        body.append(html.folded(f"A and B: {_how_many(compared.by_difference())} of {name}", "".join(sliders)))
    return _write(folder, f"Comparison of {comparison.title}", body)


def panels(inputs: Panels, outputs: Panels, reference: np.ndarray) -> Panels:
    """The part of an image where the output errs most: inputs, outputs, reference and difference maps.

    With two outputs the part is where they differ most from each other, and their difference is shown too.
    All images are uint8 of the reference's size.
    """
    pairs = [(f"|{label} - reference|", output, reference) for label, output in outputs]
    if len(outputs) == 2:
        (a, first), (b, second) = outputs
        pairs.append((f"|{a} - {b}|", first, second))
    errors = [(label, _error(x, y)) for label, x, y in pairs]
    top, left = worst_window(errors[-1][1], CROP)
    window = np.s_[top : top + CROP, left : left + CROP]
    return [
        ("the part shown, framed", framed(outputs[0][1], top, left)),
        *((label, image[window]) for label, image in (*inputs, *outputs, ("reference", reference))),
        *((label, heat(error[window])) for label, error in errors),
    ]


def _slider(left: tuple[str, np.ndarray], right: tuple[str, np.ndarray], error: np.ndarray) -> str:
    """Two images behind a slider, cut to where `error` is largest."""
    top, start = worst_window(error, SLIDER_CROP)
    window = np.s_[top : top + SLIDER_CROP, start : start + SLIDER_CROP]
    return html.slider((left[0], left[1][window]), (right[0], right[1][window]))


def _how_many(files: list[str]) -> str:
    return f"{len(files)} images" if len(files) <= SLIDERS else f"the first {SLIDERS} of {len(files)} images"


def _cells(score: Score) -> list[str]:
    return str(score).split(" / ")


def _load(protocol: Protocol, benchmark: BenchmarkSet, file: str) -> tuple[ImagePair, Panels, np.ndarray]:
    """The pair called `file`, its input at the size of the output (pixels repeated) with a caption, its reference."""
    pair = next(pair for pair in benchmark.pairs if pair.name == file)
    degraded, reference = protocol.load(pair)
    return pair, [("input", to_uint8(degraded).repeat(protocol.scale, 0).repeat(protocol.scale, 1))], reference


def _write(folder: Path, title: str, body: list[str]) -> Path:
    path = folder / "report.html"
    write_text(path, html.document(title, body))
    return path


def _read_output(path: Path, reference: np.ndarray) -> np.ndarray:
    """A saved output, in the layout of its reference."""
    with Image.open(path) as image:
        return np.asarray(image.convert("L" if reference.ndim == 2 else "RGB"))


def worst_window(error: np.ndarray, side: int) -> tuple[int, int]:
    """Top and left of the `side`-sized window, on a grid of half its size, in which `error` (H, W) sums to most."""
    sums = np.pad(error, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    height, width = error.shape

    def starts(length: int) -> list[int]:
        return [*range(0, max(length - side, 0), side // 2), max(length - side, 0)]

    def total(top: int, left: int) -> float:
        bottom, right = min(top + side, height), min(left + side, width)
        return sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]

    return max(((top, left) for top in starts(height) for left in starts(width)), key=lambda corner: total(*corner))


def framed(image: np.ndarray, top: int, left: int) -> np.ndarray:
    """`image` as RGB, reduced to at most 384 pixels a side, with a red frame around the window."""
    reduced = Image.fromarray(image).convert("RGB")
    reduced.thumbnail((384, 384))
    factor = reduced.width / image.shape[1]
    corners = [value * factor for value in (left, top, left + CROP, top + CROP)]
    ImageDraw.Draw(reduced).rectangle(corners, outline=(230, 30, 30), width=3)
    return np.asarray(reduced)


def heat(error: np.ndarray) -> np.ndarray:
    """Errors (H, W) in levels of 255 as RGB: black, red, yellow, white at `FULL_SCALE`."""
    level = (error / FULL_SCALE).clip(0, 1)[..., None] * 3
    return ((level - np.arange(3)).clip(0, 1) * 255).astype(np.uint8)


def _error(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Mean absolute difference of the channels, (H, W) in levels of 255."""
    error = np.abs(x.astype(np.float64) - y)
    return error if error.ndim == 2 else error.mean(2)
