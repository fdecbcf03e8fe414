"""What an evaluation gives, and how it is written.

`Evaluation.write` makes results.json, cost.json, results.csv and results.md. results.json is {model, weights, task,
scale, sigma, quality, options, sets: {name: {count, psnr, ssim, images: {file: {psnr, ssim}}}}}; an infinite PSNR
(equal images) is null there.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

from atd.evaluation.candidates import RunConditions, label
from atd.evaluation.datasets import BenchmarkSet
from atd.evaluation.formatting import (
    describe_protocol,
    describe_run,
    finite_or_none,
    format_score,
    markdown_table,
    write_csv,
    write_json,
    write_text,
)
from atd.evaluation.profile import NetworkCost, RunCost
from atd.evaluation.protocol import Protocol
from atd.tasks import SuperResolution


class Score(NamedTuple):
    """PSNR in dB, infinite for equal images, and SSIM."""

    psnr: float
    ssim: float

    def __str__(self) -> str:
        """As papers print it, e.g. 33.19 / 0.9068."""
        return format_score(*self)


def mean_score(scores: list[Score]) -> Score:
    """Means over images, which is what papers report."""
    return Score(*(sum(values) / len(scores) for values in zip(*scores, strict=True)))


@dataclass
class SetScores:
    """Scores of one set, by the file names of its references."""

    benchmark: BenchmarkSet
    images: dict[str, Score] = field(default_factory=dict[str, Score])

    @property
    def mean(self) -> Score:
        """Means over the images."""
        return mean_score(list(self.images.values()))


@dataclass(frozen=True)
class Evaluation:
    """The scores of one network or baseline, how they were measured, and what it took.

    ``str(evaluation)`` is the Markdown table; ``evaluation.means["Set5"].psnr`` one of its numbers.

    model       its name, or the file or folder it was loaded from
    weights     "official", "bundled" or where they come from, for a registered name
    protocol    the measuring rules
    conditions  how the network was run; None for a baseline
    sets        the scores, by the names of the sets
    run_cost    time and memory
    network     parameters and multiply-adds; None for a baseline
    """

    model: str
    weights: str | None
    protocol: Protocol
    conditions: RunConditions | None
    sets: dict[str, SetScores]
    run_cost: RunCost
    network: NetworkCost | None = None

    @property
    def means(self) -> dict[str, Score]:
        """Mean PSNR and SSIM of each set."""
        return {name: scores.mean for name, scores in self.sets.items()}

    @property
    def label(self) -> str:
        """The model, and the weights where they are not the official ones."""
        return label(self.model, self.weights)

    def __str__(self) -> str:
        """The Markdown of `markdown`."""
        return self.markdown()

    def markdown(self) -> str:
        """The table of means, and below it how they were measured and what the run took."""
        header = ["model", *(f"{name} ({len(scores.images)})" for name, scores in self.sets.items())]
        lines = [markdown_table([header, [self.label, *map(str, self.means.values())]]), ""]
        lines += [f"{describe_protocol(self.protocol)} {describe_run(self.conditions)}".rstrip(), ""]
        lines += [f"- {note}" for note in self.notes()]
        return "\n".join(lines).rstrip() + "\n"

    def notes(self) -> list[str]:
        """What a reader must know beside the means: subsets, made inputs, tiling, cost and time."""
        lines: list[str] = []
        for name, scores in self.sets.items():
            published, count = scores.benchmark.published_count, len(scores.images)
            if published and published != count:
                lines.append(f"{name}: {count} of {published} images, not comparable with published scores.")
            if isinstance(self.protocol.task, SuperResolution) and scores.benchmark.degraded is None:
                lines.append(f"{name}: LR images made by MATLAB's bicubic reduction.")
        run = self.run_cost
        if run.tiled_images:
            lines.append(f"{run.tiled_images} of {run.images} images were cut into tiles.")
        if self.network is not None:
            height, width = self.network.input_size
            lines.append(
                f"{self.network.parameters:,} parameters; {self.network.multiply_adds / 1e9:.1f} G multiply-adds for "
                f"an input of {width}x{height} px."
            )
        if self.conditions is not None:
            memory = ""
            if run.peak_memory:
                memory = f", peak memory of the {run.memory_of} {run.peak_memory / 2**30:.2f} GiB"
            lines.append(
                f"{run.images} images in {run.total_seconds:.1f} s, {run.network_share:.1%} of it in the network "
                f"({run.seconds_per_image:.2f} s an image){memory}; {run.machine}."
            )
        return lines

    def scores_dict(self) -> dict[str, object]:
        """The content of results.json."""
        protocol = self.protocol
        return {
            "model": self.model,
            "weights": self.weights,
            "task": protocol.task.key,
            "scale": protocol.scale,
            "sigma": protocol.sigma,
            "quality": protocol.quality,
            "options": {
                **(asdict(self.conditions) if self.conditions is not None else {}),
                "channel": protocol.channel,
                "crop": protocol.crop,
                "border": protocol.border,
                "gray_from_colour": protocol.gray_from_colour,
                "degraded": {name: _origin(scores.benchmark) for name, scores in self.sets.items()},
            },
            "sets": {name: _set_dict(scores) for name, scores in self.sets.items()},
        }

    def cost_dict(self) -> dict[str, object]:
        """The content of cost.json: what the network costs, and what this run took on which machine."""
        network, run = self.network, self.run_cost
        return {
            "parameters": network.parameters if network else None,
            "multiply_adds": network.multiply_adds if network else None,
            "multiply_adds_input": f"{network.input_size[1]}x{network.input_size[0]}" if network else None,
            "images": run.images,
            "network_seconds": run.network_seconds,
            "total_seconds": run.total_seconds,
            "network_share": run.network_share,
            "peak_memory_bytes": run.peak_memory,
            "memory_of": run.memory_of,
            "tiled_images": run.tiled_images,
            "machine": run.machine,
        }

    def write(self, folder: Path) -> None:
        """Write results.json, cost.json, results.csv and results.md into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "results.json", self.scores_dict())
        write_json(folder / "cost.json", self.cost_dict())
        rows = [(name, file, *score) for name, scores in self.sets.items() for file, score in scores.images.items()]
        write_csv(folder / "results.csv", ("set", "image", "psnr", "ssim"), rows)
        write_text(folder / "results.md", self.markdown())


def _set_dict(scores: SetScores) -> dict[str, object]:
    return {
        "count": len(scores.images),
        **score_dict(scores.mean),
        "images": {file: score_dict(score) for file, score in scores.images.items()},
    }


def score_dict(score: Score) -> dict[str, float | None]:
    """A score as it lies in JSON."""
    return {"psnr": finite_or_none(score.psnr), "ssim": score.ssim}


def _origin(benchmark: BenchmarkSet) -> str:
    """Where the degraded images come from: the last two folders of their path, or that they were made."""
    return "made" if benchmark.degraded is None else "/".join(benchmark.degraded.parts[-2:])
