"""Completion scripts in the shells that read them; zsh and fish where they are installed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from atd import registry
from atd.cli import COMMANDS, main

_BASH = """
source ./script
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_atd_complete
printf '%s\\n' "${COMPREPLY[@]}"
"""

CASES = [
    ("res", ["restore"]),
    ("", list(COMMANDS)),
    ("--vers", ["--version"]),
    ("restore --mod", ["--model"]),
    ("restore --model atd_light_sr_x", ["atd_light_sr_x2", "atd_light_sr_x3", "atd_light_sr_x4"]),
    ("restore -i pho", ["photo.png"]),
    ("restore -i photo.png oth", ["other photo.png"]),
    ("restore --overwrite --dtype b", ["bfloat16"]),
    ("restore --weights bun", ["bundled"]),
    ("prepare d", ["dfwb"]),
    ("prepare sr --lr pho", ["photo.png"]),
    ("prepare sr --nam", ["--name"]),
    ("train lap", ["laptop_x4"]),
    ("completion z", ["zsh"]),
    ("convert photo.png --as atd_cvpr_sr_x4", ["atd_cvpr_sr_x4"]),
    ("download atd_sr", [name for name in registry.list_models() if name.startswith("atd_sr")]),
]


@pytest.fixture
def folder(tmp_path, capsys) -> Path:
    """A folder with two photos, in which the shells run."""
    for name in ("photo.png", "other photo.png"):
        (tmp_path / name).touch()
    return tmp_path


def script(shell: str, folder: Path, capsys) -> None:
    assert main(["completion", shell]) == 0
    (folder / "script").write_text(capsys.readouterr().out)


@pytest.mark.parametrize(("line", "expected"), CASES)
def test_bash_completes(line, expected, folder, capsys):
    script("bash", folder, capsys)
    words = ["atd", *line.split(" ")]
    done = subprocess.run(["bash", "-c", _BASH, "bash", *words], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert sorted(done.stdout.splitlines()) == sorted(expected)


def test_bash_registers_the_function_for_atd(folder, capsys):
    script("bash", folder, capsys)
    done = subprocess.run(
        ["bash", "-c", "source ./script; complete -p atd"], cwd=folder, capture_output=True, text=True, check=True
    )
    assert done.stdout == "complete -F _atd_complete atd\n"


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
@pytest.mark.parametrize(("line", "expected"), CASES)
def test_fish_completes(line, expected, folder, capsys):
    script("fish", folder, capsys)
    command = f'source ./script; complete -C "atd {line}"'
    done = subprocess.run(["fish", "-c", command], cwd=folder, capture_output=True, text=True, check=True)
    assert {text.split("\t")[0].replace("\\ ", " ") for text in done.stdout.splitlines()} >= set(expected)


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_completes_a_command_in_a_terminal(folder, capsys):
    import pty

    script("zsh", folder, capsys)
    (folder / ".zshrc").write_text("ZSH_DISABLE_COMPFIX=true\natd() { echo GOT $@; }\nsource ./script\n")
    master, terminal = pty.openpty()
    environment = {**os.environ, "ZDOTDIR": str(folder), "TERM": "dumb"}
    with subprocess.Popen(
        ["zsh", "-i"], cwd=folder, stdin=terminal, stdout=terminal, stderr=terminal, env=environment
    ) as shell:
        os.write(master, b"atd restore --mod\tatd_light_sr_x4\nexit\n")
        shell.wait(60)
    assert "GOT restore --model atd_light_sr_x4" in os.read(master, 65536).decode()


def test_completion_starts_no_python(folder, capsys):
    """All words are in the script: with an empty PATH it completes as well."""
    script("bash", folder, capsys)
    bash = shutil.which("bash")
    assert bash is not None
    done = subprocess.run(
        [bash, "-c", _BASH, "bash", "atd", "restore", "--model", "atd_sr_x"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": ""},
    )
    assert done.stdout.split() == ["atd_sr_x2", "atd_sr_x3", "atd_sr_x4"]
    assert done.stderr == ""
    assert sys.executable not in (folder / "script").read_text()
