"""Every Python block of README.md runs: official names against a hub on this machine that holds random weights."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import atd

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
ZOO = "readme/zoo"


@pytest.fixture
def folder(tmp_path):
    """Where the blocks run: a small `photo.png`, here and under `examples/`."""
    (tmp_path / "examples").mkdir()
    for path in (tmp_path / "photo.png", tmp_path / "examples" / "photo.png"):
        Image.effect_noise((40, 24), 60).convert("RGB").save(path)
    return tmp_path


def test_the_readme_shows_the_library():
    assert any("atd.load(" in block for block in BLOCKS)
    assert any("atd.restore(" in block for block in BLOCKS)


@pytest.mark.slow
@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.strip().splitlines()[-1][:40])
def test_block_runs(block, folder, hub, monkeypatch):
    names = [name for name in atd.list_models() if re.search(rf"[\"']{name}[\"']", block)]
    files = {}
    for name in names:
        weights = atd.create(name).save_pretrained(folder / "weights") / "model.safetensors"
        files[f"{name}/model.safetensors"] = weights.read_bytes()
    environment = {**os.environ, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    if files:
        environment["ATD_HUB_REPO"] = f"{ZOO}@{hub.commit(ZOO, files)}"
    # torch.hub.load("path/to/checkout", ...) means this checkout.
    code = block.replace("path/to/checkout", str(ROOT))
    run = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
