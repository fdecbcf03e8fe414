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
    from atd.evaluation import comparison, scoring, tables
    from atd.evaluation.candidates import open_candidate

    if args.report and args.out is None:
        raise ValueError("--report writes a page into the folder of --out: give --out DIR")
    defaults = evaluate.settings(args)
    a, b = (open_candidate(*comparison.parse(text, defaults), args.scale) for text in (args.a, args.b))
    options = evaluate.protocol_options(args)
    (protocol, sets, missing), (other, _, _) = (
        scoring.prepare(candidate, args.data, args.sets, **options) for candidate in (a, b)
    )
    if protocol != other:
        raise ValueError(
            f"A and B are measured differently: {tables.conditions(protocol)} against {tables.conditions(other)}"
        )
    evaluate.tell_missing(missing, args.data)
    with evaluate.Bar(sets) as bar:
        found = comparison.compare(a, b, protocol, sets, images=args.out and args.out / "images", progress=bar)
    print(comparison.markdown(found), end="")
    if args.out is not None:
        comparison.write(found, args.out)
        if args.report:
            from atd.evaluation import report

            report.write_comparison(found, args.out)
        print(f"\nwritten to {args.out}", file=sys.stderr)
    return 0
