"""Time and memory of a call, on a card; in a rehearsal the call runs once, and there is no memory to speak of."""

from __future__ import annotations

import torch

from atd import registry
from benchmarks import measure
from benchmarks.cases import NETWORKS
from benchmarks.gpu.case import Context, Figures
from benchmarks.gpu.sizes import Overrides

_REPEATS = 30


def overrides_of(context: Context, name: str) -> Overrides:
    """Constructor arguments in place of the published ones, for a network of `NETWORKS` or of the registry."""
    return context.sizes.overrides.get(registry.get(NETWORKS.get(name, name)).architecture, {})


def times(run: measure.Run, context: Context) -> Figures:
    """p20, p50 and p80 in milliseconds; of one call in a rehearsal."""
    if context.on_card:
        samples = measure.time_samples({"run": run}, context.device, _REPEATS, context.sizes.seconds)["run"]
    else:
        samples = [measure.sample(run, context.device, 1)] * 2
    for name, value in zip(("p20_ms", "p50_ms", "p80_ms"), measure.percentiles(samples), strict=True):
        yield name, 1e3 * value


def peak_bytes(run: measure.Run, device: torch.device) -> float:
    """Bytes beyond what was allocated before a call; 0 where no card counts them."""
    return float(measure.peak_bytes_cuda(run)) if device.type == "cuda" else 0.0
