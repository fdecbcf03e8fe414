"""The tables of networks in docs/networks.md and README.md: published scores, and those of the bundled weights.

``python -m tools.score_tables`` rewrites both between their markers.
``python -m tools.score_tables --record DIR`` first keeps the scores that
``atd evaluate NAME --weights bundled --data DATA --output DIR`` has left, as atd/bundled/NAME.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from atd import registry
from atd.errors import InputError
from atd.evaluation.candidates import RunOptions
from atd.evaluation.datasets import PUBLISHED_COUNTS, default_sets
from atd.evaluation.formatting import format_psnr, format_score, markdown_table, write_json, write_text
from atd.registry import ModelInfo
from atd.tasks import Denoising, JpegArtefacts, RealWorld, SuperResolution, Task

ROOT = Path(__file__).parents[1]
NETWORKS_PAGE = ROOT / "docs" / "networks.md"
README = ROOT / "README.md"
BEGIN, END = "<!-- networks -->", "<!-- /networks -->"
"""Around the tables of either file."""

_AUTHORS_NOTE = (
    "The authors' code and weights: [CVL-UESTC/Adaptive-Token-Dictionary]"
    "(https://github.com/CVL-UESTC/Adaptive-Token-Dictionary), formerly LabShuHangGU/Adaptive-Token-Dictionary."
)
_COMMUNITY_NOTE = (
    "Networks marked community were trained by others for photos from the wild. These are Philip Hofmann's, under "
    "CC-BY-4.0: who passes them on names him (`atd info NAME` has the line). What each was made for:"
)
_BUNDLED = '`weights="bundled"`'
_CVPR_NOTE = (
    "Two sets of scores are in print for the networks of CVPR 2024. Those above are the authors' of March 2024 (the "
    "table of their README). Papers since then mostly quote the ones of January 2024: ATD ×2 "
    "38.61/34.95/32.65/34.70/40.37 dB and ×4 33.10/29.24/28.01/28.17/32.62 dB, ATD-light ×2 "
    "38.28/34.11/32.39/33.27/39.51 dB and ×4 32.62/28.87/27.77/26.97/31.47 dB, in the order of the columns."
)


Scores = Mapping[str, tuple[float, float | None]]
"""{set: (PSNR in dB, SSIM or None)}."""


class MeasuredSet(TypedDict):
    """Scores of one set as results.json has them."""

    count: int
    psnr: float
    ssim: float


class MeasuredRun(TypedDict):
    """What of results.json is kept: one level, and the sets measured at it."""

    sigma: float | None
    quality: int | None
    sets: dict[str, MeasuredSet]


def full_tables() -> str:
    """Every network with every score, a table for each task, and the footnotes."""
    infos = [registry.get(name) for name in registry.list_models()]
    papers = list(dict.fromkeys(info.paper for info in infos))
    parts: list[str] = []
    for _, group in itertools.groupby(sorted(infos, key=_table_order), _table_order):
        rows = list(group)
        parts += [_title(rows[0]), _score_table(rows, papers)]
    parts += [_COMMUNITY_NOTE, "\n".join(f"- `{info.name}`: {info.good_for}" for info in infos if info.author)]
    parts.append("  \n".join(f"{_footnote(papers, paper)} {_linked(paper)}." for paper in papers))
    parts += [_CVPR_NOTE, _AUTHORS_NOTE]
    if commands := [f"- `{command(info, run)}`" for info in infos for run in measured_runs(info)]:
        parts += [
            "Scores marked measured are this project's, of the small weights in the package, in float32 and untiled "
            "(`DATA`: the folder of the test sets):",
            "\n".join(commands),
        ]
    return "\n\n".join(parts)


def short_table() -> str:
    """A line for each family: its networks, and PSNR on the first set of its task."""
    rows = [["networks", "for", "parameters", "weights", "PSNR (dB)"]]
    infos = [registry.get(name) for name in registry.list_models()]
    for family, group in itertools.groupby(infos, _family):
        members = list(group)
        first, others = members[0], members[1:]
        if first.author is None:
            suffixes = [f"`…{info.name[len(family.rpartition('_')[0]) :]}`" for info in others]
        else:
            suffixes = [f"`{info.name}`" for info in others]
        head = [" ".join([f"`{first.name}`", *suffixes]), _purpose(members), f"{first.parameters / 1e6:.2g} M"]
        published = [(info.task, info.scores) for info in members if info.scores]
        measured = [(_measured_task(info, run), _scores(run)) for info in members for run in measured_runs(info)]
        if any(_is_official(info) for info in members):
            rows.append([*head, _whose(first), _first_set(published, "published")])
        if measured:
            rows.append([*head, "bundled", _first_set(measured, "measured")])
    return markdown_table(rows)


def _family(info: ModelInfo) -> str:
    """What the networks of a line of the short table share: the name less its level, or the author."""
    return info.author or re.sub(r"\d+$", "", info.name)


def _whose(info: ModelInfo) -> str:
    return "official" if info.author is None else "community"


def _table_order(info: ModelInfo) -> tuple[int, bool]:
    """Networks of one task and kind of images share a table."""
    return (SuperResolution, RealWorld, Denoising, JpegArtefacts).index(type(info.task)), info.in_channels == 1


def _title(info: ModelInfo) -> str:
    task = {
        SuperResolution: "Super-resolution",
        RealWorld: "Super-resolution of real-world photos",
        Denoising: "Denoising",
        JpegArtefacts: "Removing JPEG artefacts",
    }[type(info.task)]
    if isinstance(info.task, SuperResolution):
        return f"**{task}**, PSNR (dB) / SSIM on Y, means over the images:"
    if isinstance(info.task, RealWorld):
        return f"**{task}**:"
    images = "gray" if info.in_channels == 1 else "RGB"
    published = " (the papers give no SSIM)" if isinstance(info.task, Denoising) else ""
    return f"**{task}, {images} images**, PSNR (dB) / SSIM{published}, means over the images:"


def _score_table(infos: Sequence[ModelInfo], papers: Sequence[str]) -> str:
    """A row for the official weights of a network, and one for each time the bundled ones were measured."""
    sets = default_sets(infos[0].task, gray=infos[0].in_channels == 1)
    rows = [["model", "for", "parameters", "weights", "scores", *sets]]
    for info in infos:
        parameters = f"{info.parameters / 1e6:.3f} M"
        if _is_official(info):
            source = f"published {_footnote(papers, info.paper)}" if info.scores else "none published"
            cells = _cells(info.scores, sets)
            rows.append([f"`{info.name}`", _strength(info.task), parameters, _whose(info), source, *cells])
        for run in measured_runs(info):
            strength = _strength(_measured_task(info, run))
            rows.append([f"`{info.name}`", strength, parameters, _BUNDLED, "measured", *_cells(_scores(run), sets)])
    return markdown_table(rows)


def _is_official(info: ModelInfo) -> bool:
    return bool(info.sources.in_order)


def _strength(task: Task) -> str:
    if isinstance(task, SuperResolution | RealWorld):
        return _level(task)
    return f"σ {_level(task)}" if isinstance(task, Denoising) else f"quality {_level(task)}"


def _level(task: Task) -> str:
    if isinstance(task, SuperResolution | RealWorld):
        return f"×{task.scale}"
    return "any" if task.level is None else f"{task.level:g}"


def _purpose(members: Sequence[ModelInfo]) -> str:
    task, levels = members[0].task, ", ".join(dict.fromkeys(_level(info.task) for info in members))
    if isinstance(task, SuperResolution):
        return f"super-resolution {levels}"
    if isinstance(task, RealWorld):
        return f"real-world photos {levels}"
    fault = "noise, σ" if isinstance(task, Denoising) else "JPEG, quality"
    return f"{fault} {levels}; {'gray' if members[0].in_channels == 1 else 'RGB'}"


def _measured_task(info: ModelInfo, run: MeasuredRun) -> Task:
    """What the bundled weights were measured on: the level of the run where they are for any."""
    if isinstance(info.task, Denoising):
        return Denoising(run["sigma"])
    return JpegArtefacts(run["quality"]) if isinstance(info.task, JpegArtefacts) else info.task


def _scores(run: MeasuredRun) -> Scores:
    return {name: (entry["psnr"], entry["ssim"]) for name, entry in run["sets"].items()}


def _first_set(scored: Iterable[tuple[Task, Scores]], source: str) -> str:
    """PSNR on the first set that the rows have scores for, at each scale or level."""
    by_set: dict[str, list[str]] = {}
    for task, scores in scored:
        for name, (psnr, _) in list(scores.items())[:1]:
            by_set.setdefault(name, []).append(f"{format_psnr(psnr)} ({_level(task)})")
    return "; ".join(f"{name} {', '.join(cells)}, {source}" for name, cells in by_set.items()) or "none published"


def _cells(scores: Scores, sets: Iterable[str]) -> list[str]:
    return [format_score(*scores[name]) if name in scores else "–" for name in sets]


def _footnote(papers: Sequence[str], paper: str) -> str:
    return f"[{papers.index(paper) + 1}]"


def _linked(paper: str) -> str:
    """A citation whose arXiv number is a link."""
    return re.sub(r"arXiv (\d{4}\.\d{5})", r"[arXiv \1](https://arxiv.org/abs/\1)", paper)


def measured_runs(info: ModelInfo) -> list[MeasuredRun]:
    """The scores of the bundled weights, as `record` has kept them: runs of {sigma, quality, sets}."""
    path = _measured_path(info)
    return json.loads(path.read_text(encoding="utf-8"))["runs"] if path.is_file() else []


def _measured_path(info: ModelInfo) -> Path:
    return info.bundled_path.with_suffix(".json")


def command(info: ModelInfo, run: MeasuredRun) -> str:
    """The command that measured `run`."""
    words = ["atd evaluate", info.name, "--weights bundled --data DATA --sets", ",".join(run["sets"])]
    if info.task.level is None:  # the name does not state it
        words += [f"--{key} {level}" for key, level in (("sigma", run["sigma"]), ("quality", run["quality"])) if level]
    return " ".join(words)


def record(folder: Path) -> Path:
    """Keep the scores of `folder`/results.json beside the bundled weights they belong to, in place of the same level's.

    Sets that are not complete are left out: their means are not comparable with anybody's.

    Raises:
        InputError: the results are not those of the command that the tables cite.
    """
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    info = registry.get(results["model"])
    usual, options = RunOptions(), results["options"]
    expected = {"tile": usual.tile, "self_ensemble": usual.self_ensemble, "dtype": usual.dtype, "border": "edge"}
    expected |= {"channel": "y", "crop": info.scale} if isinstance(info.task, SuperResolution) else {"crop": 0}
    different = [key for key, value in expected.items() if options[key] != value]
    if json.loads((folder / "cost.json").read_text(encoding="utf-8"))["tiled_images"]:
        different.append("tiled_images")
    if results["weights"] != "bundled":
        different.append(f"weights {results['weights']!r}")
    if different:
        raise InputError(
            f"{folder} was not made by `atd evaluate NAME --weights bundled` and its defaults: "
            f"see {', '.join(different)}"
        )
    whole = {name: entry for name, entry in results["sets"].items() if PUBLISHED_COUNTS.get(name) == entry["count"]}
    run = MeasuredRun(sigma=results["sigma"], quality=results["quality"], sets=whole)

    def level(run: MeasuredRun) -> tuple[float, int]:
        return run["sigma"] or 0, run["quality"] or 0

    runs = [run, *(other for other in measured_runs(info) if level(other) != level(run))]
    path = _measured_path(info)
    write_json(path, {"runs": sorted(runs, key=level)})
    return path


def between_markers(path: Path) -> tuple[str, str, str]:
    """The text of a page before, between and after its markers.

    Raises:
        InputError: the page has no markers.
    """
    text = path.read_text(encoding="utf-8")
    begin, end = text.find(BEGIN), text.find(END)
    if not 0 <= begin < end:
        raise InputError(f"{path} has no place for the table: put {BEGIN} and {END} around it")
    begin += len(BEGIN)
    return text[:begin], text[begin:end], text[end:]


def rewrite(path: Path, table: str) -> None:
    """Put `table` between the markers of a page."""
    before, _, after = between_markers(path)
    write_text(path, f"{before}\n{table}\n{after}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.score_tables", description=__doc__)
    parser.add_argument("--record", type=Path, metavar="DIR", help="output folder of atd evaluate, kept first")
    args = parser.parse_args()
    if args.record:
        print(record(args.record))
    rewrite(NETWORKS_PAGE, full_tables())
    rewrite(README, short_table())


if __name__ == "__main__":
    main()
