"""What needs a CUDA card, in calls that each end inside eight minutes, whatever fails in them.

    python -m benchmarks.gpu tests OUT       # first: are the kernels right on this card?
    python -m benchmarks.gpu networks OUT    # time and memory beside the authors' formulas
    python -m benchmarks.gpu kernels OUT     # launch options, memory errors, hardware counters
    python -m benchmarks.gpu memory OUT      # memory per pixel, largest untiled image
    python -m benchmarks.gpu report OUT      # the tables of docs/backends.md from the results

A call writes OUT/CALL.csv, one figure or failure a row, as it goes, and OUT/CALL.tar.gz with logs, profiles and
listings: eight files when all four write to one folder. What is in OUT already is gone on with: cases that have rows
are left out. Nothing is installed or downloaded. With --rehearse a call runs on the processor at tiny sizes, the
kernels in Triton's interpreter, so that on a card none stops for a missing import; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.gpu import report
from benchmarks.gpu.calls import CALLS
from benchmarks.gpu.steps import CALL_SECONDS, Run, run_steps


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="call", required=True, metavar="CALL")
    for name, call in CALLS.items():
        command = commands.add_parser(name, help=call.summary, description=call.description)
        command.add_argument("output", type=Path, metavar="OUT", help="folder of the results")
        command.add_argument("--steps", nargs="+", choices=list(call.steps), default=[], help="only these")
        command.add_argument("--rehearse", action="store_true", help="on the processor, with tiny sizes")
        command.add_argument("--seconds", type=float, default=CALL_SECONDS, help="to end in (default: %(default)s)")
    report.add_parser(commands)
    args = parser.parse_args()
    if args.call == "report":
        report.run(args)
        return
    # What is stopped from outside stops its processes too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    args.output.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as files:
        run = Run(args.call, args.output, Path(files), args.rehearse, args.seconds)
        run_steps(run, CALLS[args.call].steps, args.steps)
    print(f"{args.call}: {time.monotonic() - start:.0f} s; wrote {run.results}")


if __name__ == "__main__":
    main()
