"""Few bytes that claim many pixels are refused by their header; work that takes long is told."""

from __future__ import annotations

import contextlib
import logging
import struct
import time
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from restoration_networks import Nearest

from atd.cli import main
from atd.errors import ImageError, InputError
from atd.images import ImageHeader
from atd.restoration import api, batch, foresight
from atd.restoration.api import restore, restore_file
from atd.restoration.batch import Job, run_jobs
from atd.restoration.options import FileOptions, RestoreOptions


def bomb(path: Path, width: int, height: int) -> Path:
    """A gray PNG of 1 bit that claims a size; its data are those of a few rows."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((-(-width // 8) + 1) * 8))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize(("width", "height"), [(60_000, 60_000), (13_378, 13_377)])
@pytest.mark.parametrize("stream", [None, True])
def test_a_png_that_claims_more_than_the_limit_is_refused_by_its_header(tmp_path, width, height, stream):
    pytest.importorskip("pyvips")
    source, network = bomb(tmp_path / "in.png", width, height), Nearest(2)
    begun = time.monotonic()
    sentence = rf"in\.png has {width}x{height} pixels, .* raise the limit to {width * height} or more \(--max-pixels"
    with pytest.raises(ImageError, match=sentence):
        restore_file(network, source, tmp_path / "out.png", stream=stream)
    with pytest.raises(ImageError, match=sentence):
        restore(network, source)
    assert time.monotonic() - begun < 5
    assert [path.name for path in tmp_path.iterdir()] == ["in.png"]
    assert not network.seen


def test_the_limit_counts_pixels_of_files_and_not_of_arrays(tmp_path):
    pixels = np.zeros((10, 12, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    for limit in (120, 121, None):
        restore_file(Nearest(2), tmp_path / "in.png", tmp_path / "out.png", max_pixels=limit)
        restore(Nearest(2), tmp_path / "in.png", max_pixels=limit)
    with pytest.raises(ImageError, match="more than the limit of 119"):
        restore_file(Nearest(2), tmp_path / "in.png", tmp_path / "out.png", max_pixels=119)
    assert restore(Nearest(2), pixels, max_pixels=1).shape == (20, 24, 3)
    for wrong in (0, -1, 1.5, True):
        with pytest.raises(InputError, match="max_pixels >= 1"):
            restore(Nearest(2), pixels, max_pixels=wrong)  # pyright: ignore[reportArgumentType, reportCallIssue]


@pytest.mark.parametrize(("words", "status"), [((), 1), (("--max-pixels", "2000"), 1), (("--max-pixels", "0"), 0)])
def test_the_command_refuses_one_file_and_restores_the_rest(tmp_path, monkeypatch, capsys, words, status):
    monkeypatch.setattr(api, "load_network", lambda *_: Nearest(2))
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    Image.new("RGB", (40, 30)).save("in/a.png")
    if words == ():
        bomb(Path("in/b.png"), 60_000, 60_000)
    else:
        Image.new("RGB", (50, 41)).save("in/b.png")
    assert main(["restore", "-i", "in", "-o", "out", "--model", "net", *words]) == status
    assert Path("out/a_net.png").exists()
    assert Path("out/b_net.png").exists() == (status == 0)
    assert ("--max-pixels" in capsys.readouterr().err) == (status == 1)


class Slow(Nearest):
    """Five milliseconds a call."""

    def forward(self, x):
        time.sleep(0.005)
        return super().forward(x)


@pytest.mark.parametrize(("long", "told"), [(0.3, 1), (600.0, 0)])
def test_a_file_that_will_take_long_is_told_once(tmp_path, monkeypatch, caplog, long, told):
    monkeypatch.setattr(foresight, "LEARNING", 0.05)
    monkeypatch.setattr(foresight, "LONG", long)
    for name, size in (("a.png", (16, 16)), ("b.png", (192, 160))):
        Image.new("RGB", size).save(tmp_path / name)
    jobs = [Job(tmp_path / name, tmp_path / f"out_{name}") for name in ("a.png", "b.png")]
    seen = []

    class Progress:
        def __enter__(self):
            return seen.append

        def __exit__(self, *_):
            return None

    with caplog.at_level(logging.WARNING, "atd.restoration"):
        options = RestoreOptions(tile=16, overlap=0)
        results = list(
            run_jobs(jobs, lambda _: Slow(2), options, FileOptions(), scale=2, progress=lambda number, job: Progress())
        )
    assert [result.status for result in results] == ["restored", "restored"]
    assert len(seen) == 1 + 120
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == told
    if told:
        assert "b.png (192x160 pixels) will take about " in messages[0]


class PerPixel(Nearest):
    """On a clock of its own each pixel takes a hundredth of a second, and the first image a minute more."""

    def __init__(self):
        super().__init__(1)
        self.now = 0.0

    def forward(self, x):
        self.now += x.shape[-2] * x.shape[-1] / 100 + (0 if self.seen else 60)
        return super().forward(x)


def test_the_time_of_a_folder_is_that_of_its_pixels_and_is_told_rarely(tmp_path, monkeypatch, caplog):
    """Told times against the arithmetic, on a clock that only the network moves; bombs and results cost nothing."""
    network = PerPixel()
    monkeypatch.setattr(batch, "FolderForesight", lambda: foresight.FolderForesight(lambda: network.now))
    sizes = {f"{number:02}.png": (40, 50) for number in range(20)} | {"20.png": (400, 300), "21.png": (40, 50)}
    for name, size in sizes.items():
        Image.new("RGB", size).save(tmp_path / name)
    bomb(tmp_path / "22.png", 60_000, 60_000)
    (tmp_path / "23.png").write_bytes(b"no image")
    (tmp_path / "done.png").write_bytes(b"restored before")
    Image.new("RGB", (999, 999)).save(tmp_path / "24.png")
    jobs = [Job(tmp_path / name, tmp_path / f"out_{name}") for name in (*sizes, "22.png", "23.png")]
    jobs.append(Job(tmp_path / "24.png", tmp_path / "done.png"))
    with caplog.at_level(logging.WARNING, "atd.restoration"):
        files = run_jobs(
            jobs,
            lambda _: network,
            RestoreOptions(tile=None),
            FileOptions(),
            scale=1,
            progress=lambda *_: contextlib.nullcontext(),
        )
        statuses = [result.status for result in files]
    assert (statuses.count("restored"), statuses.count("failed"), statuses.count("skipped")) == (22, 2, 1)
    messages = [record.getMessage() for record in caplog.records]
    # After two files 18 of 20 s, one of 1200 s and one of 20 s are left: 1580 s. When half of that has gone by, the
    # large file is done, and too little is left to be told.
    (told,) = messages
    assert told.startswith("20 more files will take about 26 minutes: 2 are restored; ")
    assert told.endswith(f"; {tmp_path / '20.png'} (400x300 pixels) alone about 20 minutes")


def test_the_time_of_a_folder_is_told_again_when_half_of_it_has_gone_by(caplog):
    now = 0.0
    foreseen = foresight.FolderForesight(lambda: now)
    with caplog.at_level(logging.WARNING, "atd.restoration"):
        for number in range(1000):
            ahead = [partial(foresight.FileAhead, Path("x"), 10, 10)] * (999 - number)
            foreseen.restored(ImageHeader((10, 10, 3), np.dtype(np.uint8)), lambda ahead=ahead: ahead)
            now += 5
    messages = [record.getMessage() for record in caplog.records]
    # 5 s each, from the third on (10 s learned): 997, 498, 249, ... are left, down to a minute.
    assert [int(message.split()[0 if message[0] != "a" else 1]) for message in messages] == [
        998,
        498,
        249,
        124,
        62,
        31,
        15,
    ]
    assert "will take about 83 minutes" in messages[0]


@pytest.mark.parametrize(
    ("seconds", "words"), [(90, "90 seconds"), (700, "12 minutes"), (10_000, "3 hours"), (10**6, "12 days")]
)
def test_times_in_words(seconds, words):
    assert foresight.in_words(seconds) == words
