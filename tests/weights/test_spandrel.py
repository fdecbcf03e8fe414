"""Files of the CVPR 2024 networks, exchanged with spandrel's independent implementation in both directions."""

import pytest
import torch
from small_networks import small
from spandrel import ModelLoader

import atd
from atd import loading

# spandrel assumes the authors' category sizes: 128 where embed_dim is 48, else 256.
VARIANTS = [
    {"upscale": 2, "upsampler": "pixelshuffle"},
    {"upscale": 4, "upsampler": "nearest+conv", "resi_connection": "3conv"},
    {"upscale": 3, "upsampler": "pixelshuffledirect", "qkv_bias": False},
    {"upscale": 2, "upsampler": "pixelshuffledirect", "embed_dim": 48, "num_heads": [4, 4], "category_size": 128},
]


@pytest.fixture(autouse=True)
def stable_sort(monkeypatch):
    """spandrel, like the authors, orders categories with `torch.sort(stable=False)`, whose order of equal categories
    differs between devices and sizes; ours is stable, so theirs is made so for the comparison."""
    sort = torch.sort
    monkeypatch.setattr(torch, "sort", lambda x, dim=-1, stable=True: sort(x, dim=dim, stable=True))


@pytest.fixture(params=VARIANTS, ids=lambda variant: f"{variant['upsampler']}_x{variant['upscale']}")
def model(request):
    return small("ATDCVPR", **{"category_size": 256, "window_size": 8, "num_tokens": 16, **request.param}).double()


def agree(ours, theirs):
    image = torch.rand(1, 3, 24, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        a, b = ours(image), theirs(image)
    assert (a - b).abs().max() <= 1e-9 * (b.max() - b.min())


def test_what_we_save_loads_in_spandrel_and_gives_the_same_image(model, tmp_path):
    folder = model.save_pretrained(tmp_path)
    descriptor = ModelLoader().load_from_file(folder / "model.safetensors")
    assert (descriptor.architecture.id, descriptor.scale) == ("ATD", model.scale)
    agree(model, descriptor.model.double().eval())


def test_what_spandrel_saves_loads_here_and_gives_the_same_image(model, tmp_path):
    theirs = ModelLoader().load_from_file(model.save_pretrained(tmp_path) / "model.safetensors").model.double().eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.mul_(1.01)
    torch.save({"params_ema": theirs.state_dict()}, tmp_path / "theirs.pth")
    agree(atd.load(tmp_path / "theirs.pth", dtype=torch.float64), theirs)


def test_a_file_for_the_authors_loads_in_spandrel_too(model, tmp_path):
    path = loading.convert_for_authors(model.save_pretrained(tmp_path / "net"), tmp_path / "net.pth")
    agree(model, ModelLoader().load_from_file(path).model.double().eval())


def test_a_network_without_normalisation_is_exchanged_too(tmp_path):
    ours = small("ATDCVPR", no_norm=True, category_size=256).double()
    theirs = ModelLoader().load_from_file(ours.save_pretrained(tmp_path) / "model.safetensors").model.double().eval()
    agree(ours, theirs)
