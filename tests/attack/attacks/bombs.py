"""Files of a few kilobytes that ask for all memory or all time, given to a process that may take 6 GB."""

from __future__ import annotations

import resource
import struct
import zlib
from pathlib import Path
from random import Random

from restoration_networks import Nearest

import atd
from attacks.processes import run_in_process
from attacks.runner import REFUSALS, Case, Cases, Wrong

MOST_RAM = 6_000_000_000
GREEDY = 1_000_000_000
"""More than this, beyond what an idle process has, is too much for a file that is then refused."""
SECONDS = 60


def cases(random: Random, folder: Path) -> Cases:
    """TIFF, PNG, GIF and BMP that promise a gigapixel; then any size, in memory and in strips."""
    side = 30_000
    while True:
        stream = random.choice([None, False, True])
        for name, data in (
            ("tif", _tiff(side)),
            ("png", _png(side, 0)),
            ("png", _png(side, side // 100)),
            ("gif", _gif(side)),
            ("bmp", _bmp(side)),
        ):

            def run(name=name, data=data, stream=stream) -> None:
                for path in folder.iterdir():
                    path.unlink()
                (folder / f"in.{name}").write_bytes(data)
                ended = run_in_process(restore, folder / f"in.{name}", folder / "out.png", stream, after=SECONDS)
                if ended.seconds >= SECONDS:
                    raise Wrong(f"works for more than {SECONDS} s")
                if ended.peak > GREEDY:
                    raise Wrong(f"takes {ended.peak / 1e9:.1f} GB")
                if ended.status not in (0, 2):
                    raise Wrong(f"ends with status {ended.status}")
                if ended.status == 2:
                    raise atd.LoadError("refused")

            yield Case(f"{name} of {side}x{side} in {len(data)} bytes, stream={stream}", run, 3 * SECONDS)
        side = random.randint(15_000, 65_000)


def restore(source: Path, target: Path, stream: bool | None) -> int:
    """The work of a process that restores without tiles; 2 where the file is refused."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_RAM, MOST_RAM))
    try:
        atd.restore_file(Nearest(scale=1), source, target, tile=None, stream=stream)
    except REFUSALS:
        return 2
    return 0


def _tiff(side: int) -> bytes:
    """One strip of 100 bytes for the whole image."""
    entries = ((256, side), (257, side), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, side), (279, 100))
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return b"II*\0" + struct.pack("<I", 108) + bytes(100) + struct.pack("<H", len(entries)) + directory + bytes(4)


def _png(side: int, rows: int) -> bytes:
    """Black of one bit, of which some rows are there, and everything has its checksum."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    packed = zlib.compress(bytes((side // 8 + 1) * rows), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def _gif(side: int) -> bytes:
    return (
        b"GIF89a"
        + struct.pack("<HHBBB", side, side, 0x80, 0, 0)
        + bytes(6)
        + b","
        + struct.pack("<HHHHB", 0, 0, side, side, 0)
        + b"\x02\x02\x4c\x01\x00;"
    )


def _bmp(side: int) -> bytes:
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 154, 0, 0, 54, 40, side, side, 1, 24, 0, 0, 1, 1, 0, 0) + bytes(100)
