"""Cutting training images into pieces."""

import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from atd import degrade
from atd.cli import main
from atd.training import prepare


def save(path, height, width, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    low = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    image = np.kron(low, np.ones((8, 8, 1), np.uint8))[:height, :width]
    Image.fromarray(image).save(path)
    return image


def read(path):
    return np.asarray(Image.open(path))


@pytest.mark.parametrize(
    ("length", "size", "step", "expected"),
    [
        (480, 480, 240, [0]),
        (481, 480, 240, [0, 1]),
        (720, 480, 240, [0, 240]),
        (2040, 480, 240, [0, 240, 480, 720, 960, 1200, 1440, 1560]),
        (300, 480, 240, [0]),
        (1201, 768, 640, [0, 433]),
        (1408, 768, 640, [0, 640]),
    ],
)
def test_positions(length, size, step, expected):
    assert prepare.positions(length, size, step) == expected


@pytest.mark.slow
def test_sr_folders_match_one_to_one(tmp_path, capsys):
    image = save(tmp_path / "hr" / "0001.png", 725, 491)
    small = save(tmp_path / "hr" / "0002.png", 240, 300, 1)
    arguments = ["prepare", "sr", "-i", str(tmp_path / "hr"), "-o", str(tmp_path / "out"), "--name", "T"]
    assert main([*arguments, "--workers", "2"]) == 0
    assert "2 images cut, 0 done before, 0 failed" in capsys.readouterr().out
    hr = tmp_path / "out" / "T_train_HR_sub"
    names = sorted(path.name for path in hr.iterdir())
    assert names == [f"0001_s{number:03d}.png" for number in (1, 2)] + ["0002_s001.png"]
    # 725×491 is cropped to 720×480, the multiple of 12: rows at 0 and 240, one column.
    image = image[:720, :480]
    for number, top in enumerate((0, 240), 1):
        assert np.array_equal(read(hr / f"0001_s{number:03d}.png"), image[top : top + 480, :480])
    assert np.array_equal(read(hr / "0002_s001.png"), small)
    for scale in (2, 3, 4):
        folder = tmp_path / "out" / "T_train_LR_bicubic" / f"X{scale}_sub"
        assert sorted(path.name for path in folder.iterdir()) == names
        reduced = degrade.bicubic_downscale(image, scale)
        size = 480 // scale
        for number, top in enumerate((0, 240 // scale), 1):
            assert np.array_equal(read(folder / f"0001_s{number:03d}.png"), reduced[top : top + size, :size])


def test_sr_takes_given_lr_images(tmp_path):
    save(tmp_path / "hr" / "a.png", 480, 480)
    given = save(tmp_path / "lr" / "X2" / "ax2.png", 240, 240, 7)
    done = prepare.prepare_sr(tmp_path / "hr", tmp_path / "out", "T", [2], tmp_path / "lr", workers=1)
    assert done.failures == []
    assert np.array_equal(read(tmp_path / "out" / "T_train_LR_bicubic" / "X2_sub" / "a_s001.png"), given)
    save(tmp_path / "hr" / "b.png", 480, 480)
    save(tmp_path / "hr" / "c.png", 480, 480)
    save(tmp_path / "lr" / "X2" / "b.png", 239, 240)
    done = prepare.prepare_sr(tmp_path / "hr", tmp_path / "out", "T", [2], tmp_path / "lr", workers=1)
    assert (done.cut, done.skipped) == (0, 1)
    assert "b.png has 239x240 pixels, expected 240x240, 1/2 of" in done.failures[0]
    assert "its LR partner cx2 or c is missing" in done.failures[1]


def test_an_image_too_small_for_the_scales_is_named(tmp_path):
    save(tmp_path / "hr" / "small.png", 11, 40)
    save(tmp_path / "hr" / "large.png", 48, 48)
    done = prepare.prepare_sr(tmp_path / "hr", tmp_path / "out", "T", workers=1)
    assert done.cut == 1
    (failure,) = done.failures
    assert failure.endswith("small.png: smaller than 12 pixels on a side, of which 2, 3, 4 are divisors")


def test_a_defect_keeps_its_traceback(tmp_path, monkeypatch):
    """Only errors that are written for the user, and the system's about files, become lines of the report."""
    save(tmp_path / "hr" / "a.png", 48, 48)

    def defect(image, scale):
        raise ValueError("shapes do not fit")

    monkeypatch.setattr(degrade, "bicubic_downscale", defect)
    with pytest.raises(ValueError, match="shapes do not fit"):
        prepare.prepare_sr(tmp_path / "hr", tmp_path / "out", "T", workers=1)


def test_dfwb(tmp_path, capsys):
    large = save(tmp_path / "a" / "large.png", 1201, 1500)
    long = save(tmp_path / "b" / "long.jpg", 1200, 2000)
    (tmp_path / "b" / "bad.png").write_bytes(b"no image")
    arguments = ["prepare", "dfwb", "-i", str(tmp_path / "a"), str(tmp_path / "b"), "-o", str(tmp_path / "out")]
    assert main([*arguments, "--workers", "1"]) == 1
    assert "bad.png" in capsys.readouterr().err
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [*(f"large_p{number:03d}.png" for number in range(1, 7)), "long.jpg"]
    boxes = [(top, left) for top in (0, 433) for left in (0, 640, 732)]
    for number, (top, left) in enumerate(boxes, 1):
        piece = read(tmp_path / "out" / f"large_p{number:03d}.png")
        assert np.array_equal(piece, large[top : top + 768, left : left + 768])
    assert (tmp_path / "out" / "long.jpg").read_bytes() == (tmp_path / "b" / "long.jpg").read_bytes()
    assert long.shape == (1200, 2000, 3)


@pytest.mark.slow
def test_a_killed_preparation_is_continued(tmp_path):
    """Killed at any time; the second run does the rest, no file is a half one, and no temporary one is left."""
    for number in range(12):
        save(tmp_path / "hr" / f"{number:02d}.png", 480, 720, number)
    arguments = ["prepare", "sr", "-i", str(tmp_path / "hr"), "-o", str(tmp_path / "out"), "--name", "T"]
    arguments += ["--workers", "1"]
    process = subprocess.Popen([sys.executable, "-m", "atd", *arguments])
    pieces = tmp_path / "out" / "T_train_LR_bicubic" / "X4_sub"
    while not (pieces.is_dir() and len(list(pieces.glob("*.png"))) > 2):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert main(arguments) == 0
    for folder in (tmp_path / "out" / "T_train_HR_sub", pieces):
        pieces_there = sorted(folder.iterdir())
        assert len(pieces_there) == 24
        for path in pieces_there:
            read(path)


def test_bad_arguments(tmp_path, capsys):
    arguments = ["prepare", "sr", "-i", str(tmp_path), "-o", str(tmp_path / "out"), "--name", "T"]
    assert main(arguments) == 2
    assert f"no images in {tmp_path}" in capsys.readouterr().err
    save(tmp_path / "a" / "1.png", 20, 20)
    save(tmp_path / "b" / "1.jpg", 20, 20)
    assert main([*arguments, "--scale", "7"]) == 2
    assert "a divisor of 240 above 1, got 7" in capsys.readouterr().err
    with pytest.raises(ValueError, match="would get the same output name"):
        prepare.prepare_dfwb([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_dfwb_warns_of_folders_of_reduced_images(tmp_path, caplog):
    for name in ("DIV2K/DIV2K_train_HR/0001", "DIV2K/DIV2K_train_LR_bicubic/X2/0001x2", "WED/LRose/1", "B/X4/2x4"):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(path)
    prepare.prepare_dfwb([tmp_path / "DIV2K", tmp_path / "WED"], tmp_path / "out", workers=1)
    (record,) = caplog.records
    assert "DIV2K holds 1 images in folders named as those of reduced images" in record.message
    assert "(DIV2K_train_LR_bicubic, X2)" in record.message
    caplog.clear()
    prepare.prepare_dfwb([tmp_path / "DIV2K" / "DIV2K_train_HR", tmp_path / "WED"], tmp_path / "out2", workers=1)
    assert not caplog.records
