"""`atd degrade`: the files, what is written of them, and the sheet."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from atd import degrade
from atd.cli import main
from atd.degrade import Blur, Compression, Noise, OrderDraw, RealWorldDraw, Resize


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "inner").mkdir(parents=True)
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:61, :74] / 60
    for number, name in enumerate(["a.png", "b.jpg", "inner/a.png"]):
        planes = (
            np.stack([np.sin(4 * x + number), np.cos(3 * y * x), x - y], -1) * 90 + 128 + rng.normal(0, 6, (61, 74, 3))
        )
        Image.fromarray(planes.clip(0, 255).astype(np.uint8)).save(folder / name)
    return folder


def degraded(photos, out, *words):
    assert main(["degrade", "-i", str(photos), "-o", str(out), *words]) == 0
    return [json.loads(line) for line in (out / "degradations.jsonl").read_text(encoding="utf-8").splitlines()]


def read(path):
    return np.asarray(Image.open(path))


def draw_of(parameters):
    """The draw that a line of JSON describes."""

    def blur(values):
        return values and Blur(**{**values, "sigma": tuple(values["sigma"])})

    def order(values):
        return OrderDraw(
            blur(values["blur"]),
            Resize(**values["resize"]),
            Noise(**values["noise"]),
            Compression(**values["compression"]),
        )

    return RealWorldDraw(
        order(parameters["first"]),
        order(parameters["second"]),
        blur(parameters["final_sinc"]),
        parameters["final_mode"],
        parameters["compressed_last"],
    )


def test_the_lines_tell_how_each_pair_was_made(photos, tmp_path):
    lines = degraded(photos, tmp_path / "pairs", "--scale", "2", "--recipe", "real", "--seed", "5")
    assert [line["name"] for line in lines] == ["a.png", "b.png", "inner/a.png"]
    for line, path in zip(lines, ["a.png", "b.jpg", "inner/a.png"], strict=True):
        clean = read(photos / path)[:60, :74]
        assert np.array_equal(read(tmp_path / "pairs/hr" / line["name"]), clean)
        image = torch.from_numpy(clean.copy()).movedim(2, 0)[None] / 255
        expected = degrade.degrade_batch(image, [draw_of(line["parameters"])], 2)[0].movedim(0, 2).numpy() * 255
        assert np.array_equal(read(tmp_path / "pairs/lq" / line["name"]), expected.round().astype(np.uint8))


def test_what_happens_is_a_function_of_the_seed(photos, tmp_path):
    def contents(name, *words):
        degraded(photos, tmp_path / name, *words)
        return {path.relative_to(tmp_path / name): path.read_bytes() for path in sorted((tmp_path / name).rglob("*.*"))}

    first, again, other = contents("first"), contents("again"), contents("other", "--seed", "1")
    assert first == again
    assert first[Path("hr/a.png")] == other[Path("hr/a.png")]
    assert first[Path("lq/a.png")] != other[Path("lq/a.png")]


def test_crops_are_parts_of_the_whole_pairs(photos, tmp_path):
    degraded(photos, tmp_path / "whole", "--task", "sr", "--scale", "3")
    lines = degraded(photos, tmp_path / "crops", "--task", "sr", "--scale", "3", "--crop", "30")
    assert len({(line["place"]["top"], line["place"]["left"]) for line in lines}) > 1
    for line in lines:
        top, left = line["place"]["top"], line["place"]["left"]
        for folder, scale in (("hr", 1), ("lq", 3)):
            part = (slice(top // scale, (top + 30) // scale), slice(left // scale, (left + 30) // scale))
            whole = read(tmp_path / "whole" / folder / line["name"])
            assert np.array_equal(read(tmp_path / "crops" / folder / line["name"]), whole[part])
    hr, lr = (read(tmp_path / "whole" / folder / "a.png") for folder in ("hr", "lq"))
    assert np.array_equal(lr, degrade.bicubic_downscale(hr, 3))


def test_noise_and_jpeg(photos, tmp_path):
    (line, *_) = degraded(photos, tmp_path / "jpeg", "--task", "jpeg", "--quality", "20")
    clean = read(photos / "a.png")
    assert line["parameters"] == {"quality": 20}
    assert np.array_equal(read(tmp_path / "jpeg/lq/a.png"), degrade.jpeg(clean, 20))
    (line, *_) = degraded(photos, tmp_path / "noise", "--task", "denoise", "--sigma", "15")
    noise = read(tmp_path / "noise/lq/a.png").astype(int) - clean
    assert line["parameters"] == {"sigma": 15}
    assert noise.std() == pytest.approx(15, rel=0.05)


def test_sharpened_photos_and_their_partners(photos, tmp_path):
    lines = degraded(photos, tmp_path / "pairs", "--sharpen", "--scale", "1", "--webp", "1")
    sharp = degrade.sharpen(torch.from_numpy(read(photos / "a.png").copy()).movedim(2, 0)[None] / 255)[0]
    assert np.array_equal(
        read(tmp_path / "pairs/hr/a.png"), (sharp.movedim(0, 2).numpy() * 255).round().astype(np.uint8)
    )
    assert lines[0]["parameters"]["first"]["compression"]["format"] == "webp"


def test_the_sheet_shows_clean_beside_degraded(photos, tmp_path):
    degraded(photos, tmp_path / "pairs", "--scale", "2", "--contact-sheet", str(tmp_path / "sheet.png"))
    sheet = read(tmp_path / "sheet.png")
    hr, lq = (read(tmp_path / "pairs" / folder / "a.png") for folder in ("hr", "lq"))
    assert np.array_equal(sheet[12:72, 12:86], hr)
    assert np.array_equal(sheet[12:72, 268:342], lq.repeat(2, 0).repeat(2, 1))


def test_unreadable_and_tiny_photos_are_told_and_the_others_are_done(photos, tmp_path, capsys):
    (photos / "bad.png").write_bytes(b"no image")
    Image.new("RGB", (2, 2)).save(photos / "tiny.png")
    assert main(["degrade", "-i", str(photos), "-o", str(tmp_path / "pairs")]) == 1
    shown = capsys.readouterr()
    assert "3 pairs written, 2 failed" in shown.out
    assert "bad.png" in shown.err
    assert "smaller than 4 pixels" in shown.err
    assert len(list((tmp_path / "pairs/lq").rglob("*.png"))) == 3


def test_two_photos_of_one_output_name_are_refused(photos, tmp_path, capsys):
    Image.new("RGB", (8, 8)).save(photos / "a.jpg")
    assert main(["degrade", "-i", str(photos), "-o", str(tmp_path / "pairs")]) == 2
    assert "same output name" in capsys.readouterr().err
