"""Folders of files with odd names, streams that nobody reads: good images are restored, all others counted."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

import atd
from atd.cli import main
from attacks.processes import run_in_process
from attacks.runner import Case, Cases, Wrong
from attacks.tiny_network import tiny_network

NAMES = (
    "plain.png",
    "two words.png",
    " leading.png",
    "trailing .png",
    "-o.png",
    "--overwrite.png",
    "line\nbreak.png",
    "tab\there.png",
    "escape\x1b[31m.png",
    "%s%n{}.png",
    "[a]*?.png",
    "quote'\".png",
    "back\\slash.png",
    "UPPER.PNG",
    "twice.png.png",
    "dots...png",
    "ünïcode.png",
    "cafe\u0301.png",
    "日本語.png",
    "\U0001f600.png",
    "\u202egnp.png",
    os.fsdecode(b"not-utf8-\xff\xfe.png"),
    "x" * 200 + ".png",
    "y" * 240 + ".png",
    "z" * 251 + ".png",
    "é" * 120 + ".png",
    "#;&|`$(x).png",
    "con.png",
)
STREAMS = ("a file", "/dev/full", "a closed pipe", "closed", "ascii")
MOST_BYTES = 255
"""Of a name, on the usual file systems."""


def cases(random: Random, folder: Path) -> Cases:
    """All names at once with every kind of stdout; then some of them."""
    network = tiny_network()
    network.save_pretrained(folder / "tiny")
    pixels = np.random.default_rng(0).integers(0, 256, (12, 14, 3)).astype(np.uint8)
    expected = atd.restore(network, pixels)
    chosen = list(NAMES)
    while True:
        for stream in STREAMS:
            others = random.sample(["text", "empty", "dangling", "folder", "pipe"], random.randint(0, 5))

            def run(chosen=tuple(chosen), stream=stream, others=tuple(others)) -> None:
                _prepare(folder, pixels, chosen, others)
                ended = run_in_process(restore_folder, folder, stream)
                _check(folder, chosen, others, expected, ended.status, stream)

            yield Case(f"{len(chosen)} names, {', '.join(others) or 'nothing'} beside them, stdout {stream}", run, 60)
        chosen = random.sample(NAMES, random.randint(1, 12))


def restore_folder(folder: Path, stream: str) -> int:
    """The work of a process that restores the folder with stdout of some kind."""
    import sys

    os.chdir(folder)
    log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 2)
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    match stream:
        case "/dev/full":
            os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
        case "a closed pipe":
            reader, writer = os.pipe()
            os.dup2(writer, 1)
            os.close(reader)
        case "closed":
            os.close(1)
            sys.stdout = None
        case _:
            os.dup2(os.open("printed", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
    if sys.stdout is not None:
        encoding = "ascii" if stream == "ascii" else "utf-8"
        sys.stdout = open(1, "w", encoding=encoding, errors="strict", closefd=False)  # noqa: SIM115
    status = main(["restore", "-i", "in", "-o", "out", "--model", "tiny"])
    sys.stderr.flush()
    return status


def _prepare(folder: Path, pixels: np.ndarray, chosen: tuple[str, ...], others: tuple[str, ...]) -> None:
    for name in ("in", "out"):
        shutil.rmtree(folder / name, ignore_errors=True)
    inside = folder / "in"
    inside.mkdir()
    Image.fromarray(pixels).save(folder / "whole.png")
    for name in chosen:
        shutil.copyfile(folder / "whole.png", inside / name)
    makers = {
        "text": lambda path: path.write_text("not an image"),
        "empty": lambda path: path.touch(),
        "dangling": lambda path: path.symlink_to("nowhere"),
        "folder": lambda path: path.mkdir(),
        "pipe": os.mkfifo,
    }
    for kind in others:
        makers[kind](inside / f"other-{kind}.png")


def _check(
    folder: Path, chosen: tuple[str, ...], others: tuple[str, ...], expected: np.ndarray, status: int, stream: str
) -> None:
    log = (folder / "log").read_text(encoding="utf-8", errors="replace")
    if "Traceback" in log:
        raise Wrong(f"a traceback: {log[-600:]}")
    results = {path.name: path for path in (folder / "out").iterdir()} if (folder / "out").exists() else {}
    possible = [name for name in chosen if len(os.fsencode(_result(name))) <= MOST_BYTES]
    for name in possible:
        result = results.pop(_result(name), None)
        if result is None:
            raise Wrong(f"{name!r} is not restored, status {status}: {log[-300:]}")
        with Image.open(result) as image:
            if not np.array_equal(np.asarray(image), expected):
                raise Wrong(f"{name!r} is restored to other pixels")
    if results:
        raise Wrong(f"leaves {sorted(results)} behind")
    bad = sum(kind in ("text", "empty") for kind in others)
    failed = len(chosen) - len(possible) + bad
    summary = re.search(r"atd: (.*restored.*)", log)
    if summary is None:
        raise Wrong(f"gives no summary: {log[-300:]}")
    if failed and f"{failed} failed" not in log and status == 0:
        raise Wrong(f"{failed} failed, but it says {summary[1]} and ends with status 0")
    if bool(failed) > bool(status):
        raise Wrong(f"{failed} failed, and the status is {status}")
    if not failed and status and stream in ("a file", "ascii") and not {"dangling", "pipe"} & set(others):
        raise Wrong(f"all is well, and the status is {status}: {log[-300:]}")


def _result(name: str) -> str:
    path = Path(name)
    return f"{path.stem}_tiny{path.suffix}"
