"""What only prints starts without torch, which takes seconds to import."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_REPORT_IMPORTS = """
import atexit, sys
heavy = ("torch", "numpy", "PIL", "timm", "einops", "huggingface_hub", "safetensors")
atexit.register(lambda: print("imported:", *[name for name in heavy if name in sys.modules], file=sys.stderr))
from atd.cli import main
sys.exit(main())
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--version"],
        ["--help"],
        ["restore", "--help"],
        ["evaluate", "--help-all"],
        ["completion", "bash"],
        ["list"],
        ["advise", "--help"],
        ["train", "--list"],
        ["train", "--show", "103"],
    ],
    ids=" ".join,
)
def test_it_starts_without_torch(arguments, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "ATD_HOME": str(tmp_path)}
    words = [sys.executable, "-c", _REPORT_IMPORTS, *arguments]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0
    assert len(done.stdout) > 5
    assert done.stderr.strip() == "imported:"
