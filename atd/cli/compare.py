"""`atd compare`: two networks, weights files or settings on the same images."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from atd.cli import arguments, evaluate

if TYPE_CHECKING:
    from atd.cli.command_parser import Subcommands


def add_parser(subparsers: Subcommands) -> None:
    """Add the command to the parser of `atd`."""
    parser = subparsers.add_parser(
        "compare",
        help="compare two networks or settings on test sets",
        description="Compare two networks, weights files or settings on the same images. Each of A and B is what "
        "`atd evaluate` takes, with settings of its own behind commas: atd_sr_x4,tile=256 or "
        "atd_sr_x4,dtype=bfloat16,backend=torch. Options below hold for both.",
        common=(
            "data",
            "sets",
            "output",
            "report",
            "weights",
            "scale",
            "sigma",
            "quality",
            "tile",
            "self_ensemble",
            "device",
        ),
        examples=(
            (
                "atd compare atd_sr_x4 atd_cvpr_sr_x4 --data datasets --sets Set5",
                "two networks on datasets/Set5",
            ),
            (
                "atd compare atd_light_sr_x4 atd_light_sr_x4,tile=96 --weights bundled --data photos -o scores",
                "one network untiled and in tiles, with the restored images in the folder scores",
            ),
        ),
    )
    parser.add_argument("a", metavar="A", help="NAME[,key=value…]: a network, with options of its own")
    parser.add_argument("b", metavar="B", help="what A is compared with, written likewise")
    evaluate.add_protocol_arguments(parser)
    evaluate.add_settings_arguments(parser)
    results = parser.add_argument_group("results")
    arguments.add_output(results, "folder for the comparison and the restored images", old=("--out",))
    results.add_argument("--report", action="store_true", help="also write report.html, one self-contained page")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit status."""
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
        output=args.output,
        report=args.report,
        progress=True,
    )
    print(comparison, end="")
    if args.output is not None:
        print(f"\nwritten to {args.output}", file=sys.stderr)
    return 0
