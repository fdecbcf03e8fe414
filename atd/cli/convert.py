"""`atd convert`: anyone's checkpoint into our format, or into the authors'."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from atd.cli import arguments
from atd.errors import InputError

if TYPE_CHECKING:
    from atd.cli.command_parser import Subcommands


def add_parser(subparsers: Subcommands) -> None:
    """Add the command to the parser of `atd`."""
    parser = subparsers.add_parser(
        "convert",
        help="turn a checkpoint into safetensors with a config, or into one for the authors' code",
        description="Turn a .pth, .pt, .ckpt or .safetensors checkpoint of ATD, ATD-U or ATD of CVPR 2024 into a "
        "folder of model.safetensors, config.json and a model card. With --as the file is checked to be that network "
        'and placed in the cache, and atd.load("NAME") then works without a request. With --to authors the result is a '
        ".pth file that holds exactly the keys of the authors' code.",
        common=("name", "to", "output", "params", "overwrite", "category_size", "img_range"),
        examples=(
            (
                "atd convert 003_ATD_SRx4_finetune.pth --as atd_sr_x4",
                "place a downloaded checkpoint in the cache: atd_sr_x4 then loads without a request",
            ),
            ("atd convert mine.pth -o mine", "turn a checkpoint of your own into the folder mine"),
            ("atd convert runs/mine --to authors -o mine.pth", "turn a trained network into a file of the authors'"),
        ),
    )
    parser.add_argument(
        "source", metavar="FILE", help="the checkpoint; with --to authors also a folder or a name of atd list"
    )
    parser.add_argument("--as", dest="name", metavar="NAME", help="name of atd list that the file holds the weights of")
    parser.add_argument(
        "--to",
        choices=("atd", "authors"),
        default="atd",
        metavar="FORMAT",
        help="atd: a folder of ours (default); authors: a .pth for the authors' code, and for spandrel if of CVPR 2024",
    )
    arguments.add_output(parser, "write here instead", metavar="PATH")
    arguments.add_params(parser)
    arguments.add_weights(parser, default=None)
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace other weights that the cache holds (--as), or a .pth file (--to authors)",
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

    overrides: dict[str, object] = {}
    if args.category_size:
        overrides["category_size"] = args.category_size if len(args.category_size) > 1 else args.category_size[0]
    if args.img_range is not None:
        overrides["img_range"] = args.img_range
    if args.to == "authors":
        print(_to_authors(args, overrides))
        return 0
    if args.weights is not None:
        raise InputError("--weights chooses among the weights of a name, which --to authors takes: give a file here")
    folder = loading.convert(
        args.source, args.name, args.output, params=args.params, overwrite=args.overwrite, **overrides
    )
    model = repr(args.name) if args.name and not args.output else repr(str(folder))
    print(f"{folder}: load it with atd.load({model})")
    return 0


def _to_authors(args: argparse.Namespace, overrides: dict[str, object]) -> str:
    """Write the authors' file; the line that tells it."""
    from atd import loading
    from atd.weights.saving import AUTHORS_KEY

    if args.name and args.weights:
        raise InputError(f"--as takes the weights of {args.source}, and --weights names others: give one of them")
    source, weights = (args.name, args.source) if args.name else (args.source, args.weights or "official")
    file = args.output
    if file is None:
        given = Path(args.source)
        name = f"{given.stem if given.is_file() else given.resolve().name}.pth"
        # Beside what it is made of; a name of the list has no place.
        file = given.parent / name if given.exists() else Path(name)
    path = loading.convert_for_authors(
        source, file, weights=weights, params=args.params, overwrite=args.overwrite, **overrides
    )
    return f"{path}: the authors' code loads it by the key {AUTHORS_KEY}"
