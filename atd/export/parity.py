"""Whether an exported file gives what the network gives: the comparison, its limits and its report."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from atd import ops
from atd.export.probes import Probe
from atd.models import RestorationModel
from atd.runtime.metadata import Metadata

LARGEST_DIFFERENCE = 1e-4
"""Of the range [0, 1], in float32, where every category is equal. A token whose two best dictionary entries are as good
as equal may get the one here and the other there: such flips are counted, and the difference they make is real."""
LOWEST_PSNR = {"float32": 60.0, "float16": 45.0}
"""In dB, between the two results, flips included."""

Run = Callable[[Tensor], tuple[Tensor, Sequence[Tensor] | None]]
"""An exported file: the restored images, and the categories of every layer where they can be had."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One batch of images through both."""

    kind: str
    """``"noise"`` or ``"photo"``."""
    batch: int
    height: int
    width: int
    largest_difference: float
    """Of two values, where the range is 1."""
    psnr: float | None
    """In dB, of one result against the other; None where they are equal."""
    categories: int | None
    """How many there are, over all layers; None where the file does not give them."""
    flipped: int | None
    """How many of them differ."""

    def failure(self, dtype: str) -> str | None:
        """Which limit it misses, as a sentence; None where it keeps all."""
        at = f"{self.batch} x {self.height}x{self.width} ({self.kind})"
        if not math.isfinite(self.largest_difference):
            return f"{at}: values that are not finite"
        if self.psnr is not None and self.psnr < LOWEST_PSNR[dtype]:
            return f"{at}: {self.psnr:.1f} dB, expected {LOWEST_PSNR[dtype]:g}"
        if dtype == "float32" and not self.flipped and self.largest_difference > LARGEST_DIFFERENCE:
            return f"{at}: a difference of {self.largest_difference:.1e}, expected {LARGEST_DIFFERENCE:.0e}"
        return None


@dataclass(frozen=True, kw_only=True)
class ParityReport:
    """An exported file beside the network that it was made of."""

    file: str
    sha256: str
    format: str
    runtime: str
    """Which program ran the file, with its version."""
    torch: str
    metadata: Metadata
    comparisons: list[Comparison]
    failures: list[str] = field(default_factory=list[str])

    @property
    def passed(self) -> bool:
        """Whether every limit is kept."""
        return not self.failures

    def table(self) -> str:
        """The comparisons as lines of text."""
        lines = [f"{'images':>14}  {'size':>9}  {'difference':>10}  {'PSNR':>8}  {'equal categories':>24}"]
        for row in self.comparisons:
            psnr = "equal" if row.psnr is None else f"{row.psnr:.1f} dB"
            share = "" if row.categories is None or row.flipped is None else _share(row.categories, row.flipped)
            lines.append(
                f"{f'{row.batch} ({row.kind})':>14}  {f'{row.height}x{row.width}':>9}  {row.largest_difference:>10.1e}"
                f"  {psnr:>8}  {share:>24}"
            )
        return "\n".join(lines)

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        content = {**asdict(self), "passed": self.passed, "limits": self._limits()}
        path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")

    def _limits(self) -> dict[str, float]:
        limits = {"lowest_psnr": LOWEST_PSNR[self.metadata.dtype]}
        if self.metadata.dtype == "float32":
            limits["largest_difference_without_flips"] = LARGEST_DIFFERENCE
        return limits


def _share(categories: int, flipped: int) -> str:
    return f"all of {categories}" if flipped == 0 else f"{1 - flipped / categories:.4%} of {categories}"


def compare(network: RestorationModel, run: Run, probes: Iterable[Probe]) -> list[Comparison]:
    """Send every probe through `network`, in float32 on the CPU by the plain reference, and through `run`."""
    return [_compare(network, run, probe) for probe in probes]


def _compare(network: RestorationModel, run: Run, probe: Probe) -> Comparison:
    expected, own = with_categories(network, probe.image)
    restored, theirs = run(probe.image)
    difference = restored.double() - expected.double()
    mse = float(difference.square().mean())
    categories = flipped = None
    if theirs is not None:
        pairs = list(zip(own, theirs, strict=True))
        categories = sum(ours.numel() for ours, _ in pairs)
        flipped = sum(int((ours != other).sum()) for ours, other in pairs)
    batch, _, height, width = probe.image.shape
    finite = math.isfinite(mse)
    return Comparison(
        kind=probe.kind,
        batch=batch,
        height=height,
        width=width,
        largest_difference=float(difference.abs().max()) if finite else math.inf,
        psnr=(-10 * math.log10(mse) if mse > 0 else None) if finite else 0.0,
        categories=categories,
        flipped=flipped,
    )


def with_categories(network: RestorationModel, image: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The result clamped to [0, 1], and the categories of every layer, by the plain reference."""
    with torch.no_grad(), ops.use("reference"), _RecordedArgmax() as recorded:
        restored = network(image).clamp(0, 1)
    return restored, recorded.results


class _RecordedArgmax(TorchFunctionMode):
    """Keeps every result of `torch.argmax`: the reference of a network takes it for categories and for nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.results: list[Tensor] = []

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Iterable[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        result = func(*args, **(kwargs or {}))
        if func is torch.argmax and isinstance(result, Tensor):
            self.results.append(result)
        return result
