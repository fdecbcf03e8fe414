"""atd list, info, convert and download, as a user types them."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from small_networks import output, same_weights, small
from spandrel import ModelLoader

import atd
from atd import registry
from atd.cli import main

NAME = "atd_light_sr_x2"


def column(text, name):
    """Words of the row of `name`."""
    (row,) = [line for line in text.splitlines() if line.startswith(f"{name} ")]
    return row


def test_list_tells_what_is_cached_and_what_is_to_fetch(cache, tmp_path, capsys):
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    assert [line.split()[0] for line in text.splitlines()[1 : 1 + len(atd.list_models())]] == atd.list_models()
    assert "to fetch" in column(text, NAME)
    assert "denoising σ 25" in column(text, "atd_u_gray_dn25")
    assert "JPEG artefact removal, quality 40" in column(text, "atd_u_gray_jpeg40")
    for name in atd.list_models():
        assert ("bundled" in column(text, name)) == registry.get(name).bundled
    assert ("see atd/bundled/LICENSE" in text) == any(registry.get(name).bundled for name in atd.list_models())

    model = atd.create(NAME)
    torch.save({"params_ema": model.state_dict()}, tmp_path / "x2.pth")
    assert main(["convert", str(tmp_path / "x2.pth"), "--as", NAME]) == 0
    assert f"atd.load('{NAME}')" in capsys.readouterr().out
    assert same_weights(atd.load(NAME), model)
    assert main(["list", "atd_light_sr_x?"]) == 0
    text = capsys.readouterr().out
    assert "cached" in column(text, NAME)
    assert "to fetch" in column(text, "atd_light_sr_x3")
    assert main(["list", "nothing*"]) == 2
    assert main(["list", "atd_lihgt_sr*"]) == 2
    assert "did you mean atd_light_sr_x" in capsys.readouterr().err


def test_list_shows_the_licence_of_what_would_be_loaded(cache, capsys):
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    for name, licences in [
        ("atd_sr_x2", "Apache-2.0"),
        ("atd_light_sr_x2", "LicenseRef-ATD-Bundled-Weights + Apache-2.0"),
        ("atd_u_tiny_color_dn", "LicenseRef-ATD-Bundled-Weights"),
        ("4xNomos2_hq_atd", "CC-BY-4.0"),
    ]:
        row = column(text, name)
        assert row.endswith(f"  {licences}")
        weights, licence = row.split("  ")[-2:] if "to fetch  " in row else (row.split()[-2], row.split()[-1])
        assert weights.count("+") == licence.count("+")


def test_convert_takes_what_a_checkpoint_does_not_tell(cache, tmp_path, capsys):
    model = small("ATDU")
    torch.save(model.state_dict(), tmp_path / "u.pth")
    arguments = ["convert", str(tmp_path / "u.pth"), "-o", str(tmp_path / "out"), "--category-size", "8", "16"]
    assert main(arguments) == 0
    assert str(tmp_path / "out") in capsys.readouterr().out
    assert torch.equal(output(atd.load(tmp_path / "out")), output(model))
    model = small("ATD", img_range=255.0)
    torch.save(model.state_dict(), tmp_path / "a.pth")
    assert main(["convert", str(tmp_path / "a.pth"), "--category-size", "16", "--img-range", "255"]) == 0
    assert torch.equal(output(atd.load(tmp_path / "a")), output(model))


def test_convert_says_what_is_wrong_and_writes_nothing(cache, tmp_path, capsys):
    torch.save({"params_ema": atd.create(NAME).state_dict()}, tmp_path / "x2.pth")
    for arguments, message in [
        (["x2.pth", "--as", "atd_light_sr_x4"], "holds the weights of atd_light_sr_x2, not atd_light_sr_x4"),
        (["x2.pth", "--as", "atd_lite_sr_x2"], "did you mean atd_light_sr_x2"),
        (["x3.pth"], "no file"),
    ]:
        assert main(["convert", str(tmp_path / arguments[0]), *arguments[1:]]) == 2
        error = capsys.readouterr().err
        assert error.startswith("atd: error: ")
        assert message in error
    assert not cache.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["x2.pth"]


def test_download_goes_on_after_a_failure_and_says_so(hub, cache, tmp_path, monkeypatch, capsys):
    model = atd.create(NAME)
    content = (model.save_pretrained(tmp_path / "net") / "model.safetensors").read_bytes()
    revision = hub.commit("me/zoo", {f"{NAME}/model.safetensors": content})
    monkeypatch.setenv("ATD_HUB_REPO", f"me/zoo@{revision}")
    assert main(["download", "atd_light_sr_x3", NAME]) == 1
    captured = capsys.readouterr()
    assert "atd_light_sr_x3: failed:" in captured.err
    assert captured.out == f"{NAME}: {cache / NAME}\n"
    monkeypatch.delenv("ATD_HUB_REPO")
    assert same_weights(atd.load(NAME), model)
    assert main(["download", NAME]) == 0
    assert main(["download", "no_such_model"]) == 2


def test_download_says_that_the_cache_is_a_file_or_cannot_be_written_and_goes_on(
    hub, cache, tmp_path, monkeypatch, capsys
):
    content = (atd.create(NAME).save_pretrained(tmp_path / "net") / "model.safetensors").read_bytes()
    monkeypatch.setenv("ATD_HUB_REPO", f"me/zoo@{hub.commit('me/zoo', {f'{NAME}/model.safetensors': content})}")
    cache.write_text("a file")
    assert main(["download", NAME, "atd_light_sr_x3"]) == 1
    errors = capsys.readouterr().err.splitlines()
    sentence = f"The cache {cache} is a file; set ATD_HOME to a folder."
    assert errors == [f"{name}: failed: {sentence}" for name in (NAME, "atd_light_sr_x3")]
    cache.unlink()
    cache.mkdir()
    (cache / NAME).write_text("a file where its folder should be")
    assert main(["download", NAME, "atd_light_sr_x3"]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert errors[0].startswith(f"atd: downloading {NAME}/model.safetensors of me/zoo@")
    assert errors[1] == f"{NAME}: failed: {cache / NAME}: File exists"
    assert errors[2].startswith("atd_light_sr_x3: failed: ")


def test_download_help_tells_that_the_routes_are_untried(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["download", "--help"])
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "could be tried against the real Google Drive" in text


def test_info_names_folders_versions_and_the_backends_reason(cache, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gdown", None)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    backend = "backend {}: {}".format(*atd.ops.backend_report("cpu"))
    for part in (str(cache), atd.__version__, torch.__version__.split("+")[0], backend, "HF_HUB_OFFLINE"):
        assert part in text
    assert "pip install 'atd-restoration[drive]'" in text


@pytest.mark.slow
def test_other_weights_in_the_cache_are_replaced_on_request(cache, tmp_path, capsys):
    """The sentence that names --overwrite is followed."""
    for name in ("first", "second"):
        torch.save({"params_ema": atd.create(NAME).state_dict()}, tmp_path / f"{name}.pth")
    assert main(["convert", str(tmp_path / "first.pth"), "--as", NAME]) == 0
    again = ["convert", str(tmp_path / "second.pth"), "--as", NAME]
    assert main(again) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*again, "--overwrite"]) == 0
    expected = torch.load(tmp_path / "second.pth", weights_only=True)["params_ema"]["conv_first.weight"]
    assert torch.equal(atd.load(NAME).conv_first.weight, expected)


@pytest.mark.slow
def test_convert_to_authors_writes_their_keys_and_spandrel_reads_it(golden, tmp_path, capsys):
    """Strict both ways: their shapes in state_dict_shapes.json, and spandrel's independent network."""
    name = "atd_cvpr_light_sr_x3"
    model = atd.create(name)
    model.save_pretrained(tmp_path / "net")
    assert main(["convert", str(tmp_path / "net"), "--to", "authors"]) == 0
    assert "params_ema" in capsys.readouterr().out
    content = torch.load(tmp_path / "net.pth", weights_only=True)
    assert list(content) == ["params_ema"]
    shapes = {key: list(value.shape) for key, value in content["params_ema"].items()}
    assert shapes == json.loads((golden / "state_dict_shapes.json").read_text())[name]
    theirs = ModelLoader().load_from_file(tmp_path / "net.pth").model
    assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in model.state_dict().items())
    assert same_weights(atd.load(name, weights=tmp_path / "net.pth"), model)


def test_convert_to_authors_replaces_no_file_unasked_and_never_its_source(tmp_path, capsys):
    model = small("ATD")
    torch.save(model.state_dict(), tmp_path / "mine.pth")
    before = (tmp_path / "mine.pth").read_bytes()
    (tmp_path / "other.pth").write_text("mine")
    convert = ["convert", str(tmp_path / "mine.pth"), "--to", "authors", "--category-size", "16"]
    for extra, message in [
        ([], "is the checkpoint itself"),
        (["--overwrite"], "is the checkpoint itself"),
        (["-o", str(tmp_path / "other.pth")], "--overwrite"),
        (["-o", str(tmp_path / "other")], ".pth"),
        (["-o", str(tmp_path / "new.pth"), "--as", "atd_sr_x4"], "atd_sr_x4"),
    ]:
        assert main([*convert, *extra]) == 2
        assert message in capsys.readouterr().err
    assert (tmp_path / "mine.pth").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.pth", "other.pth"]
    for extra in (["--overwrite"], []):  # again: equal weights are equal bytes, and nothing would be lost
        assert main([*convert, "-o", str(tmp_path / "other.pth"), *extra]) == 0
    assert same_weights(atd.load(tmp_path / "other.pth", category_size=16), model)


def test_convert_to_authors_takes_bundled_weights_by_name(cache, tmp_path, capsys):
    file = tmp_path / "x2.pth"
    assert main(["convert", NAME, "--to", "authors", "--weights", "bundled", "-o", str(file)]) == 0
    assert same_weights(atd.load(file), atd.load(NAME, weights="bundled"))
    assert main(["convert", str(file), "--weights", "bundled", "-o", str(tmp_path / "net")]) == 2
    assert "--to authors" in capsys.readouterr().err


@pytest.mark.slow
def test_params_choose_the_weights_of_a_checkpoint_in_every_command(cache, tmp_path, capsys):
    average, raw = small("ATD", seed=1, category_size=256), small("ATD", seed=2, category_size=256)
    file = tmp_path / "both.pth"
    torch.save({"params": raw.state_dict(), "params_ema": average.state_dict()}, file)
    photo = tmp_path / "photo.png"
    Image.linear_gradient("L").resize((16, 12)).convert("RGB").save(photo)
    (tmp_path / "set").mkdir()
    Image.effect_noise((32, 32), 60).convert("RGB").save(tmp_path / "set" / "a.png")
    scores = {}
    for params, expected in (("auto", average), ("ema", average), ("raw", raw)):
        chosen = ["--params", params]
        assert main(["convert", str(file), "-o", str(tmp_path / params), *chosen]) == 0
        assert same_weights(atd.load(tmp_path / params), expected)
        output_file = tmp_path / f"{params}.png"
        assert main(["restore", "-i", str(photo), "-o", str(output_file), "--model", str(file), *chosen]) == 0
        assert np.array_equal(np.asarray(Image.open(output_file)), np.asarray(atd.restore(expected, photo)))
        out = tmp_path / f"scores-{params}"
        assert main(["evaluate", str(file), "--data", str(tmp_path / "set"), "-o", str(out), *chosen]) == 0
        scores[params] = json.loads((out / "results.json").read_text())["sets"]
    assert scores["auto"] == scores["ema"] != scores["raw"]
    assert main(["convert", str(tmp_path / "auto" / "model.safetensors"), "--params", "ema"]) == 2
    assert "holds no averaged weights" in capsys.readouterr().err


@pytest.mark.parametrize("weights", ["official", "bundled"])
def test_params_beside_weights_that_are_one_are_an_error(cache, weights):
    with pytest.raises(atd.LoadError, match=r"params='raw' chooses .* --params raw"):
        atd.load(NAME, weights=weights, params="raw")
