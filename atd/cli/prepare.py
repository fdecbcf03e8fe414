"""`atd prepare`: cut training images into the pieces that the published trainings read."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "prepare",
        help="cut training images into pieces",
        description="Cut training images into the pieces that the published trainings read. An interrupted run is "
        "continued by running it again.",
    )
    kinds = parser.add_subparsers(dest="kind", metavar="KIND", required=True)

    sr = kinds.add_parser(
        "sr",
        help="480-pixel sub-images and their LR partners",
        description="Super-resolution: DIR/NAME_train_HR_sub and DIR/NAME_train_LR_bicubic/X2_sub, X3_sub, X4_sub.",
    )
    sr.add_argument("-i", "--input", type=Path, required=True, metavar="DIR", help="folder of HR images")
    sr.add_argument("--name", required=True, help="name of the data set, e.g. DIV2K")
    sr.add_argument("--scale", type=int, nargs="+", default=[2, 3, 4], help="scales of the LR images (2 3 4)")
    sr.add_argument(
        "--lr", type=Path, metavar="DIR", help="folder with X2, X3, X4 of LR images (MATLAB's bicubic reduction)"
    )
    dfwb = kinds.add_parser(
        "dfwb",
        help="768-pixel patches of large images, small ones whole",
        description="Denoising and JPEG: images above 1200 pixels on both sides become 768-pixel patches.",
    )
    dfwb.add_argument("-i", "--input", type=Path, nargs="+", required=True, metavar="DIR", help="folders of images")
    for kind in (sr, dfwb):
        kind.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="where the pieces go")
        kind.add_argument("--workers", type=int, help="processes (all cores)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from huggingface_hub.utils import tqdm

    from atd.training import prepare

    with tqdm(unit="image") as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        if args.kind == "sr":
            outcome = prepare.prepare_sr(
                args.input, args.output, args.name, args.scale, args.lr, args.workers, progress
            )
        else:
            outcome = prepare.prepare_dfwb(args.input, args.output, args.workers, progress)
    for failure in outcome.failures:
        print(failure, file=sys.stderr)
    print(f"{outcome.written} images cut, {outcome.skipped} done before, {len(outcome.failures)} failed")
    return 1 if outcome.failures else 0
