"""atd list, info, convert and download, as a user types them."""

import sys

import pytest
import torch
from small_networks import output, same_weights, small

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


def test_download_help_tells_that_the_drive_route_is_untried(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["download", "--help"])
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "could not be tried against the real Google Drive" in text


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
