"""Write an evaluation: results.json, cost.json, a CSV of all images and a Markdown table.

results.json is {model, weights, task, scale, sigma, quality, options, sets: {name: {count, psnr, ssim, images:
{file: {psnr, ssim}}}}}; an infinite PSNR (equal images) is null there.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from atd.evaluation.candidates import Candidate
from atd.evaluation.protocol import Protocol
from atd.evaluation.scoring import Evaluation, Score, SetResult, finite


def as_dict(evaluation: Evaluation) -> dict[str, Any]:
    """The content of results.json."""
    candidate, protocol = evaluation.candidate, evaluation.protocol
    return {
        "model": candidate.name,
        "weights": candidate.weights,
        "task": protocol.task,
        "scale": protocol.scale,
        "sigma": protocol.sigma,
        "quality": protocol.quality,
        "options": {
            **candidate.options,
            "channel": protocol.channel,
            "crop": protocol.crop,
            "border": protocol.border,
            "degraded": {name: _origin(result) for name, result in evaluation.sets.items()},
        },
        "sets": {name: _set(result) for name, result in evaluation.sets.items()},
    }


def cost(evaluation: Evaluation) -> dict[str, Any]:
    """The content of cost.json: what the network costs, and what this run took on which machine."""
    usage, size = evaluation.usage, evaluation.multiply_adds_size
    return {
        "parameters": evaluation.parameters,
        "multiply_adds": evaluation.multiply_adds,
        "multiply_adds_input": f"{size[1]}x{size[0]}" if size else None,
        "images": usage.images,
        "network_seconds": usage.network_seconds,
        "total_seconds": usage.total_seconds,
        "network_share": usage.network_share,
        "peak_memory_bytes": usage.peak_memory,
        "memory_of": usage.memory_of,
        "tiled_images": evaluation.candidate.tiled,
        "machine": usage.machine,
    }


def write(evaluation: Evaluation, folder: Path) -> None:
    """Write results.json, cost.json, results.csv and results.md into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "results.json", as_dict(evaluation))
    write_json(folder / "cost.json", cost(evaluation))
    rows = ((name, file, *score) for name, result in evaluation.sets.items() for file, score in result.images.items())
    write_csv(folder / "results.csv", ("set", "image", "psnr", "ssim"), rows)
    (folder / "results.md").write_text(markdown(evaluation), encoding="utf-8")


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def markdown(evaluation: Evaluation) -> str:
    """The table of means, and below it how they were measured and what the run took."""
    names = list(evaluation.sets)
    means = [result.mean for result in evaluation.sets.values()]
    header = ["model", *(f"{name} ({len(evaluation.sets[name].images)})" for name in names)]
    lines = [table([header, [evaluation.candidate.label, *(show(mean) for mean in means)]]), ""]
    lines += [f"{conditions(evaluation.protocol)} {run_settings(evaluation.candidate)}".rstrip(), ""]
    lines += [f"- {note}" for note in notes(evaluation)]
    return "\n".join(lines).rstrip() + "\n"


def table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is the header."""
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def show(score: Score) -> str:
    """PSNR in dB / SSIM, with the papers' digits."""
    psnr = "∞" if math.isinf(score.psnr) else f"{score.psnr:.2f}"
    return f"{psnr} / {score.ssim:.4f}"


def conditions(protocol: Protocol) -> str:
    """One sentence that states what was measured and how."""
    what = {
        "sr": f"super-resolution ×{protocol.scale}",
        "denoise": f"denoising σ {protocol.sigma}",
        "jpeg": f"JPEG artefact removal, quality {protocol.quality}",
    }[protocol.task]
    compared = {"y": "Y (BT.601, studio range)", "rgb": "RGB", "gray": "gray"}[protocol.channel]
    rounding = "output rounded to 8 bits" if protocol.rounds else "output clamped, not rounded"
    crop = f"{protocol.crop} px left out at each border" if protocol.crop else "no border left out"
    return f"PSNR in dB / SSIM, means over the images; {what}, compared on {compared}, {rounding}, {crop}."


def run_settings(candidate: Candidate) -> str:
    """One sentence that states tiling, self-ensemble, precision, device and backend; empty for a baseline."""
    options = candidate.options
    if not options:
        return ""
    tiling = {"auto": "untiled where memory allows", 0: "untiled"}.get(options["tile"])
    tiling = tiling or f"tiles of {options['tile']} px, overlap {options['overlap']}"
    ensemble = "self-ensemble of 8" if options["self_ensemble"] else "no self-ensemble"
    return f"Run: {tiling}, {ensemble}, {options['dtype']} on {options['device']}, backend {options['backend']}."


def notes(evaluation: Evaluation) -> list[str]:
    """What a reader must know beside the means: subsets, made inputs, tiling, cost and time."""
    lines = []
    for name, result in evaluation.sets.items():
        published = result.benchmark.published_count
        count = len(result.images)
        if published and published != count:
            lines.append(f"{name}: {count} of {published} images, not comparable with published scores.")
        if evaluation.protocol.task == "sr" and result.benchmark.degraded is None:
            lines.append(f"{name}: LR images made by MATLAB's bicubic reduction.")
    if evaluation.candidate.tiled:
        lines.append(f"{evaluation.candidate.tiled} of {evaluation.usage.images} images were cut into tiles.")
    size = evaluation.multiply_adds_size
    if evaluation.parameters is not None and evaluation.multiply_adds is not None and size is not None:
        lines.append(
            f"{evaluation.parameters:,} parameters; {evaluation.multiply_adds / 1e9:.1f} G multiply-adds for an input "
            f"of {size[1]}x{size[0]} px."
        )
    usage = evaluation.usage
    memory = ""
    if usage.peak_memory:
        memory = f", peak memory of the {usage.memory_of} {usage.peak_memory / 2**30:.2f} GiB"
    if evaluation.candidate.model is not None:
        lines.append(
            f"{usage.images} images in {usage.total_seconds:.1f} s, {usage.network_share:.1%} of it in the network "
            f"({usage.seconds_per_image:.2f} s an image){memory}; {usage.machine}."
        )
    return lines


def _set(result: SetResult) -> dict[str, Any]:
    mean = result.mean
    return {
        "count": len(result.images),
        "psnr": finite(mean.psnr),
        "ssim": mean.ssim,
        "images": {file: {"psnr": finite(score.psnr), "ssim": score.ssim} for file, score in result.images.items()},
    }


def _origin(result: SetResult) -> str:
    folder = result.benchmark.degraded
    return "made" if folder is None else "/".join(folder.parts[-2:])
