"""The tests that are marked for a card, and a probe of the tools that later calls use."""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
from collections import Counter
from pathlib import Path

from benchmarks.gpu import results
from benchmarks.gpu.steps import Run, command

ROOT = Path(__file__).parents[2]
_OUTCOMES = "PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS"
# Workers of xdist print the outcome before the test, a single process after it.
_OUTCOME = re.compile(rf"(?P<before>{_OUTCOMES}) (?P<worker>tests/\S+)|(?P<test>tests/\S+) (?P<after>{_OUTCOMES})")
_SUMMARY = re.compile(r"^(?:FAILED|ERROR) (tests/\S+)(?: - (.*))?$")

_LAUNCH = "import torch; torch.ones(64, device='cuda').add_(1); torch.cuda.synchronize()"
TOOLS = {
    "ncu": ("ncu", "--target-processes", "all", "--section", "SpeedOfLight", sys.executable, "-c", _LAUNCH),
    "compute-sanitizer": ("compute-sanitizer", "--error-exitcode", "9", sys.executable, "-c", _LAUNCH),
}


def probe_tools(run: Run) -> None:
    """Whether Nsight Compute and compute-sanitizer work here, in a minute at most."""
    log = run.files / "tools.log"
    for name, arguments in TOOLS.items():
        if shutil.which(name) is None:
            run.add("tools", "", "", "not installed", status=results.NOT_HERE, name=name)
            continue
        status = command(arguments, log, min(30, run.left), rehearse=run.rehearse)
        run.add("tools", "exit_status", "stopped" if status is None else str(status), name=name)
    command(["nvidia-smi"], log, 10, rehearse=run.rehearse) if shutil.which("nvidia-smi") else None


def files_for_a_card() -> list[str]:
    """The test files with tests marked `gpu`; the others need packages that the machine with the card may lack."""
    paths = sorted((ROOT / "tests").rglob("test_*.py"))
    return [str(path.relative_to(ROOT)) for path in paths if "pytest.mark.gpu" in path.read_text()]


def run_suite(run: Run) -> None:
    """``pytest -m gpu`` until the call's time is up. A red test is a row."""
    log = run.files / "pytest.log"
    options = ["-m", "gpu", "-v", "-rfE", "--tb=short", "--durations=15", "-p", "no:cacheprovider"]
    # A rehearsal has two cores, and skips every test.
    options += ["-n", "1" if run.rehearse else "8"] if importlib.util.find_spec("xdist") else []
    options += ["--timeout", "240"] if importlib.util.find_spec("pytest_timeout") else []
    arguments = [sys.executable, "-m", "pytest", *options, *files_for_a_card()]
    status = command(arguments, log, run.left - 10, rehearse=run.rehearse)
    outcomes, messages = parse(log.read_text(errors="replace"))
    for test, outcome in outcomes.items():
        if outcome in ("FAILED", "ERROR"):
            run.add("pytest", "", "", messages.get(test, outcome), status=results.FAILED, name=test)
    for outcome, count in sorted(Counter(outcomes.values()).items()):
        run.add("pytest", outcome.lower(), str(count))
    if status is None:
        run.add("pytest", "", "", "the time was up before all tests had run", status=results.NOT_REACHED)
    elif not outcomes:
        run.add("pytest", "", "", f"no test ran, exit status {status}", status=results.FAILED)


def parse(log: str) -> tuple[dict[str, str], dict[str, str]]:
    """Outcomes by test, and the message of those that failed, from what ``pytest -v -rfE`` prints with xdist or not."""
    outcomes: dict[str, str] = {}
    messages: dict[str, str] = {}
    for line in log.splitlines():
        if found := _OUTCOME.search(line):
            outcomes[found["worker"] or found["test"]] = found["before"] or found["after"]
        if found := _SUMMARY.match(line):
            messages[found[1]] = (found[2] or "")[:400]
    return outcomes, messages
