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
    from atd.errors import InputError
    from atd.evaluation import report
    from atd.evaluation.api import image_callback, log_missing
    from atd.evaluation.candidates import RunOptions, open_candidate
    from atd.evaluation.comparison import compare_candidates, parse_candidate
    from atd.evaluation.formatting import describe_protocol
    from atd.evaluation.planning import plan_evaluation

    if args.report and args.out is None:
        raise InputError("--report writes a page into the folder of --out: give --out DIR")
    defaults = RunOptions(**evaluate.run_arguments(args))
    a, b = (open_candidate(*parse_candidate(text, defaults), args.scale) for text in (args.a, args.b))
    measured = evaluate.protocol_options(args)
    plan, other = (plan_evaluation(candidate, args.data, args.sets, **measured) for candidate in (a, b))
    if plan.protocol != other.protocol:
        raise InputError(
            f"A and B are measured differently: {describe_protocol(plan.protocol)} against "
            f"{describe_protocol(other.protocol)}"
        )
    log_missing(plan.missing, args.data)
    images = None if args.out is None else args.out / "images"
    with image_callback(True, plan.sets) as on_image:
        comparison = compare_candidates(a, b, plan.protocol, plan.sets, images=images, on_image=on_image)
    print(comparison, end="")
    if args.out is not None:
        comparison.write(args.out)
        if args.report:
            report.write_comparison(comparison, args.out)
        print(f"\nwritten to {args.out}", file=sys.stderr)
    return 0
