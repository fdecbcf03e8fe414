"""`atd explain`: what every pixel looked up in the token dictionary."""

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
        "explain",
        help="show what every pixel looked up in the token dictionary",
        description="Show, layer by layer, which entry of the token dictionary each pixel is nearest to, which pixels "
        "share it, and which attend to one another. Writes layers.png (all layers), layer_NN.png (one each), "
        "at_X_Y.png (for --at), maps.npz (the arrays) and index.html, a page on which pixels can be pointed at.",
        common=("output", "model", "weights", "at", "crop"),
        examples=(
            ("atd explain photo.jpg -o maps", "the bundled network on a photo; open maps/index.html"),
            (
                "atd explain photo.jpg -o maps --crop 200,100,128,96 --at 40,30",
                "a part of a large photo, and what its pixel 40, 30 attends to",
            ),
        ),
    )
    parser.add_argument("image", type=Path, metavar="IMAGE", help="the image file")
    arguments.add_output(parser, "folder for the images, the arrays and the page", required=True)
    arguments.add_model(parser)
    arguments.add_weights(parser, default=None)
    parser.add_argument(
        "--at",
        type=_pixel,
        action="append",
        default=[],
        metavar="X,Y",
        help="a pixel, counted from the upper left of what is explained, whose attention is shown; may be repeated",
    )
    parser.add_argument(
        "--crop", type=_box, metavar="X,Y,W,H", help="explain this part: left, top, width and height in pixels"
    )
    arguments.add_device(parser)
    arguments.add_backend(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit status."""
    from atd.cli.networks import DEFAULT_MODEL
    from atd.errors import InputError
    from atd.explanation import explain
    from atd.explanation.files import write_explanation

    weights = args.weights or (None if args.model else "bundled")
    with arguments.chosen_backend(args):
        explanation = explain(
            args.model or DEFAULT_MODEL, args.image, weights=weights, crop=args.crop, device=args.device
        )
    height, width = explanation.image.shape[:2]
    for x, y in args.at:
        if x >= width or y >= height:
            raise InputError(f"--at {x},{y} does not lie in the {width}×{height} pixels that are explained")
    write_explanation(explanation, args.output, args.at)
    print(f"{args.output}: {len(explanation.layers)} layers of {explanation.label}; open {args.output / 'index.html'}")
    return 0


def _numbers(text: str, count: int, shape: str) -> list[int]:
    parts = text.split(",")
    if len(parts) != count or not all(part.strip().isdigit() for part in parts):
        raise argparse.ArgumentTypeError(f"expected {shape} in pixels, got {text!r}")
    return [int(part) for part in parts]


def _pixel(text: str) -> tuple[int, int]:
    x, y = _numbers(text, 2, "X,Y")
    return x, y


def _box(text: str) -> tuple[int, int, int, int]:
    left, top, width, height = _numbers(text, 4, "LEFT,TOP,WIDTH,HEIGHT")
    return left, top, width, height
