"""Weight files that lie or hang: one error type, at once, before anything is built."""

import json
import pickle
import random
import time

import pytest
import torch
from safetensors.torch import save_file
from small_networks import small

import atd
from atd.errors import LoadError


@pytest.fixture
def saved(tmp_path):
    """A folder of our format, and its config.json."""
    folder = small("ATD").save_pretrained(tmp_path / "net")
    return folder, folder / "config.json"


def refused(path, match, seconds=5.0):
    started = time.monotonic()
    with pytest.raises(LoadError, match=match) as caught:
        atd.load(path)
    assert time.monotonic() - started < seconds
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("keyword", "value", "match"),
    [
        ("depths", [10**9], "depths is .* expected a list, each entry a whole number"),
        ("depths", [999, 1], "describes 1000 layers, but the file holds"),
        ("depths", "2", "expected a list"),
        ("category_size", 0, "category_size is 0, expected a whole number from 1"),
        ("category_size", "x", "category_size is 'x'"),
        ("category_size", [1], r"category_size is \[1\], expected a single value"),
        ("category_size", True, "category_size is True"),
        ("upscale", -2, "upscale is -2"),
        ("upscale", 2.0, "upscale is 2.0"),
        ("img_range", 0, "img_range is 0, expected a number above 0"),
        ("img_range", float("nan"), "img_range is nan"),
        ("embed_dim", 10**12, "embed_dim"),
        ("mlp_ratio", float("inf"), "mlp_ratio"),
        ("qkv_bias", "yes", "expected true or false"),
        ("num_heads", [0], "num_heads"),
        ("upsampler", ["pixelshuffle"], "expected a word"),
    ],
)
def test_a_description_out_of_bounds_is_refused_before_anything_is_built(saved, keyword, value, match):
    folder, config_file = saved
    description = json.loads(config_file.read_text())
    description["config"][keyword] = value
    config_file.write_text(json.dumps(description))
    refused(folder, match)


@pytest.mark.parametrize("change", [{"name": 5}, {"task": "everything"}, {"name": {}}, {"task": []}])
def test_a_name_or_task_that_cannot_be_is_refused(saved, change):
    folder, config_file = saved
    config_file.write_text(json.dumps(json.loads(config_file.read_text()) | change))
    refused(folder, "name or a task")


def test_a_config_nested_without_end_is_refused(saved):
    folder, config_file = saved
    config_file.write_text('{"architecture": ' + "[" * 100_000)
    refused(folder, r"config\.json")


def test_a_config_that_is_no_utf8_is_refused(saved):
    folder, config_file = saved
    config_file.write_bytes(config_file.read_bytes().replace(b"ATD", b"\xff\xfeD"))
    refused(folder, r"config\.json is not valid JSON")


@pytest.mark.slow
def test_twenty_thousand_layers_are_refused(tmp_path):
    model = small("ATD")
    tensors = dict(model.state_dict())
    layer = {key: value for key, value in tensors.items() if key.startswith("layers.0.residual_group.layers.0.")}
    for number in range(2, 20_000):
        for key, value in layer.items():
            tensors[key.replace(".layers.0.", f".layers.{number}.", 1)] = value
    torch.save(tensors, tmp_path / "many.pth")
    refused(tmp_path / "many.pth", "each entry a whole number|describes 20000 layers", seconds=30)


def test_a_mapping_that_contains_itself_is_refused(tmp_path):
    content: dict[str, object] = {}
    content["params"] = content
    torch.save(content, tmp_path / "self.pth")
    refused(tmp_path / "self.pth", "no state dict")


def test_keys_that_are_no_names_are_refused(tmp_path):
    torch.save({0: torch.zeros(1), ("a", 1): torch.zeros(1)}, tmp_path / "keys.pth")
    refused(tmp_path / "keys.pth", "no state dict")


def unfit_values(weight):
    whole = weight.clone()
    whole[0] = float("nan")
    endless = weight.clone()
    endless[0] = float("inf")
    return {
        "NaN": (whole, "not finite"),
        "infinity": (endless, "not finite"),
        "complex64": (weight.to(torch.complex64), "is complex64"),
        "int8": (weight.to(torch.int8), "is int8"),
        "bool": (weight.bool(), "is bool"),
        "meta": (weight.to("meta"), "has no values"),
        "sparse": (weight.to_sparse(), "has no values"),
    }


@pytest.mark.parametrize("kind", ["NaN", "infinity", "complex64", "int8", "bool", "meta", "sparse"])
def test_tensors_that_are_no_weights_are_refused(tmp_path, kind):
    state_dict = dict(small("ATD").state_dict())
    state_dict["norm.weight"], match = unfit_values(state_dict["norm.weight"])[kind]
    torch.save(state_dict, tmp_path / "net.pth")
    refused(tmp_path / "net.pth", match)


@pytest.mark.slow
def test_damaged_pickles_are_load_errors_whatever_they_raise(tmp_path):
    """750 pickles with one to eight bytes changed, cut off or doubled, in the old format, where every byte is code."""
    content = dict(list(small("ATD").state_dict().items())[:4])
    plain = tmp_path / "plain.pth"
    torch.save({"params": content}, plain, _use_new_zipfile_serialization=False)
    whole = plain.read_bytes()
    damaged = tmp_path / "damaged.pth"
    rng = random.Random(0)
    for _ in range(750):
        data = bytearray(whole)
        head = min(len(data), 1_200)  # what lies behind are values, any of which is a value
        for _ in range(rng.randint(1, 8)):
            position = rng.randrange(head)
            match rng.randrange(3):
                case 0:
                    data[position] = rng.randrange(256)
                case 1:
                    del data[position : position + rng.randint(1, 9)]
                case _:
                    data[position:position] = data[position : position + rng.randint(1, 9)]
        damaged.write_bytes(data)
        with pytest.raises(LoadError):  # four tensors are no network, even when nothing is damaged
            atd.load(damaged)


def test_protocol_five_pickles_without_torch_are_refused(tmp_path):
    (tmp_path / "net.pth").write_bytes(pickle.dumps({"a": bytearray(10)}, protocol=5))
    refused(tmp_path / "net.pth", "checkpoint|state dict|damaged")


def test_a_safetensors_header_that_lies_is_refused(tmp_path):
    save_file({"a": torch.zeros(3)}, tmp_path / "net.safetensors")
    data = bytearray((tmp_path / "net.safetensors").read_bytes())
    for size in (0, 2**40, len(data) * 2):
        (tmp_path / "net.safetensors").write_bytes(size.to_bytes(8, "little") + data[8:])
        refused(tmp_path / "net.safetensors", "truncated or damaged")
