"""Files are opened once, and decided about once, for the Python functions and the command alike."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from file_opens import recorded_opens
from PIL import Image
from restoration_networks import Nearest
from small_networks import small

import atd
from atd.cli import main
from atd.errors import ImageError, InputError, MissingExtraError, NotEnoughMemoryError
from atd.images import open_image
from atd.restoration import memory
from atd.restoration.api import restore, restore_file
from atd.restoration.options import FileOptions
from atd.restoration.plan import part_of, plan_file


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A folder with a tiny network of scale 2, for the command."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    small("ATD").save_pretrained(folder)
    return folder


def photo(path, size=(20, 14), mode="RGB"):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


@pytest.mark.parametrize("ending", [".png", ".jpg", ".tif", ".webp"])
def test_the_functions_open_an_ordinary_file_once(tmp_path, ending):
    source = photo(tmp_path / f"in{ending}")
    with recorded_opens() as opens:
        restore_file(Nearest(), source, tmp_path / "out.png")
    assert opens[source] == 1
    with recorded_opens() as opens:
        restore(Nearest(), source)
    assert opens[source] == 1


@pytest.mark.parametrize("workers", [1, 3])
def test_the_command_opens_an_ordinary_file_once(network, tmp_path, workers):
    sources = [photo(tmp_path / f"{name}.png", mode=mode) for name, mode in (("a", "RGB"), ("b", "L"), ("c", "RGBA"))]
    arguments = ["-i", *map(str, sources), "-o", str(tmp_path / "out"), "--model", str(network)]
    with recorded_opens() as opens:
        assert main(["restore", *arguments, "--jobs", str(workers)]) == 0
    assert [opens[source] for source in sources] == [1, 1, 1]
    with recorded_opens() as opens:
        assert main(["restore", *arguments]) == 0
    assert [opens[source] for source in sources] == [0, 0, 0], "skipped files need not be looked at"


def test_ram_is_checked_once(network, tmp_path, monkeypatch):
    source = photo(tmp_path / "in.png")
    checks = []
    require = memory.require_ram
    monkeypatch.setattr(memory, "require_ram", lambda size, work: checks.append(size) or require(size, work))
    for run in (
        lambda: restore_file(Nearest(), source, tmp_path / "out.png"),
        lambda: restore(Nearest(), source),
        lambda: restore(Nearest(), Image.open(source)),
        lambda: restore(Nearest(), np.zeros((14, 20, 3), np.uint8)),
        lambda: main(["restore", "-i", str(source), "-o", str(tmp_path / "b.png"), "--model", str(network)]),
    ):
        checks.clear()
        run()
        assert len(checks) == 1


def test_a_path_is_refused_for_want_of_ram_before_it_is_decoded(tmp_path, monkeypatch):
    source = photo(tmp_path / "in.png")
    data = source.read_bytes()
    source.write_bytes(data[: len(data) // 2])
    monkeypatch.setattr(memory, "free_ram", lambda: 10_000)
    with pytest.raises(NotEnoughMemoryError, match=r"[GMk]B of RAM"):
        restore(Nearest(), source)


def plan(source, target, **options):
    with open_image(source) as image:
        return plan_file(image, target, 4, options.pop("outscale", None), FileOptions(**options))


def test_streaming_is_chosen_by_size_by_an_unfinished_result_and_by_request(tmp_path, monkeypatch):
    pytest.importorskip("pyvips")
    source, target = photo(tmp_path / "in.png"), tmp_path / "out.png"
    assert not plan(source, target).stream
    assert plan(source, target, stream=True).stream
    part_of(target).write_bytes(b"")
    assert plan(source, target).stream
    assert not plan(source, target, stream=False).stream
    part_of(target).unlink()
    monkeypatch.setattr(memory, "free_ram", lambda: 100_000)
    assert plan(source, target).stream
    with pytest.raises(NotEnoughMemoryError, match=r"in\.png.*[GMk]B of RAM"):
        plan(source, target, stream=False)
    # What cannot be streamed goes through memory, where it does not fit either.
    with pytest.raises(NotEnoughMemoryError):
        plan(source, tmp_path / "out.jpg")
    monkeypatch.setitem(sys.modules, "pyvips", None)
    with pytest.raises(NotEnoughMemoryError):
        plan(source, target)


def test_what_cannot_be_streamed_is_refused(tmp_path, monkeypatch):
    pytest.importorskip("pyvips")
    source = photo(tmp_path / "in.png")
    with pytest.raises(ImageError, match="written as png or tiff, not as JPEG"):
        plan(source, tmp_path / "out.jpg", stream=True)
    with pytest.raises(InputError, match="more than once"):
        plan(source, tmp_path / "out.png", stream=True, outscale=8)
    monkeypatch.setitem(sys.modules, "pyvips", None)
    with pytest.raises(MissingExtraError, match=r"in\.png.*atd-restoration\[io\]"):
        plan(source, tmp_path / "out.png", stream=True)


def test_the_command_streams_what_the_function_streams(network, tmp_path, monkeypatch):
    """One decision: with little RAM both go from file to file, through the rows of ``.part``."""
    pytest.importorskip("pyvips")
    source = photo(tmp_path / "in.png", size=(60, 70))
    command = ["restore", "-i", str(source), "-o", str(tmp_path / "a.png"), "--model", str(network), "--tile", "32"]
    monkeypatch.setattr(memory, "free_ram", lambda: 900_000)
    with recorded_opens() as opens:
        assert main(command) == 0
        restore_file(atd.load(network), source, tmp_path / "b.png", tile=32)
    assert opens[tmp_path / "a.png.part"] > 0
    assert opens[tmp_path / "b.png.part"] == opens[tmp_path / "a.png.part"]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), np.asarray(Image.open(tmp_path / "b.png")))
    monkeypatch.undo()
    with recorded_opens() as opens:
        assert main([*command, "--overwrite"]) == 0
        restore_file(atd.load(network), source, tmp_path / "b.png", tile=32)
    assert not opens[tmp_path / "a.png.part"]
    assert not opens[tmp_path / "b.png.part"]
