"""`atd compare`: two networks, weights files or settings on the same images."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from atd.cli import evaluate


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "compare",
        help="compare two networks or settings on test sets",
        description="Compare two networks, weights files or settings on the same images. Each of A and B is what "
        "`atd evaluate` takes, with settings of its own behind commas: atd_sr_x4,tile=256 or "
        "atd_sr_x4,dtype=bfloat16,backend=torch. Options below hold for both.",
    )
    parser.add_argument("a", metavar="A", help="NAME[,key=value…]")
    parser.add_argument("b", metavar="B", help="NAME[,key=value…]")
    evaluate.add_protocol_arguments(parser)
    evaluate.add_settings_arguments(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the comparison and the restored images")
    parser.add_argument("--report", action="store_true", help="write report.html into --out: one self-contained page")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from atd.evaluation import compare
    from atd.evaluation.candidates import RunOptions, open_candidate
    from atd.evaluation.comparison import parse_candidate

    defaults = RunOptions(**evaluate.run_arguments(args))
    a, b = (open_candidate(*parse_candidate(text, defaults), args.scale) for text in (args.a, args.b))
    comparison = compare(
        a,
        b,
        args.data,
        sets=args.sets,
        **evaluate.protocol_options(args),
        output=args.out,
        report=args.report,
        progress=True,
    )
    print(comparison, end="")
    if args.out is not None:
        print(f"\nwritten to {args.out}", file=sys.stderr)
    return 0
