"""What lies beside a streamed result: two runs at once, rows that were lost or changed, interruptions at the start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from restoration_networks import Learned

from atd.errors import ImageError, InputError
from atd.restoration.api import restore, restore_file
from atd.restoration.plan import part_of
from atd.system import exclusive_file

pytest.importorskip("pyvips")
TESTS = Path(__file__).parents[1]


@pytest.fixture
def source(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (150, 110, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    return tmp_path / "in.png"


class Cancelled(Exception):
    pass


def interrupted(source, at):
    """The target of a run that was stopped after `at` tiles of 15."""

    def stop(state):
        if state.done == at:
            raise Cancelled

    target = source.with_name("out.png")
    with pytest.raises(Cancelled):
        restore_file(Learned(), source, target, tile=48, overlap=16, stream=True, progress=stop)
    return target


def resume(source, target):
    return restore_file(Learned(), source, target, tile=48, overlap=16, resume=True)


def cut_in_half(data):
    return data[: len(data) // 2]


def last_byte_lost(data):
    return data[:-1]


def zeros_in_the_middle(data):
    return data[:1000] + bytes(3000) + data[4000:]


def emptied(data):
    return b""


@pytest.mark.parametrize("damage", [cut_in_half, last_byte_lost, zeros_in_the_middle, emptied])
def test_resuming_on_rows_that_were_lost_or_changed_is_refused(source, damage):
    target = interrupted(source, at=8)
    part = part_of(target)
    part.write_bytes(damage(part.read_bytes()))
    with pytest.raises(InputError, match="is damaged"):
        resume(source, target)
    assert not target.exists()
    restore_file(Learned(), source, target, tile=48, overlap=16, stream=True)
    expected = restore(Learned(), source, tile=48, overlap=16)
    assert np.array_equal(np.asarray(Image.open(target)), np.asarray(expected))


def test_rows_that_were_not_recorded_any_more_are_written_again(source):
    target = interrupted(source, at=8)
    with part_of(target).open("ab") as file:
        file.write(bytes(5000))
    resume(source, target)
    expected = restore(Learned(), source, tile=48, overlap=16)
    assert np.array_equal(np.asarray(Image.open(target)), np.asarray(expected))


def test_a_run_interrupted_before_its_first_rows_leaves_nothing(source):
    target = interrupted(source, at=1)
    assert [path.name for path in target.parent.iterdir()] == [source.name]


def test_an_input_that_does_not_open_leaves_no_part(source):
    source.write_bytes(source.read_bytes()[:-20])
    with pytest.raises(ImageError, match=r"in\.png cannot be decoded"):
        restore_file(Learned(), source, source.with_name("out.png"), tile=48, stream=True)
    assert [path.name for path in source.parent.iterdir()] == [source.name]


@pytest.mark.slow
def test_a_second_run_on_one_target_is_refused_and_the_lock_goes_with_its_process(source):
    target = source.with_name("out.png")
    script = """
import sys, time
from restoration_networks import Learned
from atd.restoration.api import restore_file
def wait(state):
    if state.done == 8:
        print("waiting", flush=True)
        time.sleep(60)
restore_file(Learned(), sys.argv[1], sys.argv[2], tile=48, overlap=16, stream=True, progress=wait)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(source), str(target)],
        env=os.environ | {"PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS / 'support'}"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "waiting\n"
        rows = part_of(target).read_bytes()
        for again in (False, True):
            with pytest.raises(InputError, match="written by another run"):
                restore_file(Learned(), source, target, tile=48, overlap=16, stream=True, resume=again)
        assert part_of(target).read_bytes() == rows
    finally:
        process.kill()
        process.wait(timeout=30)
        process.stdout.close()
    resume(source, target)
    expected = restore(Learned(), source, tile=48, overlap=16)
    assert np.array_equal(np.asarray(Image.open(target)), np.asarray(expected))


@pytest.mark.skipif(sys.platform == "win32", reason="no such locks there")
def test_a_locked_file_that_its_holder_deletes_is_locked_anew(tmp_path):
    path = tmp_path / "rows"
    with exclusive_file(path) as first:
        with pytest.raises(BlockingIOError), exclusive_file(path):
            pass
        path.unlink()
        with exclusive_file(path) as second:
            assert os.fstat(first.fileno()).st_ino != os.fstat(second.fileno()).st_ino
            second.write(b"rows")
    assert path.read_bytes() == b"rows"
