"""The command ``python tests/attack``."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path

import torch

import atd
from attacks.areas import AREAS
from attacks.report import Report
from attacks.runner import attack


@contextlib.contextmanager
def silent_stderr() -> Generator[None, None, None]:
    """Decoders complain on the file descriptor itself, a line or two for each damaged file."""
    logging.getLogger("atd").setLevel(logging.ERROR)
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def main(argv: Sequence[str] | None = None) -> int:
    """Attack, print the report; the exit status is 1 where there are findings."""
    parser = argparse.ArgumentParser(prog="python tests/attack", description=__doc__, allow_abbrev=False)
    parser.add_argument("--minutes", type=float, default=60, help="in all, shared among the areas (60)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed tries the same things in the same order (0)")
    parser.add_argument("--areas", nargs="+", choices=list(AREAS), default=list(AREAS), help="only these")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the report as JSON, with all findings")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="copy there the files of each finding")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    report = Report(atd.__version__, arguments.seed)
    shares = sum(AREAS[name].share for name in arguments.areas)
    for name in arguments.areas:
        area = AREAS[name]
        with tempfile.TemporaryDirectory() as folder, silent_stderr():
            seconds = 60 * arguments.minutes * area.share / shares
            attack(report, name, area.cases, Path(folder), seconds=seconds, keep=arguments.keep)
    print(report.as_text())
    if arguments.json:
        arguments.json.write_text(report.as_json() + "\n")
    return 1 if report.findings else 0
