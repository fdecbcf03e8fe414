"""Advice on one picture, as values, as text and for other programs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from atd.advice.measurements import Measurements

Verdict = Literal["repair", "mixed", "clean", "reduce", "unclear"]
"""repair  one fault, that a network undoes at the picture's own size
mixed   several faults, or one that no network here undoes alone
clean   no fault was found
reduce  it holds less than its size promises
unclear nothing could be measured that speaks for one of these"""


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """One thing to do.

    purpose  "repair" at the same size, "enlarge", or "reduce" before anything else
    network  a name of `atd.list_models()`; None: it takes no network
    weights  which of its weights: "bundled" or "official"; None without a network
    reason   why, in a sentence
    command  what to type, quoted for a POSIX shell
    """

    purpose: Literal["repair", "enlarge", "reduce"]
    network: str | None
    weights: Literal["bundled", "official"] | None
    reason: str
    command: str


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What was measured in a picture and what follows; `str(advice)` is the text that `atd advise` prints.

    source           the file; None for pictures in memory
    measurements     what was measured
    findings         the same in sentences, and what could not be told
    verdict          "repair", "mixed", "clean", "reduce" or "unclear"
    summary          what to do, in a sentence
    recommendations  networks and commands, the bundled networks of each purpose first
    """

    source: str | None
    measurements: Measurements
    findings: tuple[str, ...]
    verdict: Verdict
    summary: str
    recommendations: tuple[Recommendation, ...]

    def to_dict(self) -> dict[str, object]:
        """The same as numbers, strings, lists and dictionaries, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [*self.findings, f"=> {self.summary}"]
        for purpose, title in _TITLES.items():
            items = [item for item in self.recommendations if item.purpose == purpose]
            lines += ["", title] if items else []
            for item in items:
                name = f"{item.network} ({item.weights}): " if item.network else ""
                lines += [f"  {name}{item.reason}", f"    {item.command}"]
        return "\n".join(lines)


_TITLES = {"reduce": "First reduce it:", "repair": "To repair it at its own size:", "enlarge": "To enlarge it:"}
