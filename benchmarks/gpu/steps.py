"""Run the steps of a call in processes of their own, under a deadline, and pack what they leave."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.gpu import results
from benchmarks.gpu.results import Row

CALL_SECONDS = 460.0
"""A call ends by itself within eight minutes, stragglers and packing included."""
CASE_SECONDS = 150.0
"""What has given no figure for so long is stopped; the first call of a network compiles its kernels."""
CALL_AGAIN = 75
"""Exit status of a worker that can measure no more, where another one can."""


@dataclass
class Run:
    """A call that is under way."""

    call: str
    output: Path
    """Gets CALL.csv and CALL.tar.gz."""
    files: Path
    """Folder of what will be packed."""
    rehearse: bool
    seconds: float = CALL_SECONDS
    started: float = field(default_factory=time.monotonic)

    @property
    def results(self) -> Path:
        return self.output / f"{self.call}.csv"

    @property
    def left(self) -> float:
        return self.seconds - (time.monotonic() - self.started)

    def add(self, step: str, quantity: str, value: str, message: str = "", *, status: str = "", name: str = "") -> None:
        """Write down one row that no worker gives."""
        status = status or (results.REHEARSED if self.rehearse else results.MEASURED)
        results.append(self.results, [Row(self.call, step, name, "", "", quantity, value, status, message)])
        print(f"{step}: {name} {quantity} {value} {message}", flush=True)

    def pack(self) -> None:
        """Pack the files anew; what was packed before stays whole until then."""
        temporary = self.output / f"{self.call}.tmp"
        with tarfile.open(temporary, "w:gz") as archive:
            archive.add(self.files, arcname=self.call)
        temporary.replace(self.output / f"{self.call}.tar.gz")


Work = float | Callable[[Run], None]
"""A step: the most seconds that its cases may take, or a function that runs commands."""


def environment(rehearse: bool) -> dict[str, str]:
    """Of the processes that are started: without a card, kernels run in Triton's interpreter."""
    changes = {"TRITON_INTERPRET": "1", "OMP_WAIT_POLICY": "passive"} if rehearse else {"TRITON_INTERPRET": "0"}
    return {**os.environ, "PYTHONUNBUFFERED": "1", **changes}


def command(
    arguments: Sequence[str], log: Path, seconds: float, *, rehearse: bool, stalled: float | None = None
) -> int | None:
    """Run a command whose output goes to `log`; its exit status, None when it was stopped.

    Args:
        seconds: after so many it is stopped, with all that it has started.
        stalled: it is also stopped when it has printed nothing for so many seconds.
    """
    with log.open("ab") as file:
        process = subprocess.Popen(
            arguments,
            stdout=file,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment(rehearse),
            start_new_session=True,
        )
        end = time.monotonic() + seconds
        size, since = 0, time.monotonic()
        try:
            while process.poll() is None:
                now = time.monotonic()
                if log.stat().st_size != size:
                    size, since = log.stat().st_size, now
                if now > end or (stalled is not None and now - since > stalled):
                    return None
                time.sleep(0.05)
            return process.returncode
        finally:
            # Its own session: nothing but what it has started is in this group.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def run_cases(run: Run, step: str, seconds: float) -> None:
    """Have workers measure the cases of a step. Each case gets rows: figures, a failure, or that it was not reached."""
    end = time.monotonic() + min(seconds, run.left)
    log = run.files / f"{step}.log"
    planned_path = run.files / f"{step}.json"
    while True:
        left = end - time.monotonic()
        arguments = [run.call, step, str(run.results), str(run.files), "--seconds", f"{max(left, 0):.0f}"]
        arguments += ["--rehearse"] * run.rehearse
        status: int | None = None
        if left > 0:
            worker = [sys.executable, "-m", "benchmarks.gpu.worker", *arguments]
            status = command(worker, log, left, rehearse=run.rehearse, stalled=CASE_SECONDS)
        if not planned_path.exists():
            reached = left > 0 and (status is not None or time.monotonic() < end)
            kind = results.FAILED if reached else results.NOT_REACHED
            run.add(step, "", "", f"no case began: {_last_line(log)}", status=kind)
            return
        planned = [tuple(key) for key in json.loads(planned_path.read_text())]
        done = results.done(results.read(run.results))
        missing = [key for key in planned if key not in done]
        if missing and status == CALL_AGAIN:
            continue
        if not missing:
            return
        if status == 0 or time.monotonic() > end:
            rows = [Row(run.call, *key, "", "", results.NOT_REACHED, "the time was up") for key in missing]
            results.append(run.results, rows)
            print(f"{step}: {len(missing)} of {len(planned)} cases not reached", flush=True)
            return
        # The case that was in work ended the process; the others follow in a new one.
        why = f"nothing came for {CASE_SECONDS:.0f} s" if status is None else f"the process ended with status {status}"
        message = f"{why}: {_last_line(log)}"
        results.append(run.results, [Row(run.call, *missing[0], "", "", results.FAILED, message)])
        print(f"{step}: {' '.join(missing[0])}: {message}", flush=True)


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1][:400] if lines else "no output"


def run_steps(run: Run, steps: Mapping[str, Work], chosen: Sequence[str]) -> None:
    """The steps of a call in their order, as long as there is time; what they leave is packed after each."""
    for step, work in steps.items():
        if chosen and step not in chosen:
            continue
        if run.left <= 5:
            run.add(step, "", "", "the time was up", status=results.NOT_REACHED)
            continue
        print(f"== {step}, {run.left:.0f} s left", flush=True)
        if callable(work):
            work(run)
        else:
            run_cases(run, step, work)
        run.pack()
