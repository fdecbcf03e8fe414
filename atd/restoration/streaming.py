"""Restore a file that is too large to hold: read by regions, computed in strips, written as they finish.

Extra `io` (libvips). Finished rows are appended to ``<name>.part`` as raw samples; ``<name>.part.json`` says how far
they reach and what they were made from. At the end the rows are encoded, the result renamed, and both files removed:
nothing unfinished ever bears the final name, and a run that was killed goes on with ``resume=True``.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor, nn

from atd.errors import ImageError, InputError
from atd.images import tensor_to_samples
from atd.images.exif import add_exif_to_tiff
from atd.images.vips import encode_raw, import_vips, open_regions
from atd.restoration.network import scale_of
from atd.restoration.options import RestoreOptions
from atd.restoration.plan import FilePlan, part_of
from atd.restoration.progress import Callback, TileCounter
from atd.restoration.runner import Position, Source, TileRunner, choose_tile, strips, tell_tiles
from atd.system import atomic_write

STRIP_BYTES = 250_000_000
"""What one strip of finished rows may take as float32, when the tile size is ours to choose."""


@dataclass(frozen=True)
class Origin:
    """What finished rows were made from; all of it must be the same to go on with them."""

    input: str
    weights: str
    plan: dict[str, object]


def stream_file(network: nn.Module, plan: FilePlan, options: RestoreOptions, callback: Callback | None = None) -> None:
    """Restore a file as planned into a PNG or TIFF, holding a few strips at a time.

    With ``plan.options.resume`` it goes on with the rows of an earlier run; without such rows it begins at the top.

    Raises:
        ImageError: a file cannot be read or written as asked.
        InputError: the rows of the earlier run were made from another input, weights or options.
    """
    pyvips = import_vips(f"streaming {plan.source} from file to file")
    height, width, channels = plan.header.shape
    scale = scale_of(network)
    journal = _Journal(plan.target, origin_of(network, plan, options))
    position, finished = journal.open(plan.options.resume)
    if position is None and options.tile == "auto":
        options = replace(options, tile=_tile_for_strips(network, height, width, channels, options))
    raw = plan.header._replace(shape=(height * scale, width * scale, channels))
    try:
        read = open_regions(plan.source, plan.header, eight_bit=plan.options.eight_bit)
        source = Source(1, height, width, lambda top, bottom, left, right: read(top, bottom, left, right)[None])
        with journal.part.open("r+b") as part:
            for strip in strips(network, source, options, TileCounter(callback), position):
                bottom = strip.top + strip.rows.shape[-2]
                # The first strip after resuming was finished before, except for what the next one needs of it.
                if bottom > finished:
                    _write_rows(part, strip.rows[0], strip.top, raw.dtype)
                    finished = bottom
                    journal.record(part, finished, strip.position)
                del strip
        with atomic_write(plan.target) as temporary:
            assert plan.metadata is not None
            encode_raw(journal.part, raw, temporary, plan.result.shape[:2], plan.metadata, plan.format_name)
            if plan.format_name == "TIFF" and plan.metadata.exif:
                add_exif_to_tiff(temporary, plan.metadata.exif)
    except (ImageError, pyvips.Error) as error:
        # A broken input stays broken: rows of it are no good to anyone.
        journal.remove()
        if isinstance(error, ImageError):
            raise
        reason = " ".join(str(error).split())
        raise ImageError(f"{plan.source} cannot be decoded or {plan.target} not encoded ({reason})") from error
    except BaseException:
        if not finished:
            journal.remove()
        raise
    journal.remove()


def origin_of(network: nn.Module, plan: FilePlan, options: RestoreOptions) -> Origin:
    """Fingerprints of the input file and the weights, and everything else that decides the pixels."""
    with plan.source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    choices = {
        "tile": options.tile,
        "overlap": options.overlap,
        "self_ensemble": options.self_ensemble,
        "dtype": str(options.dtype),
        "eight_bit": plan.options.eight_bit,
        "scale": scale_of(network),
    }
    return Origin(digest, fingerprint(network), choices)


def fingerprint(network: nn.Module) -> str:
    """SHA-256 over the class, the settings and every tensor of a network."""
    digest = hashlib.sha256(f"{type(network).__qualname__} {getattr(network, 'config', '')}".encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class _Journal:
    """``<name>.part`` and ``<name>.part.json``: what is finished, and from what."""

    def __init__(self, target: Path, origin: Origin) -> None:
        self.part = part_of(target)
        self.file = self.part.with_name(self.part.name + ".json")
        self.origin = origin

    def open(self, resume: bool) -> tuple[Position | None, int]:
        """The last finished position and the number of finished rows; begins anew where there is nothing to resume."""
        if resume and self.part.exists() and self.file.exists():
            try:
                state = json.loads(self.file.read_text())
                origin = Origin(**state["origin"])
                position, finished = Position(**state["position"]), int(state["finished"])
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f"{self.file} cannot be read: delete it and {self.part.name} to begin anew") from error
            for field in ("input", "weights", "plan"):
                if getattr(origin, field) != getattr(self.origin, field):
                    other = {"input": "another input", "weights": "other weights", "plan": "other settings"}[field]
                    raise InputError(
                        f"{self.part} was made from {other}: give the same again, or begin anew without resuming"
                    )
            return position, finished
        self.part.parent.mkdir(parents=True, exist_ok=True)
        self.file.unlink(missing_ok=True)
        self.part.write_bytes(b"")
        return None, 0

    def record(self, part: BinaryIO, finished: int, position: Position) -> None:
        """Say that rows are finished, once they are on the disk."""
        part.flush()
        os.fsync(part.fileno())
        state = {"origin": asdict(self.origin), "position": asdict(position), "finished": finished}
        with atomic_write(self.file) as temporary:
            temporary.write_text(json.dumps(state, indent=1))

    def remove(self) -> None:
        self.part.unlink(missing_ok=True)
        self.file.unlink(missing_ok=True)


def _tile_for_strips(network: nn.Module, height: int, width: int, channels: int, options: RestoreOptions) -> int:
    """The tile that fits into memory, and no taller than a strip of the result may be in RAM."""
    runner = TileRunner(network, options.dtype, options.self_ensemble)
    tallest = max(STRIP_BYTES // (width * runner.scale**2 * channels * 4), 1)
    tile = choose_tile(runner, height, width, "auto", options.batch_size, longest=tallest)
    if tile < max(height, width):
        tell_tiles(height, width, tile)
    return tile


def _write_rows(part: BinaryIO, rows: Tensor, top: int, dtype: np.dtype) -> None:
    """Round (c, rows, w) float32 to samples at row `top` of the file, a few rows at a time."""
    channels, count, width = rows.shape
    part.seek(top * width * channels * dtype.itemsize)
    for first in range(0, count, 64):
        part.write(tensor_to_samples(rows[:, first : first + 64].clamp(0, 1), dtype).tobytes())
