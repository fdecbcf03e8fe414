"""What is shown is what the forward pass used."""

import numpy as np
import numpy_networks
import pytest
import torch
from PIL import Image
from small_networks import FAMILIES, photo, small

import atd
from atd import ops
from atd.errors import InputError


@pytest.fixture
def oracle(monkeypatch):
    """Categories, queries and keys of every layer that the networks written in NumPy compute."""
    seen = []
    original = numpy_networks.dictionary_attention

    def attention(u, td, w, cvpr):
        output, weights, category = original(u, td, w, cvpr)
        query, key = numpy_networks.linear(u, w / "wq"), numpy_networks.linear(td, w / "wk")
        cosine = (query / np.linalg.norm(query, axis=1)[:, None]) @ (key / np.linalg.norm(key, axis=1)[:, None]).T
        seen.append((category, cosine))
        return output, weights, category

    monkeypatch.setattr(numpy_networks, "dictionary_attention", attention)
    return seen


def run_in_numpy(model, image):
    tensors = {name: value.double().numpy() for name, value in model.state_dict().items()}
    x = image.transpose(2, 0, 1) / np.float64(255)
    if isinstance(model, atd.ATDU):
        numpy_networks.u_network(tensors, model.config, x)
    else:
        real = isinstance(model, atd.ATDReal)
        cvpr = real or isinstance(model, atd.ATDCVPR)
        numpy_networks.super_resolution(tensors, model.config, x, cvpr=cvpr, real=real)


@pytest.mark.parametrize("family", FAMILIES)
def test_categories_and_similarities_are_those_of_the_formulas(family, oracle):
    model = small(family).double()
    explanation = atd.explain(model, photo())
    run_in_numpy(model, photo())
    assert len(explanation.layers) == len(oracle)
    for layer, (category, cosine) in zip(explanation.layers, oracle, strict=True):
        height, width = layer.grid_category.shape
        rows, columns = layer.shape
        assert (rows * layer.pixels, columns * layer.pixels) >= (9, 14)
        np.testing.assert_array_equal(layer.grid_category, category.reshape(height, width))
        grid = cosine.reshape(height, width, -1)[:rows, :columns]
        np.testing.assert_allclose(layer.similarity(2), grid[..., 2], atol=1e-5)
        np.testing.assert_allclose(layer.similarity(), grid.max(-1), atol=1e-5)
        assert layer.counts().sum() == rows * columns
        largest = layer.largest(3)
        assert [layer.members(entry).sum() for entry in largest] == [layer.counts()[entry] for entry in largest]


@pytest.mark.parametrize("backend", ["reference", "torch", "native"])
def test_every_backend_tells_the_same(backend):
    model = small("ATD")
    with ops.use("reference"):
        expected = atd.explain(model, photo())
    with ops.use(backend):
        explanation = atd.explain(model, photo())
    for layer, other in zip(explanation.layers, expected.layers, strict=True):
        assert layer.name == other.name
        np.testing.assert_array_equal(layer.category, other.category)
        np.testing.assert_allclose(layer.similarity(), other.similarity(), atol=1e-5)


@pytest.mark.parametrize("size", [16, 21, 300])
def test_a_group_is_what_the_category_attention_lets_a_token_see(size):
    """The rows of v that the output of a token depends on, by the gradient; groups of 16 to 192 tokens, with a rest."""
    layer = atd.explain(small("ATD", category_size=size), photo(9, 14)).layers[1]
    height, width = layer.grid_category.shape
    category = torch.from_numpy(layer.grid_category.reshape(1, -1)).long()
    order, inverse = ops.category_partition(category, layer.entries)
    generator = torch.Generator().manual_seed(0)
    qkv = torch.rand(1, height * width, 12, generator=generator, dtype=torch.float64).requires_grad_()
    output = ops.category_attention(qkv, order, inverse, size, 2, 0.5)
    for row, column in [(0, 0), (8, 13), (4, 7)]:
        (gradient,) = torch.autograd.grad(output[0, row * width + column].sum(), qkv, retain_graph=True)
        seen = (gradient[0, :, 8:].abs().sum(-1) > 0).reshape(height, width).numpy()
        np.testing.assert_array_equal(layer.group(row, column), seen[: layer.shape[0], : layer.shape[1]])


def test_tokens_of_coarse_levels_are_as_wide_as_they_say():
    explanation = atd.explain(small("ATDU"), photo(3, 5))
    assert {layer.pixels for layer in explanation.layers} == {1, 2}
    coarse = next(layer for layer in explanation.layers if layer.pixels == 2)
    assert coarse.shape == (2, 3)
    assert coarse.token_at(4, 2) == (1, 2)


def test_all_kinds_of_images_are_one_image(tmp_path):
    model = small("ATD")
    pixels = photo()
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    forms = [
        tmp_path / "photo.png",
        Image.fromarray(pixels),
        pixels,
        torch.from_numpy(pixels).movedim(-1, 0) / 255,
        np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)]),
    ]
    explanations = [atd.explain(model, form) for form in forms]
    for explanation in explanations:
        np.testing.assert_array_equal(explanation.image, pixels)
        for layer, first in zip(explanation.layers, explanations[0].layers, strict=True):
            np.testing.assert_array_equal(layer.category, first.category)


def test_a_part_is_explained_as_an_image_of_its_own():
    model = small("ATD")
    part = atd.explain(model, photo(20, 30), crop=(3, 5, 11, 8))
    alone = atd.explain(model, photo(20, 30)[5:13, 3:14])
    np.testing.assert_array_equal(part.image, alone.image)
    np.testing.assert_array_equal(part.layers[-1].category, alone.layers[-1].category)


def test_the_network_is_left_as_it_was_and_nobody_listens_on():
    model = small("ATD").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    atd.explain(model, photo())
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    explanation = atd.explain(model, photo())
    model(torch.rand(1, 3, 8, 8))
    assert len(explanation.layers) == 3


def test_mistakes_are_told():
    model = small("ATD")
    with pytest.raises(InputError, match="14×9"):
        atd.explain(model, photo(), crop=(8, 0, 8, 8))
    with pytest.raises(InputError, match="--crop LEFT,TOP,WIDTH,HEIGHT"):
        atd.explain(model, np.zeros((1025, 1024), np.uint8))
    with pytest.raises(InputError, match="expected a network of this library"):
        atd.explain(torch.nn.Identity(), photo())
    layer = atd.explain(model, photo()).layers[0]
    with pytest.raises(InputError, match="9×14"):
        layer.group(9, 0)
    with pytest.raises(InputError, match="has 6, from 0 on"):
        layer.similarity(6)
