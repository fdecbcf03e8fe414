"""What an evaluation takes: the network's size and multiply-adds, time and memory, and on which machine."""

from __future__ import annotations

import platform
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from atd.evaluation import cost
from atd.evaluation.candidates import Candidate
from atd.models import RestorationModel
from atd.restoration.network import device_of


@dataclass(frozen=True)
class NetworkCost:
    """What a network costs whatever it is run on.

    parameters     number of trainable values
    multiply_adds  of matrix products and convolutions, for one input of `input_size`, (height, width)
    """

    parameters: int
    multiply_adds: int
    input_size: tuple[int, int]

    @classmethod
    def of(cls, model: RestorationModel) -> NetworkCost:
        """Counted for the input size at which the papers state it (see `atd.evaluation.cost`)."""
        height, width = cost.stated_size(model.scale)
        return cls(cost.parameters(model), cost.multiply_adds(model, height, width), (height, width))


@dataclass(frozen=True)
class RunCost:
    """What a run took.

    images           that the candidate restored
    tiled_images     those of them that were cut into tiles
    network_seconds  inside the candidate, transfers to and from its device included
    total_seconds    of the whole loop: reading, degrading, scoring and writing too
    peak_memory      bytes, None where unknown
    memory_of        what they belong to: "device" (allocated on the card) or "process" (resident)
    machine          name of the card, or threads and processor
    """

    images: int
    tiled_images: int
    network_seconds: float
    total_seconds: float
    peak_memory: int | None
    memory_of: str
    machine: str

    @property
    def seconds_per_image(self) -> float:
        """Mean time inside the candidate."""
        return self.network_seconds / self.images if self.images else 0.0

    @property
    def network_share(self) -> float:
        """Part of the whole time that was spent inside the candidate."""
        return self.network_seconds / self.total_seconds if self.total_seconds else 0.0


class Meter:
    """Time inside the `with` blocks, one for each image; time since it was made; and peak memory."""

    def __init__(self, candidate: Candidate) -> None:
        self._candidate = candidate
        self._tiled_before = candidate.tiled
        self._device = device_of(candidate.model) if candidate.model is not None else torch.device("cpu")
        self._images, self._network_seconds = 0, 0.0
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        self._started = time.perf_counter()

    def __enter__(self) -> None:
        """An image enters the candidate."""
        self._entered = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        """It has left it; outputs lie on the CPU when a candidate returns, so the device has finished."""
        self._network_seconds += time.perf_counter() - self._entered
        self._images += 1

    def cost(self) -> RunCost:
        """What has been taken so far."""
        on_card = self._device.type == "cuda"
        return RunCost(
            images=self._images,
            tiled_images=self._candidate.tiled - self._tiled_before,
            network_seconds=self._network_seconds,
            total_seconds=time.perf_counter() - self._started,
            peak_memory=torch.cuda.max_memory_allocated(self._device) if on_card else _peak_resident(),
            memory_of="device" if on_card else "process",
            machine=torch.cuda.get_device_name(self._device)
            if on_card
            else f"{torch.get_num_threads()} threads of {_processor()}",
        )


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
