"""Files that appear complete or not at all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from atd.errors import NotEnoughDiskError
from atd.system import atomic_write

posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX locks and limits")


def test_an_interrupted_write_leaves_the_previous_file(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"previous")

    def write_half():
        with atomic_write(path) as temporary:
            temporary.write_bytes(b"half of the ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]
    assert path.read_bytes() == b"previous"


def test_the_longest_name_that_a_folder_takes_can_be_written(tmp_path):
    path = tmp_path / ("n" * 251 + ".png")
    with atomic_write(path) as temporary:
        temporary.write_bytes(b"content")
        assert temporary.suffix == ".png"
    assert path.read_bytes() == b"content"


_KILLED = """
import os, signal, sys
from pathlib import Path
from atd.system import atomic_write
with atomic_write(Path(sys.argv[1])) as temporary:
    temporary.write_bytes(b"half")
    if sys.argv[2] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    print(temporary.name, flush=True)
    sys.stdin.read()
"""


@posix
def test_what_a_killed_process_left_is_removed_by_the_next_and_what_a_living_one_writes_is_not(tmp_path):
    def writer(name, end):
        words = [sys.executable, "-c", _KILLED, str(tmp_path / name), end]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True)

    with writer("killed.png", "kill") as killed:
        killed.wait(timeout=60)
    (left,) = tmp_path.iterdir()
    (tmp_path / ".atd-notes.tmp").write_text("another's")
    with writer("living.png", "wait") as living:
        assert living.stdout is not None
        at_work = living.stdout.readline().strip()
        assert not left.exists()
        # A third process, while the second writes.
        with writer("third.png", "kill") as third:
            third.wait(timeout=60)
        assert (tmp_path / at_work).read_bytes() == b"half"
        living.communicate("", timeout=60)
    assert (tmp_path / "living.png").read_bytes() == b"half"
    assert {".atd-notes.tmp", "living.png"} <= {path.name for path in tmp_path.iterdir()}


@posix
def test_a_full_disk_is_told_by_the_name_of_the_file(tmp_path):
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught, atomic_write(tmp_path / "a.bin") as temporary:
            temporary.write_bytes(bytes(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.filename == str(tmp_path / "a.bin")
    assert not list(tmp_path.iterdir())


def test_errors_that_are_not_of_the_disk_stay_as_they_are(tmp_path):
    for error in (ConnectionResetError(104, "Connection reset"), NotEnoughDiskError("2 GB"), OSError("encoder error")):
        with pytest.raises(type(error), match=r"Connection|GB|encoder") as caught, atomic_write(tmp_path / "a.bin"):
            raise error
        assert caught.value is error


def test_a_folder_that_is_not_there_is_told_by_the_name_of_the_file(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, atomic_write(tmp_path / "no" / "a.bin"):
        pass
    assert caught.value.filename == str(tmp_path / "no" / "a.bin")
