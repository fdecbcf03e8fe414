"""Flags that mean the same in several commands, each defined once. Old spellings still work, and no help shows them."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from atd.system.backends import BACKENDS
from atd.system.dtypes import DTYPES, dtype_name

PARAMS = ("auto", "ema", "raw")


class Container(Protocol):
    """What flags are added to: a parser or one of its groups."""

    def add_argument(self, *name_or_flags: str, **options: Any) -> argparse.Action:
        """As `argparse.ArgumentParser.add_argument`."""
        ...


class ExclusiveContainer(Container, Protocol):
    """A parser or a group that can hold flags of which one may be given."""

    def add_mutually_exclusive_group(self) -> Container:
        """As `argparse.ArgumentParser.add_mutually_exclusive_group`."""
        ...


def add(container: Container, *flags: str, old: Sequence[str] = (), **options: Any) -> argparse.Action:
    """Add an option, and its `old` spellings without a word in the help."""
    action = container.add_argument(*flags, **options)
    hidden = {key: value for key, value in options.items() if key not in ("help", "required", "default", "dest")}
    for spelling in old:
        container.add_argument(spelling, dest=action.dest, default=argparse.SUPPRESS, help=argparse.SUPPRESS, **hidden)
    return action


def add_output(
    container: Container, help: str, *, metavar: str = "DIR", required: bool = False, old: Sequence[str] = ()
) -> None:
    """``-o/--output``: where a command writes."""
    add(container, "-o", "--output", type=Path, metavar=metavar, required=required, help=help, old=old)


def add_data(container: Container, help: str, *, required: bool = False) -> None:
    """``--data``: the folder that holds test sets or training images."""
    add(container, "--data", type=Path, metavar="DIR", required=required, help=help)


def add_workers(container: Container, help: str, *, default: int | None, old: Sequence[str] = ()) -> None:
    """``--workers``: processes or threads beside the main one."""
    add(container, "--workers", type=_count, default=default, metavar="N", help=help, old=old)


def add_model(container: Container) -> None:
    """``-n/--model``: the network."""
    help = "a name of `atd list`, a weights file or a folder"
    add(container, "-n", "--model", metavar="NAME", help=help, old=("--model-name",))


def add_weights(container: Container, *, default: str | None = "official") -> None:
    """``--weights``: which weights of a named network."""
    add(
        container,
        "--weights",
        default=default,
        metavar="WHICH",
        help="official (default), bundled, a file, a folder or org/repo[@revision]",
    )


def add_params(container: Container) -> None:
    """``--params``: which weights of a checkpoint that holds two."""
    add(
        container,
        "--params",
        choices=PARAMS,
        default="auto",
        metavar="WHICH",
        help="of a checkpoint that holds two: ema (a training's average), raw, or auto: the average where there is one",
    )


def add_scale(container: Container, help: str, *, choices: Sequence[int] | None = None) -> None:
    """``--scale``: the factor of a super-resolution network, not of the result."""
    add(container, "--scale", type=int, choices=choices, metavar="N", help=help)


def add_sigma(container: Container) -> None:
    """``--sigma``: standard deviation of noise."""
    add(container, "--sigma", type=level, metavar="S", help="strength of the noise, on the scale 0..255")


def add_quality(container: Container) -> None:
    """``--quality``: of JPEG compression."""
    add(container, "--quality", type=int, metavar="Q", help="JPEG quality, 1..100")


def add_device(container: ExclusiveContainer) -> None:
    """``--device``, or ``-g/--gpu`` by number: where the network runs."""
    one = container.add_mutually_exclusive_group()
    add(one, "--device", help="cpu, cuda, cuda:1, … (default: the GPU when there is one)")
    help = "the GPU of this number, from 0 on: --device cuda:N"
    add(one, "-g", "--gpu", dest="device", type=_gpu, metavar="N", help=help, old=("--gpu-id",))


def add_dtype(container: Container, help: str, *, default: str | None, choices: Sequence[str] = DTYPES) -> None:
    """``--dtype``: the precision of the computation; fp16, bf16 and the like are taken too."""
    add(container, "--dtype", type=dtype_name, choices=choices, default=default, metavar="TYPE", help=help)


def add_backend(container: Container) -> None:
    """``--backend``: the implementation of the operations."""
    add(
        container,
        "--backend",
        choices=BACKENDS,
        metavar="NAME",
        help=f"implementation: {', '.join(BACKENDS)} (default: the fastest that runs here)",
    )


def chosen_backend(args: argparse.Namespace) -> AbstractContextManager[object]:
    """``--backend`` while the block runs; without it, the backend that the environment or nobody has chosen."""
    from atd import ops

    return ops.use(args.backend) if args.backend else contextlib.nullcontext()


def add_tiling(container: Container) -> None:
    """``--tile``, ``--overlap`` and ``--self-ensemble``: how an image goes through the network."""
    add(
        container,
        "-t",
        "--tile",
        type=_tile,
        default="auto",
        metavar="auto|0|N",
        help="side of the tiles in pixels; 0: whole images; auto: whole where memory allows",
    )
    add(container, "--overlap", type=int, default=32, metavar="N", help="pixels that neighbouring tiles share (32)")
    add(container, "--self-ensemble", action="store_true", help="average over the eight flips and rotations")


def names(text: str) -> list[str]:
    """The names in a list with commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number of at least 1, got {text!r}")
    return int(text)


def _gpu(text: str) -> str:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(
            f"expected the number of one GPU, got {text!r} (several: torchrun --nproc-per-node N -m atd restore …)"
        )
    return f"cuda:{text}"


def _tile(text: str) -> int | str:
    if text == "auto":
        return text
    try:
        tile = int(text)
    except ValueError:
        tile = -1
    if tile < 0:
        raise argparse.ArgumentTypeError(f"expected auto, 0 or a number of pixels, got {text!r}")
    return tile


def level(text: str) -> float:
    """A strength of noise or a quality: whole ones as integers, as the papers write them."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number, got {text!r}") from None
    return int(value) if value.is_integer() else value
