"""A user whom the system does not know, as in many containers: no HOME, and no entry among the users."""

import os
import subprocess
import sys

import pytest
from PIL import Image

SCRIPT = """
import pwd, sys

def unknown(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")

pwd.getpwuid = unknown
from atd.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [["list"], ["info"], ["restore", "-i", "photo.png", "-o", "out.png", "--tile", "32"]],
    ids=lambda words: words[0],
)
def test_a_user_without_a_home_can_do_all(tmp_path, words):
    Image.linear_gradient("L").resize((40, 20)).convert("RGB").save(tmp_path / "photo.png")
    away = {"HOME", "HF_HOME", "ATD_HOME", "XDG_CACHE_HOME", "HF_HUB_CACHE"}
    # Without a cache the CPU kernels are compiled once a process: tests/ops/test_native.py sees to that.
    environment = {name: value for name, value in os.environ.items() if name not in away} | {"ATD_BACKEND": "torch"}
    command = [sys.executable, "-c", SCRIPT, *words]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert words[0] != "restore" or (tmp_path / "out.png").is_file()
