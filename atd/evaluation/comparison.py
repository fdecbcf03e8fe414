"""Two candidates on the same images: which scores better where, and how far their outputs lie apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from atd import metrics
from atd.errors import InputError
from atd.evaluation.candidates import Candidate, RunConditions, RunOptions, label
from atd.evaluation.datasets import BenchmarkSet
from atd.evaluation.formatting import (
    describe_protocol,
    finite_or_none,
    markdown_table,
    write_csv,
    write_json,
    write_text,
)
from atd.evaluation.profile import Meter
from atd.evaluation.protocol import Protocol
from atd.evaluation.results import Score, mean_score, score_dict
from atd.evaluation.scoring import ScoredImage, output_path, save_image, score_images
from atd.system.dtypes import dtype_name


@dataclass(frozen=True)
class ImageComparison:
    """One image.

    a, b            scores of the two outputs
    max_difference  largest difference of the two outputs before rounding, in levels of 255
    agreement       PSNR in dB of one output against the other, before rounding; infinite when they are equal
    """

    a: Score
    b: Score
    max_difference: float
    agreement: float

    @classmethod
    def of(cls, scored: ScoredImage) -> ImageComparison:
        """From an image that went through two candidates."""
        first, second = scored.outputs
        return cls(
            *scored.scores,
            max_difference=(first - second).abs().max().item() * 255,
            agreement=float(metrics.psnr(first, second, channel="rgb" if len(first) == 3 else "gray", peak=1)),
        )


@dataclass
class SetComparison:
    """The images of one set, by the file names of their references."""

    benchmark: BenchmarkSet
    images: dict[str, ImageComparison] = field(default_factory=dict[str, ImageComparison])

    @property
    def means(self) -> tuple[Score, Score]:
        """Mean scores of A and B over the images."""
        images = self.images.values()
        return mean_score([image.a for image in images]), mean_score([image.b for image in images])

    def by_difference(self) -> list[str]:
        """File names, the outputs that agree least first."""
        return sorted(self.images, key=lambda file: self.images[file].agreement)


@dataclass(frozen=True)
class Side:
    """One of the two: the network, how it was run, and its time.

    model       its name, or the file or folder it was loaded from
    weights     "official", "bundled" or where they come from, for a registered name
    conditions  how the network was run; None for a baseline
    """

    model: str
    weights: str | None
    conditions: RunConditions | None
    seconds_per_image: float

    @classmethod
    def of(cls, candidate: Candidate, meter: Meter) -> Side:
        """A candidate after it has run."""
        return cls(candidate.name, candidate.weights, candidate.conditions, meter.cost().seconds_per_image)

    @property
    def label(self) -> str:
        """The model, and the weights where they are not the official ones."""
        return label(self.model, self.weights)

    def options(self) -> dict[str, object]:
        """The conditions by name; none for a baseline."""
        return {} if self.conditions is None else asdict(self.conditions)

    def __str__(self) -> str:
        """The network, how it was run, and its time."""
        options = (f"{key} {value}" for key, value in self.options().items())
        return f"{', '.join((self.label, *options))}; {self.seconds_per_image:.3g} s an image"


@dataclass(frozen=True)
class Comparison:
    """Two candidates under one protocol; ``str(comparison)`` is its Markdown."""

    a: Side
    b: Side
    protocol: Protocol
    sets: dict[str, SetComparison]

    def __str__(self) -> str:
        """The Markdown of `markdown`."""
        return self.markdown()

    @property
    def title(self) -> str:
        """Both sides, and of how they were run what differs: ``atd_sr_x4: tile auto and tile 96``."""
        a, b = self.a.options(), self.b.options()
        keys = [key for key in a if b and a[key] != b.get(key)]
        first, second = (", ".join(f"{key.replace('_', ' ')} {side[key]}" for key in keys) for side in (a, b))
        if self.a.label != self.b.label:
            first, second = (f" ({options})" if options else "" for options in (first, second))
            return f"{self.a.label}{first} and {self.b.label}{second}"
        return f"{self.a.label}: {first} and {second}" if keys else f"{self.a.label}, twice"

    def describe_sides(self) -> list[str]:
        """A line for A and one for B."""
        return [f"A: {self.a}", f"B: {self.b}"]

    def markdown(self) -> str:
        """What A and B are, the table of means, and the images that differ most."""
        lines = [f"# {self.title}", "", *(f"- {line}" for line in self.describe_sides())]
        lines += ["", markdown_table(self.mean_rows()), "", describe_protocol(self.protocol), ""]
        for name, compared in self.sets.items():
            lines += [f"{name}, by difference:", "", markdown_table(image_rows(compared)), ""]
        return "\n".join(lines).rstrip() + "\n"

    def mean_rows(self) -> list[list[str]]:
        """Header and one row for each set."""
        rows = [["set", "A", "B", "B - A (dB)", "largest difference (of 255)"]]
        for name, compared in self.sets.items():
            a, b = compared.means
            largest = max(image.max_difference for image in compared.images.values())
            rows.append([f"{name} ({len(compared.images)})", str(a), str(b), format_gain(a, b), f"{largest:.3g}"])
        return rows

    def to_dict(self) -> dict[str, object]:
        """The content of comparison.json; differences are B less A."""
        protocol = self.protocol
        return {
            "a": _side_dict(self.a),
            "b": _side_dict(self.b),
            "task": protocol.task.key,
            "scale": protocol.scale,
            "sigma": protocol.sigma,
            "quality": protocol.quality,
            "options": {"channel": protocol.channel, "crop": protocol.crop, "border": protocol.border},
            "sets": {name: _set_dict(compared) for name, compared in self.sets.items()},
        }

    def write(self, folder: Path) -> None:
        """Write comparison.json, comparison.csv and comparison.md into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "comparison.json", self.to_dict())
        header = ("set", "image", "psnr_a", "psnr_b", "ssim_a", "ssim_b", "max_difference", "agreement")
        rows = [
            (name, file, image.a.psnr, image.b.psnr, image.a.ssim, image.b.ssim, image.max_difference, image.agreement)
            for name, compared in self.sets.items()
            for file, image in compared.images.items()
        ]
        write_csv(folder / "comparison.csv", header, rows)
        write_text(folder / "comparison.md", self.markdown())


def image_rows(compared: SetComparison) -> list[list[str]]:
    """Header and one row for each image of a set, the largest differences first."""
    rows = [["image", "A", "B", "B - A (dB)", "largest difference (of 255)", "PSNR of A against B"]]
    for file in compared.by_difference():
        image = compared.images[file]
        agreement = "equal" if math.isinf(image.agreement) else f"{image.agreement:.2f}"
        gain = format_gain(image.a, image.b)
        rows.append([file, str(image.a), str(image.b), gain, f"{image.max_difference:.3g}", agreement])
    return rows


def format_gain(a: Score, b: Score) -> str:
    """How much better B is, in dB."""
    return "0" if a.psnr == b.psnr else f"{b.psnr - a.psnr:+.4f}"


def compare_candidates(
    a: Candidate,
    b: Candidate,
    protocol: Protocol,
    sets: Sequence[BenchmarkSet],
    *,
    images: Path | None = None,
    on_image: Callable[[ScoredImage], object] | None = None,
) -> Comparison:
    """Score both candidates on every image of `sets`; `images` takes the outputs, `a/<set>/…` and `b/<set>/…`.

    Raises:
        InputError: a candidate answers in another size than the protocol compares.
    """
    comparisons = {benchmark.name: SetComparison(benchmark) for benchmark in sets}
    meters = Meter(a), Meter(b)
    for scored in score_images((a, b), protocol, sets, meters):
        comparisons[scored.benchmark.name].images[scored.pair.name] = ImageComparison.of(scored)
        if images is not None:
            for side, image in zip("ab", scored.finished, strict=True):
                save_image(output_path(images / side, scored.benchmark, scored.pair), image)
        if on_image is not None:
            on_image(scored)
    first, second = (Side.of(candidate, meter) for candidate, meter in zip((a, b), meters, strict=True))
    return Comparison(first, second, protocol, comparisons)


def parse_candidate(text: str, defaults: RunOptions) -> tuple[str, RunOptions]:
    """A model and its options from `NAME[,key=value…]`, e.g. `atd_sr_x4,tile=256,dtype=bfloat16`.

    Raises:
        InputError: a key or its value is none of `RunOptions`.
    """
    name, *parts = text.split(",")
    known = [option.name for option in fields(RunOptions)]
    changes: dict[str, Any] = {}
    for part in parts:
        key, separator, value = part.partition("=")
        key = key.strip().replace("-", "_")
        if not separator or key not in known:
            raise InputError(f"cannot read {part!r} in {text!r}: expected key=value with a key of {', '.join(known)}")
        changes[key] = _parse_value(key, value.strip())
    return name, replace(defaults, **changes)


def _parse_value(key: str, value: str) -> str | int | bool:
    if key == "self_ensemble":
        if value.lower() not in ("true", "false"):
            raise InputError(f"{key} must be true or false, got {value!r}")
        return value.lower() == "true"
    if key == "overlap" or (key == "tile" and value != "auto"):
        if not value.isdigit():
            raise InputError(f"{key} must be a whole number, got {value!r}")
        return int(value)
    return dtype_name(value) if key == "dtype" else value


def _side_dict(side: Side) -> dict[str, object]:
    return {
        "model": side.model,
        "weights": side.weights,
        "options": side.options(),
        "seconds_per_image": side.seconds_per_image,
    }


def _set_dict(compared: SetComparison) -> dict[str, object]:
    a, b = compared.means
    images = {
        file: {
            "a": score_dict(image.a),
            "b": score_dict(image.b),
            "psnr_difference": 0.0 if image.a.psnr == image.b.psnr else finite_or_none(image.b.psnr - image.a.psnr),
            "ssim_difference": image.b.ssim - image.a.ssim,
            "max_difference": image.max_difference,
            "agreement": finite_or_none(image.agreement),
        }
        for file, image in compared.images.items()
    }
    return {"count": len(images), "a": score_dict(a), "b": score_dict(b), "images": images}
