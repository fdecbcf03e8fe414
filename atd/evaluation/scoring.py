"""The one loop that scores: every image of some sets through one network or several, in true float32.

`atd.evaluate`, `atd compare` and the validation of a training all score here.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from atd.errors import InputError
from atd.evaluation.candidates import Candidate
from atd.evaluation.datasets import BenchmarkSet, ImagePair
from atd.evaluation.float32 import full_float32
from atd.evaluation.profile import Meter, NetworkCost
from atd.evaluation.protocol import Protocol, to_uint8
from atd.evaluation.results import Evaluation, Score, SetScores
from atd.models import RestorationModel
from atd.system import atomic_write


@dataclass(frozen=True)
class ScoredImage:
    """One image after it has gone through every candidate.

    outputs   of the candidates, (c, h, w) float32, neither clamped nor rounded
    finished  the outputs as they were compared: (H, W) or (H, W, 3), uint8 or float32 in [0, 1]
    scores    of the finished outputs
    """

    benchmark: BenchmarkSet
    pair: ImagePair
    outputs: tuple[Tensor, ...]
    finished: tuple[np.ndarray, ...]
    scores: tuple[Score, ...]


def score_images(
    candidates: Sequence[Candidate],
    protocol: Protocol,
    sets: Sequence[BenchmarkSet],
    meters: Sequence[contextlib.AbstractContextManager[object]] | None = None,
) -> Iterator[ScoredImage]:
    """Restore and score every image of `sets` with every candidate, one image after the other.

    Args:
        candidates: all of the protocol's scale.
        protocol: the measuring rules.
        sets: see `atd.evaluation.datasets.find_sets`.
        meters: one for each candidate, entered while it runs.

    Raises:
        InputError: a candidate answers in another size than the protocol compares.
    """
    for candidate in candidates:
        if candidate.scale != protocol.scale:
            raise InputError(
                f"{candidate.name} enlarges {candidate.scale} times, but the protocol expects {protocol.scale}"
            )
    if meters is None:
        meters = [contextlib.nullcontext()] * len(candidates)
    for benchmark in sets:
        for pair in benchmark.pairs:
            degraded, reference = protocol.load(pair)
            x = protocol.tensor(degraded)
            outputs: list[Tensor] = []
            for candidate, meter in zip(candidates, meters, strict=True):
                with full_float32(), meter:
                    outputs.append(candidate.run(x))
            finished = tuple(protocol.finish(output) for output in outputs)
            scores = tuple(Score(*protocol.score(image, reference)) for image in finished)
            yield ScoredImage(benchmark, pair, tuple(outputs), finished, scores)


def score_sets(
    candidate: Candidate,
    protocol: Protocol,
    sets: Sequence[BenchmarkSet],
    *,
    images: Path | None = None,
    meter: Meter | None = None,
    on_image: Callable[[ScoredImage], object] | None = None,
) -> dict[str, SetScores]:
    """The scores of one candidate on every image of `sets`, by the sets' names.

    Args:
        candidate: see `atd.evaluation.candidates`.
        protocol: the measuring rules; its scale must be the candidate's.
        sets: see `atd.evaluation.datasets.find_sets`.
        images: folder for the restored images, `<set>/<name>.png`; None saves none.
        meter: measures what the candidate takes.
        on_image: called after every image; an exception raised in it ends the run.
    """
    results = {benchmark.name: SetScores(benchmark) for benchmark in sets}
    for scored in score_images([candidate], protocol, sets, None if meter is None else [meter]):
        results[scored.benchmark.name].images[scored.pair.name] = scored.scores[0]
        if images is not None:
            save_image(output_path(images, scored.benchmark, scored.pair), scored.finished[0])
        if on_image is not None:
            on_image(scored)
    return results


def evaluate_candidate(
    candidate: Candidate,
    protocol: Protocol,
    sets: Sequence[BenchmarkSet],
    *,
    images: Path | None = None,
    on_image: Callable[[ScoredImage], object] | None = None,
) -> Evaluation:
    """`score_sets`, with what the network costs and what the run took."""
    meter = Meter(candidate)
    scores = score_sets(candidate, protocol, sets, images=images, meter=meter, on_image=on_image)
    return Evaluation(
        model=candidate.name,
        weights=candidate.weights,
        protocol=protocol,
        conditions=candidate.conditions,
        sets=scores,
        run_cost=meter.cost(),
        network=NetworkCost.of(candidate.model) if isinstance(candidate.model, RestorationModel) else None,
    )


def output_path(folder: Path, benchmark: BenchmarkSet, pair: ImagePair) -> Path:
    """Where the restored image of `pair` is saved: the reference's stem, or its whole name where stems repeat."""
    unique = sum(other.reference.stem == pair.reference.stem for other in benchmark.pairs) == 1
    return folder / benchmark.name / f"{pair.reference.stem if unique else pair.name}.png"


def save_image(path: Path, image: np.ndarray) -> None:
    """Write an 8-bit PNG; fast rather than small, because an evaluation should spend its time in the network."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        Image.fromarray(to_uint8(image)).save(temporary, compress_level=1, compress_type=zlib.Z_RLE)
