"""Files that one process at a time works on, on systems with and without such locks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from atd.system import atomic_write, exclusive_file
from atd.system.locks import remove_if_free

_WITHOUT_FCNTL = """
import sys
sys.modules["fcntl"] = None  # as where the system has no such module
from pathlib import Path
from atd.system import atomic_write, exclusive_file
from atd.system.locks import fcntl, remove_if_free
assert fcntl is None
folder = Path(sys.argv[1])
with exclusive_file(folder / "a.part") as first, exclusive_file(folder / "a.part") as second:
    first.write(b"rows")
(folder / ".atd-0123456789ab.tmp.png").touch()
with atomic_write(folder / "a.png") as temporary:
    temporary.write_bytes(b"content")
assert not remove_if_free(folder / ".atd-0123456789ab.tmp.png")
"""


def test_a_system_without_fcntl_has_no_locks_and_nothing_else_is_missing(tmp_path):
    """Windows is such a system; what else is different there has not been run."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    words = [sys.executable, "-c", _WITHOUT_FCNTL, str(tmp_path)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".atd-0123456789ab.tmp.png", "a.part", "a.png"]
    assert (tmp_path / "a.png").read_bytes() == b"content"


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX locks")
def test_a_file_that_is_held_is_not_removed_and_a_free_one_is(tmp_path):
    path = tmp_path / "a.part"
    with exclusive_file(path):
        assert not remove_if_free(path)
        with pytest.raises(BlockingIOError), exclusive_file(path):
            pass
    assert remove_if_free(path)
    assert not path.exists()
    assert not remove_if_free(path)


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX locks")
def test_encoders_that_open_the_temporary_file_by_name_do_not_free_it(tmp_path):
    with atomic_write(tmp_path / "a.bin") as temporary:
        for _ in range(2):
            with temporary.open("wb") as file:
                file.write(b"content")
            assert not remove_if_free(temporary)
    assert (tmp_path / "a.bin").read_bytes() == b"content"


_PARENT = """
import os, sys, time
from pathlib import Path
from atd.system import exclusive_file
with exclusive_file(Path(sys.argv[1])) as file:
    file.write(b"parent")
    if not os.fork():
        print(os.getpid(), flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_that_outlives_its_killed_parent_does_not_keep_the_lock(tmp_path):
    """As the processes that load data for a training do, until they notice."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    path = tmp_path / "a.lock"
    parent = subprocess.Popen([sys.executable, "-c", _PARENT, str(path)], env=environment, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    try:
        with pytest.raises(BlockingIOError), exclusive_file(path):
            pass
        parent.kill()
        parent.wait()
        os.kill(child, 0)  # it is still there
        with exclusive_file(path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        parent.stdout.close()
