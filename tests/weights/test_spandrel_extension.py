"""spandrel's ModelLoader with the networks of this library, on files in the authors' format."""

import pytest
import torch
from small_networks import FAMILIES, image, output, small
from spandrel import MAIN_REGISTRY, ModelLoader, ModelTiling, UnsupportedModelError

import atd
from atd.loading import convert_for_authors
from atd.spandrel_extension import IDS, install


@pytest.fixture
def loader():
    """A loader of its own: the registry that all share stays as it is."""
    registry = MAIN_REGISTRY.copy()
    install(registry)
    return ModelLoader(registry=registry)


@pytest.fixture(params=FAMILIES)
def model(request):
    if request.param == "ATDU":
        return small("ATDU", category_size=[128, 128])
    # Files do not tell the category size: 128 for ATD-Real and for networks 48 wide, else 256.
    return small(request.param, category_size=128 if request.param == "ATDReal" else 256)


@pytest.mark.parametrize("format", ["authors", "ours"])
def test_a_file_becomes_the_network_with_the_same_output(model, loader, format, tmp_path):
    folder = model.save_pretrained(tmp_path / "net")
    file = folder / "model.safetensors"
    if format == "authors":
        file = convert_for_authors(folder, tmp_path / "net.pth")
    descriptor = loader.load_from_file(file)
    assert descriptor.architecture.id == IDS[type(model).__name__]
    assert type(descriptor.model) is type(model)
    assert (descriptor.scale, descriptor.input_channels, descriptor.output_channels) == (model.scale, 3, 3)
    assert descriptor.purpose == ("SR" if model.scale > 1 else "Restoration")
    assert descriptor.tiling is ModelTiling.DISCOURAGED
    assert (descriptor.supports_half, descriptor.supports_bfloat16) == (False, True)
    torch.testing.assert_close(descriptor(image(model)), output(model).clamp(0, 1), rtol=0, atol=1e-5)


def test_without_it_spandrel_mistakes_or_refuses_the_files(tmp_path):
    """What the extension is for."""
    for family in ("ATD", "ATDU"):
        file = small(family).save_pretrained(tmp_path / family) / "model.safetensors"
        with pytest.raises(UnsupportedModelError):
            ModelLoader().load_from_file(file)
    file = small("ATDReal").save_pretrained(tmp_path / "real") / "model.safetensors"
    with pytest.raises(RuntimeError, match="Unexpected key"):
        ModelLoader().load_from_file(file)


def test_installing_twice_changes_nothing_and_other_networks_keep_their_own():
    registry = MAIN_REGISTRY.copy()
    install(registry, cvpr=False)
    count = len(registry)
    install(registry, cvpr=False)
    assert len(registry) == count == len(MAIN_REGISTRY) + 3
    state = dict(small("ATDCVPR", category_size=256).state_dict().items())
    assert ModelLoader(registry=registry).load_from_state_dict(state).architecture.id == "ATD"


def test_files_of_other_networks_are_not_taken():
    """NAFNet has encoders too, SwinIR has layers with residual groups."""
    for keys in (["encoders.0.0.conv1.weight", "intro.weight"], ["layers.0.residual_group.blocks.0.norm1.weight"]):
        state = dict.fromkeys(keys, torch.zeros(2, 2))
        registry = MAIN_REGISTRY.copy()
        install(registry)
        assert not any(registry[id].detect(state) for id in IDS.values())


def test_an_installed_network_is_the_one_of_this_library():
    registry = MAIN_REGISTRY.copy()
    install(registry)
    state = small("ATDCVPR", category_size=256).state_dict()
    assert isinstance(ModelLoader(registry=registry).load_from_state_dict(state).model, atd.ATDCVPR)
