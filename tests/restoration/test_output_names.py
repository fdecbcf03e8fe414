"""Where results may not go: onto the input, and into folders that were meant as files."""

import os

import numpy as np
import pytest
from PIL import Image
from restoration_networks import Nearest

import atd
from atd.cli import main
from atd.errors import InputError
from atd.restoration.batch import plan_jobs

CLI = ["restore", "--weights", "bundled", "--quiet"]


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(path)
    return path


@pytest.mark.parametrize("name", ["the same path", "a symbolic link", "a hard link", "another spelling"])
def test_the_input_is_never_overwritten(photo, tmp_path, name, capsys):
    other = tmp_path / "other.png"
    if name == "the same path":
        other = photo
    elif name == "a symbolic link":
        other.symlink_to(photo)
    elif name == "a hard link":
        os.link(photo, other)
    else:
        (tmp_path / "folder").mkdir()
        other = tmp_path / "folder" / ".." / "photo.png"
    before = photo.read_bytes()
    with pytest.raises(InputError, match=r"is the input .* itself, which would be lost"):
        atd.restore_file(Nearest(), photo, other)
    for overwrite in ([], ["--overwrite"]):
        assert main([*CLI, "-i", str(photo), "-o", str(other), *overwrite]) == 2
        assert "which would be lost: name another output" in capsys.readouterr().err
    assert photo.read_bytes() == before
    assert sorted(tmp_path.glob("*.part*")) == []


def test_a_folder_is_not_restored_into_an_image_file(photo, tmp_path):
    for inputs in ([tmp_path], [photo, photo]):
        with pytest.raises(InputError, match=r"big\.png names an image file, but a folder and several files"):
            plan_jobs(inputs, tmp_path / "big.png", label="net")


def test_an_unknown_ending_is_no_folder(photo, tmp_path):
    for name in ("result.gif", "result.heic", "result.jp2"):
        with pytest.raises(InputError, match=r"which is none of \.png, \.jpg"):
            plan_jobs([photo], tmp_path / name, label="net")
    for name in ("results.v2", "results", "2026.11"):
        (job,) = plan_jobs([photo], tmp_path / name, label="net")
        assert job.target == tmp_path / name / "photo_net.png"
    (tmp_path / "made.gif").mkdir()
    (job,) = plan_jobs([photo], tmp_path / "made.gif", label="net")
    assert job.target == tmp_path / "made.gif" / "photo_net.png"


def test_a_named_input_that_is_the_result_of_another_is_refused(photo, tmp_path):
    """It was left out without a word, and overwritten."""
    result = tmp_path / "photo_net.png"
    result.write_bytes(photo.read_bytes())
    with pytest.raises(InputError, match=r"photo_net\.png is to be restored, and is the result of another input"):
        plan_jobs([photo, result], tmp_path, label="net")
    (job,) = plan_jobs([tmp_path], tmp_path, label="net")  # a folder may hold the results of a run before
    assert job.source == photo
