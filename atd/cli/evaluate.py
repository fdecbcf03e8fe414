"""`atd evaluate`: PSNR and SSIM of a network or a baseline on test sets, under the published protocol."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from atd.cli import arguments, streams
from atd.errors import InputError

if TYPE_CHECKING:
    from atd.cli.command_parser import CommandParser, Subcommands


def add_parser(subparsers: Subcommands) -> None:
    """Add the command to the parser of `atd`."""
    parser = subparsers.add_parser(
        "evaluate",
        help="measure PSNR and SSIM on test sets",
        description="Measure PSNR and SSIM on test sets, under the protocol of the papers. Task, sets, scale, noise "
        "level or quality, channel and crop come from the network unless they are given.",
        common=(
            "data",
            "sets",
            "output",
            "report",
            "published",
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
                "atd evaluate atd_light_sr_x4 --weights bundled --data datasets --sets Set5",
                "score the network inside this package on datasets/Set5",
            ),
            (
                "atd evaluate bicubic --scale 4 --data photos -o scores --report",
                "score plain enlarging on a folder of photos, and write a page with the images",
            ),
            (
                "atd evaluate --published --data datasets -o scores",
                "all sixteen published test configurations, ours beside the numbers of the paper",
            ),
        ),
    )
    parser.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help="a name of `atd list`, a weights file or folder, org/repo, or bicubic, lanczos, identity",
    )
    parser.add_argument(
        "--published",
        action="store_true",
        help="measure all that TPAMI 2026 reports, or networks that match MODEL, e.g. 'atd_light*'; "
        "--weights may be a folder of the authors' files",
    )
    add_protocol_arguments(parser)
    add_settings_arguments(parser)
    results = parser.add_argument_group("results")
    arguments.add_output(results, "folder for results, table and restored images", old=("--out",))
    results.add_argument("--no-images", action="store_true", help="save no restored images")
    results.add_argument("--report", action="store_true", help="also write report.html, one self-contained page")
    parser.set_defaults(run=run)


def add_protocol_arguments(parser: CommandParser) -> None:
    """What is measured: shared with `atd compare`."""
    group = parser.add_argument_group("what is measured")
    arguments.add_data(group, "folder of test sets, or of images", required=True)
    group.add_argument(
        "--sets", type=arguments.names, metavar="A,B", help="sets, e.g. Set5,Set14; default: the papers'"
    )
    arguments.add_scale(group, "super-resolution factor, for the baselines")
    arguments.add_sigma(group)
    arguments.add_quality(group)
    group.add_argument("--channel", choices=("y", "rgb", "gray"), help="what is compared")
    group.add_argument("--crop", type=int, metavar="PIXELS", help="left out along each border")
    group.add_argument(
        "--border",
        choices=("edge", "symmetric"),
        default="edge",
        help="LR images by older MATLAB (edge, the published ones) or newer (symmetric)",
    )
    group.add_argument(
        "--gray-from-colour",
        choices=("standard", "authors"),
        default="standard",
        help="colour files as gray: rounded luma (standard), or as in the authors' code",
    )


def add_settings_arguments(parser: CommandParser) -> None:
    """How a network is run: shared with `atd compare`."""
    group = parser.add_argument_group("how the network is run")
    arguments.add_weights(group)
    arguments.add_params(group)
    arguments.add_tiling(group)
    arguments.add_device(group)
    arguments.add_dtype(
        group, f"{', '.join(arguments.DTYPES)}; unlike restoration, measuring is float32 by default", default="float32"
    )
    arguments.add_backend(group)


def run_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """The keywords of `atd.evaluation.candidates.RunOptions`, which are some of `atd.evaluate` too."""
    names = ("weights", "params", "tile", "overlap", "self_ensemble", "dtype", "device", "backend")
    return {name: getattr(args, name) for name in names}


def protocol_options(args: argparse.Namespace) -> dict[str, Any]:
    """The keywords of `atd.evaluation.planning.plan_evaluation`."""
    return {name: getattr(args, name) for name in ("sigma", "quality", "channel", "crop", "border", "gray_from_colour")}


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit status."""
    if args.published:
        return _run_published(args)
    if args.model is None:
        raise InputError("atd evaluate needs a MODEL, or --published for all published scores")
    from atd.evaluation import evaluate

    evaluation = evaluate(
        args.model,
        args.data,
        sets=args.sets,
        scale=args.scale,
        **protocol_options(args),
        **run_arguments(args),
        output=args.output,
        images=not args.no_images,
        report=args.report,
        progress=True,
    )
    print(evaluation, end="")
    if args.output is not None:
        print(f"\nwritten to {args.output}", file=sys.stderr)
    return 0


def _run_published(args: argparse.Namespace) -> int:
    """Print a row as soon as it is known; at the end the whole table. 1 where nothing could be measured."""
    from atd.evaluation.candidates import RunOptions
    from atd.evaluation.published import PublishedTable, choose_networks, measure_published

    given = [name for name in ("scale", "sigma", "quality", "channel", "crop") if getattr(args, name) is not None]
    given += [flag for flag, value in (("border", args.border != "edge"), ("report", args.report)) if value]
    if given:
        raise InputError(f"--published measures as the papers do: leave out --{', --'.join(given)}")
    networks = choose_networks(args.model)
    table = PublishedTable(str(args.weights))
    for row in measure_published(networks, args.data, RunOptions(**run_arguments(args)), args.sets):
        table.rows.append(row)
        streams.say(f"atd: {row.network} on {row.benchmark}: {row.cells()[5] if row.ours else row.reason}")
        if args.output is not None:  # whatever happens later, what has been measured is there
            table.write(args.output)
    print(table, end="")
    if args.output is not None:
        print(f"\nwritten to {args.output}", file=sys.stderr)
    return 0 if table.measured else 1
