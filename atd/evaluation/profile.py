"""Time and memory that an evaluation takes, and on which machine."""

from __future__ import annotations

import platform
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from atd.evaluation.candidates import Candidate


@dataclass
class Usage:
    """What a run took.

    network_seconds  inside the candidate, transfers to and from its device included
    total_seconds    of the whole loop: reading, degrading, scoring and writing too
    peak_memory      bytes, None where unknown
    memory_of        what they belong to: "device" (allocated on the card) or "process" (resident)
    """

    images: int = 0
    network_seconds: float = 0.0
    total_seconds: float = 0.0
    peak_memory: int | None = None
    memory_of: str = "process"
    machine: str = ""

    @property
    def seconds_per_image(self) -> float:
        return self.network_seconds / self.images if self.images else 0.0

    @property
    def network_share(self) -> float:
        return self.network_seconds / self.total_seconds if self.total_seconds else 0.0


class Meter:
    """Time inside the `with` blocks, time since it was made, and peak memory."""

    def __init__(self, candidate: Candidate) -> None:
        model = candidate.model
        self.device = next(model.parameters()).device if model is not None else torch.device("cpu")
        self.found = Usage()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        self.started = time.perf_counter()

    def __enter__(self) -> None:
        self.entered = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        # Outputs lie on the CPU when a candidate returns, so the device has finished.
        self.found.network_seconds += time.perf_counter() - self.entered
        self.found.images += 1

    def usage(self) -> Usage:
        self.found.total_seconds = time.perf_counter() - self.started
        if self.device.type == "cuda":
            self.found.memory_of = "device"
            self.found.peak_memory = torch.cuda.max_memory_allocated(self.device)
            self.found.machine = torch.cuda.get_device_name(self.device)
        else:
            self.found.peak_memory = _peak_resident()
            self.found.machine = f"{torch.get_num_threads()} threads of {_processor()}"
        return self.found


def _peak_resident() -> int | None:
    """Largest resident size of this process so far, in bytes; None on systems that do not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kilobytes elsewhere


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
