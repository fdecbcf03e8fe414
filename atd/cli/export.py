"""`atd export`: a network as a file for other runtimes."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from atd.cli import arguments

if TYPE_CHECKING:
    from atd.cli.command_parser import Subcommands


def add_parser(subparsers: Subcommands) -> None:
    """Add the command to the parser of `atd`."""
    parser = subparsers.add_parser(
        "export",
        help="write a network for other runtimes: ONNX, torch.export",
        description="Write a network as a file that takes every image size, compare the file with the network in its "
        "own runtime, print the comparison and write it beside the file as NAME.report.json. A file that is not as "
        "exact as it should be is not kept.",
        common=("output", "weights", "format", "dtype", "static"),
        examples=(
            ("atd export atd_light_sr_x4 --weights bundled -o net.onnx", "the network inside this package as ONNX"),
            ("atd export mine.safetensors -o mine.onnx --dtype float16", "weights of your own, in half precision"),
        ),
    )
    parser.add_argument("model", metavar="MODEL", help="a name of `atd list`, a weights file or folder, org/repo")
    arguments.add_output(parser, "the file to write: .onnx, or .pt2", metavar="FILE", required=True)
    arguments.add_weights(parser, default=None)
    parser.add_argument(
        "--format",
        choices=("onnx", "pt2"),
        metavar="TYPE",
        help="onnx, or pt2: a torch.export program (default: by the ending of the file)",
    )
    arguments.add_dtype(
        parser, "float32 (default) or float16, of ONNX files", default="float32", choices=("float32", "float16")
    )
    parser.add_argument("--opset", type=int, default=18, metavar="N", help="version of ONNX's operators (18)")
    parser.add_argument("--static", type=_size, metavar="HxW", help="for one image of this height and width only")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit status."""
    import torch

    from atd.errors import ExportError, InputError
    from atd.export import ParityReport, export_onnx, export_program, report_path

    kind = args.format or ("pt2" if args.output.suffix == ".pt2" else "onnx")
    try:
        if kind == "onnx":
            report = export_onnx(
                args.model,
                args.output,
                weights=args.weights,
                dtype=getattr(torch, args.dtype),
                opset=args.opset,
                size=args.static,
            )
        elif args.dtype != "float32":
            raise InputError("a torch.export program computes in float32; --dtype is for ONNX files")
        else:
            report = export_program(args.model, args.output, weights=args.weights, size=args.static)
    except ExportError as error:
        if isinstance(error.report, ParityReport):
            print(error.report.table())
        raise
    print(report.table())
    print(f"{args.output}: as exact as it should be in {report.runtime}; {report_path(args.output)}")
    return 0


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    if not (height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f"expected a height and a width such as 256x320, got {text!r}")
    return int(height), int(width)
