"""How things are measured: what a device can do at best, interleaved timings, peak memory."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

Run = Callable[[], object]

# A timed call of this length drowns the clock's resolution and the cost of an event.
_SHORTEST_SAMPLE_S = 2e-3


@dataclass(frozen=True)
class Ceiling:
    """What the device did at best, measured: bytes and operations per second."""

    bandwidth: float
    flops: dict[torch.dtype, float]

    def floor(self, moved: float, operations: float, dtype: torch.dtype) -> float:
        """Seconds below which no program that moves so many bytes and does so many operations can stay."""
        return max(moved / self.bandwidth, operations / self.flops[dtype])


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    model = ""
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as file:
            model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), "")
    return f"{model or platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def versions() -> str:
    parts = [f"python {platform.python_version()}", f"torch {torch.__version__}"]
    if torch.cuda.is_available():
        import triton

        parts.append(f"triton {triton.__version__}")
    return ", ".join(parts)


def measure_ceiling(device: torch.device) -> Ceiling:
    """Bandwidth of a large copy (bytes read and written) and rate of a square product of random matrices."""
    cuda = device.type == "cuda"
    source = torch.rand((1 << 30 if cuda else 1 << 27) // 4, device=device)
    target = torch.empty_like(source)
    seconds = min(time_samples({"copy": lambda: target.copy_(source)}, device, 10, 5.0)["copy"])
    side = 8192 if cuda else 1024
    rates = {}
    for dtype in (torch.float32, torch.bfloat16, torch.float16)[: 3 if cuda else 2]:  # no CPU row is in float16
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        rates[dtype] = 2 * side**3 / min(time_samples({"product": lambda a=a, b=b: a @ b}, device, 5, 3.0)["product"])
    return Ceiling(2 * source.numel() * 4 / seconds, rates)


def time_samples(
    runs: Mapping[str, Run], device: torch.device, repeats: int, budget_s: float
) -> dict[str, list[float]]:
    """Seconds per call of each of ``runs``, taken in turns so that a drifting clock hits all alike.

    Every run is called twice beforehand. Of each, at most ``repeats`` samples are taken, and at least three within
    ``budget_s`` seconds.
    """
    calls, counts = {}, {}
    for name, run in runs.items():
        run()
        once = sample(run, device, 1)
        calls[name] = max(1, int(_SHORTEST_SAMPLE_S / max(once, 1e-7)))
        counts[name] = max(3, min(repeats, int(budget_s / max(once * calls[name], 1e-7))))
    samples: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(max(counts.values())):
        for name, run in runs.items():
            if turn < counts[name]:
                samples[name].append(sample(run, device, calls[name]))
    return samples


def sample(run: Run, device: torch.device, calls: int) -> float:
    """Seconds per call of so many calls one after another."""
    if device.type != "cuda":
        start = time.perf_counter()
        for _ in range(calls):
            run()
        return (time.perf_counter() - start) / calls
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for _ in range(calls):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / calls


def percentiles(samples: list[float]) -> tuple[float, float, float]:
    """p20, p50 and p80."""
    cuts = statistics.quantiles(samples, n=10, method="inclusive")
    return cuts[1], cuts[4], cuts[7]


def peak_bytes_cuda(run: Run) -> int:
    """Bytes allocated at the worst moment of one call, beyond what was allocated before it."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def peak_bytes_cpu(network: str, side: int, backend: str) -> int:
    """Rise of the resident set during one forward, in a process of its own (:mod:`benchmarks.memory`)."""
    command = [sys.executable, "-m", "benchmarks.memory", "--one", network, str(side)]
    environment = {**os.environ, "ATD_BACKEND": backend}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-2])
