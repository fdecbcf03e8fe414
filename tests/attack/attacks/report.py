"""What an attack found: counts by area, and each finding with what brings it back."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from enum import StrEnum


class Verdict(StrEnum):
    """What became of a case; the last three are findings."""

    REFUSED = "refused"
    RESTORED = "restored"
    WRONG = "wrong"
    HUNG = "hung"
    TRACEBACK = "traceback"

    @property
    def is_finding(self) -> bool:
        return self not in (Verdict.REFUSED, Verdict.RESTORED)


@dataclass(frozen=True)
class Finding:
    """A case that went wrong; the area with the same seed gives the same case under the same number."""

    area: str
    number: int
    case: str
    verdict: Verdict
    detail: str


@dataclass
class Report:
    """Counts and findings of a run."""

    edition: str
    seed: int
    counts: dict[str, Counter[Verdict]] = field(default_factory=lambda: defaultdict(Counter))
    findings: list[Finding] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    slowest: dict[str, tuple[float, str]] = field(default_factory=dict)
    """The longest case of each area: its seconds, and which it was."""

    def add(self, area: str, number: int, case: str, verdict: Verdict, detail: str, seconds: float = 0) -> None:
        self.counts[area][verdict] += 1
        self.slowest[area] = max(self.slowest.get(area, (0.0, "")), (seconds, f"{number}, {case}"))
        if verdict.is_finding:
            self.findings.append(Finding(area, number, case, verdict, " ".join(detail.split())))

    def as_text(self, most: int = 40) -> str:
        """A table, and `most` findings: the first of each kind in each area before the second of any."""
        lines = [f"atd {self.edition}, seed {self.seed}", ""]
        columns = ["area", "tried", *Verdict, "seconds"]
        rows = [
            [area, sum(counts.values()), *(counts[verdict] for verdict in Verdict), round(self.seconds.get(area, 0))]
            for area, counts in self.counts.items()
        ]
        total = ["all", *(sum(int(row[column]) for row in rows) for column in range(1, len(columns)))]
        for row in [columns, *rows, total]:
            lines.append(f"{row[0]:<12}" + "".join(f"{value:>11}" for value in row[1:]))
        for finding in self._by_rarity()[:most]:
            lines.append(f"{finding.verdict}: {finding.area} {finding.number}, {finding.case}: {finding.detail[:300]}")
        if len(self.findings) > most:
            lines.append(f"and {len(self.findings) - most} more")
        return "\n".join(lines)

    def as_json(self) -> str:
        """Everything, for a program to read."""
        return json.dumps(
            {
                "edition": self.edition,
                "seed": self.seed,
                "seconds": self.seconds,
                "counts": {
                    area: {verdict: counts[verdict] for verdict in Verdict} for area, counts in self.counts.items()
                },
                "findings": [asdict(finding) for finding in self.findings],
            },
            indent=1,
        )

    def _by_rarity(self) -> list[Finding]:
        """The first finding of each kind, where only numbers differ, then the second of each, and so on."""
        met: Counter[tuple[str, Verdict, str]] = Counter()
        ranked = []
        for index, finding in enumerate(self.findings):
            kind = finding.area, finding.verdict, re.sub(r"\d+", "0", finding.detail)[:40]
            met[kind] += 1
            ranked.append((met[kind], index))
        return [self.findings[index] for _, index in sorted(ranked)]
