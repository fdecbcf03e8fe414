"""From a network and a folder to what is measured: the protocol, the sets, and what of the papers' sets is missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from atd import registry
from atd.degrade import Border
from atd.errors import InputError
from atd.evaluation.candidates import Candidate
from atd.evaluation.datasets import BenchmarkSet, find_sets
from atd.evaluation.protocol import Protocol
from atd.images import read_image
from atd.images.gray import GrayFromColour
from atd.metrics import Channel
from atd.restoration.network import channels_of
from atd.tasks import UNKNOWN, Denoising, JpegArtefacts, RealWorld, SuperResolution, Task, make_task


class EvaluationPlan(NamedTuple):
    """What is measured; `missing` names the papers' sets that are not there."""

    protocol: Protocol
    sets: list[BenchmarkSet]
    missing: list[str]


def plan_evaluation(
    candidate: Candidate,
    data: Path,
    sets: Sequence[str] | None = None,
    *,
    sigma: float | None = None,
    quality: int | None = None,
    channel: Channel | None = None,
    crop: int | None = None,
    border: Border = "edge",
    gray_from_colour: GrayFromColour = "standard",
) -> EvaluationPlan:
    """Protocol and sets for `candidate`, and the names of the papers' sets that `data` lacks.

    What is None comes from the candidate: task and channel from the network, noise level and quality from its row in
    the registry, sets and crop from the papers' protocol for the task.

    Raises:
        InputError: the task or its level is not stated anywhere, or contradicts the network.
        DataNotFoundError: see `atd.evaluation.datasets.find_sets`.
    """
    model = candidate.model
    task = _task(candidate, sigma, quality)
    channels = channels_of(model) if model is not None else None
    usual = channels == 1 if model is not None else isinstance(task, JpegArtefacts)
    gray = usual if channel is None else channel == "gray"
    benchmarks, missing = find_sets(data, sets, task, gray=gray, border=border)
    if model is None and channel is None and isinstance(task, Denoising):
        gray = _all_gray(benchmarks)
    protocol = Protocol.published(
        task, gray=gray, channel=channel, crop=crop, border=border, gray_from_colour=gray_from_colour
    )
    if channels is not None and (protocol.channel == "gray") != (channels == 1):
        raise InputError(f"{candidate.name} takes {channels} channels and cannot be measured on {channel!r}")
    return EvaluationPlan(protocol, benchmarks, missing)


def _task(candidate: Candidate, sigma: float | None, quality: int | None) -> Task:
    """What a candidate is measured on: its own task, or the one that `sigma` or `quality` states."""
    if sigma is not None and quality is not None:
        raise InputError("give sigma (--sigma, denoising) or quality (--quality, JPEG artefact removal), not both")
    own = getattr(candidate.model, "task", UNKNOWN)
    stated = Denoising.key if sigma is not None else JpegArtefacts.key if quality is not None else None
    if stated and own not in (UNKNOWN, stated):
        raise InputError(f"{candidate.name} is a network for task {own!r} and cannot be measured on {stated!r}")
    key = stated or own
    if key == UNKNOWN:
        if candidate.scale == 1:
            raise InputError(
                f"the task of {candidate.name} is not known: give sigma (--sigma) for denoising or quality (--quality) "
                "for JPEG artefacts"
            )
        key = SuperResolution.key
    row = registry.find(getattr(candidate.model, "name", None))
    if row is not None:
        sigma = row.sigma if sigma is None else sigma
        quality = row.quality if quality is None else quality
    if key == RealWorld.key:
        # Measured on pairs, as super-resolution is; there is no published protocol for photos of unknown faults.
        key = SuperResolution.key
    try:
        return make_task(key, scale=candidate.scale, sigma=sigma, quality=quality)
    except ValueError as error:
        raise InputError(str(error)) from error


def _all_gray(sets: Sequence[BenchmarkSet]) -> bool:
    """Whether the sets hold gray images, judged by their first ones; a baseline has no channels of its own."""
    gray = {benchmark.name: read_image(benchmark.pairs[0].reference).pixels.shape[2] < 3 for benchmark in sets}
    if len(set(gray.values())) > 1:
        mixed = ", ".join(f"{name} is {'gray' if value else 'colour'}" for name, value in gray.items())
        raise InputError(f"{mixed}: evaluate them apart, or give a channel (--channel)")
    return all(gray.values())
