"""The Triton kernels on the CPU, in Triton's interpreter; run by test_kernels.py in a process of its own.

Every allocation is poisoned with NaN (``torch.utils.deterministic.fill_uninitialized_memory``), so that an element that
no kernel wrote shows.
"""

import copy
import itertools

import pytest
import torch
from kernel_cases import (
    check_category_attention,
    check_dictionary_attention,
    check_feedforward,
    check_partition,
    check_window_attention,
    randint,
    randn,
    relative,
)

from atd import ops
from atd.models import ATD, ATDCVPR, ATDU, ATDReal
from atd.models.layers import DictionaryLayer

HALF, SINGLE = torch.float16, torch.float32


@pytest.fixture(autouse=True)
def poisoned():
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    "case",
    [(SINGLE, 2, 45, 40, 12, 48, False), (SINGLE, 1, 33, 70, 20, 210, True), (HALF, 2, 70, 70, 6, 48, True)],
)
def test_dictionary_attention(case):
    check_dictionary_attention(*case)


def test_dictionary_attention_of_zero_rows():
    check_dictionary_attention(SINGLE, 1, 33, 9, 6, 16, False, zero_rows=True)


@pytest.mark.parametrize(("tokens", "count", "used"), [(1100, 40, 40), (70, 512, 512), (600, 64, 1), (1, 3, 3)])
def test_category_partition(tokens, count, used):
    check_partition(randint(used, 2, tokens) + count - used, count)


@pytest.mark.parametrize(
    "case",
    [
        (SINGLE, 2, (8, 16), 8, 4, 2, 12),
        (HALF, 1, (16, 8), 8, 4, 1, 35),
        (SINGLE, 1, (4, 8), 4, 2, 1, 54),
        (HALF, 2, (4, 4), 4, 0, 2, 16),
        (HALF, 1, (4, 8), 4, 1, 1, 96),
    ],
)
def test_window_attention(case):
    check_window_attention(*case)


@pytest.mark.parametrize(
    "case",
    [
        (SINGLE, 2, 100, 64, 7, 2, 12, True),  # the last group filled from two groups
        (HALF, 1, 75, 64, 5, 1, 48, True),
        (SINGLE, 1, 40, 64, 9, 1, 35, False),  # fewer tokens than a group
        (HALF, 1, 64, 32, 1, 1, 54, False),  # one category only
        (HALF, 1, 33, 16, 3, 1, 96, False),
    ],
)
def test_category_attention(case):
    check_category_attention(*case)


@pytest.mark.parametrize(
    "case",
    [
        (SINGLE, 2, (5, 9), 21, 4, 7, 5, True),
        (HALF, 1, (9, 8), 60, 6, 1, 3, False),
        (HALF, 1, (3, 4), 16, 0, 0, 7, True),
    ],
)
def test_category_feedforward(case):
    check_feedforward(*case)


def test_what_the_kernels_refuse_takes_the_torch_path():
    """Heads of 256 channels, keys of 130, float64: no kernel is launched, and the numbers are the torch path's."""
    order = torch.arange(16)[None]
    qkv, table = randn(1, 16, 3 * 256).float(), randn(49, 1, seed=1).float()
    query, key, value = randn(1, 16, 130).float(), randn(1, 5, 130, seed=1).float(), randn(1, 5, 8, seed=2).float()
    narrow = randn(1, 16, 48)

    def results():
        return [
            ops.category_attention(qkv, order, order, 16, 1, 0.1),
            ops.window_attention(qkv, table, (4, 4), 4, 2, 1),
            *ops.dictionary_attention(query, key, value, torch.ones(1)),
            ops.category_attention(narrow, order, order, 16, 1, 0.3),
            ops.category_feedforward(narrow, (4, 4), randn(48, 1, 3, 3, seed=1), None),
        ]

    model = ATD(**{**SIZES, "embed_dim": 512}, **LISTS, dim_ffn_td=3).eval()
    image = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        with ops.use("torch"):
            expected, restored = results(), model(image)
        with ops.use("triton"):
            assert all(torch.equal(a, b) for a, b in zip(results(), expected, strict=True))
            assert relative(model(image), restored) < 1e-4


def test_strided_inputs():
    """Rows taken from a wider tensor, and a batch laid out last."""
    wide = randn(36, 50, 2).float()
    qkv = wide[:, :36].permute(2, 0, 1)
    category = randint(4, 2, 36)
    results = {}
    for backend in ("triton", "reference"):
        with ops.use(backend):
            order, inverse = ops.category_partition(category.t().contiguous().t(), 4)
            results[backend] = ops.category_attention(qkv, order, inverse, 16, 2, 0.3)
    assert relative(results["triton"], results["reference"]) < 1e-6


def test_opcheck():
    """Schema, fake implementation, autograd registration and AOT dispatch with dynamic shapes, of every operator."""
    from atd.ops.kernels.category_attention import _category_attention
    from atd.ops.kernels.category_feedforward import _category_feedforward
    from atd.ops.kernels.category_partition import _category_partition
    from atd.ops.kernels.dictionary_attention import _dictionary_attention
    from atd.ops.kernels.window_attention import _window_attention

    def leaf(*shape, seed=0):
        return randn(*shape, seed=seed).float().requires_grad_()

    scale = torch.tensor([1.5], requires_grad=True)
    order = torch.randperm(18, generator=torch.Generator().manual_seed(0))[None]
    cases = [
        (_dictionary_attention, (leaf(1, 18, 6), leaf(1, 5, 6, seed=1), leaf(1, 5, 8), scale)),
        (_category_partition, (randint(4, 2, 18), 4)),
        (_window_attention, (leaf(1, 32, 24), leaf(49, 2, seed=1), 4, 8, 4, 2, 2, 0.5)),
        (_category_attention, (leaf(1, 18, 24), order, scale, 16, 2, 1.0)),
        (_category_feedforward, (leaf(1, 12, 6), 3, 4, leaf(8, 1, 3, 3), leaf(8), leaf(1, 3, 2), randint(3, 1, 12))),
    ]
    for op, args in cases:
        torch.library.opcheck(op, args)


def test_autocast_takes_the_region_s_dtype():
    from atd.ops.kernels.category_attention import category_attention

    qkv, order = randn(1, 16, 24).float(), torch.arange(16)[None]
    with torch.autocast("cpu", dtype=torch.float16):
        assert category_attention(qkv, order, order, 16, 2, 0.3).dtype == torch.float16
    assert category_attention(qkv, order, order, 16, 2, 0.3).dtype == torch.float32


LISTS = {"depths": (2,), "num_heads": (2,), "window_size": 4, "upsampler": "pixelshuffledirect", "upscale": 2}
SIZES = {"embed_dim": 12, "category_size": 16, "num_tokens": 9, "reducted_dim": 5, "convffn_kernel_size": 3}
NETWORKS = {
    "ATD": lambda: ATD(**SIZES, **LISTS, dim_ffn_td=3),
    "ATDCVPR": lambda: ATDCVPR(**SIZES, **LISTS),
    "ATDU": lambda: ATDU(
        embed_dim=8, depths=(2, 1), num_heads=(1, 2), window_size=(4, 4), dim_ffn_td=(3, 5), category_size=(16, 8),
        num_tokens=(9, 7), reducted_dim=(4, 6), convffn_kernel_size=3,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name):
    """A tiny network of each family with every op swapped, output and gradients, against float64."""
    torch.manual_seed(0)
    model = NETWORKS[name]()
    image = torch.rand(1, 3, 7, 10)
    target = torch.rand(1, 3, 7 * model.scale, 10 * model.scale)

    def run(backend, dtype):
        model.to(dtype)
        with ops.use(backend):
            output = model(image.to(dtype))
            gradients = torch.autograd.grad((output - target.to(dtype)).square().sum(), list(model.parameters()))
        return output.detach(), torch.cat([gradient.flatten() for gradient in gradients])

    exact, eager, ours = run("reference", torch.float64), run("reference", SINGLE), run("triton", SINGLE)
    for a, e, x in zip(ours, eager, exact, strict=True):
        assert relative(a, x) <= 2 * relative(e, x) + 1e-6


def jittered(name):
    """A network of `INFERENCE` with all parameters away from their first values, biases from zero."""
    torch.manual_seed(0)
    model = INFERENCE[name]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return model


@pytest.fixture
def only_fused(monkeypatch):
    """A layer's own forward is not to be called."""

    def refuse(*args):
        raise AssertionError("the fused layers were left out")

    monkeypatch.setattr(DictionaryLayer, "forward", refuse)


# Heads of 7 channels, which are padded to 8, and of 6, which are not.
INFERENCE = {
    "ATD": lambda: ATD(**{**SIZES, "embed_dim": 14}, **LISTS, dim_ffn_td=3),
    "ATDCVPR": lambda: ATDCVPR(**{**SIZES, "embed_dim": 14}, **LISTS),
    "ATDReal": lambda: ATDReal(**SIZES, **LISTS),
    "ATDU": NETWORKS["ATDU"],
}


# In half precision rounding may give a token another category, and so other tokens to attend to; not in this one.
@pytest.mark.parametrize(("name", "dtype"), [("ATD", HALF), *((name, SINGLE) for name in INFERENCE)])
def test_fused_networks(name, dtype, request):
    """Inference on a card: padded heads, weights prepared, additions in the products; a batch of two."""
    model = jittered(name).to(dtype)
    images = torch.rand(2, 3, 4, 7).to(dtype)
    with torch.no_grad():
        with ops.use("reference"):
            eager = model(images)
            exact = copy.deepcopy(model).double()(images.double())
        request.getfixturevalue("only_fused")
        with ops.use("triton"):
            ours = model(images)
    assert relative(ours, exact) <= 2 * relative(eager, exact) + 1e-6


def test_fused_networks_see_that_weights_change(only_fused):
    model = jittered("ATD")
    images = torch.rand(1, 3, 4, 4)
    bare = model.state_dict()

    def output(network):
        with torch.no_grad(), ops.use("triton"):
            return network(images)

    def of_a_new_one():
        other = INFERENCE["ATD"]().eval()
        other.load_state_dict(model.state_dict())
        return output(other)

    seen = [output(model)]
    with torch.no_grad():
        model.layers[0].residual_group.td.mul_(1.5)
    seen.append(output(model))
    model.load_state_dict({key: 0.9 * tensor if tensor.is_floating_point() else tensor for key, tensor in bare.items()})
    seen.append(output(model))
    assert torch.equal(seen[-1], of_a_new_one())
    model.half().float()
    seen.append(output(model))
    assert torch.equal(seen[-1], of_a_new_one())
    assert not any(torch.equal(a, b) for a, b in itertools.pairwise(seen))


def test_compiled_network():
    """One graph, and no second compilation for another image of the same size."""
    torch.manual_seed(0)
    model = NETWORKS["ATD"]().eval()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad(), ops.use("triton"):
        first, second = torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8)
        assert relative(compiled(first), model(first)) < 1e-6
        with torch.compiler.set_stance("fail_on_recompile"):
            assert relative(compiled(second), model(second)) < 1e-6
