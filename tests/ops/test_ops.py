"""Every op's reference and tuned path against plain loops in float64; gradients; graphs; the choice of a backend."""

import importlib

import numpy as np
import plain_ops
import pytest
import torch
from small_networks import small

from atd import ops
from atd.errors import BackendError, InputError

HEADS = ((2, 12), (1, 16), (3, 35), (1, 48), (2, 54), (1, 96))


@pytest.fixture(autouse=True)
def poisoned():
    """Every uninitialised allocation holds NaN."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(params=["reference", "torch", "torch in slices"])
def backend(request, monkeypatch):
    """Runs a test with each implementation; in slices, the tuned path splits even these small inputs."""
    if "slices" in request.param:
        for module in ("dictionary_attention", "grouped_attention"):
            monkeypatch.setattr(importlib.import_module(f"atd.ops.{module}"), "_CPU_CHUNK_BYTES", 1)
    with ops.use(request.param.split()[0]):
        yield request.param


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def draw_category(batch, tokens, kinds, seed=0):
    return torch.randint(kinds, (batch, tokens), generator=torch.Generator().manual_seed(seed))


def agree(output, expected, tolerance=1e-12):
    assert output.dtype == torch.float64
    np.testing.assert_allclose(output.numpy(), np.stack(expected), rtol=0, atol=tolerance)


def dictionary_inputs(batch, tokens, entries, rank, channels, scales):
    query, key, value = (
        draw(batch, tokens, rank),
        draw(batch, entries, rank, seed=1),
        draw(batch, entries, channels, seed=2),
    )
    query[:, 0] = 3 * key[:, 0]
    query[:, tokens - 1] = 0  # all logits tie: the first entry wins
    scale = 1 + 2 * torch.rand(scales, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    scale[-1] = scale[0]
    return query, key, value, scale


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(
    ("batch", "tokens", "entries", "scales"), [(2, 150, 11, 1), (1, 20, 7, 7), (3, 1, 2, 2), (2, 90, 96, 1)]
)
def test_dictionary_attention(batch, tokens, entries, scales):
    query, key, value, scale = dictionary_inputs(batch, tokens, entries, 5, 13, scales)
    output, category = ops.dictionary_attention(query, key, value, scale)
    factors = scale.expand(entries).numpy()
    pairs = [
        plain_ops.dictionary_attention(*(x[b].numpy() for x in (query, key, value)), factors) for b in range(batch)
    ]
    agree(output, [pair[0] for pair in pairs])
    assert np.array_equal(category.numpy(), np.stack([pair[1] for pair in pairs]))
    assert (category[:, -1] == 0).all()


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("entries", [64, 128, 96, 40])
def test_first_of_equal_entries_is_the_category(entries):
    """With rank 1 every cosine is 1 or −1: the first entry of the query's own sign wins."""
    query, key = draw(2, 200, 1), draw(2, entries, 1, seed=1)
    key[:, : entries // 2] = -key[:, : entries // 2].abs()
    category = ops.dictionary_attention(query, key, draw(2, entries, 3, seed=2), torch.full((1,), 2.0))[1]
    for b in range(2):
        first = {sign: (key[b, :, 0] * sign > 0).nonzero()[0] for sign in (-1, 1)}
        assert first[1] >= entries // 2
        expected = torch.where(query[b, :, 0] > 0, first[1], first[-1])
        assert torch.equal(category[b], expected)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_inputs_get_categories_of_float32(dtype):
    query, key, value, scale = (x.to(dtype) for x in dictionary_inputs(1, 300, 64, 12, 8, 1))
    half = ops.dictionary_attention(query, key, value, scale.float())[1]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        autocast = ops.dictionary_attention(query, key, value, scale.float())[1]
    single = ops.dictionary_attention(query.float(), key.float(), value.float(), scale.float())[1]
    assert torch.equal(half, single)
    assert torch.equal(autocast, single)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(("batch", "tokens", "entries"), [(2, 150, 6), (1, 9, 4)])
def test_dictionary_refinement(batch, tokens, entries):
    query, key, dictionary, scale = dictionary_inputs(batch, tokens, entries, 5, 8, entries)
    x = draw(batch, tokens, 8, seed=4)
    weight, bias, sigma = draw(entries, seed=5), draw(entries, seed=6), draw(entries, 1, seed=7)
    with torch.no_grad():
        refined = ops.dictionary_refinement(query, key, scale, x, dictionary, weight, bias, sigma)
    shared = [t.numpy() for t in (weight, bias, sigma)]
    expected = [
        plain_ops.dictionary_refinement(
            query[b].numpy(), key[b].numpy(), scale.numpy(), x[b].numpy(), dictionary[b].numpy(), *shared
        )
        for b in range(batch)
    ]
    agree(refined, expected, 1e-10)


@pytest.mark.parametrize("name", ["dictionary_attention", "dictionary_refinement"])
def test_no_attention_map_is_kept_for_the_gradient(name):
    tokens, entries = 1000, 40
    inputs = [draw(1, tokens, 5), draw(1, entries, 5), draw(1, entries, 7), draw(entries)]
    if name == "dictionary_refinement":
        inputs = [*inputs[:2], inputs[3], draw(1, tokens, 7), inputs[2], draw(entries), draw(entries), draw(entries, 1)]
    kept = []
    with ops.use("torch"), torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        getattr(ops, name)(*(x.requires_grad_() for x in inputs))
    assert 0 < max(kept, default=0) < tokens * entries / 2


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(("batch", "tokens", "kinds"), [(2, 50, 7), (1, 300, 512), (3, 40, 1), (1, 1, 1)])
def test_category_partition(batch, tokens, kinds):
    category = draw_category(batch, tokens, kinds)
    order, inverse = ops.category_partition(category, kinds)
    for b, row in enumerate(category.tolist()):
        expected = sorted(range(tokens), key=row.__getitem__)  # Python's sort is stable
        assert order[b].tolist() == expected
        assert [expected[place] for place in inverse[b].tolist()] == list(range(tokens))


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(("num_heads", "head"), HEADS)
@pytest.mark.parametrize(
    ("batch", "tokens", "group", "kinds"),
    [(2, 29, 8, 4), (1, 16, 8, 1), (1, 5, 8, 3), (1, 17, 16, 5)],  # padded, one category, n < group, pad of 15
)
def test_category_attention(num_heads, head, batch, tokens, group, kinds):
    qkv, category = draw(batch, tokens, 3 * num_heads * head), draw_category(batch, tokens, kinds)
    order, inverse = ops.category_partition(category, kinds)
    output = ops.category_attention(qkv, order, inverse, group, num_heads, 0.37)
    learned = ops.category_attention(qkv, order, inverse, group, num_heads, torch.tensor(0.37, dtype=torch.float64))
    expected = [
        plain_ops.category_attention(qkv[b].numpy(), category[b].tolist(), group, num_heads, 0.37) for b in range(batch)
    ]
    agree(output, expected)
    agree(learned, expected)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(
    ("batch", "grid", "window", "shift", "num_heads", "head"),
    [
        (2, (8, 12), 4, 2, 2, 12),
        (1, (4, 8), 4, 2, 1, 35),  # one side equals the window
        (1, (4, 4), 4, 2, 1, 54),
        (1, (6, 9), 3, 1, 3, 16),
        (2, (8, 4), 4, 0, 1, 48),
        (1, (4, 8), 4, 3, 1, 96),
    ],
)
def test_window_attention(batch, grid, window, shift, num_heads, head):
    qkv, table = draw(batch, grid[0] * grid[1], 3 * num_heads * head), draw((2 * window - 1) ** 2, num_heads, seed=1)
    output = ops.window_attention(qkv, table, grid, window, shift, num_heads)
    expected = [
        plain_ops.window_attention(qkv[b].numpy(), table.numpy(), grid, window, shift, num_heads) for b in range(batch)
    ]
    agree(output, expected)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(
    ("batch", "grid", "hidden", "extra", "side", "with_bias"),
    [(2, (5, 7), 6, 3, 5, True), (1, (3, 2), 4, 0, 7, True), (1, (1, 9), 5, 2, 3, False)],
)
def test_category_feedforward(batch, grid, hidden, extra, side, with_bias):
    tokens = grid[0] * grid[1]
    values, weight = draw(batch, tokens, hidden), draw(hidden + extra, 1, side, side, seed=1)
    bias = draw(hidden + extra, seed=2) if with_bias else None
    features = draw(batch, 4, extra, seed=3) if extra else None
    category = draw_category(batch, tokens, 4) if extra else None
    output = ops.category_feedforward(values, grid, weight, bias, features, category)
    expected = [
        plain_ops.category_feedforward(
            values[b].numpy(),
            grid,
            weight.numpy(),
            None if bias is None else bias.numpy(),
            None if features is None else features[b].numpy(),
            None if category is None else category[b].numpy(),
        )
        for b in range(batch)
    ]
    agree(output, expected)


@pytest.mark.usefixtures("backend")
def test_strided_inputs():
    """Slices of wider tensors give what their copies give."""
    wide, table = draw(16, 40, 2), draw(49, 2, seed=1)
    qkv = wide[:, 2:38].permute(2, 0, 1)
    category = draw_category(16, 2, 3).t()
    order, inverse = ops.category_partition(category, 3)
    pairs = [
        (
            ops.category_attention(rows, order, inverse, 8, 2, 0.3),
            ops.window_attention(rows, table, (4, 4), 4, 2, 2),
        )
        for rows in (qkv, qkv.contiguous())
    ]
    for strided, copied in zip(*pairs, strict=True):
        torch.testing.assert_close(strided, copied, rtol=0, atol=1e-12)


def gradient_cases():
    category = draw_category(2, 12, 3)
    order = torch.sort(category, dim=-1, stable=True).indices
    inverse = torch.argsort(order, dim=-1)
    scale = 1 + torch.rand(4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    query, key, value = draw(2, 12, 3), draw(2, 4, 3, seed=1), draw(2, 4, 6, seed=2)
    grid = (3, 4)
    return {
        "dictionary_attention": (lambda *t: ops.dictionary_attention(*t)[0], [query, key, value, scale]),
        "dictionary_refinement": (
            ops.dictionary_refinement,
            # More tokens than a slice holds.
            [draw(2, 70, 3), key, scale, draw(2, 70, 6, seed=3), value, draw(4), draw(4, seed=5), draw(4, 1, seed=6)],
        ),
        "category_attention": (
            lambda qkv, s: ops.category_attention(qkv, order, inverse, 5, 2, s),
            [draw(2, 12, 12), torch.tensor(0.6, dtype=torch.float64)],
        ),
        "window_attention": (
            lambda qkv, table: ops.window_attention(qkv, table, (2, 6), 2, 1, 2),
            [draw(2, 12, 12), draw(9, 2, seed=1)],
        ),
        "category_feedforward": (
            lambda h, w, b, f: ops.category_feedforward(h, grid, w, b, f, category),
            [draw(2, 12, 3), draw(5, 1, 3, 3, seed=1), draw(5, seed=2), draw(2, 3, 2, seed=3)],
        ),
    }


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("name", gradient_cases())
def test_gradients(name):
    function, inputs = gradient_cases()[name]
    assert torch.autograd.gradcheck(function, [x.requires_grad_() for x in inputs], fast_mode=True)


# Of ATDCVPR everything is in ATDReal's program, whose layers are made of its own; tests/export has all families.
WHOLE_PROGRAMS = ("ATD", "ATDReal", "ATDU")


def shallow(family):
    """A small network, of one residual group where the family has them: a graph is traced layer by layer."""
    return small(family) if family == "ATDU" else small(family, depths=[2], num_heads=[2])


def image(model, height, width, seed=0):
    return torch.rand(1, model.in_channels, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.slow
@pytest.mark.parametrize("family", WHOLE_PROGRAMS)
def test_compiled_networks_are_one_graph_for_every_size(family):
    """None is made for a second image of the same size, and at most one more over five sizes with dynamic sides."""
    torch._dynamo.reset()
    model = shallow(family)
    graphs = []

    def count(graph, example_inputs):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=count)
    made = []
    with ops.use("torch"), torch.no_grad():
        for seed, size in enumerate([(16, 24), (16, 24), (24, 16), (32, 40), (40, 8), (48, 16)]):
            x = image(model, *size, seed)
            torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)
            made.append(len(graphs))
    assert made[:2] == [1, 1]
    assert made[-1] <= 2


@pytest.mark.slow
@pytest.mark.parametrize("family", WHOLE_PROGRAMS)
def test_exported_networks_run_at_another_size(family):
    model = shallow(family)
    x = image(model, 16, 24)
    auto = torch.export.Dim.AUTO
    with torch.no_grad():
        program = torch.export.export(model, (x,), dynamic_shapes=({2: auto, 3: auto},)).module()
        for size in ((16, 24), (40, 32)):
            y = image(model, *size, seed=1)
            torch.testing.assert_close(program(y), model(y), rtol=1e-4, atol=1e-5)


def test_backends():
    tensor = torch.zeros(1)
    assert ops.backend_report("cpu")[0] in ("native", "torch")
    assert ops.backend_report("cpu", torch.bfloat16)[0] == "torch"
    with ops.use("reference"):
        assert ops.backend_report("cpu")[0] == "reference"
        with ops.use("torch"):
            assert ops.backend_report(tensor.device)[0] == "torch"
        assert ops.backend_report("cpu")[0] == "reference"
    able, reason = ops.can_use_triton(tensor.device)
    assert not able
    assert "CUDA" in reason
    with ops.use("triton"), pytest.raises(BackendError, match=r'CUDA.*use\("auto"\)'):
        ops.category_partition(torch.zeros(1, 4, dtype=torch.int64), 2)
    with pytest.raises(InputError, match=r"'cuda'.*auto, triton, native, torch, reference"):
        ops.use("cuda")
