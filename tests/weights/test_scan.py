"""`atd list FOLDER`: every checkpoint named, every unreadable file with its reason."""

import hashlib
import json
import os
import tempfile
from pathlib import Path

import pytest
import torch
from small_networks import FAMILIES, small

import atd
from atd import registry
from atd.cli import main
from atd.weights.scan import scan


@pytest.fixture
def folder(tmp_path):
    """Each family as a folder of ours and as a bare .pth, beside files that are none."""
    for family in FAMILIES:
        model = small(family)
        model.save_pretrained(tmp_path / "ours" / family)
        torch.save({"params_ema": model.state_dict()}, tmp_path / f"{family}.pth")
    (tmp_path / "notes.txt").write_text("no checkpoint")
    (tmp_path / ".hidden.pth").write_bytes(b"")
    (tmp_path / "page.pth").write_text("<html>")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "ours/ATD/model.safetensors").read_bytes()[:500])
    torch.save({"body.0.weight": torch.zeros(3, 3)}, tmp_path / "other.pth")
    torch.save({"optimizer": 1}, tmp_path / "state.ckpt")
    (tmp_path / "link.pth").symlink_to(tmp_path / "nothing")
    bad = small("ATD").save_pretrained(tmp_path / "bad")
    (bad / "config.json").write_bytes(b"\xff\xfe{")
    wrong = small("ATD").save_pretrained(tmp_path / "wrong")
    config = json.loads((wrong / "config.json").read_text())
    (wrong / "config.json").write_text(json.dumps({**config, "architecture": "ATDU"}))
    return tmp_path


REASONS = {
    "page.pth": "web page",
    "cut.safetensors": "truncated or damaged",
    "other.pth": "not those of ATD",
    "state.ckpt": "not tensors",
    "link.pth": "no regular file",
    "bad/model.safetensors": "decode",
    "wrong/model.safetensors": "says that it holds ATDU",
}


def test_every_checkpoint_is_described_and_every_other_file_has_its_reason(folder):
    files = {file.path.relative_to(folder).as_posix(): file for file in scan(folder)}
    bare = {f"{family}.pth": family for family in FAMILIES}
    ours = {f"ours/{family}/model.safetensors": family for family in FAMILIES}
    assert files.keys() == bare.keys() | ours.keys() | REASONS.keys()
    for name, family in {**bare, **ours}.items():
        file, model = files[name], small(family)
        assert file.error is None
        assert (file.architecture, file.scale, file.in_channels) == (family, model.scale, 3)
        assert file.parameters == sum(parameter.numel() for parameter in model.parameters())
        assert file.sha256 == hashlib.sha256((folder / name).read_bytes()).hexdigest()
        # What a network of scale 1 was trained for leaves no trace in bare tensors.
        expected = {"ATDU": None, "ATDReal": "real"}.get(family, "sr")
        assert file.task == (model.task if name in ours else expected)
    for name, reason in REASONS.items():
        assert reason in str(files[name].error)
        assert (files[name].architecture, files[name].sha256) == (None, None)


def test_registered_networks_are_named_by_their_shape_alone(tmp_path):
    torch.save(atd.create("atd_cvpr_light_sr_x3").state_dict(), tmp_path / "106.pth")
    (file,) = scan(tmp_path / "106.pth")
    info = registry.get("atd_cvpr_light_sr_x3")
    assert (file.name, file.task, file.scale, file.parameters) == (info.name, "sr", 3, info.parameters)
    bundled = registry.get("atd_u_tiny_color_dn")
    (file,) = scan(bundled.bundled_path)
    assert (file.name, file.task, file.parameters) == (bundled.name, "denoise", bundled.parameters)


def test_folders_that_may_not_be_read_are_named():
    """As nobody, where root runs the tests: root may read everything, and pytest's folders are root's."""
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "locked").mkdir(mode=0)
        (folder / "listed").mkdir()
        (folder / "listed" / "a.pth").touch()
        (folder / "listed").chmod(0o444)
        os.seteuid(user or 65534)
        try:
            files = {file.path: str(file.error) for file in scan(folder)}
        finally:
            os.seteuid(user)
            (folder / "listed").chmod(0o755)
    assert files.keys() == {folder / "locked", folder / "listed" / "a.pth"}
    assert "the folder cannot be read: Permission denied" in files[folder / "locked"]
    assert files[folder / "listed" / "a.pth"] == "Permission denied"


def test_the_command_lists_a_folder_as_a_table_and_as_json(folder, capsys):
    assert main(["list", str(folder)]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    lines = captured.out.splitlines()
    (row,) = [line for line in lines if line.startswith(f"{folder / 'ATD.pth'} ")]
    assert "super-resolution ×2" in row
    assert row.endswith(hashlib.sha256((folder / "ATD.pth").read_bytes()).hexdigest())
    told = lines[lines.index("not one of these networks, or not to be read:") + 1 :]
    assert len(told) == len(REASONS)
    assert all(any(str(folder / name) in line and reason in line for line in told) for name, reason in REASONS.items())
    assert main(["list", str(folder), "--json"]) == 0
    listed = {file["path"]: file for file in json.loads(capsys.readouterr().out)}
    assert len(listed) == 2 * len(FAMILIES) + len(REASONS)
    assert listed[str(folder / "ATDReal.pth")]["task"] == "real"
    assert "damaged" in listed[str(folder / "cut.safetensors")]["error"]


def test_names_of_networks_come_before_folders_and_an_empty_folder_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "atd_sr_x4").mkdir()
    assert main(["list", "atd_sr_x4", "--json"]) == 0
    (network,) = json.loads(capsys.readouterr().out)
    assert (network["name"], network["scale"], network["weights"]) == ("atd_sr_x4", 4, {"to fetch": "Apache-2.0"})
    for pattern, message in (("./atd_sr_x4", "holds no checkpoint"), ("./nothing", "no such folder")):
        assert main(["list", pattern]) == 2
        assert message in capsys.readouterr().err
