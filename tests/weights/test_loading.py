"""Files of every make: loaded, refused, converted and saved."""

import dataclasses
import json
import os
import pickle

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_networks import FAMILIES, output, same_weights, small

import atd
from atd import loading, registry
from atd.errors import LoadError
from atd.weights.saving import write_bundled


@pytest.fixture
def light_x2(tmp_path):
    """The authors' kind of file for atd_light_sr_x2, and the network inside."""
    model = atd.create("atd_light_sr_x2").eval()
    path = tmp_path / "101_ATD_light_SRx2_scratch.pth"
    torch.save({"params_ema": model.state_dict()}, path)
    return path, model


def golden_network(path):
    with safe_open(path, "pt") as file:
        config = json.loads(file.metadata()["config"])
    tensors = load_file(path)
    prefix = "state_dict."
    state_dict = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    return config, state_dict, tensors["input"], tensors["output_float64"]


# Files of the authors and of the community


@pytest.mark.parametrize(
    ("file", "suffix", "wrap"),
    [
        ("atd_light_sr_x4", ".pth", lambda sd: {"params": {}, "params_ema": sd}),
        ("atd_cvpr_sr_x2", ".pt", lambda sd: {"params": sd}),
        ("atd_cvpr_light_sr_x3", ".ckpt", lambda sd: {"state_dict": {f"module.{k}": v for k, v in sd.items()}}),
        ("atd_u_gray", ".pth", lambda sd: {k: v for k, v in sd.items() if "position_index" not in k}),
    ],
)  # fmt: skip
def test_a_golden_network_in_any_wrapping_gives_the_golden_output(golden, tmp_path, file, suffix, wrap):
    config, state_dict, image, expected = golden_network(golden / f"{file}.safetensors")
    path = tmp_path / f"weights{suffix}"
    torch.save(wrap(state_dict), path)
    model = atd.load(path, dtype=torch.float64, category_size=config["category_size"])
    assert not model.training
    with torch.no_grad():
        error = (model(image.double()) - expected).abs().max()
    assert error <= 1e-9 * (expected.max() - expected.min())


def test_a_bare_safetensors_file_is_recognised_from_its_keys(golden, tmp_path):
    config, state_dict, image, expected = golden_network(golden / "atd_sr_x3.safetensors")
    save_file(state_dict, tmp_path / "community.safetensors")
    model = atd.load(tmp_path / "community.safetensors", dtype=torch.float64, category_size=config["category_size"])
    with torch.no_grad():
        assert (model(image.double()) - expected).abs().max() <= 1e-9 * (expected.max() - expected.min())


def test_a_community_network_without_normalisation_keeps_none(tmp_path):
    model = small("ATDCVPR", no_norm=True)
    torch.save(model.state_dict(), tmp_path / "net.pth")
    loaded = atd.load(tmp_path / "net.pth", category_size=16)
    assert torch.equal(output(loaded), output(model))
    assert not torch.allclose(output(loaded), output(small("ATDCVPR")))


def test_half_precision_files_load_as_float32_unless_told_otherwise(tmp_path):
    model = small("ATD")
    torch.save({key: value.half() for key, value in model.state_dict().items()}, tmp_path / "half.pth")
    loaded = atd.load(tmp_path / "half.pth")
    assert {value.dtype for value in loaded.parameters()} == {torch.float32}
    assert torch.equal(loaded.conv_first.weight, model.conv_first.weight.half().float())
    assert atd.load(tmp_path / "half.pth", dtype=torch.bfloat16).conv_first.weight.dtype == torch.bfloat16


def test_a_wrong_index_buffer_is_refused(tmp_path):
    state_dict = dict(small("ATD").state_dict())
    state_dict["relative_position_index_SA"] = state_dict["relative_position_index_SA"].flip(0)
    torch.save(state_dict, tmp_path / "net.pth")
    with pytest.raises(LoadError, match="relative_position_index_SA"):
        atd.load(tmp_path / "net.pth")


# Files that must be refused


class Intruder:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (self.marker,)


@pytest.mark.parametrize("writer", ["torch", "legacy", "pickle"])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, writer):
    marker, path = str(tmp_path / "ran"), tmp_path / "net.pth"
    content = {"params": small("ATD").state_dict(), "extra": Intruder(marker)}
    if writer == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=writer == "torch")
    with pytest.raises(LoadError, match="refused"):
        atd.load(path)
    assert not os.path.exists(marker)
    torch.load(path, weights_only=False) if writer != "pickle" else pickle.loads(path.read_bytes())
    assert os.path.exists(marker)  # the file was a real attack


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_refused(tmp_path, suffix, kept):
    path = tmp_path / f"net{suffix}"
    state_dict = small("ATD").state_dict()
    torch.save(state_dict, path) if suffix == ".pth" else save_file(state_dict, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(LoadError, match="truncated or damaged") as caught:
        atd.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><title>Quota exceeded</title>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
        (b"not a checkpoint at all", "not a PyTorch checkpoint"),
    ],
)
def test_what_browsers_and_git_leave_instead_of_a_file_is_named(tmp_path, content, message):
    (tmp_path / "net.pth").write_bytes(content)
    with pytest.raises(LoadError, match=message):
        atd.load(tmp_path / "net.pth")


def test_optimiser_states_and_other_mappings_are_refused_with_at_most_five_keys(tmp_path):
    torch.save({f"entry{i}": i for i in range(20)}, tmp_path / "x.pth")
    with pytest.raises(LoadError, match="no state dict") as caught:
        atd.load(tmp_path / "x.pth")
    assert str(caught.value).count("entry") == 5
    torch.save([1, 2], tmp_path / "y.pth")
    with pytest.raises(LoadError, match="no state dict"):
        atd.load(tmp_path / "y.pth")


def test_missing_paths_wrong_suffixes_and_ambiguous_folders_are_named(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    empty, two = tmp_path / "empty", tmp_path / "two"
    empty.mkdir()
    two.mkdir()
    for name in ("a.pth", "b.pth"):
        (two / name).touch()
    for path, message in [
        (tmp_path / "none.pth", "no file"),
        (tmp_path / "none", "no file or folder"),
        (tmp_path / "notes.txt", "suffix"),
        (empty, "no weight file"),
        (two, r"a\.pth, b\.pth"),
    ]:
        with pytest.raises(LoadError, match=message):
            atd.load(path)


def test_weights_of_another_network_are_named_in_one_sentence(light_x2):
    path, _ = light_x2
    for name, weights in [("atd_light_sr_x4", path), ("atd_cvpr_light_sr_x2", str(path)), ("atd_sr_x2", path)]:
        with pytest.raises(LoadError, match=f"holds the weights of atd_light_sr_x2, not {name}") as caught:
            atd.load(name, weights=weights)
        message = str(caught.value)
        assert message.count("\n") == 0
        assert 1 <= sum(message.count(word) for word in (" is missing", " is not expected", " has shape ")) <= 5


def test_arguments_that_contradict_each_other_are_refused(light_x2, cache):
    path, _ = light_x2
    for arguments, message in [
        ({"name_or_path": path, "weights": "bundled"}, "registry name"),
        ({"name_or_path": path, "revision": "main"}, "revision"),
        ({"name_or_path": "atd_light_sr_x2", "revision": "main"}, "ATD_HUB_REPO"),
        ({"name_or_path": "atd_light_sr_x2", "weights": "bundled", "revision": "main"}, "bundled"),
        ({"name_or_path": "atd_light_sr_x2", "weights": "oficial"}, "oficial"),
        ({"name_or_path": "atd_light_sr_x2", "weights": path, "embed_dims": 3}, "embed_dims"),
        ({"name_or_path": "org/net@main", "revision": "v1"}, "give one"),
        ({"name_or_path": path, "dtype": torch.int8}, "dtype"),
        ({"name_or_path": path, "device": "gpu"}, "device 'gpu'"),
        ({"name_or_path": "org/net", "device": "cuda:99"}, "device 'cuda:99'"),
    ]:
        with pytest.raises(LoadError, match=message):
            atd.load(**arguments)


# Our own format


@pytest.mark.parametrize("family", FAMILIES)
def test_save_and_load_keep_network_settings_and_output(tmp_path, family):
    changed = {"ATDU": {"bias": True}, "ATDReal": {"qkv_bias": False}}.get(family, {"img_range": 255.0})
    model = small(family, **changed)
    model.task = "denoise"
    folder = model.save_pretrained(tmp_path / "net")
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    for path in (folder, folder / "model.safetensors"):
        loaded = atd.load(path)
        assert type(loaded) is type(model)
        assert loaded.config == model.config
        assert (loaded.task, loaded.name, loaded.training) == ("denoise", None, False)
        assert torch.equal(output(loaded), output(model))
    assert set(load_file(folder / "model.safetensors")) == set(model.state_dict())


def test_a_file_that_left_its_folder_still_describes_itself(tmp_path):
    model = small("ATD", category_size=7)
    (model.save_pretrained(tmp_path) / "model.safetensors").rename(tmp_path / "elsewhere.safetensors")
    (tmp_path / "config.json").unlink()
    assert atd.load(tmp_path / "elsewhere.safetensors").config == model.config


def test_config_json_decides_over_header_and_keys_and_an_argument_over_all(tmp_path):
    folder = small("ATD").save_pretrained(tmp_path)
    description = json.loads((folder / "config.json").read_text())
    description["config"]["category_size"] = 5
    (folder / "config.json").write_text(json.dumps(description))
    assert atd.load(folder).config["category_size"] == 5
    assert atd.load(folder, category_size=6).config["category_size"] == 6


def test_another_programs_config_json_is_ignored_and_a_broken_one_is_named(tmp_path):
    model = small("ATD")
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "swin2sr"}')
    assert atd.load(tmp_path, category_size=16).config["embed_dim"] == 12
    (tmp_path / "config.json").write_text('{"architecture": ')
    with pytest.raises(LoadError, match=r"config\.json"):
        atd.load(tmp_path)


def test_a_description_that_does_not_fit_is_an_error(tmp_path):
    folder = small("ATD").save_pretrained(tmp_path)
    original = json.loads((folder / "config.json").read_text())
    for change, message in [
        ({"architecture": "SwinIR"}, "SwinIR"),
        ({"config": {**original["config"], "num_tokens": 9}}, "num_tokens|td has shape"),
        ({"config": {"no_such_keyword": 1}}, "no_such_keyword"),
    ]:
        (folder / "config.json").write_text(json.dumps({**original, **change}))
        with pytest.raises(LoadError, match=message):
            atd.load(folder)


def test_a_named_network_does_not_take_weights_made_with_other_settings(tmp_path):
    atd.create("atd_light_sr_x2", category_size=64).save_pretrained(tmp_path)
    with pytest.raises(LoadError, match="category_size 64"):
        atd.load("atd_light_sr_x2", weights=tmp_path)
    assert atd.load(tmp_path).name is None
    assert atd.load("atd_light_sr_x2", weights=tmp_path, category_size=64).config["category_size"] == 64


def test_weights_for_one_noise_level_are_not_taken_for_another(tmp_path, monkeypatch):
    # The networks of all noise levels have the same shapes: only the description tells them apart.
    model = small("ATDU", in_chans=1)
    model.name = "atd_u_gray_dn15"
    folder = model.save_pretrained(tmp_path)
    row = dataclasses.replace(registry.get("atd_u_gray_dn25"), config=model.config)
    monkeypatch.setitem(registry._table(), row.name, row)
    with pytest.raises(LoadError, match="saved as atd_u_gray_dn15, not as atd_u_gray_dn25"):
        atd.load("atd_u_gray_dn25", weights=folder)


def test_bundled_files_are_float16_without_index_buffers_and_load_as_float32(tmp_path):
    for family in FAMILIES:
        model = small(family)
        path = write_bundled(model, tmp_path / f"{family}.safetensors")
        tensors = load_file(path)
        assert {value.dtype for value in tensors.values()} == {torch.float16}
        assert not any(key.endswith("relative_position_index_SA") for key in tensors)
        loaded = atd.load(path)
        expected = small(family, seed=1)
        expected.load_state_dict(
            {key: value if value.dtype == torch.int64 else value.half() for key, value in model.state_dict().items()}
        )
        assert torch.equal(output(loaded), output(expected))
    with torch.no_grad():
        model.conv_first.weight[0, 0, 0, 0] = 1e6
    with pytest.raises(ValueError, match=r"conv_first\.weight"):
        write_bundled(model, tmp_path / "overflow.safetensors")
    assert not (tmp_path / "overflow.safetensors").exists()


def test_saved_files_can_be_read_by_whom_the_umask_allows(tmp_path):
    before = os.umask(0o027)
    try:
        folder = small("ATD").save_pretrained(tmp_path / "model")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o640}


def test_from_pretrained_checks_the_class(tmp_path):
    small("ATDU").save_pretrained(tmp_path)
    assert isinstance(atd.ATDU.from_pretrained(tmp_path), atd.ATDU)
    with pytest.raises(LoadError, match=r"ATDU\.from_pretrained"):
        atd.ATD.from_pretrained(tmp_path)


def test_loading_leaves_the_callers_random_numbers_alone(tmp_path):
    small("ATD").save_pretrained(tmp_path)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    atd.load(tmp_path)
    assert torch.equal(torch.rand(3), expected)


# Names and the cache


def test_a_machine_without_connection_is_told_every_way_in_order(cache, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gdown", None)
    with pytest.raises(LoadError) as caught:
        atd.load("atd_sr_x4")
    message = str(caught.value)
    ways = [
        "of Google Drive: 127.0.0.1:9 could not be reached",
        "atd convert 003_ATD_SRx4_finetune.pth --as atd_sr_x4",
        "ATD_HUB_REPO",
        "--model atd_light_sr_x4 --weights bundled",
    ]
    positions = [message.index(way) for way in ways]
    assert positions == sorted(positions)
    assert "https://drive.google.com/drive/folders/1nz0I798GM8HkPYVZCLe8i9LAK31mpYQs" in message
    assert len(message.splitlines()) == 1 + len(ways)


def test_a_network_without_official_weights_says_so(cache, monkeypatch):
    row = dataclasses.replace(registry.get("atd_light_sr_x2"), name="own", sources=registry.Sources())
    monkeypatch.setitem(registry._table(), "own", row)
    with pytest.raises(LoadError, match="no official weights of own") as caught:
        atd.load("own")
    assert "drive" not in str(caught.value).lower()


def test_a_converted_file_is_loaded_by_name(light_x2, cache):
    path, model = light_x2
    folder = loading.convert(path, "atd_light_sr_x2")
    assert folder == cache / "atd_light_sr_x2"
    assert "license: apache-2.0" in (folder / "README.md").read_text()
    loaded = atd.load("atd_light_sr_x2")
    assert (loaded.name, loaded.task, loaded.scale) == ("atd_light_sr_x2", "sr", 2)
    assert same_weights(loaded, model)


def test_a_file_of_another_network_never_reaches_the_cache(light_x2, cache):
    with pytest.raises(LoadError, match="not atd_light_sr_x4"):
        loading.convert(light_x2[0], "atd_light_sr_x4")
    assert not (cache / "atd_light_sr_x4").exists()


def test_converting_without_a_name_writes_a_folder_beside_the_file(tmp_path):
    model = small("ATDU")
    torch.save({"params": model.state_dict()}, tmp_path / "mine.pth")
    folder = loading.convert(tmp_path / "mine.pth", category_size=[8, 16])
    assert folder == tmp_path / "mine"
    assert torch.equal(output(atd.load(folder)), output(model))
    assert "license:" not in (folder / "README.md").read_text()
    with pytest.raises(ValueError, match="another folder"):
        loading.convert(folder)


def test_dtype_by_its_name_and_devices_that_are_none(tmp_path):
    folder = small("ATD").save_pretrained(tmp_path / "net")
    assert atd.load(folder, dtype="bf16").conv_first.weight.dtype == torch.bfloat16
    assert atd.load(folder, dtype="torch.float64").conv_first.weight.dtype == torch.float64
    with pytest.raises(atd.LoadError, match="there is no dtype 'int8'"):
        atd.load(folder, dtype="int8")
    with pytest.raises(atd.LoadError, match=r"there is no device 'gpu': expected cpu, cuda \(the GPU\)"):
        atd.load(folder, device="gpu")
    with pytest.raises(atd.InputError, match="there is no device 'gpu'"):
        atd.restore(small("ATD"), torch.rand(3, 8, 8), device="gpu")


def test_the_folder_of_a_training_stands_for_its_result(tmp_path):
    model = small("ATD")
    model.save_pretrained(tmp_path / "run" / "model")
    (tmp_path / "run" / "checkpoints").mkdir()
    assert same_weights(atd.load(tmp_path / "run"), model)
