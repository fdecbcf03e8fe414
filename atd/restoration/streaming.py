"""Restore a file that is too large to hold: read by regions, computed in strips, written as they finish.

Extra `io` (libvips). Finished rows are appended to ``<name>.part`` as raw samples; ``<name>.part.json`` says how far
they reach, what they were made from, and their checksums. While a run works on the rows, it holds them locked. At the
end they are encoded, the result renamed, and both files removed: nothing unfinished ever bears the final name, and a
run that was killed goes on with ``resume=True``.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from atd.errors import ImageError, InputError
from atd.images import tensor_to_samples
from atd.images.exif import add_exif_to_tiff
from atd.images.vips import encode_raw, import_vips, open_regions
from atd.restoration import memory
from atd.restoration.network import scale_of, warn_of_gray_noise
from atd.restoration.options import RestoreOptions
from atd.restoration.plan import FilePlan, part_of
from atd.restoration.progress import Callback, TileCounter
from atd.restoration.runner import Position, Source, TileRunner, choose_tile, strips, tell_tiles
from atd.system import atomic_write, exclusive_file, naming

STRIP_BYTES = 250_000_000
"""What one strip of finished rows may take as float32 when the tile size is ours to choose and free RAM is unknown."""
STRIP_SHARE = 1 / 6
"""And the part of the usable RAM that it may take where it is known."""
STRIP_COPIES = 2.5
"""What is held of a strip at once: the tiles, the strip they are joined to, the part that the next one fades into."""


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
    # Before anything is made for the result: an input that cannot be opened leaves nothing behind.
    try:
        read = open_regions(plan.source, plan.header, eight_bit=plan.options.eight_bit)
    except pyvips.Error as error:
        raise _unusable(plan, error) from error
    origin = origin_of(network, plan, options)
    part = part_of(plan.target)
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        # Closing the file may fail once more on a full disk, so the name is given outside.
        with naming(part), exclusive_file(part) as file:
            journal = _Journal(plan.target, origin, file)
            try:
                _stream(network, plan, options, callback, read, journal)
            finally:
                journal.remove_unused()
    except BlockingIOError as error:
        raise InputError(f"{part} is being written by another run: wait for it, or choose another output") from error
    except pyvips.Error as error:
        raise _unusable(plan, error) from error


def _stream(
    network: nn.Module,
    plan: FilePlan,
    options: RestoreOptions,
    callback: Callback | None,
    read: Callable[[int, int, int, int], Tensor],
    journal: _Journal,
) -> None:
    """Compute the rows that are missing, and encode them all."""
    height, width, channels = plan.header.shape
    scale = scale_of(network)
    warn_of_gray_noise(network, is_gray=plan.header.is_gray)
    raw = plan.header._replace(shape=(height * scale, width * scale, channels))
    position = journal.open(plan.options.resume)
    try:
        if position is None and options.tile == "auto":
            options = replace(options, tile=tile_for_strips(network, height, width, channels, options))
        source = Source(1, height, width, lambda top, bottom, left, right: read(top, bottom, left, right)[None])
        for strip in strips(network, source, options, TileCounter(callback), position):
            # The first strip after resuming was finished before, except for what the next one needs of it.
            if strip.top + strip.rows.shape[-2] > journal.finished:
                journal.write(_samples(strip.rows[0], raw.dtype), strip.top, strip.position)
            del strip
        with atomic_write(plan.target) as temporary:
            assert plan.metadata is not None
            encode_raw(journal.part, raw, temporary, plan.result.shape[:2], plan.metadata, plan.format_name)
            if plan.format_name == "TIFF" and plan.metadata.exif:
                add_exif_to_tiff(temporary, plan.metadata.exif)
    except BaseException as error:
        # A broken input stays broken: rows of it are no good to anyone.
        if not journal.finished or isinstance(error, ImageError | import_vips("streaming").Error):
            journal.remove()
        raise
    journal.remove()


def _unusable(plan: FilePlan, error: Exception) -> ImageError:
    reason = " ".join(str(error).split())
    return ImageError(f"{plan.source} cannot be decoded or {plan.target} not encoded ({reason})")


def origin_of(network: nn.Module, plan: FilePlan, options: RestoreOptions) -> Origin:
    """Fingerprints of the input file and the weights, and everything else that decides the pixels."""
    with plan.source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    choices: dict[str, object] = {
        "tile": options.tile,
        "overlap": options.overlap,
        "self_ensemble": options.self_ensemble,
        "dtype": str(options.dtype),
        "eight_bit": plan.options.eight_bit,
        "scale": scale_of(network),
    }
    if options.alpha_upsampler != "network":  # rows of versions before the choice can be gone on with
        choices["alpha_upsampler"] = options.alpha_upsampler
    if options.strength != 1:
        choices["strength"] = options.strength
    return Origin(digest, fingerprint(network), choices)


def fingerprint(network: nn.Module) -> str:
    """SHA-256 over the class, the settings and every tensor of a network."""
    digest = hashlib.sha256(f"{type(network).__qualname__} {getattr(network, 'config', '')}".encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class _Piece(NamedTuple):
    """Finished rows that were written at once."""

    top: int
    bottom: int
    digest: str


class _Journal:
    """``<name>.part`` and ``<name>.part.json``: what is finished, and from what.

    Attributes:
        finished: rows from the top that need no more work.
    """

    def __init__(self, target: Path, origin: Origin, file: BinaryIO) -> None:
        """Keep the rows in `file`, which is the ``.part`` of `target` and locked."""
        self.part = part_of(target)
        self.record = self.part.with_name(self.part.name + ".json")
        self.origin = origin
        self.file = file
        self.pieces: list[_Piece] = []
        self.row_bytes = 0

    @property
    def finished(self) -> int:
        return self.pieces[-1].bottom if self.pieces else 0

    def open(self, resume: bool) -> Position | None:
        """The last finished position, of rows that are as they were written; begins anew where there are none.

        Raises:
            InputError: the rows were made from something else, or are damaged.
        """
        if not (resume and self.record.exists()):
            self.record.unlink(missing_ok=True)
            self.file.truncate(0)
            return None
        try:
            state = json.loads(self.record.read_text())
            origin, position = Origin(**state["origin"]), Position(**state["position"])
            self.pieces = [_Piece(*piece) for piece in state["pieces"]]
            self.row_bytes = int(state["row_bytes"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{self.record} cannot be read: delete it and {self.part.name} to begin anew") from error
        for field in ("input", "weights", "plan"):
            if getattr(origin, field) != getattr(self.origin, field):
                other = {"input": "another input", "weights": "other weights", "plan": "other settings"}[field]
                raise InputError(
                    f"{self.part} was made from {other}: give the same again, or begin anew without resuming"
                )
        expected = 0
        for piece in self.pieces:
            if piece.top != expected or piece.digest != self._digest(piece.top, piece.bottom):
                raise InputError(
                    f"{self.part} is damaged: rows {piece.top} to {piece.bottom} are not those that were written; "
                    f"begin anew without resuming"
                )
            expected = piece.bottom
        return position

    def write(self, samples: Iterator[np.ndarray], top: int, position: Position) -> None:
        """Put (rows, w, c) samples at row `top`, and say that they are finished once they are on the disk."""
        pieces = [piece for piece in self.pieces if piece.bottom <= top]
        straddling = self.pieces[len(pieces)] if len(pieces) < len(self.pieces) else None
        if straddling is not None and straddling.top < top:
            # A run that goes on with smaller tiles computes the last rows anew.
            pieces.append(_Piece(straddling.top, top, self._digest(straddling.top, top)))
        digest, bottom = hashlib.sha256(), top
        for rows in samples:
            self.row_bytes = rows[0].nbytes
            if bottom == top:
                self.file.seek(top * self.row_bytes)
            data = rows.tobytes()
            digest.update(data)
            self.file.write(data)
            bottom += len(rows)
        self.file.flush()
        os.fsync(self.file.fileno())
        self.pieces = [*pieces, _Piece(top, bottom, digest.hexdigest())]
        state = {
            "origin": asdict(self.origin),
            "position": asdict(position),
            "finished": self.finished,
            "row_bytes": self.row_bytes,
            "pieces": self.pieces,
        }
        with atomic_write(self.record) as temporary:
            temporary.write_text(json.dumps(state, indent=1))

    def remove_unused(self) -> None:
        """Remove a file that never got a row, as of a run that was interrupted at once."""
        if self.part.exists() and not self.part.stat().st_size and not self.record.exists():
            self.remove()

    def remove(self) -> None:
        if os.name == "nt":
            # Open files cannot be deleted there, and there is no lock to keep.
            self.file.close()
        self.part.unlink(missing_ok=True)
        self.record.unlink(missing_ok=True)

    def _digest(self, top: int, bottom: int) -> str:
        """SHA-256 of the rows from `top` to `bottom` as they lie in the file."""
        digest = hashlib.sha256()
        self.file.seek(top * self.row_bytes)
        left = (bottom - top) * self.row_bytes
        while left > 0 and (data := self.file.read(min(left, 1 << 20))):
            digest.update(data)
            left -= len(data)
        return digest.hexdigest()


def tile_for_strips(network: nn.Module, height: int, width: int, channels: int, options: RestoreOptions) -> int:
    """The tile that fits into memory, and no taller than a strip of the result may be in RAM."""
    runner = TileRunner(network, options.dtype, options.self_ensemble)
    free = memory.free_ram()
    strip_bytes = STRIP_BYTES if free is None else int(free * memory.USABLE * STRIP_SHARE)
    row_bytes = width * runner.scale**2 * channels * 4
    tile = choose_tile(
        runner,
        height,
        width,
        "auto",
        options.batch_size,
        reserve=int(STRIP_COPIES * min(strip_bytes, height * row_bytes)),
        longest=max(strip_bytes // row_bytes, 1),
    )
    if tile < max(height, width):
        tell_tiles(height, width, tile)
    return tile


def _samples(rows: Tensor, dtype: np.dtype) -> Iterator[np.ndarray]:
    """Round (c, rows, w) float32 to (rows, w, c) samples, a few rows at a time."""
    for first in range(0, rows.shape[1], 64):
        yield tensor_to_samples(rows[:, first : first + 64].clamp(0, 1), dtype)
