"""From measurements to networks and commands that the command line takes."""

import json
import shlex
from dataclasses import replace

import numpy as np
import pytest
from advice_pictures import KODAK, crop_of, jpeg_file, with_noise
from PIL import Image, ImageFilter

import atd
from atd import registry
from atd.advice import Measurements
from atd.advice.enlargement import Resolution
from atd.advice.measurements import Compression, Noise
from atd.advice.recommendations import recommend
from atd.cli import build_parser, main
from atd.cli.networks import Networks

CLEAN = Measurements(
    format="PNG",
    width=640,
    height=480,
    channels=3,
    bits=8,
    gray=False,
    compression=None,
    noise=Noise(luma=1.2, colour=0.6),
    resolution=Resolution(),
)


def advised(**changes):
    verdict, summary, items = recommend(replace(CLEAN, **changes), "photo.png")
    assert summary
    return verdict, items


def names(items, purpose):
    return [(item.network, item.weights) for item in items if item.purpose == purpose]


def test_a_clean_picture_needs_nothing_and_is_enlarged_by_networks_for_clean_ones():
    verdict, items = advised()
    assert verdict == "clean"
    assert names(items, "repair") == []
    enlarging = names(items, "enlarge")
    assert enlarging[:2] == [("atd_light_sr_x4", "bundled"), ("atd_sr_x4", "official")]
    assert all(not registry.get(name).faults for name, _ in enlarging)


def test_jpeg_below_the_visible_takes_the_bundled_network_first_and_then_the_nearest_of_the_authors():
    for quality, nearest in ((12, "atd_u_gray_jpeg10"), (33, "atd_u_gray_jpeg30"), (75, None)):
        verdict, items = advised(compression=Compression(kind="JPEG", quality=quality))
        assert verdict == "repair"
        expected = [("atd_u_tiny_color_jpeg", "bundled")]
        assert names(items, "repair") == expected + ([(nearest, "official")] if nearest else [])
        assert ("atd_real_sr_x4", "official") in names(items, "enlarge")
    assert advised(compression=Compression(kind="JPEG", quality=92))[0] == "clean"
    assert advised(compression=Compression(kind="JPEG", quality=92, earlier=40))[0] == "repair"


def test_noise_takes_the_network_for_its_kind_and_strength():
    _, items = advised(noise=Noise(luma=15, colour=23))
    assert names(items, "repair") == [("atd_u_tiny_color_dn", "bundled"), ("atd_u_color_dn25", "official")]
    _, items = advised(noise=Noise(luma=14, colour=0.7))
    assert names(items, "repair") == [("atd_u_gray_dn15", "official")]
    verdict, items = advised(noise=Noise(luma=45), gray=True)
    assert verdict == "repair"
    assert names(items, "repair") == [("atd_u_gray_dn50", "official")]


def test_several_faults_take_networks_for_photos_that_undo_all_of_them():
    verdict, items = advised(noise=Noise(luma=12, colour=14), compression=Compression(kind="JPEG", quality=50))
    assert verdict == "mixed"
    assert items
    assert all({"noise", "jpeg"} <= set(registry.get(item.network).faults) for item in items)
    verdict, items = advised(resolution=Resolution(soft=2.0))
    assert verdict == "mixed"
    assert all("blur" in registry.get(item.network).faults for item in items)


def test_a_network_for_light_compression_is_not_recommended_for_strong(monkeypatch):
    info = replace(registry.get("atd_real_sr_x4"), name="light", faults=("jpeg",), jpeg_from=40, good_for="JPEG to 40")
    rows = {**registry._table(), "light": info}
    monkeypatch.setattr(registry, "_table", lambda: rows)
    for quality, fits in ((50, True), (30, False)):
        _, items = advised(compression=Compression(kind="JPEG", quality=quality))
        assert (("light", "official") in names(items, "enlarge")) is fits


def test_an_enlarged_picture_is_reduced_first_and_the_command_does_it(tmp_path, monkeypatch):
    import subprocess
    import sys

    monkeypatch.chdir(tmp_path)
    small = crop_of(KODAK[0]).crop((0, 0, 112, 112))
    small.resize((224, 224), Image.Resampling.BICUBIC).save("my photo.png")
    advice = atd.advise("my photo.png")
    assert advice.verdict == "reduce"
    first = advice.recommendations[0]
    python, *words = shlex.split(first.command)
    assert python == "python"
    subprocess.run([sys.executable, *words], check=True)
    with Image.open("my photo_small.png") as reduced:
        assert reduced.size == (112, 112)
        assert np.abs(np.asarray(reduced).astype(int) - np.asarray(small)).mean() < 4
    assert names(advice.recommendations, "enlarge")[0] == ("atd_light_sr_x2", "bundled")


def test_what_cannot_be_told_is_said():
    advice = atd.advise(np.full((3, 2, 3), 90, np.uint8))
    assert advice.verdict == "unclear"
    assert sum("cannot be told" in finding for finding in advice.findings) == 2
    assert "if it is" in advice.summary
    verdict, _ = advised(compression=Compression(kind="WebP"))
    assert verdict == "unclear"


@pytest.mark.parametrize("name", ["photo.png", "it's (1) $HOME.jpg", "-n.jpg", "a\nb.png", "ü ×.webp"])
def test_commands_are_taken_by_the_command_line_whatever_the_file_is_called(name):
    faults = [{}, {"compression": Compression(kind="JPEG", quality=30)}, {"noise": Noise(luma=20, colour=30)}]
    for changes in faults:
        _, _, items = recommend(replace(CLEAN, **changes), name)
        assert items
        first = True
        for item in items:
            program, *words = shlex.split(item.command)
            assert program == "atd"
            args = build_parser().parse_args(words)
            if first:
                assert [path.name for path in args.input] == [name]
            first = False
            networks = Networks(args, device=None)
            assert (networks.name, networks.weights) == (item.network, item.weights)
            assert args.output.name not in {path.name for path in args.input}


def test_bundled_networks_come_before_the_others_of_their_purpose():
    for changes in ({}, {"compression": Compression(kind="JPEG", quality=20)}, {"noise": Noise(luma=20, colour=30)}):
        _, items = advised(**changes)
        for purpose in ("repair", "enlarge"):
            weights = [weights for _, weights in names(items, purpose)]
            assert weights == sorted(weights)


def test_a_result_beyond_a_hundred_million_pixels_is_not_recommended():
    _, items = advised(width=8000, height=6000)
    assert names(items, "enlarge") == [("atd_light_sr_x2", "bundled"), ("atd_sr_x2", "official")]


def folder_of_everything(folder):
    image = crop_of(KODAK[3]).crop((0, 0, 64, 48))
    exif = Image.Exif()
    exif[274] = 6
    image.save(folder / "phone.jpg", exif=exif, quality=80)
    image.quantize(16).save(folder / "palette.png")
    image.convert("RGBA").save(folder / "alpha.png")
    image.convert("1").save(folder / "line art.png")
    image.save(folder / "lossy.webp", quality=50)
    image.save(folder / "lossless.webp", lossless=True)
    image.save(folder / "photo.tiff")
    Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257).save(folder / "deep.png")
    Image.new("RGB", (1, 1)).save(folder / "pixel.png")
    Image.new("RGB", (300, 300), "white").save(folder / "white.png")
    image.filter(ImageFilter.GaussianBlur(2)).save(folder / "soft.bmp")
    bad = {"empty.png": b"", "text.jpg": b"no image", "cut.png": (folder / "alpha.png").read_bytes()[:300]}
    for name, content in bad.items():
        (folder / name).write_bytes(content)
    image.convert("CMYK").save(folder / "print.jpg")
    image.save(folder / "moving.gif", save_all=True, append_images=[image.rotate(90)])
    (folder / "notes.txt").write_text("not an image")
    return 11, ["cut.png", "empty.png", "moving.gif", "print.jpg", "text.jpg"]


def test_the_command_tells_of_every_file_and_goes_on_after_bad_ones(tmp_path, capsys):
    good, bad = folder_of_everything(tmp_path)
    assert main(["advise", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    assert len(err.splitlines()) == len(bad)
    assert all(name in line for name, line in zip(bad, err.splitlines(), strict=True))
    assert out.count("=> ") == good


def test_json_has_the_same_for_programs(tmp_path, capsys):
    noisy = tmp_path / "noisy.png"
    with_noise(crop_of(KODAK[0]), 25).save(noisy)
    (tmp_path / "bad.png").write_bytes(b"no image")
    assert main(["advise", "--json", str(tmp_path)]) == 1
    bad, row = json.loads(capsys.readouterr().out)
    assert set(bad) == {"source", "error"}
    assert row["source"] == str(noisy)
    assert row["verdict"] == "repair"
    assert 21 < row["measurements"]["noise"]["colour"] < 27
    assert row["recommendations"][0]["network"] == "atd_u_tiny_color_dn"


def test_the_command_takes_folders_below_on_request_only(tmp_path, capsys):
    (tmp_path / "below").mkdir()
    jpeg_file(crop_of(KODAK[0]).crop((0, 0, 32, 32)), 50).save(tmp_path / "below" / "photo.png")
    assert main(["advise", str(tmp_path)]) == 2
    assert "--recursive" in capsys.readouterr().err
    assert main(["advise", "--recursive", str(tmp_path)]) == 0
    assert main(["advise", str(tmp_path / "absent.png")]) == 2


@pytest.mark.parametrize(
    "array",
    [np.zeros((4, 4, 5), np.uint8), np.zeros((0, 4), np.uint8), np.full((4, 4), 2.0), np.zeros((4, 4), np.int64)],
    ids=["channels", "empty", "range", "dtype"],
)
def test_arrays_that_are_no_pictures_are_refused(array):
    with pytest.raises(atd.InputError, match="expected"):
        atd.advise(array)


def test_what_is_no_picture_at_all_is_a_type_error():
    with pytest.raises(TypeError, match="expected a path"):
        atd.advise(7)
