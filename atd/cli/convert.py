"""`atd convert`: anyone's checkpoint into our format."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from atd.cli import arguments

if TYPE_CHECKING:
    from atd.cli.command_parser import Subcommands


def add_parser(subparsers: Subcommands) -> None:
    """Add the command to the parser of `atd`."""
    parser = subparsers.add_parser(
        "convert",
        help="turn a checkpoint into safetensors with a config, and place it in the cache",
        description="Turn a .pth, .pt, .ckpt or .safetensors checkpoint of ATD, ATD-U or ATD of CVPR 2024 into a "
        "folder of model.safetensors, config.json and a model card. With --as the file is checked to be that network "
        'and placed in the cache, and atd.load("NAME") then works without a request.',
        common=("name", "output", "overwrite", "category_size", "img_range"),
        examples=(
            (
                "atd convert 003_ATD_SRx4_finetune.pth --as atd_sr_x4",
                "place a downloaded checkpoint in the cache: atd_sr_x4 then loads without a request",
            ),
            ("atd convert mine.pth -o mine", "turn a checkpoint of your own into the folder mine"),
        ),
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="the checkpoint")
    parser.add_argument("--as", dest="name", metavar="NAME", help="name of atd list that the file holds the weights of")
    arguments.add_output(parser, "write here instead", metavar="FOLDER")
    parser.add_argument(
        "--overwrite", action="store_true", help="with --as: replace other weights that the cache holds"
    )
    parser.add_argument(
        "--category-size",
        type=int,
        nargs="+",
        metavar="N",
        help="rows of a category group, one number or one for each level of ATD-U; a bare checkpoint does not tell it "
        "(assumed: the published 128 or 256)",
    )
    parser.add_argument("--img-range", type=float, metavar="R", help="range of the normalised input (assumed: 1)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit status."""
    from atd import loading

    overrides = {}
    if args.category_size:
        overrides["category_size"] = args.category_size if len(args.category_size) > 1 else args.category_size[0]
    if args.img_range is not None:
        overrides["img_range"] = args.img_range
    folder = loading.convert(args.file, args.name, args.output, overwrite=args.overwrite, **overrides)
    model = repr(args.name) if args.name and not args.output else repr(str(folder))
    print(f"{folder}: load it with atd.load({model})")
    return 0
