"""The nodes for ComfyUI without it: loaded from their folder as it does, beside stand-ins of what they call in it."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from advice_pictures import KODAK, crop_of, with_noise
from small_networks import small

import atd

FOLDER = Path(__file__).parents[2] / "integrations" / "comfyui"


class InterruptProcessingException(Exception):
    """ComfyUI's."""


@pytest.fixture
def package():
    spec = importlib.util.spec_from_file_location(
        "comfyui_atd", FOLDER / "__init__.py", submodule_search_locations=[str(FOLDER)]
    )
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    for name in [name for name in sys.modules if name.startswith("comfyui_atd")]:
        del sys.modules[name]


@pytest.fixture
def comfy(monkeypatch):
    """ComfyUI's progress bars and its switch for interrupting."""
    utils, management = ModuleType("comfy.utils"), ModuleType("comfy.model_management")
    state = {"bars": [], "interrupted": False}

    class ProgressBar:
        def __init__(self, total):
            self.seen = []
            state["bars"].append(self)

        def update_absolute(self, value, total=None, preview=None):
            self.seen.append((value, total))

    def throw_exception_if_processing_interrupted():
        if state["interrupted"]:
            raise InterruptProcessingException

    utils.ProgressBar = ProgressBar
    management.throw_exception_if_processing_interrupted = throw_exception_if_processing_interrupted
    management.get_torch_device = lambda: torch.device("cpu")
    for module in (ModuleType("comfy"), utils, management):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return state


def node(package, name):
    return package.NODE_CLASS_MAPPINGS[name]


def test_every_node_says_what_comfyui_asks(package):
    assert package.NODE_CLASS_MAPPINGS.keys() == package.NODE_DISPLAY_NAME_MAPPINGS.keys()
    for kind in package.NODE_CLASS_MAPPINGS.values():
        inputs = kind.INPUT_TYPES()
        assert set(inputs) <= {"required", "optional"}
        arguments = {name for group in inputs.values() for name in group}
        function = getattr(kind, kind.FUNCTION)
        assert arguments == set(function.__code__.co_varnames[1 : function.__code__.co_argcount])
        assert isinstance(kind.RETURN_TYPES, tuple)
        assert len(kind.RETURN_TYPES) == len(kind.RETURN_NAMES)
    names, _ = node(package, "AtdLoadNetwork").INPUT_TYPES()["required"]["name"]
    assert sorted(names) == sorted(atd.list_models())


def test_a_batch_is_restored_as_by_the_library(package, comfy, tmp_path):
    folder = small("ATD").save_pretrained(tmp_path / "net")
    (network,) = node(package, "AtdLoadNetwork")().load("atd_sr_x4", "official", f" {folder} ")
    image = torch.rand(2, 30, 41, 3, generator=torch.Generator().manual_seed(0))
    (restored,) = node(package, "AtdRestoreImage")().restore(network, image, tile=16, overlap=4)
    assert restored.shape == (2, 60, 82, 3)
    assert restored.is_contiguous()
    expected = atd.restore(network, image.permute(0, 3, 1, 2).contiguous(), tile=16, overlap=4)
    torch.testing.assert_close(restored, expected.permute(0, 2, 3, 1))
    (bar,) = comfy["bars"]
    assert bar.seen[-1][0] == bar.seen[-1][1] == len(bar.seen) > 4


def test_the_strength_is_that_of_the_library(package):
    network, image = small("ATDU"), torch.rand(1, 20, 24, 3, generator=torch.Generator().manual_seed(0))
    restore = node(package, "AtdRestoreImage")().restore
    (half,), (whole,) = (restore(network, image, strength=strength) for strength in (0.5, 1.0))
    torch.testing.assert_close(half, (image + whole) / 2)
    assert torch.equal(restore(network, image, strength=0.0)[0], image)


def test_the_advice_is_that_of_the_library_on_the_first_image(package):
    clean = crop_of(KODAK[0])
    noisy = np.asarray(with_noise(clean, 25))
    image = torch.from_numpy(np.stack([noisy, np.asarray(clean)])).float() / 255
    text, network = node(package, "AtdAdviseOnImage")().advise(image)
    expected = atd.advise(noisy)
    assert network == expected.recommendations[0].network == "atd_u_tiny_color_dn"
    assert expected.summary in text
    assert all(finding in text for finding in expected.findings)
    assert "atd restore" not in text  # there is no file, and no shell, in ComfyUI


def test_interrupting_stops_after_the_tile_at_work(package, comfy):
    comfy["interrupted"] = True
    with pytest.raises(InterruptProcessingException):
        node(package, "AtdRestoreImage")().restore(small("ATD"), torch.rand(1, 40, 40, 3), tile=16)
    assert comfy["bars"] == []


def test_bundled_weights_load_by_name_and_run_outside_of_comfyui(package):
    (network,) = node(package, "AtdLoadNetwork")().load("atd_light_sr_x2", "bundled")
    assert network.name == "atd_light_sr_x2"
    (restored,) = node(package, "AtdRestoreImage")().restore(network, torch.rand(1, 8, 9, 3))
    assert restored.shape == (1, 16, 18, 3)
