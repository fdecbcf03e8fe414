"""What README and docs/ show is true: blocks of Python run, commands are taken, links lead somewhere."""

import argparse
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from PIL import Image

import atd
from atd.cli import build_parser

ROOT = Path(__file__).parents[1]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in [*ROOT.glob("*.md"), *sorted((ROOT / "docs").glob("*.md"))]
}
# Blocks that are not to be run say so: ``` { .python .no-run }.
PYTHON = {
    name: blocks
    for name, text in PAGES.items()
    if (blocks := re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
}
SHELL = [
    (name, line)
    for name, text in PAGES.items()
    for block in re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]
HUB_REPOSITORY = "readme/networks"


@pytest.fixture
def folder(tmp_path):
    """Where the blocks run: a small `photo.png`, and a folder `DATA` with one."""
    (tmp_path / "DATA").mkdir()
    for path in (tmp_path / "photo.png", tmp_path / "DATA" / "photo.png"):
        Image.effect_noise((80, 64), 60).convert("RGB").save(path)
    return tmp_path


def test_the_readme_shows_the_library():
    readme = PAGES["README.md"]
    assert "atd.restore(" in "".join(PYTHON["README.md"])
    assert len(readme.splitlines()) <= 160


@pytest.mark.slow
@pytest.mark.parametrize("page", PYTHON)
def test_python_blocks_run(page, folder, hub):
    """Each in a namespace of its own; official names load random weights from a hub on this machine."""
    blocks = PYTHON[page]
    files = {}
    for name in atd.list_models():
        if any(re.search(rf"[\"']{name}[\"']", block) for block in blocks):
            weights = atd.create(name).save_pretrained(folder / "weights") / "model.safetensors"
            files[f"{name}/model.safetensors"] = weights.read_bytes()
    environment = {**os.environ, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    if files:
        environment["ATD_HUB_REPO"] = f"{HUB_REPOSITORY}@{hub.commit(HUB_REPOSITORY, files)}"
    # torch.hub.load("path/to/checkout", ...) means this checkout.
    code = "\n".join(f"exec({block.replace('path/to/checkout', str(ROOT))!r}, {{}})" for block in blocks)
    run = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def shown_commands():
    """The command lines of `atd` in shell blocks, also behind a virtual environment's path or torchrun."""
    for page, line in SHELL:
        for part in line.split("&&"):
            if match := re.match(r"(?:\S*/)?(?:torchrun .*-m )?atd (.*)", part.strip()):
                yield pytest.param(shlex.split(match[1], comments=True), id=f"{page}: {match[1][:50]}")


@pytest.mark.parametrize("words", list(shown_commands()))
def test_shown_commands_are_taken(words):
    arguments = build_parser().parse_args(words)
    assert isinstance(arguments, argparse.Namespace)
    assert arguments.command == words[0]


def anchors(text):
    """The anchors of a page's headings, as code hosts and mkdocs make them."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_between_pages_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        # Pictures of examples/ lie beside the pages in the built site.
        if page.startswith("docs/") and path.endswith(".png"):
            target = ROOT / "examples" / path
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), link


def test_the_version_has_one_source():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["dynamic"] == ["version"]
    assert f"\nversion: {atd.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\n## [{atd.__version__}]" in PAGES["CHANGELOG.md"]
