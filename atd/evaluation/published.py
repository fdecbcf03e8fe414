"""All published scores at once: the test configurations of TPAMI 2026, ours beside the numbers of the paper.

A configuration is a network on the sets that its paper reports. What cannot be measured is in the table too, with the
reason: weights that are not to be had, sets that are not there.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from atd import registry
from atd.errors import AtdError, DataNotFoundError, InputError
from atd.evaluation import html
from atd.evaluation.candidates import Candidate, RunOptions, open_candidate
from atd.evaluation.datasets import BenchmarkSet, find_sets
from atd.evaluation.formatting import finite_or_none, format_score, markdown_table, write_json, write_text
from atd.evaluation.protocol import Protocol
from atd.evaluation.results import Score
from atd.evaluation.scoring import score_sets
from atd.registry import ModelInfo

TPAMI = "arXiv 2603.02581"
"""What the citation of the sixteen networks holds that are measured unless others are named."""

HEADER = ("option file", "network", "set", "images", "published", "ours", "difference (dB)")


@dataclass(frozen=True)
class PublishedScore:
    """One number of a paper and what was measured for it.

    network    name in the registry
    option     the authors' option file and checkpoint, without its ending
    benchmark  name of the set
    published  PSNR in dB, and SSIM where the paper has it
    ours       None where it could not be measured
    images     how many were measured
    expected   how many the published set has; None where that is not known
    reason     why there is no number, or why it is not to be compared; empty otherwise
    """

    network: str
    option: str
    benchmark: str
    published: tuple[float, float | None]
    ours: Score | None = None
    images: int = 0
    expected: int | None = None
    reason: str = ""

    @property
    def difference(self) -> float | None:
        """Ours less theirs, in dB; None without a number, and for a part of the set."""
        return None if self.ours is None or self.reason else self.ours.psnr - self.published[0]

    def cells(self) -> list[str]:
        """A row of the table below `HEADER`."""
        ours = "–"
        if self.ours is not None:
            ours = format_score(self.ours.psnr, None if self.published[1] is None else self.ours.ssim)
        difference = "" if self.difference is None else f"{self.difference:+.2f}"
        images = str(self.images or "–")
        return [self.option, self.network, self.benchmark, images, format_score(*self.published), ours, difference]

    def as_dict(self) -> dict[str, object]:
        """The row in JSON."""
        difference = self.difference
        return {
            "option": self.option,
            "network": self.network,
            "set": self.benchmark,
            "images": self.images,
            "published": {"psnr": self.published[0], "ssim": self.published[1]},
            "ours": None if self.ours is None else {"psnr": finite_or_none(self.ours.psnr), "ssim": self.ours.ssim},
            "difference": difference if difference is not None and math.isfinite(difference) else None,
            "reason": self.reason or None,
        }


@dataclass
class PublishedTable:
    """All rows, and how they were measured; ``str(table)`` is Markdown."""

    weights: str
    rows: list[PublishedScore] = field(default_factory=list[PublishedScore])

    @property
    def measured(self) -> int:
        """How many of the rows have a number of ours."""
        return sum(row.ours is not None for row in self.rows)

    def title(self) -> str:
        """What the table is of."""
        return f"{len({row.network for row in self.rows})} test configurations, weights: {self.weights}"

    def reasons(self) -> list[str]:
        """A sentence for each reason why a number is missing or not to be compared, with the networks and sets."""
        by_reason: dict[str, list[PublishedScore]] = {}
        for row in self.rows:
            if row.reason:
                by_reason.setdefault(row.reason, []).append(row)
        lines: list[str] = []
        for reason, rows in by_reason.items():
            networks = ", ".join(dict.fromkeys(row.network for row in rows))
            sets = ", ".join(dict.fromkeys(row.benchmark for row in rows))
            lines.append(f"{networks} on {sets}: {reason}")
        return lines

    def __str__(self) -> str:
        """The table, and below it why numbers are missing."""
        lines = [markdown_table([HEADER, *(row.cells() for row in self.rows)]), "", f"{self.title()}. {_RULES}"]
        if reasons := self.reasons():
            lines += ["", *(f"- {reason}" for reason in reasons)]
        return "\n".join(lines) + "\n"

    def write(self, folder: Path) -> None:
        """Write published.json, published.md and published.html into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        rows = [row.as_dict() for row in self.rows]
        write_json(folder / "published.json", {"weights": self.weights, "rows": rows})
        write_text(folder / "published.md", str(self))
        table = html.table([HEADER, *(row.cells() for row in self.rows)])
        body = [html.paragraph(_RULES), table, html.bullet_list(self.reasons())]
        write_text(folder / "published.html", html.document(self.title(), body))


_RULES = (
    "PSNR in dB / SSIM, means over the images, under the protocol of the papers; Urban100 becomes gray as in the "
    "authors' code."
)


def choose_networks(pattern: str | None = None) -> list[ModelInfo]:
    """The rows of the registry that have published scores: those of TPAMI 2026, or those that match `pattern`.

    Raises:
        InputError: none matches.
    """
    scored = [info for name in registry.list_models() if (info := registry.get(name)).scores]
    if pattern is None:
        return [info for info in scored if TPAMI in info.paper]
    matching = [info for info in scored if fnmatch.fnmatchcase(info.name, pattern)]
    if not matching:
        raise InputError(f"no network with published scores matches {pattern!r}; --published alone takes all of TPAMI")
    return matching


def measure_published(
    networks: Sequence[ModelInfo], data: Path, options: RunOptions, sets: Sequence[str] | None = None
) -> Iterator[PublishedScore]:
    """The rows of each network after the other, each as soon as it is known.

    Args:
        networks: see `choose_networks`.
        data: folder of the test sets, as `atd.evaluate` takes it.
        options: how networks are run. Its `weights` may also be a folder that holds files under the authors' names,
            such as 001_ATD_SRx2_finetune.pth, or NAME.safetensors.
        sets: only these; None: all that the paper reports.

    Raises:
        DataNotFoundError: `data` is no folder.
    """
    if not data.is_dir():
        raise DataNotFoundError(f"{data} is not a folder: expected the one that holds the test sets (--data)")
    wanted = None if sets is None else {name.lower() for name in sets}
    for info in networks:
        candidate: Candidate | None = None
        reason = ""
        for name, published in info.scores.items():
            if wanted is not None and name.lower() not in wanted:
                continue
            row = PublishedScore(info.name, _option(info), name, published)
            try:
                (benchmark,), _ = find_sets(data, [name], info.task, gray=info.in_channels == 1)
            except AtdError as error:
                yield replace(row, reason=str(error))
                continue
            if candidate is None and not reason:
                try:
                    candidate = open_candidate(info.name, replace(options, weights=_weights(info, options.weights)))
                except AtdError as error:
                    reason = " ".join(str(error).split())
            if candidate is None:
                yield replace(row, reason=reason)
                continue
            yield _measure(row, info, candidate, benchmark)


def _measure(row: PublishedScore, info: ModelInfo, candidate: Candidate, benchmark: BenchmarkSet) -> PublishedScore:
    gray = info.in_channels == 1
    rule = "authors" if benchmark.name == "Urban100" else "standard"
    protocol = Protocol.published(info.task, gray=gray, gray_from_colour=rule)
    try:
        score = score_sets(candidate, protocol, [benchmark])[benchmark.name].mean
    except AtdError as error:
        return replace(row, reason=str(error))
    count, expected = len(benchmark.pairs), benchmark.published_count
    part = f"{count} of {expected} images, not comparable" if expected and expected != count else ""
    return replace(row, ours=score, images=count, expected=expected, reason=part)


def _option(info: ModelInfo) -> str:
    return Path(info.sources.drive.name).stem if info.sources.drive else "–"


def _weights(info: ModelInfo, weights: str | Path | None) -> str | Path | None:
    """`weights` for one network: of a folder of files the one that is this network's.

    Raises:
        InputError: the folder does not hold it.
    """
    if weights in (None, "official", "bundled") or not Path(weights).is_dir():
        return weights
    folder = Path(weights)
    names = [f"{info.name}.safetensors", info.name]
    if info.sources.drive:
        names.insert(0, info.sources.drive.name)
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise InputError(f"{folder} holds none of {', '.join(names)}")
