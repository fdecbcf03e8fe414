"""`atd degrade`: the degraded partners of clean photos."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from atd.cli import arguments
from atd.cli.progress import image_bar
from atd.cli.streams import one_line, say
from atd.errors import InputError
from atd.tasks import KEYS, RealWorld, SuperResolution, make_task

if TYPE_CHECKING:
    from atd.cli.command_parser import Subcommands


def add_parser(subparsers: Subcommands) -> None:
    """Add the command to the parser of `atd`."""
    parser = subparsers.add_parser(
        "degrade",
        help="make degraded partners of photos",
        description="Degrade clean photos: as real photos are by blur, noise, reduction and compression, drawn at "
        "random for each (the second-order degradation of Real-ESRGAN), or as the published tasks do. Writes DIR/hr, "
        "DIR/lq and what was done to each as a line of DIR/degradations.jsonl.",
        common=("input", "output", "task", "scale", "sigma", "quality", "seed", "crop", "contact_sheet"),
        examples=(
            (
                "atd degrade -i photos -o pairs --task real --contact-sheet sheet.png",
                "partners at a quarter of the size, faulty as real photos, and a sheet to look at",
            ),
            ("atd degrade -i photos -o pairs --task denoise --sigma 25", "partners with Gaussian noise"),
        ),
    )
    parser.add_argument("-i", "--input", type=Path, required=True, metavar="PATH", help="a photo, or a folder of them")
    arguments.add_output(parser, "where the pairs go", required=True)
    arguments.add(
        parser,
        "--task",
        choices=KEYS,
        default=RealWorld.key,
        metavar="NAME",
        help=f"what is done to the photos: {', '.join(KEYS)} (real)",
        old=("--recipe",),
    )
    arguments.add_scale(parser, "how much smaller the partners of real and sr are (4)")
    arguments.add_sigma(parser)
    arguments.add_quality(parser)
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of everything that is drawn (0)")
    parser.add_argument(
        "--crop", type=int, default=0, metavar="PIXELS", help="cut a square of this side at random from each photo"
    )
    parser.add_argument(
        "--contact-sheet", type=Path, metavar="FILE", help="also show twelve pairs on one .png, .jpg or .webp"
    )
    real = parser.add_argument_group("real photos")
    real.add_argument("--webp", type=float, default=0.0, metavar="SHARE", help="of the compressions, the rest is JPEG")
    real.add_argument("--sharpen", action="store_true", help="sharpen the photos first (unsharp masking)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit status."""
    if args.crop < 0 or args.seed < 0:
        raise InputError(f"--crop and --seed must not be negative, got {args.crop} and {args.seed}")
    enlarging = args.task in (RealWorld.key, SuperResolution.key)
    for flag, value, allowed in (
        ("--scale", args.scale, enlarging),
        ("--sigma", args.sigma, args.task == "denoise"),
        ("--quality", args.quality, args.task == "jpeg"),
    ):
        if value is not None and not allowed:
            raise InputError(f"{flag} is not for --task {args.task}")
    try:
        task = make_task(
            args.task, scale=4 if args.scale is None else args.scale, sigma=args.sigma, quality=args.quality
        )
    except ValueError as error:
        raise InputError(str(error)) from None
    if not enlarging and task.level is None:
        raise InputError("--task denoise needs --sigma" if args.task == "denoise" else "--task jpeg needs --quality")

    from atd.degrade import RealWorld as Faults
    from atd.training.degraded_pairs import degrade_folder

    with image_bar() as progress:
        done = degrade_folder(
            args.input,
            args.output,
            task,
            seed=args.seed,
            crop=args.crop,
            sharpen=args.sharpen,
            faults=Faults(webp=args.webp),
            sheet=args.contact_sheet,
            progress=progress,
        )
    for failure in done.failures:
        say(one_line(failure))
    print(f"{done.pairs} pairs written, {len(done.failures)} failed")
    return 1 if done.failures else 0
