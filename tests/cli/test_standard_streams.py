"""Standard streams that are closed, full, without a reader or narrow: the images are restored all the same."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_networks import small

from atd.cli import main
from atd.cli.streams import one_line

NO_BYTES_IN_NAMES = sys.platform in ("darwin", "win32")


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> Path:
    return small("ATD").save_pretrained(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def restore(network, tmp_path, monkeypatch):
    """The command on a folder ``in`` with the files of these names; gives the names of the results."""

    def run(*names: str, words: tuple[str, ...] = ()) -> tuple[int, list[str]]:
        (tmp_path / "in").mkdir()
        for name in names:
            Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(tmp_path / "in" / name)
        status = main(["restore", "-i", "in", "-o", "out", "--model", str(network), *words])
        return status, sorted(os.listdir(tmp_path / "out"))

    monkeypatch.chdir(tmp_path)
    return run


def test_a_reader_that_has_gone_ends_no_restoration(restore, monkeypatch, capsys):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        status, results = restore("a.png", "b.png", "c.png")
    assert (status, results) == (0, ["a_tiny.png", "b_tiny.png", "c_tiny.png"])
    assert capsys.readouterr().err == "atd: 3 restored\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_under_stdout_ends_no_restoration_and_is_told_once(restore, monkeypatch, capsys):
    with open("/dev/full", "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        status, results = restore("a.png", "b.png")
    assert (status, results) == (1, ["a_tiny.png", "b_tiny.png"])
    errors = capsys.readouterr().err
    assert "2 restored" in errors
    assert errors.count("No space left on device") == 1
    assert "Traceback" not in errors


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_under_stderr_ends_no_restoration(restore, monkeypatch):
    with open("/dev/full", "w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        status, results = restore("a.png", "b.png")
    assert (status, results) == (0, ["a_tiny.png", "b_tiny.png"])


@pytest.mark.skipif(NO_BYTES_IN_NAMES, reason="file names are text there")
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_names_that_are_no_text_leave_as_their_bytes(restore, monkeypatch, encoding):
    stdout = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    monkeypatch.setattr(sys, "stdout", stdout)
    name = os.fsdecode(b"b\xff.png")
    status, results = restore("a.png", name)
    assert (status, len(results)) == (0, 2)
    assert stdout.buffer.getvalue() == b"out/a_tiny.png\nout/b\xff_tiny.png\n"
    assert stdout.errors == "strict"


@pytest.mark.skipif(NO_BYTES_IN_NAMES, reason="file names are text there")
def test_names_that_are_no_text_end_no_run_whose_stdout_is_closed(restore, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    status, results = restore(os.fsdecode(b"b\xff.png"))
    assert (status, len(results)) == (0, 1)


def test_line_breaks_in_names_break_no_line(restore, network, tmp_path, capsys):
    restore("a\nb.png")
    (tmp_path / "in" / "c\n\x1b[1md.png").write_bytes(b"nothing")
    assert main(["restore", "-i", "in", "-o", "out", "--model", str(network)]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines() == ["out/a\\nb_tiny.png"]
    (line,) = [line for line in err.splitlines() if "is not an image" in line]
    assert line.startswith(r"atd: in/c\n\x1b[1md.png is not an image")
    assert main(["restore", "-i", "no\nwhere.png", "-o", "out"]) == 2
    assert capsys.readouterr().err == "atd: error: no\\nwhere.png does not exist\n"


def test_one_line_leaves_every_other_letter():
    assert one_line("Bildschirmfoto 2026 um 10.00\u202fUhr ö×.png") == "Bildschirmfoto 2026 um 10.00\u202fUhr ö×.png"
    assert one_line("a\r\u2028\x85b\t") == r"a\r\u2028\x85b\t"


def command(redirections: str, *words: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """The command in a shell of its own, with redirections that only a shell knows."""
    variables = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **environment}
    line = f'"$@" {redirections}'
    program = [sys.executable, "-m", "atd", *map(str, words)]
    return subprocess.run(["sh", "-c", line, "sh", *program], cwd=cwd, capture_output=True, timeout=120, env=variables)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
@pytest.mark.parametrize(
    ("redirections", "status"), [("0<&-", 0), ("2>&-", 0), ("1>&-", 0), ("0<&- 1>&- 2>&-", 0), ("1>/dev/full", 2)]
)
def test_closed_and_full_streams_of_other_commands(tmp_path, redirections, status):
    done = command(redirections, "train", "--list", cwd=tmp_path)
    assert done.returncode == status
    assert done.stderr == (b"atd: error: stdout: No space left on device\n" if status else b"")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
def test_what_a_c_library_says_does_not_go_into_a_result_where_stderr_is_closed(network, tmp_path):
    """libtiff warns of an unknown tag by writing to file number 2, whichever file that is."""
    (tmp_path / "in").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in" / "a.tif", compression="tiff_lzw", tiffinfo={65000: "unknown"})
    Image.fromarray(pixels).save(tmp_path / "in" / "b.png")
    words = ("restore", "-i", "in", "-o", "out", "--model", network)
    done = command("0<&- 2>&-", *words, cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.split() == [b"out/a_tiny.tif", b"out/b_tiny.png"]
    for name in ("a_tiny.tif", "b_tiny.png"):
        with Image.open(tmp_path / "out" / name) as image:
            image.load()
            assert image.width > 30


def test_ascii_terminals_get_tables_too(tmp_path):
    done = command("", "list", "atd_sr_x2", cwd=tmp_path, PYTHONIOENCODING="ascii:strict")
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"super-resolution x2" in done.stdout
