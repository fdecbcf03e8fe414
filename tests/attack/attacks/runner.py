"""Run cases one after the other in this process, each within a time limit, and keep count."""

from __future__ import annotations

import faulthandler
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random
from typing import NamedTuple

import atd
from attacks.report import Report, Verdict

# What the library says to its user. Editions before 0.2 had no type of their own for it: attacking one of them shows
# what these attacks find.
REFUSALS: tuple[type[BaseException], ...] = (
    (atd.AtdError, OSError)
    if hasattr(atd, "AtdError")
    else (ValueError, MemoryError, OSError, ImportError, atd.LoadError)
)


class Wrong(Exception):
    """The library did something that it should not have done."""


class Hung(BaseException):
    """A case took too long; not an Exception, which the case might take for a refusal."""


class Case(NamedTuple):
    """One thing that is done to the library."""

    name: str
    run: Callable[[], object]
    seconds: float = 60
    """After which it is taken for hung."""


Cases = Generator[Case, None, None]
Area = Callable[[Random, Path], Cases]
"""Gives cases without end, the same ones for the same random numbers; they work in the folder that it is given."""


def attack(
    report: Report,
    name: str,
    area: Area,
    folder: Path,
    *,
    cases: int | None = None,
    seconds: float | None = None,
    keep: Path | None = None,
) -> None:
    """Run the first `cases` of an area, or as many as begin within `seconds`, and add them to `report`.

    Args:
        folder: where the cases work.
        keep: where `folder` is copied after each finding.
    """
    begin = time.monotonic()
    with warnings.catch_warnings(), closing(area(Random(f"{report.seed} {name}"), folder)) as stream:
        warnings.simplefilter("ignore")
        for number, case in enumerate(stream):
            if number == cases or (seconds is not None and time.monotonic() - begin >= seconds):
                break
            start = time.monotonic()
            verdict, detail = judged(case)
            report.add(name, number, case.name, verdict, detail, time.monotonic() - start)
            if keep is not None and verdict.is_finding:
                shutil.copytree(folder, keep / f"{name}-{number}", dirs_exist_ok=True)
    report.seconds[name] = time.monotonic() - begin


def judged(case: Case) -> tuple[Verdict, str]:
    """Run one case: what became of it, and why."""
    try:
        with time_limit(case.seconds):
            case.run()
    except Wrong as wrong:
        return Verdict.WRONG, str(wrong)
    except Hung:
        return Verdict.HUNG, f"not done after {case.seconds:g} s"
    except REFUSALS as refusal:
        return Verdict.REFUSED, str(refusal)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return Verdict.TRACEBACK, f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"
    return Verdict.RESTORED, ""


@contextmanager
def time_limit(seconds: float) -> Generator[None, None, None]:
    """Raise `Hung` in the block after some seconds; where C code does not let that through, end the process later."""

    def expire(*_: object) -> None:
        raise Hung

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    faulthandler.dump_traceback_later(6 * seconds, exit=True, file=sys.__stderr__)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
