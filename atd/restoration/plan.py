"""What a restoration will give and need, decided from a header before any work: size, passes, RAM, disk, streaming."""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from atd.errors import ImageError, InputError, MissingExtraError, NotEnoughMemoryError
from atd.images import SUFFIXES, ImageFile, ImageHeader, Metadata, check_writable
from atd.images.vips import import_vips
from atd.restoration import memory
from atd.restoration.options import FileOptions

logger = logging.getLogger("atd.restoration")

STREAMED_FORMATS = ("PNG", "TIFF")
"""Formats whose files can be written in strips."""
LONGEST_NAME = 255
"""Bytes of a file's name on the usual file systems."""


@dataclass(frozen=True)
class FilePlan:
    """How one file will be restored. Made from a file that is open; holds nothing of it but its header."""

    source: Path
    target: Path
    format_name: str
    """Of `target`."""
    header: ImageHeader
    """Of `source`."""
    result: ImageHeader
    """Of `target`."""
    metadata: Metadata | None
    """Read where the file is streamed, since it is then not decoded by us."""
    options: FileOptions

    @property
    def stream(self) -> bool:
        """Whether it goes from file to file in strips instead of through memory."""
        return self.metadata is not None


def check_not_input(source: Path, target: Path) -> None:
    """Refuse to write over the input, by whatever name: the same path, a link to it, or its name in other letters."""
    if target.exists() and target.samefile(source):
        raise InputError(f"{target} is the input {source} itself, which would be lost: name another output")


def check_size(image: ImageFile, max_pixels: int | None) -> None:
    """Refuse, with an `ImageError`, a file whose header claims more pixels than are wanted; None: no limit."""
    height, width, _ = image.header.shape
    if max_pixels is not None and height * width > max_pixels:
        raise ImageError(
            f"{image.path} has {width}x{height} pixels, more than the limit of {max_pixels}: if such an image is "
            f"meant, raise the limit to {height * width} or more (--max-pixels, max_pixels in Python)"
        )


def plan_file(
    image: ImageFile,
    target: Path,
    scale: int,
    outscale: float | None = None,
    options: FileOptions | None = None,
    *,
    max_pixels: int | None = None,
) -> FilePlan:
    """Decide how an open file is restored, for the Python functions and the command alike.

    Args:
        target: the file to write.
        scale: of the network. outscale, max_pixels: as in `restore`.

    Raises:
        ImageError: there are too many pixels, or the format of `target` cannot hold the result, or not in strips.
        InputError: `target` is the input, or streaming was asked for and `outscale` needs the network more than once.
        MissingExtraError: streaming was asked for without libvips.
        NotEnoughMemoryError, NotEnoughDiskError: the result does not fit into what is free.
    """
    options = options or FileOptions()
    source, header = image.path, image.header
    check_size(image, max_pixels)
    check_not_input(source, target)
    height, width, channels = header.shape
    result = ImageHeader((*output_size(height, width, scale, outscale), channels), header.dtype)
    stream = options.stream
    if stream is None:
        # Rows of a run before can only be used, or replaced, by streaming again.
        stream = part_of(target).exists() or _is_better_streamed(header, target, scale, outscale)
    obstacle: str | None = None
    if stream:
        import_vips(f"streaming {source} from file to file")
        obstacle = image.regions_obstacle()
        stream = obstacle is None
    if stream and passes(scale, outscale) > 1:
        raise InputError(f"outscale {outscale} needs the network more than once, which streaming cannot do")
    format_name = check_writable(target, result)
    if stream and format_name not in STREAMED_FORMATS:
        raise ImageError(f"{target}: an image this large is written as png or tiff, not as {format_name}")
    if not stream:
        try:
            require_ram_for(header.shape, scale, outscale)
        except NotEnoughMemoryError as error:
            hindered = f" (streaming is not possible: {obstacle})" if obstacle else ""
            raise NotEnoughMemoryError(f"{source}: {error}{hindered}") from None
        if obstacle:
            logger.warning("%s is restored in memory instead of being streamed: %s", source, obstacle)
    sample = channels * header.dtype.itemsize
    rows = height * width * scale**2 * sample if stream else 0
    memory.require_disk(rows + result.shape[0] * result.shape[1] * sample, target)
    return FilePlan(source, target, format_name, header, result, image.metadata() if stream else None, options)


def part_of(target: Path) -> Path:
    """Where the finished rows of an unfinished streamed result lie."""
    name = target.name + ".part"
    if len(os.fsencode(name + ".json")) > LONGEST_NAME:
        name = f"{target.name[:40]}-{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]}.part"
    return target.with_name(name)


def is_unfinished(target: Path) -> bool:
    """Whether rows of an unfinished streamed result lie there; a run that was killed at once leaves an empty file."""
    part = part_of(target)
    return part.exists() and part.stat().st_size > 0


def output_size(height: int, width: int, scale: int, outscale: float | None) -> tuple[int, int]:
    """Height and width of the result."""
    factor = scale if outscale is None else outscale
    return max(round(height * factor), 1), max(round(width * factor), 1)


def passes(scale: int, outscale: float | None) -> int:
    """How often the network is applied: until its scales multiply to `outscale`, and at least once."""
    count = 1
    while outscale is not None and scale > 1 and scale**count < outscale:
        count += 1
    return count


def ram_needed(shape: tuple[int, ...], scale: int, outscale: float | None) -> int:
    """Bytes that restoring an (h, w, c) image in memory takes beside the network's own."""
    height, width, channels = shape
    largest = max(scale ** passes(scale, outscale), outscale or 0)
    # The float32 result, its rounded copy, what the tiler holds in between, and the input.
    return int(height * width * channels * 4 * (largest**2 * 2.5 + 2))


def require_ram_for(shape: tuple[int, ...], scale: int, outscale: float | None) -> None:
    """Refuse, before any work, an (h, w, c) image whose restoration the free RAM cannot hold."""
    height, width, _ = shape
    work = f"restoring {width}x{height} pixels to {outscale or scale:g} times the size"
    memory.require_ram(ram_needed(shape, scale, outscale), work)


def _is_better_streamed(header: ImageHeader, target: Path, scale: int, outscale: float | None) -> bool:
    """Whether the result would take much of the free RAM, and can be streamed."""
    if SUFFIXES.get(target.suffix.lower()) not in STREAMED_FORMATS or passes(scale, outscale) > 1:
        return False
    try:
        import_vips("streaming")
    except MissingExtraError:
        return False
    free = memory.free_ram()
    return free is not None and ram_needed(header.shape, scale, outscale) > free / 4
