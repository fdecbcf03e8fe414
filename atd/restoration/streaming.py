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
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor, nn

from atd.images.files import SUFFIXES, atomic, check_writable, probe, read_metadata
from atd.images.image import ImageError, check_unit_range
from atd.images.tiff import add_exif
from atd.images.vips import import_vips, open_vips, save_vips, vips_with_metadata
from atd.restoration import memory
from atd.restoration.options import Settings, output_size, passes, ram_needed
from atd.restoration.runner import Position, Source, TileRunner, choose_tile, scale_of, strips

STRIP_BYTES = 250_000_000
"""What one strip of finished rows may take as float32, when the tile size is ours to choose."""
FORMATS = ("PNG", "TIFF")


@dataclass(frozen=True)
class Origin:
    """What finished rows were made from; all of it must be the same to go on with them."""

    input: str
    weights: str
    plan: dict[str, Any]


def part_of(target: Path) -> Path:
    """Where the finished rows of an unfinished result lie."""
    return target.with_name(target.name + ".part")


def should_stream(source: Path, target: Path, scale: int, outscale: float | None, *, eight_bit: bool = False) -> bool:
    """Whether a file is better restored in strips: the result would take much of the free RAM, and it can be done."""
    if SUFFIXES.get(target.suffix.lower()) not in FORMATS or passes(scale, outscale) > 1:
        return False
    try:
        import_vips("")
    except ImageError:
        return False
    free = memory.free_ram()
    return free is not None and ram_needed(probe(source, eight_bit=eight_bit).shape, scale, outscale) > free / 4


def stream_file(
    network: nn.Module, source: Path, target: Path, settings: Settings, *, resume: bool = False, eight_bit: bool = False
) -> None:
    """Restore `source` into `target`, a PNG or TIFF, holding a few strips at a time.

    Args:
        resume: go on with the rows of an earlier run. Refused when input, weights or plan are not the same; without
            such rows the run begins at the top.

    Raises:
        ImageError: a file cannot be read or written as asked.
        ValueError: `resume`, and the rows were made from something else.
    """
    pyvips = import_vips("streaming a large image from file to file")
    header = probe(source, eight_bit=eight_bit)
    height, width, channels = header.shape
    scale = scale_of(network)
    if passes(scale, settings.outscale) > 1:
        raise ValueError(f"outscale {settings.outscale} needs the network more than once, which streaming cannot do")
    size = output_size(height, width, scale, settings.outscale)
    name = check_writable(target, header.dtype, channels, *size)
    if name not in FORMATS:
        raise ImageError(f"{target}: an image this large is written as png or tiff, not as {name}")
    raw_bytes = height * width * scale**2 * channels * header.dtype.itemsize
    memory.require_disk(raw_bytes + size[0] * size[1] * channels * header.dtype.itemsize, target)
    journal = _Journal(target, origin_of(network, source, settings, eight_bit))
    position, finished = journal.open(resume)
    if position is None and settings.tile == "auto":
        settings = replace(settings, tile=_tile_for_strips(network, height, width, channels, settings))
    image = open_vips(source, access="random")
    if image.bands != channels or np.dtype(_dtype_of(image)) != header.dtype:
        image = _as_probed(image, channels, eight_bit)
    try:
        with journal.part.open("r+b") as part:
            for strip in strips(
                network,
                Source(height, width, _reader(image)),
                tile=settings.tile,
                overlap=settings.overlap,
                batch_size=settings.batch_size,
                self_ensemble=settings.self_ensemble,
                dtype=settings.dtype,
                callback=settings.callback,
                resume=position,
            ):
                bottom = strip.top + strip.rows.shape[-2]
                # The first strip after resuming was finished before, except for what the next one needs of it.
                if bottom > finished:
                    _write_rows(part, strip.rows, strip.top, header.dtype)
                    finished = bottom
                    journal.record(part, finished, strip.position)
                del strip
        _encode(journal.part, target, source, (height * scale, width * scale, channels), header.dtype, size, name)
    except (ImageError, pyvips.Error) as error:
        # A broken input stays broken: rows of it are no good to anyone.
        journal.remove()
        if isinstance(error, ImageError):
            raise
        reason = " ".join(str(error).split())
        raise ImageError(f"{source} cannot be decoded or {target} not encoded ({reason})") from error
    except BaseException:
        if not finished:
            journal.remove()
        raise
    journal.remove()


def origin_of(network: nn.Module, source: Path, settings: Settings, eight_bit: bool) -> Origin:
    """Fingerprints of the input file and the weights, and everything else that decides the pixels."""
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    plan = {
        "tile": settings.tile,
        "overlap": settings.overlap,
        "self_ensemble": settings.self_ensemble,
        "dtype": str(settings.dtype),
        "eight_bit": eight_bit,
        "scale": scale_of(network),
    }
    return Origin(digest, fingerprint(network), plan)


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
                raise ValueError(f"{self.file} cannot be read: delete it and {self.part.name} to begin anew") from error
            for field in ("input", "weights", "plan"):
                if getattr(origin, field) != getattr(self.origin, field):
                    what = {"input": "another input", "weights": "other weights", "plan": "other settings"}[field]
                    raise ValueError(
                        f"{self.part} was made from {what}: give the same again, or begin anew without resuming"
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
        with atomic(self.file) as temporary:
            temporary.write_text(json.dumps(state, indent=1))

    def remove(self) -> None:
        self.part.unlink(missing_ok=True)
        self.file.unlink(missing_ok=True)


def _tile_for_strips(network: nn.Module, height: int, width: int, channels: int, settings: Settings) -> int:
    """The tile that fits into memory, and no taller than a strip of the result may be in RAM."""
    runner = TileRunner(network, settings.dtype, settings.self_ensemble)
    tallest = max(STRIP_BYTES // (width * runner.scale**2 * channels * 4), 1)
    return choose_tile(runner, height, width, "auto", settings.batch_size, longest=tallest)


def _dtype_of(image: Any) -> type:
    return {"uchar": np.uint8, "ushort": np.uint16, "float": np.float32}[image.format]


def _as_probed(image: Any, channels: int, eight_bit: bool) -> Any:
    """libvips and Pillow read some files differently (an alpha channel that is a palette entry, 1-bit, 16 bits)."""
    if eight_bit and image.format == "ushort":
        image = (image >> 8).cast("uchar")
    if image.bands == channels:
        return image
    if image.bands > channels and channels in (1, 3):
        return image.extract_band(0, n=channels)
    if image.bands in (1, 2) and channels in (3, 4):
        colour = image.extract_band(0).bandjoin([image.extract_band(0)] * 2)
        return colour.bandjoin(image.extract_band(1)) if image.bands == 2 else colour
    raise ImageError(f"an image of {image.bands} channels was expected to have {channels}: convert it to RGB first")


def _reader(image: Any) -> Any:
    """A function that reads a region as (c, h, w) float32 in [0, 1]."""
    import pyvips

    region = pyvips.Region.new(image)
    dtype = np.dtype(_dtype_of(image))
    peak = {np.uint8: 255.0, np.uint16: 65_535.0}.get(dtype.type)

    def read(top: int, bottom: int, left: int, right: int) -> Tensor:
        data = region.fetch(left, top, right - left, bottom - top)
        pixels = np.frombuffer(data, dtype).reshape(bottom - top, right - left, image.bands)
        if peak is None:
            check_unit_range(pixels)
        x = torch.from_numpy(np.ascontiguousarray(np.moveaxis(pixels, 2, 0)).astype(np.float32))
        return x.div_(peak) if peak else x

    return read


def _write_rows(part: BinaryIO, rows: Tensor, top: int, dtype: np.dtype) -> None:
    """Round (c, rows, w) float32 to samples at row `top` of the file, a few rows at a time."""
    peak = {np.uint8: 255.0, np.uint16: 65_535.0}.get(dtype.type)
    channels, count, width = rows.shape
    part.seek(top * width * channels * dtype.itemsize)
    for first in range(0, count, 64):
        block = rows[:, first : first + 64].clamp(0, 1)
        block = block.mul_(peak).round_() if peak else block
        part.write(np.ascontiguousarray(block.permute(1, 2, 0).numpy().astype(dtype)).tobytes())


def _encode(
    part: Path,
    target: Path,
    source: Path,
    shape: tuple[int, int, int],
    dtype: np.dtype,
    size: tuple[int, int],
    name: str,
) -> None:
    pyvips = import_vips("encoding a large image")
    height, width, channels = shape
    image = pyvips.Image.rawload(
        str(part),
        width,
        height,
        channels,
        format={np.uint8: "uchar", np.uint16: "ushort", np.float32: "float"}[dtype.type],
        interpretation=_interpretation(channels, dtype),
        access="sequential",
        revalidate=True,
    )
    if size != (height, width):
        image = image.resize(size[1] / width, vscale=size[0] / height, kernel="lanczos3")
        image = image.crop(0, 0, size[1], size[0])
    metadata = read_metadata(source)
    with atomic(target) as temporary:
        save_vips(vips_with_metadata(image, metadata), temporary, name)
        if name == "TIFF" and metadata.exif:
            add_exif(temporary, metadata.exif)


def _interpretation(channels: int, dtype: np.dtype) -> str:
    if dtype == np.float32:
        return "b-w" if channels < 3 else "scrgb"
    wide = dtype == np.uint16
    return ("grey16" if wide else "b-w") if channels < 3 else ("rgb16" if wide else "srgb")
