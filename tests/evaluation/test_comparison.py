import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image
from small_networks import small

import atd
from atd.cli import main
from atd.errors import InputError
from atd.evaluation import compare
from atd.evaluation.candidates import RunOptions, open_candidate
from atd.evaluation.comparison import parse_candidate


def run(*arguments):
    return main(["compare", *(str(argument) for argument in arguments)])


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in "ab":
        coarse = rng.integers(0, 256, (6, 7, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((56, 40), Image.Resampling.BICUBIC).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return small("ATD").save_pretrained(tmp_path_factory.mktemp("models") / "small")


def test_tiled_against_untiled(network, photos, tmp_path, capsys):
    """The differences are those of the two outputs, computed by hand."""
    assert run(network, f"{network},tile=16,overlap=4", "--data", photos, "--out", tmp_path) == 0
    found = json.loads((tmp_path / "comparison.json").read_text())
    assert (found["a"]["options"]["tile"], found["b"]["options"]["tile"]) == ("auto", 16)
    model = atd.load(network)
    for name, entry in found["sets"]["photos"]["images"].items():
        lr = atd.degrade.bicubic_downscale(np.asarray(Image.open(photos / name)), 2)
        x = torch.from_numpy(lr).float().div(255).movedim(-1, 0)
        with torch.no_grad():
            whole = model(x[None])[0]
        tiled = atd.restoration.api.restore_tensor(model, x, tile=16, overlap=4)
        assert entry["max_difference"] == pytest.approx((whole - tiled).abs().max().item() * 255, rel=1e-4)
        agreement = -10 * torch.log10((whole.double() - tiled).square().mean()).item()
        assert entry["agreement"] == pytest.approx(agreement, abs=1e-3)
        assert entry["psnr_difference"] == pytest.approx(entry["b"]["psnr"] - entry["a"]["psnr"])
        for side, output in (("a", whole), ("b", tiled)):
            saved = np.asarray(Image.open(tmp_path / f"images/{side}/photos/{name}"))
            assert np.array_equal(saved, (output.clamp(0, 1) * 255).round().byte().movedim(0, -1).numpy())
    with (tmp_path / "comparison.csv").open(newline="") as file:
        assert [row["image"] for row in csv.DictReader(file)] == ["a.png", "b.png"]
    text = capsys.readouterr().out
    assert text == (tmp_path / "comparison.md").read_text()
    assert text.startswith(f"# {network}: tile auto, overlap 32 and tile 16, overlap 4\n")


def test_equal_settings_are_equal(network, photos, tmp_path, capsys):
    assert run(network, f"{network},tile=0", "--data", photos, "--out", tmp_path) == 0
    (entry,) = json.loads((tmp_path / "comparison.json").read_text())["sets"].values()
    assert entry["a"] == entry["b"]
    for image in entry["images"].values():
        assert (image["max_difference"], image["agreement"], image["psnr_difference"]) == (0, None, 0)
    text = capsys.readouterr().out
    assert "| equal |" in text
    assert text.startswith(f"# {network}: tile auto and tile 0\n")


def test_backends_and_precisions(network, photos, tmp_path):
    assert run(f"{network},backend=reference", f"{network},dtype=bfloat16", "--data", photos, "--out", tmp_path) == 0
    found = json.loads((tmp_path / "comparison.json").read_text())
    assert found["a"]["options"]["backend"] == "reference"
    assert found["b"]["options"]["dtype"] == "bfloat16"
    assert all(image["max_difference"] > 0 for image in found["sets"]["photos"]["images"].values())


def test_model_against_baseline(network, photos, capsys):
    assert run("bicubic", network, "--scale", 2, "--data", photos) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"# bicubic and {network}\n\n- A: bicubic; ")
    assert "| photos (2) |" in text


def test_settings_after_the_name():
    defaults = RunOptions(weights="bundled", overlap=16)
    name, settings = parse_candidate("atd_sr_x4,tile=256,self-ensemble=true,overlap=8", defaults)
    assert name == "atd_sr_x4"
    assert settings == RunOptions(weights="bundled", tile=256, self_ensemble=True, overlap=8)
    assert parse_candidate("x.pth", defaults) == ("x.pth", defaults)
    for text, message in (
        ("a,scale=2", "cannot read 'scale=2'"),
        ("a,tile", "cannot read 'tile'"),
        ("a,self_ensemble=yes", "must be true or false"),
        ("a,overlap=x", "overlap must be a whole number"),
        ("a,tile=none", "tile must be a whole number"),
    ):
        with pytest.raises(ValueError, match=message):
            parse_candidate(text, defaults)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("dtype=int8", "dtype must be one of float32, bfloat16, float16, float64, got 'int8'"),
        ("backend=cuda", "backend must be one of auto, triton, native, torch, reference, got 'cuda'"),
    ],
)
def test_unknown_options_are_refused_in_a_sentence(network, photos, capsys, option, message):
    assert run(network, f"{network},{option}", "--data", photos) == 2
    assert message in capsys.readouterr().err


def test_protocols_must_agree(network, photos, tmp_path, capsys):
    gray = small("ATD", in_chans=1).save_pretrained(tmp_path / "gray")
    assert run(network, gray, "--data", photos) == 2
    assert "A and B are measured differently" in capsys.readouterr().err


def test_one_call_from_python(network, photos, tmp_path):
    a, b = (open_candidate(network, RunOptions(tile=tile)) for tile in (None, 16))
    result = compare(a, b, photos, output=tmp_path, report=True)
    images = result.sets["photos"].images
    assert list(images) == ["a.png", "b.png"]
    assert all(image.max_difference > 0 for image in images.values())
    assert str(result) == (tmp_path / "comparison.md").read_text()
    page = (tmp_path / "report.html").read_text()
    assert page.count("<figure>") == 2 * 8  # of each image: where, input, A, B, reference and three differences
    with pytest.raises(InputError, match="give output"):
        compare(a, b, photos, report=True)
