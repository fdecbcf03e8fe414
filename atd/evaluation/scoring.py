"""Run a candidate over benchmark sets and keep the scores, the time and the memory it took."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from atd import registry
from atd.degrade import Border
from atd.evaluation import cost
from atd.evaluation.candidates import Candidate
from atd.evaluation.datasets import BenchmarkSet, Pair, find_sets
from atd.evaluation.profile import Meter, Usage
from atd.evaluation.protocol import Protocol, to_uint8
from atd.images.files import read_image
from atd.metrics import Channel


class Score(NamedTuple):
    """PSNR in dB, infinite for equal images, and SSIM."""

    psnr: float
    ssim: float


@dataclass
class SetResult:
    """Scores of one set, by the file names of its references."""

    benchmark: BenchmarkSet
    images: dict[str, Score] = field(default_factory=dict)

    @property
    def mean(self) -> Score:
        """Means over the images, which is what papers report."""
        return Score(*(sum(values) / len(self.images) for values in zip(*self.images.values(), strict=True)))


@dataclass
class Evaluation:
    """Everything an evaluation found; `atd.evaluation.tables` writes it."""

    candidate: Candidate
    protocol: Protocol
    sets: dict[str, SetResult]
    usage: Usage
    parameters: int | None = None
    multiply_adds: int | None = None
    multiply_adds_size: tuple[int, int] | None = None
    """Height and width of the input for which `multiply_adds` is counted."""


Progress = Callable[[BenchmarkSet, Pair, Score], Any]


def evaluate(
    candidate: Candidate,
    protocol: Protocol,
    sets: list[BenchmarkSet],
    *,
    images: Path | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Score `candidate` on every image of `sets`.

    Args:
        candidate: see `atd.evaluation.candidates`.
        protocol: the measuring rules; its scale must be the candidate's.
        sets: see `atd.evaluation.datasets.find_sets`.
        images: folder for the restored images, `<set>/<name>.png`; None saves none.
        progress: called after every image.
    """
    check_scale(candidate, protocol)
    meter = Meter(candidate)
    results = {benchmark.name: SetResult(benchmark) for benchmark in sets}
    for benchmark in sets:
        for pair in benchmark.pairs:
            degraded, reference = protocol.load(pair)
            with meter:
                output = candidate.run(protocol.tensor(degraded))
            finished = protocol.finish(output)
            score = Score(*protocol.score(finished, reference))
            results[benchmark.name].images[pair.name] = score
            if images is not None:
                save_image(output_path(images, benchmark, pair), finished)
            if progress is not None:
                progress(benchmark, pair, score)
    result = Evaluation(candidate, protocol, results, meter.usage())
    if candidate.model is not None:
        result.parameters = cost.parameters(candidate.model)
        result.multiply_adds_size = cost.stated_size(candidate.scale)
        result.multiply_adds = cost.multiply_adds(candidate.model, *result.multiply_adds_size)
    return result


def prepare(
    candidate: Candidate,
    data: Path,
    sets: list[str] | None = None,
    *,
    sigma: float | None = None,
    quality: int | None = None,
    channel: Channel | None = None,
    crop: int | None = None,
    border: Border = "edge",
) -> tuple[Protocol, list[BenchmarkSet], list[str]]:
    """Protocol and sets for `candidate`, and the names of the papers' sets that `data` lacks.

    What is None comes from the candidate: task and channel from the network, noise level and quality from its row in
    the registry, sets and crop from the papers' protocol for the task.

    Raises:
        ValueError: the task or its level is not stated anywhere, or contradicts the network.
        FileNotFoundError: see `atd.evaluation.datasets.find_sets`.
    """
    model = candidate.model
    if sigma is not None and quality is not None:
        raise ValueError("give --sigma (denoising) or --quality (JPEG artefact removal), not both")
    row = registry.get(model.name) if model is not None and model.name in registry.list_models() else None
    own = model.task if model is not None and model.task != "restoration" else None
    stated = "denoise" if sigma is not None else "jpeg" if quality is not None else None
    if own and stated and own != stated:
        raise ValueError(f"{candidate.name} is a network for task {own!r} and cannot be measured on {stated!r}")
    task = own or stated or ("sr" if candidate.scale > 1 else None)
    if task is None:
        raise ValueError(f"the task of {candidate.name} is not known: give --sigma (denoising) or --quality (JPEG)")
    if row is not None:
        sigma = row.sigma if sigma is None else sigma
        quality = row.quality if quality is None else quality
    usual = model.in_channels == 1 if model is not None else task == "jpeg"
    gray = usual if channel is None else channel == "gray"
    found, missing = find_sets(data, sets, task, gray=gray, scale=candidate.scale, border=border)
    if model is None and channel is None and task == "denoise":
        gray = _all_gray(found)
    protocol = Protocol.published(
        task,  # pyright: ignore[reportArgumentType]
        gray=gray,
        scale=candidate.scale,
        sigma=sigma,
        quality=quality,
        channel=channel,
        crop=crop,
        border=border,
    )
    if model is not None and (protocol.channel == "gray") != (model.in_channels == 1):
        raise ValueError(f"{candidate.name} takes {model.in_channels} channels and cannot be measured on {channel!r}")
    return protocol, found, missing


def _all_gray(sets: list[BenchmarkSet]) -> bool:
    """Whether the sets hold gray images, judged by their first ones; a baseline has no channels of its own."""
    gray = {benchmark.name: read_image(benchmark.pairs[0].reference).pixels.shape[2] < 3 for benchmark in sets}
    if len(set(gray.values())) > 1:
        mixed = ", ".join(f"{name} is {'gray' if value else 'colour'}" for name, value in gray.items())
        raise ValueError(f"{mixed}: evaluate them apart, or give --channel")
    return all(gray.values())


def check_scale(candidate: Candidate, protocol: Protocol) -> None:
    """Refuse a candidate that answers in another size than the protocol compares."""
    if candidate.scale != protocol.scale:
        raise ValueError(f"{candidate.name} enlarges {candidate.scale} times, the protocol expects {protocol.scale}")


def output_path(folder: Path, benchmark: BenchmarkSet, pair: Pair) -> Path:
    """Where the restored image of `pair` is saved: the reference's stem, or its whole name where stems repeat."""
    unique = sum(other.reference.stem == pair.reference.stem for other in benchmark.pairs) == 1
    return folder / benchmark.name / f"{pair.reference.stem if unique else pair.name}.png"


def save_image(path: Path, image: Any) -> None:
    """Write an 8-bit PNG; fast rather than small, because an evaluation should spend its time in the network."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(to_uint8(image)).save(path, compress_level=1, compress_type=zlib.Z_RLE)


def finite(value: float) -> float | None:
    """`value`, or None for infinity, which JSON cannot hold: equal images have no finite PSNR."""
    return value if math.isfinite(value) else None
