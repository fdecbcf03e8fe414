"""compute-sanitizer and Nsight Compute over `benchmarks.gpu.one_pass`, where they are installed."""

from __future__ import annotations

import re
import shutil
import sys

from benchmarks.gpu import results
from benchmarks.gpu.one_pass import ONE_OF_EACH
from benchmarks.gpu.steps import Run, command

_ERRORS = re.compile(r"ERROR SUMMARY: (\d+) error")


def check_memory(run: Run) -> None:
    """compute-sanitizer over a forward and backward pass of each family: accesses beyond what was allocated."""
    for name in ONE_OF_EACH:
        arguments = [sys.executable, "-m", "benchmarks.gpu.one_pass", name, "--tiny", "--backward"]
        if run.rehearse:
            _rehearse(run, "sanitizer", name, arguments)
            continue
        if shutil.which("compute-sanitizer") is None:
            run.add("sanitizer", "", "", "not installed", status=results.NOT_HERE, name=name)
            continue
        log = run.files / f"sanitizer_{name}.log"
        status = command(
            ["compute-sanitizer", "--tool", "memcheck", *arguments], log, min(60, run.left), rehearse=False
        )
        found = _ERRORS.search(log.read_text(errors="replace"))
        if found:
            run.add("sanitizer", "errors", found[1], name=name)
        else:
            why = "stopped after its time" if status is None else f"exit status {status}, no summary"
            run.add("sanitizer", "", "", why, status=results.FAILED, name=name)


def count_hardware(run: Run) -> None:
    """Nsight Compute over one layer of ATD at 128×128: what limits each of our kernels."""
    arguments = [sys.executable, "-m", "benchmarks.gpu.one_pass", "ATD"]
    if run.rehearse:
        _rehearse(run, "counters", "ATD", [*arguments, "--tiny"])
        return
    if shutil.which("ncu") is None:
        run.add("counters", "", "", "not installed", status=results.NOT_HERE, name="ATD")
        return
    sections = ("SpeedOfLight", "MemoryWorkloadAnalysis", "Occupancy", "LaunchStats", "WarpStateStats")
    options = ["--target-processes", "all", "--clock-control", "none"]
    # Kernels of Triton bear the names of our functions, which begin with an underscore.
    options += ["--kernel-name", "regex:^_", "--launch-count", "12"]
    for section in sections:
        options += ["--section", section]
    log = run.files / "counters.txt"
    status = command(["ncu", *options, *arguments], log, min(120, run.left), rehearse=False)
    run.add("counters", "exit_status", "stopped" if status is None else str(status), name="ATD")


def _rehearse(run: Run, step: str, name: str, arguments: list[str]) -> None:
    """The program itself, without the tool: that is what must not stop."""
    log = run.files / f"{step}_{name}.log"
    status = command(arguments, log, run.left, rehearse=True)
    if status == 0:
        run.add(step, "exit_status", "0", name=name)
    else:
        run.add(step, "", "", f"exit status {status}", status=results.FAILED, name=name)
