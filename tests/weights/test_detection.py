"""Architecture and constructor keywords read back from state dicts: golden, full-size and unusual ones."""

import json
import re

import pytest
import torch
from safetensors import safe_open

from atd import registry
from atd.errors import LoadError
from atd.models import ARCHITECTURES
from atd.weights.detection import detect

UNTRACEABLE = {"img_size", "img_range", "category_size", "use_checkpoint"}
# Several ratios give the same widths: what counts is that the widths come back.
TRACEABLE_IN_WIDTHS = {"mlp_ratio"}
SMALL = {"embed_dim": 12, "depths": [1, 2], "num_heads": [2, 3], "window_size": 4, "num_tokens": 6, "reducted_dim": 3}
SMALL_U = {
    "embed_dim": 4,
    "depths": [1, 2, 3],
    "num_heads": [1, 2, 4],
    "window_size": [8, 4, 2],
    "dim_ffn_td": [1, 2, 3],
    "category_size": [8, 8, 8],
    "num_tokens": [5, 6, 7],
    "reducted_dim": [1, 2, 3],
}
VARIANTS = [
    ("ATD", {**SMALL, "upscale": 1, "upsampler": ""}),
    ("ATD", {**SMALL, "upscale": 1, "upsampler": "pixelshuffle"}),
    ("ATD", {**SMALL, "upscale": 2, "upsampler": "pixelshuffle", "in_chans": 1}),
    ("ATD", {**SMALL, "upscale": 3, "upsampler": "pixelshuffle", "in_chans": 4}),
    ("ATD", {**SMALL, "upscale": 8, "upsampler": "pixelshuffle"}),
    ("ATD", {**SMALL, "upscale": 1, "upsampler": "pixelshuffledirect"}),
    ("ATD", {**SMALL, "upscale": 3, "upsampler": "pixelshuffledirect", "in_chans": 4}),
    ("ATD", {**SMALL, "upscale": 8, "upsampler": "pixelshuffledirect", "in_chans": 1}),
    ("ATD", {**SMALL, "upscale": 4, "upsampler": "nearest+conv", "resi_connection": "3conv"}),
    ("ATD", {**SMALL, "qkv_bias": False, "patch_norm": False}),
    ("ATD", {**SMALL, "mlp_ratio": 1.3, "convffn_kernel_size": 3, "dim_ffn_td": 5}),
    ("ATD", {**SMALL, "mlp_ratio": 0.34}),
    ("ATD", {**SMALL, "depths": [1] * 11, "num_heads": [1, 2, 3, 4, 6, 12, 1, 2, 3, 4, 6]}),
    ("ATDCVPR", {**SMALL, "upscale": 4, "upsampler": "nearest+conv", "qkv_bias": False}),
    ("ATDCVPR", {**SMALL, "upscale": 2, "upsampler": "pixelshuffledirect", "resi_connection": "3conv"}),
    ("ATDCVPR", {**SMALL, "depths": [1, 1], "upscale": 3, "upsampler": "pixelshuffle", "in_chans": 1}),
    ("ATDCVPR", {**SMALL, "no_norm": True}),
    ("ATDReal", {**SMALL, "upscale": 4, "upsampler": "nearest+conv", "qkv_bias": False}),
    ("ATDReal", {**SMALL, "upscale": 2, "upsampler": "pixelshuffledirect", "resi_connection": "3conv"}),
    ("ATDU", {**SMALL_U, "bias": True, "in_chans": 1, "mlp_ratio": 2.66}),
    ("ATDU", {**SMALL_U, "bias": False, "in_chans": 4, "mlp_ratio": 1.7, "convffn_kernel_size": 3}),
    ("ATDU", {key: value[:2] if isinstance(value, list) else value for key, value in SMALL_U.items()}),
]


def meta_model(architecture, config):
    with torch.device("meta"):
        return ARCHITECTURES[architecture](**config)


def shapes(model):
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "config"), VARIANTS)
def test_every_keyword_that_leaves_a_trace_is_found(architecture, config):
    model = meta_model(architecture, config)
    found_architecture, found = detect(model.state_dict())
    assert found_architecture == architecture
    traceable = model.config.keys() - UNTRACEABLE - TRACEABLE_IN_WIDTHS
    assert {key: found.get(key, False) for key in traceable} == {key: model.config[key] for key in traceable}
    assert shapes(meta_model(architecture, found)) == shapes(model)


def test_published_networks_are_recognised_in_full(golden):
    table = json.loads((golden / "state_dict_shapes.json").read_text())
    assert len(table) == 15
    for name, shapes_of in table.items():
        info = registry.get({"atd_u_color": "atd_u_color_dn15", "atd_u_gray": "atd_u_gray_dn15"}.get(name, name))
        architecture, config = detect({key: torch.empty(shape, device="meta") for key, shape in shapes_of.items()})
        assert architecture == info.architecture
        assert info.config.items() <= config.items(), name


@pytest.mark.parametrize(
    "file",
    [
        "atd_sr_x4_3conv_nobias",
        "atd_sr_x3",
        "atd_light_sr_x4",
        "atd_cvpr_sr_x2",
        "atd_u_color",
        "atd_u_gray",
        "atd_real_x4",
    ],
)
def test_golden_networks_are_recognised(golden, file):
    with safe_open(golden / f"{file}.safetensors", "pt") as opened:
        header = opened.metadata()
        keys = [key for key in opened.keys() if key.startswith("state_dict.")]  # noqa: SIM118
        state_dict = {key.removeprefix("state_dict."): opened.get_tensor(key) for key in keys}
    architecture, found = detect(state_dict)
    assert architecture == {"v1": "ATDCVPR", "v2": "ATD", "u": "ATDU", "real": "ATDReal"}[header["arch"]]
    config = json.loads(header["config"])
    assert {key: found[key] for key in config.keys() - UNTRACEABLE} == {
        key: config[key] for key in config.keys() - UNTRACEABLE
    }


def test_a_width_that_rounds_down_is_reproduced():
    # int(12·(29/12)) = 28 in binary floating point: the ratio must still give 29.
    model = meta_model("ATD", {**SMALL, "mlp_ratio": 29.5 / 12})
    _, config = detect(model.state_dict())
    assert int(12 * config["mlp_ratio"]) == 29


def test_other_networks_are_refused_with_at_most_five_keys():
    with pytest.raises(LoadError, match="not those of ATD") as caught:
        detect(torch.nn.Sequential(*[torch.nn.Linear(2, 2) for _ in range(9)]).state_dict())
    assert len(re.findall(r"\d\.(?:weight|bias)", str(caught.value))) == 5


def test_half_a_network_is_refused_in_one_sentence():
    state_dict = meta_model("ATD", SMALL).state_dict()
    del state_dict["conv_first.weight"]
    with pytest.raises(LoadError, match=r"conv_first\.weight"):
        detect(state_dict)
