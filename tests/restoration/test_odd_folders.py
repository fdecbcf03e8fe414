"""Folders with something odd in them: that is told and counted, and the rest is restored."""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from restoration_networks import Learned, Nearest

from atd.cli import main
from atd.errors import ImageError, InputError
from atd.images import read_image
from atd.restoration import api
from atd.restoration.api import restore_file
from atd.restoration.batch import plan_jobs
from atd.restoration.plan import part_of

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX files")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder ``in`` with ``a.png``, and a network that the command finds."""
    monkeypatch.setattr(api, "load_network", lambda *_: Nearest(2))
    monkeypatch.chdir(tmp_path)
    photo(Path("in", "a.png"))
    return Path("in")


def photo(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (14, 20, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def restore(*words: str) -> int:
    return main(["restore", "-i", "in", "-o", "out", "--model", "net", *words])


def results() -> list[str]:
    return sorted(path.relative_to("out").as_posix() for path in Path("out").rglob("*") if path.is_file())


def test_a_result_whose_name_is_too_long_is_its_own_failure(folder, capsys):
    photo(folder / f"{'b' * 248}.png")
    photo(folder / "c.png")
    assert restore() == 1
    assert results() == ["a_net.png", "c_net.png"]
    errors = capsys.readouterr().err
    assert "File name too long" in errors
    assert "2 restored, 1 failed" in errors


@pytest.mark.parametrize("stream", ["off", "on"])
def test_a_result_whose_name_just_fits_is_written(folder, stream):
    """Neither the temporary file beside it nor the one of unfinished rows has a longer name."""
    if stream == "on":
        pytest.importorskip("pyvips")
    photo(folder / f"{'ü' * 123}x.png")
    assert restore("--stream", stream) == 0
    assert results() == ["a_net.png", f"{'ü' * 123}x_net.png"]


def test_unfinished_rows_of_long_names_are_told_apart(tmp_path):
    names = [f"{'ü' * 120}{letter}.png" for letter in "ab"]
    first, second = (part_of(tmp_path / name) for name in names)
    assert first != second
    assert first == part_of(tmp_path / names[0])
    for part in (first, second):
        part.with_name(part.name + ".json").touch()
    assert part_of(tmp_path / "short.png").name == "short.png.part"


def test_two_files_with_one_result_are_refused_and_the_rest_is_restored(folder, capsys):
    photo(folder / "a.gif")
    photo(folder / "b.gif")
    assert restore() == 1
    assert results() == ["b_net.png"]
    errors = capsys.readouterr().err
    assert errors.count("in/a.gif and in/a.png would both be written to out/a_net.png") == 2
    assert "1 restored, 2 failed" in errors


@posix
def test_links_to_nothing_and_pipes_are_told_and_counted(folder, capsys):
    (folder / "b.png").symlink_to("nowhere.png")
    os.mkfifo(folder / "c.png")
    (folder / "d.png").symlink_to("a.png")
    (folder / "notes.txt").symlink_to("nowhere.txt")
    (folder / "sub.png").mkdir()
    assert restore() == 1
    assert results() == ["a_net.png", "d_net.png"]
    errors = capsys.readouterr().err
    assert "in/b.png is a link to a file that does not exist" in errors
    assert "in/c.png is not a regular file" in errors
    assert "2 restored, 2 failed" in errors
    assert "notes" not in errors


@posix
def test_a_pipe_that_is_named_is_refused_at_once(folder):
    os.mkfifo(folder / "pipe")
    with pytest.raises(ImageError, match="pipe is not a regular file"):
        read_image(folder / "pipe")


@posix
def test_linked_folders_are_told(folder, capsys):
    photo(Path("elsewhere", "b.png"))
    (folder / "link").symlink_to(Path("elsewhere").resolve())
    assert restore() == 0
    assert "link" not in capsys.readouterr().err
    assert restore("--recursive") == 0
    assert "in/link is a link to a folder, which is not followed" in capsys.readouterr().err
    assert results() == ["a_net.png"]


@contextmanager
def not_root():
    """Without the right of root to read everything, where the tests run as root."""
    if os.geteuid():
        yield
        return
    os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(0)


@posix
def test_folders_that_cannot_be_read_are_told():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        photo(folder / "a.png")
        photo(folder / "closed" / "b.png")
        photo(folder / "listed" / "c.png")
        (folder / "closed").chmod(0o000)
        (folder / "listed").chmod(0o444)
        try:
            with not_root():
                jobs = plan_jobs([folder], folder / "out", label="x", recursive=True)
                with pytest.raises(InputError, match=f"{folder}/closed cannot be read: Permission denied"):
                    plan_jobs([folder / "closed"], folder / "out", label="x")
        finally:
            for below in ("closed", "listed"):
                (folder / below).chmod(0o755)
    obstacles = {job.source.relative_to(folder).as_posix(): job.obstacle for job in jobs}
    assert obstacles == {
        "a.png": None,
        "closed": f"{folder}/closed cannot be read: Permission denied",
        "listed/c.png": f"{folder}/listed/c.png cannot be read: Permission denied",
    }


def test_an_interruption_before_the_first_rows_leaves_no_part(folder, monkeypatch):
    pytest.importorskip("pyvips")
    from atd.restoration import streaming

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(streaming._Journal, "open", interrupted)
    with pytest.raises(KeyboardInterrupt):
        restore_file(Learned(), folder / "a.png", "out.png", stream=True)
    assert sorted(os.listdir()) == ["in"]
