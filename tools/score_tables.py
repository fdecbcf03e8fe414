"""The README's table of networks, built from the registry and from the measurements of the bundled weights.

`python -m tools.score_tables README.md` rewrites the table between its markers;
`python -m tools.score_tables --record DIR` keeps the scores that
`atd evaluate NAME --weights bundled --out DIR` found, as `atd/bundled/NAME.json`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from atd import registry
from atd.evaluation.candidates import Settings
from atd.evaluation.datasets import PUBLISHED_COUNTS, default_sets
from atd.evaluation.scoring import Score
from atd.evaluation.tables import show, table
from atd.registry import ModelInfo

BEGIN, END = "<!-- zoo -->", "<!-- /zoo -->"


_SETS = default_sets("sr", gray=False)
_BUNDLED = '`weights="bundled"`'


def markdown() -> str:
    """The tables and their footnotes, without the markers."""
    infos = [registry.get(name) for name in registry.list_models()]
    papers = list(dict.fromkeys(info.paper for info in infos))
    enlarging = [row for info in infos if info.scale > 1 for row in _enlarging_rows(info, papers)]
    restoring = [row for info in infos if info.scale == 1 for row in _restoring_rows(info, papers)]
    footnotes = [f"[{index}] {paper}; scores marked published are its own." for index, paper in enumerate(papers, 1)]
    commands = [f"- `{command(info, run)}`" for info in infos for run in measured_runs(info)]
    parts = [
        "Super-resolution, PSNR (dB) / SSIM on Y, means over the images:",
        table([["model", "parameters", "weights", "scores", *_SETS], *enlarging]),
        "Restoration, PSNR (dB) / SSIM on RGB or gray, means over the images:",
        table([["model", "trained for", "images", "parameters", "weights", "scores"], *restoring]),
        "  \n".join(footnotes),
    ]
    if commands:
        parts += [
            "Scores marked measured are this project's, of the small weights in the package, in float32 and untiled "
            "(`DATA`: the folder of the test sets):",
            "\n".join(commands),
        ]
    return "\n\n".join(parts)


def _enlarging_rows(info: ModelInfo, papers: list[str]) -> list[list[str]]:
    """One row for the official weights, and one for the bundled ones where they have been measured."""
    head = [f"`{info.name}`", _parameters(info)]
    rows = [[*head, "official", _cited(info, papers), *_cells(info.scores)]]
    for run in measured_runs(info):
        scores = {name: (entry["psnr"], entry["ssim"]) for name, entry in run["sets"].items()}
        rows.append([*head, _BUNDLED, "measured", *_cells(scores)])
    return rows


def _restoring_rows(info: ModelInfo, papers: list[str]) -> list[list[str]]:
    level = {"denoise": info.sigma, "jpeg": info.quality}[info.task.key]
    trained_for = {"denoise": "noise, σ", "jpeg": "JPEG, quality"}[
        info.task.key
    ] + f" {'any' if level is None else level}"
    head = [f"`{info.name}`", trained_for, "gray" if info.in_channels == 1 else "RGB", _parameters(info)]
    rows = []
    if info.sources.hub or info.sources.drive:
        rows.append([*head, "official", _cited(info, papers)])
    for run in measured_runs(info):
        at = f"σ {run['sigma']}" if info.task.key == "denoise" else f"quality {run['quality']}"
        scores = ", ".join(f"{name} {_cell(entry['psnr'], entry['ssim'])}" for name, entry in run["sets"].items())
        rows.append([*head, _BUNDLED, f"measured at {at}: {scores}"])
    return rows


def _parameters(info: ModelInfo) -> str:
    return f"{info.parameters / 1e6:.3f} M"


def _cited(info: ModelInfo, papers: list[str]) -> str:
    return f"{'published' if info.scores else 'see'} [{papers.index(info.paper) + 1}]"


def _cells(scores: dict[str, tuple[float, float | None]]) -> list[str]:
    return [_cell(*scores[name]) if name in scores else "–" for name in _SETS]


def _cell(psnr: float, ssim: float | None) -> str:
    return f"{psnr:.2f}" if ssim is None else show(Score(psnr, ssim))


def measured_runs(info: ModelInfo) -> list[dict[str, Any]]:
    """What was measured of the bundled weights: runs of {sigma, quality, sets} as in results.json."""
    path = _measured_path(info)
    return json.loads(path.read_text(encoding="utf-8"))["runs"] if path.is_file() else []


def _measured_path(info: ModelInfo) -> Path:
    return info.bundled_path.with_suffix(".json")


def command(info: ModelInfo, run: dict[str, Any]) -> str:
    """The command that measured `run`."""
    words = ["atd evaluate", info.name, "--weights bundled --data DATA --sets", ",".join(run["sets"])]
    for level in ("sigma", "quality"):
        if run[level] is not None and getattr(info, level) is None:
            words.append(f"--{level} {run[level]}")
    return " ".join(words)


def record(folder: Path) -> Path:
    """Keep the scores of `folder`/results.json beside the bundled weights they belong to, in place of the same level's.

    Sets that are not complete are left out: their means are not comparable with anybody's.

    Raises:
        ValueError: the results are not those of the command that the table cites.
    """
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    info = registry.get(results["model"])
    usual, options = Settings(), results["options"]
    expected = {"tile": usual.tile, "self_ensemble": usual.self_ensemble, "dtype": usual.dtype, "border": "edge"}
    expected |= {"channel": "y", "crop": info.scale} if info.scale > 1 else {"crop": 0}
    different = [key for key, value in expected.items() if options[key] != value]
    if json.loads((folder / "cost.json").read_text(encoding="utf-8"))["tiled_images"]:
        different.append("tiled_images")
    if results["weights"] != "bundled" or different:
        what = ", ".join(different) or f"weights {results['weights']!r}"
        raise ValueError(f"{folder} was not made by `atd evaluate NAME --weights bundled` and its defaults: see {what}")
    whole = {name: entry for name, entry in results["sets"].items() if PUBLISHED_COUNTS.get(name) == entry["count"]}
    run = {"sigma": results["sigma"], "quality": results["quality"], "sets": whole}

    def level(run: dict[str, Any]) -> tuple[float, int]:
        return run["sigma"] or 0, run["quality"] or 0

    runs = [run, *(other for other in measured_runs(info) if level(other) != level(run))]
    path = _measured_path(info)
    path.write_text(json.dumps({"runs": sorted(runs, key=level)}, indent=1) + "\n", encoding="utf-8")
    return path


def between_markers(text: str) -> tuple[int, int]:
    """Where the table begins and ends in a README; ValueError when it has no markers."""
    begin, end = text.find(BEGIN), text.find(END)
    if not 0 <= begin < end:
        raise ValueError(f"the README has no place for the table: put {BEGIN} and {END} around it")
    return begin + len(BEGIN), end


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.score_tables", description=__doc__)
    parser.add_argument("readme", type=Path, nargs="?", help="README whose table is rewritten")
    parser.add_argument("--record", type=Path, metavar="DIR", help="output folder of atd evaluate")
    args = parser.parse_args()
    if args.record:
        print(record(args.record))
    if args.readme:
        text = args.readme.read_text(encoding="utf-8")
        begin, end = between_markers(text)
        args.readme.write_text(f"{text[:begin]}\n{markdown()}\n{text[end:]}", encoding="utf-8")


if __name__ == "__main__":
    main()
