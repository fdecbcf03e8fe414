"""`atd prepare`: cut training images into the pieces that the published trainings read."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from atd.cli import arguments
from atd.cli.progress import image_bar
from atd.cli.streams import one_line, say

if TYPE_CHECKING:
    from atd.cli.command_parser import Subcommands

EXAMPLES = (
    (
        "atd prepare sr -i DIV2K_train_HR -o datasets/DIV2K --name DIV2K",
        "super-resolution: sub-images of DIV2K and their reduced partners",
    ),
    (
        "atd prepare dfwb -i DIV2K Flickr2K WED BSD500 -o datasets/DFWB",
        "denoising and JPEG: patches of the images of four folders",
    ),
)


def add_parser(subparsers: Subcommands) -> None:
    """Add the command to the parser of `atd`."""
    parser = subparsers.add_parser(
        "prepare",
        help="cut training images into pieces",
        description="Cut training images into the pieces that the published trainings read. An interrupted run is "
        "continued by running it again. atd prepare KIND --help explains one kind.",
        usage="atd prepare KIND [options]",
        examples=EXAMPLES,
    )
    kinds = parser.add_subparsers(prog=parser.prog, dest="kind", metavar="KIND", required=True)

    sr = kinds.add_parser(
        "sr",
        help="480-pixel sub-images and their LR partners",
        description="Super-resolution: DIR/NAME_train_HR_sub and DIR/NAME_train_LR_bicubic/X2_sub, X3_sub, X4_sub.",
        common=("input", "output", "name", "scale", "lr", "workers"),
        examples=EXAMPLES[:1],
    )
    sr.add_argument("-i", "--input", type=Path, required=True, metavar="DIR", help="folder of HR images")
    sr.add_argument("--name", required=True, help="name of the data set, e.g. DIV2K")
    sr.add_argument("--scale", type=int, nargs="+", default=[2, 3, 4], metavar="N", help="of the LR images (2 3 4)")
    sr.add_argument(
        "--lr", type=Path, metavar="DIR", help="folder with X2, X3, X4 of LR images (MATLAB's bicubic reduction)"
    )
    dfwb = kinds.add_parser(
        "dfwb",
        help="768-pixel patches of large images, small ones whole",
        description="Denoising and JPEG: images above 1200 pixels on both sides become 768-pixel patches.",
        common=("input", "output", "workers"),
        examples=EXAMPLES[1:],
    )
    dfwb.add_argument("-i", "--input", type=Path, nargs="+", required=True, metavar="DIR", help="folders of images")
    for kind in (sr, dfwb):
        arguments.add_output(kind, "where the pieces go", required=True)
        arguments.add_workers(kind, "processes (all cores)", default=None)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit status."""
    from atd.training import prepare

    with image_bar() as progress:
        if args.kind == "sr":
            done = prepare.prepare_sr(args.input, args.output, args.name, args.scale, args.lr, args.workers, progress)
        else:
            done = prepare.prepare_dfwb(args.input, args.output, args.workers, progress)
    for failure in done.failures:
        say(one_line(failure))
    print(f"{done.cut} images cut, {done.skipped} done before, {len(done.failures)} failed")
    return 1 if done.failures else 0
