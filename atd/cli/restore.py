"""`atd restore`: restore files and folders."""

from __future__ import annotations

import argparse
import contextlib
import sys
import traceback
import warnings
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

from atd.cli import arguments
from atd.cli.networks import AUTHORS_LEVELS, BUNDLED_MODELS, DEFAULT_MODEL, TASK_MODELS, Networks
from atd.cli.streams import ResultLines, one_line, say
from atd.errors import InputError, sentence_for

if TYPE_CHECKING:
    from atd.cli.command_parser import Subcommands
    from atd.restoration.batch import Job
    from atd.restoration.sharding import Shard


def add_parser(subparsers: Subcommands) -> None:
    """Add the command to the parser of `atd`."""
    parser = subparsers.add_parser(
        "restore",
        help="restore images: enlarge, remove noise or JPEG artefacts",
        description="Restore images: enlarge them, or remove noise or JPEG artefacts. An existing result is skipped; a "
        "bad file is reported and the rest go on.",
        epilog=f"Without --model, --task, --real, --denoise and --jpeg the bundled network {DEFAULT_MODEL} is used.",
        common=(
            "input",
            "output",
            "recursive",
            "overwrite",
            "model",
            "weights",
            "real",
            "denoise",
            "jpeg",
            "outscale",
            "tile",
            "device",
        ),
        examples=(
            ("atd restore -i photo.jpg -o large.png", "enlarge a photo four times"),
            (
                "atd restore -i photos -o clean --recursive --denoise 25 --weights bundled",
                "remove noise from all photos of a folder, with weights that need no download",
            ),
        ),
    )
    files = parser.add_argument_group("files")
    files.add_argument("-i", "--input", nargs="+", type=Path, required=True, metavar="PATH", help="files and folders")
    arguments.add_output(files, "a file for one input file, else a folder", metavar="PATH", required=True)
    files.add_argument(
        "--format",
        choices=("same", "png", "jpg", "webp", "tiff"),
        default="same",
        metavar="TYPE",
        help="of results in a folder: same (as the input, default), png, jpg, webp, tiff",
    )
    files.add_argument("--suffix", metavar="TEXT", help="of names in a folder: photo_TEXT.png (default: the network)")
    files.add_argument("--overwrite", action="store_true", help="replace existing results")
    files.add_argument("--recursive", action="store_true", help="also take folders below, and mirror the tree")
    files.add_argument("--include", nargs="+", default=[], metavar="PATTERN", help="only these files of a folder")
    files.add_argument("--exclude", nargs="+", default=[], metavar="PATTERN", help="not these files of a folder")
    files.add_argument(
        "--stream",
        choices=("auto", "on", "off"),
        default="auto",
        help="restore large images in strips, with extra io (auto: when the result takes a quarter of the free RAM)",
    )
    files.add_argument("--resume", action="store_true", help="go on with streamed results that were interrupted")
    files.add_argument("--save-quality", type=int, metavar="1-100", help="of JPEG (else 95) and WebP (else lossless)")
    files.add_argument("--subsampling", choices=("444", "422", "420"), default="444", help="chroma of JPEG (444)")
    files.add_argument(
        "--max-pixels",
        type=int,
        metavar="N",
        help="refuse files of more pixels (178956970, as Pillow; 0: take any)",
    )
    files.add_argument("--eight-bit", action="store_true", help="read 16-bit colour as 8-bit instead of by libvips")
    arguments.add_workers(files, "threads that read and write images (1)", default=1, old=("--jobs",))

    network = parser.add_argument_group("network")
    arguments.add_model(network)
    arguments.add_weights(network, default=None)
    arguments.add_params(network)
    network.add_argument(
        "--task",
        choices=tuple(TASK_MODELS),
        help="super-resolution network (classical when --scale is given), classical or lightweight",
    )
    arguments.add_scale(network, "2, 3 or 4: of the super-resolution network (4 with --task)", choices=(2, 3, 4))
    network.add_argument(
        "--real",
        action="store_const",
        const=True,
        help="a photo of unknown faults: the bundled network for photos, else one that is on this machine",
    )
    for flag, metavar, fault in (("denoise", "SIGMA", "noise"), ("jpeg", "QUALITY", "JPEG artefacts")):
        levels = ", ".join(map(str, AUTHORS_LEVELS[flag]))
        _, low, high = BUNDLED_MODELS[flag]
        help = f"remove {fault}: {levels}; with --weights bundled any from {low} to {high}"
        network.add_argument(f"--{flag}", type=arguments.level, metavar=metavar, help=help)
    network.add_argument(
        "--runtime",
        choices=("torch", "onnx", "openvino"),
        default="torch",
        metavar="NAME",
        help="torch (default), or the runtime that runs the --file: onnx, openvino",
    )
    network.add_argument("--file", type=Path, metavar="NET.onnx", help="an ONNX file of `atd export`")

    work = parser.add_argument_group("computation")
    work.add_argument("-s", "--outscale", type=float, metavar="FACTOR", help="result size / input size, any factor")
    work.add_argument(
        "--strength",
        type=float,
        default=1.0,
        metavar="0-1",
        help="how much of a denoiser's or JPEG network's work is wanted: 0 the input, 1 (default) all, else a blend",
    )
    arguments.add_tiling(work)
    work.add_argument("--batch-size", type=int, default=1, metavar="N", help="tiles per call of the network (1)")
    arguments.add_device(work)
    work.add_argument(
        "--alpha-upsampler",
        type=lambda text: "network" if text == "realesrgan" else text,
        choices=("network", "bicubic"),
        default="network",
        metavar="HOW",
        help="what enlarges transparency: network (default) or bicubic",
    )
    precision = work.add_mutually_exclusive_group()
    arguments.add_dtype(
        precision,
        "float32, bfloat16 or float16 (default: bfloat16 on a GPU that has it, else float32)",
        default=None,
        choices=arguments.DTYPES[:3],
    )
    precision.add_argument(
        "--fp32", dest="dtype", action="store_const", const="float32", help="the same as --dtype float32"
    )
    arguments.add_backend(work)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit status."""
    from atd.restoration.sharding import joined_shard

    with arguments.chosen_backend(args), joined_shard() as shard:
        return restore_jobs(args, shard)


def restore_jobs(args: argparse.Namespace, shard: Shard) -> int:
    """Restore this process's share of the files; the exit status."""
    from atd.images import SaveOptions
    from atd.images.decoding import silence_libtiff
    from atd.images.image import LARGEST_INPUT
    from atd.restoration.batch import label_of, needs_network, plan_jobs, run_jobs
    from atd.restoration.network import check_strength, scale_of
    from atd.restoration.options import FileOptions, RestoreOptions
    from atd.restoration.progress import progress_callback
    from atd.restoration.runner import tell_tile_size
    from atd.system import as_dtype

    if args.suffix is not None and Path(args.suffix).name != args.suffix and args.suffix:
        raise InputError(f"--suffix is a part of a file's name, got {args.suffix!r}")
    networks = Networks(args, shard.device(args.device))
    options = RestoreOptions(
        tile=args.tile,
        overlap=args.overlap,
        batch_size=args.batch_size,
        outscale=args.outscale,
        self_ensemble=args.self_ensemble,
        dtype=as_dtype(args.dtype),
        alpha_upsampler=args.alpha_upsampler,
        max_pixels=LARGEST_INPUT if args.max_pixels is None else args.max_pixels or None,
        strength=args.strength,
    )
    files = FileOptions(
        save=SaveOptions(quality=args.save_quality, subsampling=args.subsampling),
        eight_bit=args.eight_bit,
        stream={"auto": None, "on": True, "off": False}[args.stream],
        resume=args.resume,
    )
    jobs = shard.plan(
        lambda: plan_jobs(
            args.input,
            args.output,
            label=label_of(networks.name) if args.suffix is None else args.suffix,
            gray_label=networks.gray_name if args.suffix is None else None,
            format=args.format,
            recursive=args.recursive,
            include=args.include,
            exclude=args.exclude,
        )
    )
    scale = 1
    if any(needs_network(job, overwrite=args.overwrite) for job in jobs):
        networks.announce()
        check_strength(networks.get(), options.strength)
        tell_tile_size(networks.get(), options.tile, options.overlap)
        # The networks for colour and for gray, where there are two, have the same.
        scale = scale_of(networks.get())
    show_progress = not args.quiet and shard.rank == 0 and sys.stderr.isatty()
    counts = {"restored": 0, "skipped": 0, "failed": 0}
    lines = ResultLines()
    silence_libtiff()
    with warnings_as_lines():
        for result in run_jobs(
            jobs,
            lambda header: networks.get(gray=header.is_gray),
            options,
            files,
            scale=scale,
            progress=lambda number, job: progress_callback(show_progress, f"{number}/{len(jobs)} {job.source.name}"),
            overwrite=args.overwrite,
            workers=args.workers,
        ):
            counts[result.status] += 1
            if result.error is not None:
                _print_failure(result.job, result.error, with_traceback=args.traceback)
            elif result.status == "restored" and not args.quiet:
                lines.write(result.job.target)
    counts = shard.total(counts)
    if shard.rank == 0:
        summary = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
        hint = " (existing results are kept; --overwrite replaces them)" if counts["skipped"] else ""
        say(f"atd: {summary}{hint}")
    if lines.error is not None and lines.were_lost:
        say(f"atd: the names of results could not be written to stdout: {lines.error.strerror}")
    return 1 if counts["failed"] or lines.were_lost else 0


@contextlib.contextmanager
def warnings_as_lines() -> Generator[None, None, None]:
    """Print warnings as lines ``atd: warning: …``, each time and not once a place, while the block runs."""
    from PIL import Image

    # Restores the filters and showwarning.
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        # Sizes are checked against free RAM and disk instead.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.showwarning = _say_warning
        yield


def _say_warning(message: Warning | str, *_: object, **__: object) -> None:
    from atd.images.decoding import file_being_decoded

    text, path = str(message), file_being_decoded()
    said = f"{path}: {text}" if path is not None and str(path) not in text else text
    say(f"atd: warning: {one_line(said)}")


def _print_failure(job: Job, error: BaseException, *, with_traceback: bool) -> None:
    """A sentence for what the user can mend, the traceback of a defect."""
    sentence = sentence_for(error)
    if sentence is None:
        text = f"{one_line(job.source)} met a defect:\n{''.join(traceback.format_exception(error)).rstrip()}"
    else:
        text = sentence if str(job.source) in sentence else f"{job.source}: {sentence}"
        for path in (job.source, *job.targets):
            text = text.replace(str(path), one_line(path))
        text = " ".join(text.split("\n"))
        if with_traceback:
            text += f"\n{''.join(traceback.format_exception(error)).rstrip()}"
    say(f"atd: {text}")
