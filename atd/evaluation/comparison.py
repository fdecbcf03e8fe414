"""Two candidates on the same images: which scores better where, and how far their outputs lie apart."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from atd import metrics
from atd.evaluation import tables
from atd.evaluation.candidates import Candidate, Settings
from atd.evaluation.datasets import BenchmarkSet, Pair
from atd.evaluation.profile import Meter
from atd.evaluation.protocol import Protocol
from atd.evaluation.scoring import Score, check_scale, finite, output_path, save_image


@dataclass(frozen=True)
class ImageComparison:
    """One image.

    max_difference  largest difference of the two outputs before rounding, in levels of 255
    agreement       PSNR in dB of one output against the other, before rounding; infinite when they are equal
    """

    a: Score
    b: Score
    max_difference: float
    agreement: float


@dataclass
class SetComparison:
    benchmark: BenchmarkSet
    images: dict[str, ImageComparison] = field(default_factory=dict)

    @property
    def means(self) -> tuple[Score, Score]:
        """Mean scores of A and B over the images."""
        sides = [entry.a for entry in self.images.values()], [entry.b for entry in self.images.values()]
        a, b = (Score(*(sum(values) / len(side) for values in zip(*side, strict=True))) for side in sides)
        return a, b


@dataclass
class Comparison:
    a: Candidate
    b: Candidate
    protocol: Protocol
    sets: dict[str, SetComparison]
    seconds_per_image: tuple[float, float]
    """Of A and of B."""


def parse(text: str, defaults: Settings) -> tuple[str, Settings]:
    """A model and its settings from `NAME[,key=value…]`, e.g. `atd_sr_x4,tile=256,dtype=bfloat16`."""
    name, *parts = text.split(",")
    changes: dict[str, Any] = {}
    for part in parts:
        key, separator, value = part.partition("=")
        key = key.strip().replace("-", "_")
        if not separator or key not in Settings.__dataclass_fields__:
            keys = ", ".join(Settings.__dataclass_fields__)
            raise ValueError(f"cannot read {part!r} in {text!r}: expected key=value with a key of {keys}")
        changes[key] = _convert(key, value.strip())
    return name, replace(defaults, **changes)


def _convert(key: str, value: str) -> str | int | bool:
    if key == "self_ensemble":
        if value.lower() not in ("true", "false"):
            raise ValueError(f"{key} must be true or false, got {value!r}")
        return value.lower() == "true"
    if key == "overlap" or (key == "tile" and value != "auto"):
        if not value.isdigit():
            raise ValueError(f"{key} must be a whole number, got {value!r}")
        return int(value)
    return value


def compare(
    a: Candidate,
    b: Candidate,
    protocol: Protocol,
    sets: list[BenchmarkSet],
    *,
    images: Path | None = None,
    progress: Callable[[BenchmarkSet, Pair, ImageComparison], Any] | None = None,
) -> Comparison:
    """Score both candidates on every image of `sets`; `images` takes the outputs, `a/<set>/…` and `b/<set>/…`."""
    check_scale(a, protocol)
    check_scale(b, protocol)
    found = {benchmark.name: SetComparison(benchmark) for benchmark in sets}
    meters = Meter(a), Meter(b)
    for benchmark in sets:
        for pair in benchmark.pairs:
            degraded, reference = protocol.load(pair)
            x = protocol.tensor(degraded)
            outputs = []
            for candidate, meter in zip((a, b), meters, strict=True):
                with meter:
                    outputs.append(candidate.run(x))
            finished = [protocol.finish(output) for output in outputs]
            scores = [Score(*protocol.score(image, reference)) for image in finished]
            channel = "rgb" if len(x) == 3 else "gray"
            entry = ImageComparison(
                *scores,
                max_difference=(outputs[0] - outputs[1]).abs().max().item() * 255,
                agreement=metrics.psnr(*outputs, channel=channel, peak=1),
            )
            found[benchmark.name].images[pair.name] = entry
            if images is not None:
                for side, image in zip("ab", finished, strict=True):
                    save_image(output_path(images / side, benchmark, pair), image)
            if progress is not None:
                progress(benchmark, pair, entry)
    first, second = (meter.usage().seconds_per_image for meter in meters)
    return Comparison(a, b, protocol, found, (first, second))


def as_dict(comparison: Comparison) -> dict[str, Any]:
    """The content of comparison.json; differences are B less A."""
    protocol = comparison.protocol
    return {
        "a": _candidate(comparison.a, comparison.seconds_per_image[0]),
        "b": _candidate(comparison.b, comparison.seconds_per_image[1]),
        "task": protocol.task,
        "scale": protocol.scale,
        "sigma": protocol.sigma,
        "quality": protocol.quality,
        "options": {"channel": protocol.channel, "crop": protocol.crop, "border": protocol.border},
        "sets": {name: _set(found) for name, found in comparison.sets.items()},
    }


def write(comparison: Comparison, folder: Path) -> None:
    """Write comparison.json, comparison.csv and comparison.md into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    tables.write_json(folder / "comparison.json", as_dict(comparison))
    header = ("set", "image", "psnr_a", "psnr_b", "ssim_a", "ssim_b", "max_difference", "agreement")
    rows = (
        (name, file, e.a.psnr, e.b.psnr, e.a.ssim, e.b.ssim, e.max_difference, e.agreement)
        for name, found in comparison.sets.items()
        for file, e in found.images.items()
    )
    tables.write_csv(folder / "comparison.csv", header, rows)
    (folder / "comparison.md").write_text(markdown(comparison), encoding="utf-8")


def markdown(comparison: Comparison) -> str:
    """What A and B are, the table of means, and the images that differ most."""
    lines = [f"- {line}" for line in describe(comparison)]
    lines += ["", tables.table(mean_rows(comparison)), "", tables.conditions(comparison.protocol), ""]
    for name, found in comparison.sets.items():
        lines += [f"{name}, by difference:", "", tables.table(image_rows(found)), ""]
    return "\n".join(lines).rstrip() + "\n"


def describe(comparison: Comparison) -> list[str]:
    """A line for A and one for B: the candidate, how it was run, and its time."""
    lines = []
    for side, candidate, seconds in zip("AB", (comparison.a, comparison.b), comparison.seconds_per_image, strict=True):
        options = (f"{key} {value}" for key, value in candidate.options.items())
        lines.append(f"{side}: {', '.join((candidate.label, *options))}; {seconds:.3g} s an image")
    return lines


def mean_rows(comparison: Comparison) -> list[list[str]]:
    rows = [["set", "A", "B", "B - A (dB)", "largest difference (of 255)"]]
    for name, found in comparison.sets.items():
        a, b = found.means
        largest = max(entry.max_difference for entry in found.images.values())
        rows.append([f"{name} ({len(found.images)})", tables.show(a), tables.show(b), gain(a, b), f"{largest:.3g}"])
    return rows


def image_rows(found: SetComparison) -> list[list[str]]:
    rows = [["image", "A", "B", "B - A (dB)", "largest difference (of 255)", "PSNR of A against B"]]
    for file in by_difference(found):
        entry = found.images[file]
        agreement = "equal" if math.isinf(entry.agreement) else f"{entry.agreement:.2f}"
        scores = [tables.show(entry.a), tables.show(entry.b), gain(entry.a, entry.b)]
        rows.append([file, *scores, f"{entry.max_difference:.3g}", agreement])
    return rows


def by_difference(found: SetComparison) -> list[str]:
    """File names, the outputs that agree least first."""
    return sorted(found.images, key=lambda file: found.images[file].agreement)


def gain(a: Score, b: Score) -> str:
    """How much better B is, in dB."""
    return "0" if a.psnr == b.psnr else f"{b.psnr - a.psnr:+.4f}"


def _candidate(candidate: Candidate, seconds: float) -> dict[str, Any]:
    return {
        "model": candidate.name,
        "weights": candidate.weights,
        "options": candidate.options,
        "seconds_per_image": seconds,
    }


def _set(found: SetComparison) -> dict[str, Any]:
    a, b = found.means
    images = {
        file: {
            "a": _score(entry.a),
            "b": _score(entry.b),
            "psnr_difference": _difference(entry.a.psnr, entry.b.psnr),
            "ssim_difference": entry.b.ssim - entry.a.ssim,
            "max_difference": entry.max_difference,
            "agreement": finite(entry.agreement),
        }
        for file, entry in found.images.items()
    }
    return {"count": len(images), "a": _score(a), "b": _score(b), "images": images}


def _score(score: Score) -> dict[str, float | None]:
    return {"psnr": finite(score.psnr), "ssim": score.ssim}


def _difference(a: float, b: float) -> float | None:
    return 0.0 if a == b else finite(b - a)
