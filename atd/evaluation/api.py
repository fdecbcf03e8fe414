"""The scores of a network in one call, `atd.evaluate`, and those of two beside each other."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from atd.degrade import Border
from atd.errors import InputError
from atd.evaluation.candidates import Candidate, RunOptions, open_candidate
from atd.evaluation.comparison import Comparison, compare_candidates
from atd.evaluation.datasets import BenchmarkSet
from atd.evaluation.formatting import describe_protocol
from atd.evaluation.planning import plan_evaluation
from atd.evaluation.report import write_comparison, write_evaluation
from atd.evaluation.results import Evaluation
from atd.evaluation.scoring import ScoredImage, evaluate_candidate
from atd.images.gray import GrayFromColour
from atd.metrics import Channel
from atd.restoration import Tile
from atd.system.backends import Backend
from atd.system.dtypes import dtype_name
from atd.weights.format import Params

logger = logging.getLogger(__name__)


class ImageProgress(NamedTuple):
    """What a progress callback receives after every image. An exception raised in it ends the run."""

    done: int
    total: int
    elapsed: float
    """Seconds since the first image began."""
    remaining: float
    """Estimated seconds to the last image."""
    image: str
    """The set and the file name of the image that is done."""


Progress = bool | Callable[[ImageProgress], object]
"""False: nothing; True: a bar on stderr, where that is a terminal; or a function."""


def evaluate(
    model: str | Path | nn.Module,
    data: str | Path,
    *,
    sets: Sequence[str] | None = None,
    weights: str | Path | None = None,
    params: Params = "auto",
    scale: int | None = None,
    sigma: float | None = None,
    quality: int | None = None,
    channel: Channel | None = None,
    crop: int | None = None,
    border: Border = "edge",
    gray_from_colour: GrayFromColour = "standard",
    tile: Tile = "auto",
    overlap: int = 32,
    self_ensemble: bool = False,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype = "float32",
    backend: Backend | None = None,
    output: str | Path | None = None,
    images: bool = True,
    report: bool = False,
    progress: Progress = False,
) -> Evaluation:
    """PSNR and SSIM on test sets, under the protocol of the papers (see `atd.evaluation.protocol`).

    What is left None comes from the network: its task, the papers' sets, channel and crop for that task, and the
    noise level or JPEG quality that its name states.

    Args:
        model: a name, file, folder or hub repository for `atd.load`; a module, which is neither moved nor changed; or
            a baseline: "bicubic" or "lanczos" (give `scale`), "identity" (give `sigma` or `quality`).
        data: folder of test sets in one of the usual layouts, or a plain folder of images.
        sets: names of the sets, e.g. ``["Set5", "Set14"]``, whatever their case.
        weights: which weights of a named model (see `atd.load`); None means the official ones.
        params: which weights of a checkpoint file that holds two (see `atd.load`).
        scale: super-resolution factor, for the baselines; a network is only checked to have it.
        sigma: noise level on the scale 0..255.
        quality: libjpeg quality, 1..100.
        channel: what is compared: "y" (luminance), "rgb" or "gray".
        crop: pixels left out along each border.
        border: "edge": LR images as published (older MATLAB); "symmetric": as newer MATLAB makes them.
        gray_from_colour: how colour files become gray where gray is compared: "standard", or "authors" as in the
            authors' code (see `atd.evaluation.protocol.Protocol`).
        tile: as in `atd.restore`; tiles lower the scores of these networks, so untiled where memory allows.
        overlap: input pixels that neighbouring tiles share.
        self_ensemble: average over the eight flips and rotations.
        device: where a named model is loaded; the GPU when there is one, else the CPU.
        dtype: of the computation: float32, also where `atd.restore` would take half precision, unless another one is
            asked for: "bfloat16", "float16", "float64" or torch's own. TF32 is never used.
        backend: of the ops during this call; None leaves the choice that `atd.ops.use` made.
        output: folder for results.json, cost.json, results.csv, results.md and the restored images; None writes
            nothing.
        images: whether the restored images are among them.
        report: whether report.html, a self-contained page of the worst cases, is among them.
        progress: True draws a bar on stderr; a callable receives an `ImageProgress` after every image.

    Returns:
        The scores; printed, they are a Markdown table.

    Raises:
        InputError: an argument is not one of those described, or contradicts the network or the images.
        DataNotFoundError: `data` or one of `sets` is not there.
        LoadError: the named model cannot be loaded.

    Example:
        >>> print(atd.evaluate("atd_light_sr_x4", "datasets", sets=["Set5"], weights="bundled"))
    """
    folder = _checked_output(output, report)
    if report and not images:
        raise InputError("the report shows the restored images, which are not to be saved: leave one of the two out")
    options = RunOptions(weights, tile, overlap, self_ensemble, dtype_name(str(dtype)), device, backend, params)
    candidate = open_candidate(model, options, scale)
    plan = plan_evaluation(
        candidate,
        Path(data),
        sets,
        sigma=sigma,
        quality=quality,
        channel=channel,
        crop=crop,
        border=border,
        gray_from_colour=gray_from_colour,
    )
    _log_missing(plan.missing, data)
    saved = folder / "images" if folder is not None and images else None
    with image_callback(progress, plan.sets) as on_image:
        evaluation = evaluate_candidate(candidate, plan.protocol, plan.sets, images=saved, on_image=on_image)
    if folder is not None:
        evaluation.write(folder)
        if report:
            write_evaluation(evaluation, folder)
    return evaluation


def compare(
    a: Candidate,
    b: Candidate,
    data: str | Path,
    *,
    sets: Sequence[str] | None = None,
    sigma: float | None = None,
    quality: int | None = None,
    channel: Channel | None = None,
    crop: int | None = None,
    border: Border = "edge",
    gray_from_colour: GrayFromColour = "standard",
    output: str | Path | None = None,
    report: bool = False,
    progress: Progress = False,
) -> Comparison:
    """Two networks, weights files or ways to run one, on the same images.

    Args:
        a: one side (see `atd.evaluation.candidates.open_candidate`).
        b: the other side.
        data, sets, sigma, quality, channel, crop, border, gray_from_colour, progress: as in `evaluate`.
        output: folder for comparison.json, comparison.csv, comparison.md and the restored images of both sides; None
            writes nothing.
        report: whether report.html, a self-contained page of the largest differences, is among them.

    Raises:
        InputError: the two are not measured by the same rules; and what `evaluate` raises.
        DataNotFoundError: `data` or one of `sets` is not there.
    """
    folder = _checked_output(output, report)
    plan, other = (
        plan_evaluation(
            candidate,
            Path(data),
            sets,
            sigma=sigma,
            quality=quality,
            channel=channel,
            crop=crop,
            border=border,
            gray_from_colour=gray_from_colour,
        )
        for candidate in (a, b)
    )
    if plan.protocol != other.protocol:
        raise InputError(
            f"A and B are measured differently: {describe_protocol(plan.protocol)} against "
            f"{describe_protocol(other.protocol)}"
        )
    _log_missing(plan.missing, data)
    images = None if folder is None else folder / "images"
    with image_callback(progress, plan.sets) as on_image:
        comparison = compare_candidates(a, b, plan.protocol, plan.sets, images=images, on_image=on_image)
    if folder is not None:
        comparison.write(folder)
        if report:
            write_comparison(comparison, folder)
    return comparison


def _checked_output(output: str | Path | None, report: bool) -> Path | None:
    if report and output is None:
        raise InputError("the report is a page in the folder of the results: give output (--output)")
    return None if output is None else Path(output)


def _log_missing(names: Sequence[str], data: str | Path) -> None:
    """Say which of the papers' sets are left out because they are not there."""
    if names:
        logger.warning("not in %s, left out: %s", data, ", ".join(names))


@contextlib.contextmanager
def image_callback(
    progress: Progress, sets: Sequence[BenchmarkSet]
) -> Generator[Callable[[ScoredImage], object] | None, None, None]:
    """From the argument `progress` to what the scoring loop calls after every image."""
    if progress is False:
        yield None
        return
    total, done, started = sum(len(benchmark.pairs) for benchmark in sets), 0, time.perf_counter()
    with contextlib.ExitStack() as stack:
        if progress is True:
            from huggingface_hub.utils import tqdm

            bar = stack.enter_context(tqdm(total=total, unit="image", disable=None, leave=False))

            def draw(state: ImageProgress, /) -> object:
                bar.set_description(state.image, refresh=False)
                return bar.update(state.done - bar.n)

            callback = draw
        else:
            callback = progress

        def on_image(scored: ScoredImage) -> None:
            nonlocal done
            done += 1
            elapsed = time.perf_counter() - started
            image = f"{scored.benchmark.name} {scored.pair.name}"
            callback(ImageProgress(done, total, elapsed, elapsed / done * (total - done), image))

        yield on_image
