"""`atd evaluate`: PSNR and SSIM of a network or a baseline on test sets, under the published protocol."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from atd.cli.restore import parse_tile


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "evaluate",
        help="measure PSNR and SSIM on test sets",
        description="Measure PSNR and SSIM on test sets, under the protocol of the papers. Task, sets, scale, noise "
        "level or quality, channel and crop come from the network unless they are given.",
    )
    parser.add_argument(
        "model", help="registry name, weights file or folder, hub repository, or bicubic, lanczos, identity"
    )
    add_protocol_arguments(parser)
    add_settings_arguments(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for results, table and restored images")
    parser.add_argument("--no-images", action="store_true", help="save no restored images")
    parser.add_argument("--report", action="store_true", help="write report.html into --out: one self-contained page")
    parser.set_defaults(run=run)


def add_protocol_arguments(parser: argparse.ArgumentParser) -> None:
    """What is measured: shared with `atd compare`."""
    group = parser.add_argument_group("what is measured")
    group.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of test sets, or of images")
    group.add_argument("--sets", type=_names, metavar="A,B", help="sets, e.g. Set5,Set14; default: the papers'")
    group.add_argument("--scale", type=int, help="super-resolution factor, for the baselines")
    group.add_argument("--sigma", type=_level, help="noise level on the scale 0..255")
    group.add_argument("--quality", type=int, help="JPEG quality")
    group.add_argument("--channel", choices=("y", "rgb", "gray"), help="what is compared")
    group.add_argument("--crop", type=int, metavar="PIXELS", help="left out along each border")
    group.add_argument(
        "--border",
        choices=("edge", "symmetric"),
        default="edge",
        help="LR images by older MATLAB (edge, the published ones) or newer (symmetric)",
    )


def add_settings_arguments(parser: argparse.ArgumentParser) -> None:
    """How a network is run: shared with `atd compare`."""
    group = parser.add_argument_group("how the network is run")
    group.add_argument("--weights", default="official", help="official, bundled, a file, a folder or a hub repository")
    group.add_argument("--tile", type=parse_tile, default="auto", metavar="auto|0|N", help="tile side; 0 is untiled")
    group.add_argument("--overlap", type=int, default=32, metavar="N", help="pixels that neighbouring tiles share (32)")
    group.add_argument("--self-ensemble", action="store_true", help="average over the eight flips and rotations")
    group.add_argument("--device", help="cpu, cuda, cuda:1, … (default: the GPU when there is one)")
    group.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16", "float64"),
        default="float32",
        help="precision; unlike restoration, measuring is float32 by default",
    )
    group.add_argument("--backend", choices=("auto", "triton", "native", "torch", "reference"), help="of the ops")


def run_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """The keywords of `atd.evaluation.candidates.RunOptions`, which are some of `atd.evaluate` too."""
    names = ("weights", "tile", "overlap", "self_ensemble", "dtype", "device", "backend")
    return {name: getattr(args, name) for name in names}


def protocol_options(args: argparse.Namespace) -> dict[str, Any]:
    """The keywords of `atd.evaluation.planning.plan_evaluation`."""
    return {name: getattr(args, name) for name in ("sigma", "quality", "channel", "crop", "border")}


def run(args: argparse.Namespace) -> int:
    from atd.evaluation import evaluate

    evaluation = evaluate(
        args.model,
        args.data,
        sets=args.sets,
        scale=args.scale,
        **protocol_options(args),
        **run_arguments(args),
        output=args.out,
        images=not args.no_images,
        report=args.report,
        progress=True,
    )
    print(evaluation, end="")
    if args.out is not None:
        print(f"\nwritten to {args.out}", file=sys.stderr)
    return 0


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _level(text: str) -> float:
    """Whole levels as integers, as the papers write them."""
    value = float(text)
    return int(value) if value.is_integer() else value
