"""What the command says on stderr, and its exit status: real errors, the first of a kind in a real process."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from small_networks import small

import atd
from atd.cli import main
from atd.cli.console import shown_events
from atd.errors import InputError, NotEnoughDiskError, sentence_for

# A defect below the library: every network meets torch's own RuntimeError about shapes.
_BROKEN_NETWORK = """
import sys
import torch
import atd
from atd.cli import main

def forward(self, x):
    return torch.zeros(2, 3) @ torch.zeros(2, 3)

atd.ATD.forward = forward
sys.exit(main())
"""


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> Path:
    return small("ATD").save_pretrained(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.linear_gradient("L").resize((24, 16)).convert("RGB").save(folder / "a.png")
    return folder


def command(*arguments: object, program=("-m", "atd"), cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    words = [sys.executable, *program, *map(str, arguments)]
    return subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=120, env=environment)


@pytest.mark.slow
def test_a_shape_bug_inside_torch_keeps_its_traceback(network, photos, tmp_path):
    done = command("evaluate", network, "--data", photos, program=("-c", _BROKEN_NETWORK), cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback (most recent call last)" in done.stderr
    assert done.stderr.rstrip().splitlines()[-1].startswith("RuntimeError: mat1 and mat2 shapes cannot be multiplied")
    assert "atd: error:" not in done.stderr


def test_a_shape_bug_of_one_file_keeps_its_traceback_and_the_others_go_on(
    network, photos, tmp_path, monkeypatch, capsys
):
    (photos / "b.png").write_bytes(b"not an image")
    monkeypatch.setattr(atd.ATD, "forward", lambda self, x: torch.zeros(2, 3) @ torch.zeros(2, 3))
    assert main(["restore", "-i", str(photos), "-o", str(tmp_path / "out"), "--model", str(network)]) == 1
    said = capsys.readouterr().err
    assert said.count("Traceback (most recent call last)") == 1
    assert "RuntimeError: mat1 and mat2 shapes cannot be multiplied" in said
    assert "b.png is not an image" in said


@pytest.mark.slow
def test_a_mistake_of_the_user_is_one_sentence(photos, tmp_path):
    done = command("evaluate", "atd_lite_sr_x4", "--data", photos, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("atd: error: There is no model named 'atd_lite_sr_x4'; did you mean")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_backend_of_the_environment_that_does_not_exist_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("ATD_BACKEND", "cuda")
    done = command("info", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("atd: error: The environment variable ATD_BACKEND is 'cuda'; expected one of auto,")
    assert done.stderr.count("\n") == 1


def test_an_os_error_that_names_a_file_is_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.save(small("ATD").state_dict(), tmp_path / "a.pth")
    (tmp_path / "file").touch()
    assert main(["convert", "a.pth", "-o", "file/out", "--category-size", "16"]) == 2
    assert capsys.readouterr().err == "atd: error: file/out: Not a directory\n"


def test_traceback_shows_where_a_sentence_came_from(photos, capsys):
    assert main(["evaluate", "atd_lite_sr_x4", "--data", str(photos), "--traceback"]) == 2
    said = capsys.readouterr().err
    assert "Traceback (most recent call last)" in said
    assert "LoadError" in said
    assert said.rstrip().splitlines()[-1].startswith("atd: error: There is no model named 'atd_lite_sr_x4'")


def test_traceback_of_one_bad_file(network, photos, tmp_path, capsys):
    (photos / "b.png").write_bytes(b"not an image")
    words = ["-i", str(photos), "-o", str(tmp_path / "out"), "--model", str(network), "--traceback"]
    assert main(["restore", *words]) == 1
    said = capsys.readouterr().err
    assert said.count("Traceback (most recent call last)") == 1
    assert "ImageError" in said
    assert (tmp_path / "out" / "a_tiny.png").exists()


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_gone_ends_the_command_without_a_word(tmp_path, unbuffered):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONUNBUFFERED": unbuffered}
    words = [sys.executable, "-m", "atd", "train", "--list"]
    with subprocess.Popen(
        words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_which_errors_have_a_sentence(tmp_path):
    assert sentence_for(InputError("expected 1, got 2")) == "expected 1, got 2"
    assert sentence_for(NotEnoughDiskError("the disk is full")) == "the disk is full"
    with pytest.raises(FileNotFoundError) as caught:
        (tmp_path / "none").read_bytes()
    assert sentence_for(caught.value) == f"{tmp_path / 'none'}: No such file or directory"
    for defect in (ValueError("x"), RuntimeError("x"), OSError("x"), ImportError("x"), AssertionError(), MemoryError()):
        assert sentence_for(defect) is None


def test_events_are_lines_on_stderr_and_warnings_say_so(capsys):
    logger = logging.getLogger("atd.restoration")
    with shown_events():
        logger.warning("out of memory on %s", "cuda:0")
        logger.info("using %d tiles", 4)
        logger.debug("probing")
    assert capsys.readouterr().err == "atd: warning: out of memory on cuda:0\natd: using 4 tiles\n"


@pytest.mark.parametrize(
    ("options", "shown"),
    [({}, "info warning"), ({"quiet": True}, "warning"), ({"verbose": True}, "debug info warning")],
)
def test_quiet_and_verbose_choose_the_events(capsys, options, shown):
    logger = logging.getLogger("atd.models")
    with shown_events(**options):
        for level in ("debug", "info", "warning"):
            getattr(logger, level)(level)
    assert [line.split()[-1] for line in capsys.readouterr().err.splitlines()] == shown.split()


def test_an_event_does_not_cut_through_a_progress_bar(capsys):
    from tqdm import tqdm

    with shown_events(), tqdm(total=10, ncols=40, file=sys.stderr, mininterval=0) as bar:
        bar.update(3)
        logging.getLogger("atd").warning("smaller tiles")
    assert "\ratd: warning: smaller tiles\n" in capsys.readouterr().err


def test_logging_is_as_before_after_a_command(capsys):
    def state() -> list[object]:
        loggers = [logging.getLogger(name) for name in ("", "atd", "atd.restoration", "PIL")]
        return [(logger.level, list(logger.handlers), logger.propagate, logger.disabled) for logger in loggers]

    before = state()
    assert main(["list", "--verbose"]) == 0
    assert main(["list", "nothing*"]) == 2
    assert state() == before


def test_an_event_of_a_command_reaches_stderr_and_quiet_keeps_warnings(photos, tmp_path, capsys):
    """`atd evaluate` tells of a test set that is not there by a warning event."""
    (tmp_path / "Set5").mkdir()
    Image.linear_gradient("L").resize((48, 48)).convert("RGB").save(tmp_path / "Set5" / "a.png")
    for extra in ((), ("--quiet",)):
        main(["evaluate", "bicubic", "--scale", "2", "--data", str(tmp_path), *extra])
        assert f"atd: warning: not in {tmp_path}, left out: Set14" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    [
        "restore -i photos -o out --model tiny --overlap -1",
        "restore -i photos -o out --model tiny --outscale -1",
        "restore -i photos -o out --model tiny --device abacus",
        "restore -i photos -o out --model photos",
        "restore -i photos -o out --model photos/a.png",
        "evaluate tiny --data photos --crop 4000",
        "evaluate tiny --data photos --scale 3",
        "evaluate tiny --data photos --sets Set0",
        "evaluate tiny --data photos --report",
        "evaluate tiny --data photos --backend triton --device cpu",
        "evaluate tiny --data photos -o photos/a.png",
        "evaluate identity --data photos",
        "evaluate bicubic --scale 2 --data nowhere",
        "compare tiny tiny,dtype=int8 --data photos",
        "compare tiny identity --data photos",
        "convert photos",
        "convert nowhere.pth",
        "convert tiny/model.safetensors --category-size 0",
        "download atd_sr_x5",
        "list nothing",
        "train 999 --data photos -o run",
        "train 103 --data photos",
        "train laptop_x4 --data photos -o run --set nothing=1",
        "prepare sr -i nowhere -o pieces --name n",
        "prepare sr -i photos -o pieces --name n --scale 7",
        "degrade -i nowhere -o pairs",
        "degrade -i photos -o pairs --task denoise",
        "degrade -i photos -o pairs --task real --sigma 25",
        "degrade -i photos -o pairs --scale 0",
        "degrade -i photos -o pairs --webp 2",
        "degrade -i photos -o pairs --contact-sheet sheet.gif",
    ],
)
def test_every_mistake_is_one_sentence_and_status_2(line, network, photos, cache, capsys, monkeypatch):
    monkeypatch.chdir(photos.parent)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    (photos.parent / "tiny").symlink_to(network)
    assert main(line.split()) == 2
    error = [text for text in capsys.readouterr().err.splitlines() if text.startswith("atd: error: ")]
    assert len(error) == 1
    assert len(error[0]) > 30
