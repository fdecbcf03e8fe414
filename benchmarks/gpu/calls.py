"""The calls, their steps in order of importance, and how long each may take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.gpu.steps import Work
from benchmarks.gpu.suite import probe_tools, run_suite
from benchmarks.gpu.tools import check_memory, count_hardware


@dataclass(frozen=True)
class Call:
    """Steps that share one deadline."""

    summary: str
    description: str
    steps: Mapping[str, Work]
    """Seconds for the cases of `STEPS` in the module of the call, or a function that runs commands."""


CALLS = {
    "tests": Call(
        "are the kernels right on this card?",
        "Whether profiler and sanitizer work here; the golden networks in every dtype; the suite's tests for a card.",
        {"tools": probe_tools, "goldens": 90, "pytest": run_suite},
    ),
    "networks": Call(
        "time and memory beside the authors' formulas",
        "Forward passes by every route, with a CUDA graph too, at the sizes of the goals; training steps; what takes "
        "the time in both; further sizes; the ops one by one.",
        {"goals": 200, "training": 110, "profiles": 80, "further": 150, "ops": 90},
    ),
    "kernels": Call(
        "launch options, memory errors, hardware counters",
        "Every kernel with other warps, stages and inner blocks, checked against float64 before it is timed; "
        "compute-sanitizer over a forward and backward pass of each family; Nsight Compute over the ops.",
        {"options": 280, "sanitizer": check_memory, "counters": count_hardware},
    ),
    "memory": Call(
        "memory per pixel, largest untiled image",
        "Peak memory of every published network in every dtype, beside what `atd.restoration.memory` plans with; the "
        "largest image that goes through untiled, by bisection.",
        {"pixels": 220, "largest": 230},
    ),
}
