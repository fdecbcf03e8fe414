"""Inputs and comparisons for the Triton kernels, shared by the interpreted tests and those on a card.

The yardstick is the reference in float64; a kernel may err at most twice as much as the reference run eagerly in the
kernel's own dtype (plus a few units in the last place).
"""

import importlib

import torch

from atd import ops

FLOOR = {torch.float32: 3e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


def op_module(name):
    return importlib.import_module(f"atd.ops.{name}")


def relative(a, b):
    a, b = a.double(), b.double()
    assert torch.isfinite(a).all()
    return ((a - b).norm() / b.norm().clamp_min(1e-30)).item()


def check(kernel, reference, inputs, dtype, *, backward=True):
    """Compare output and gradients; ``inputs`` are float64 leaves, of which the floating ones get gradients."""

    def run(function, cast):
        leaves = [cast(x).detach().requires_grad_(backward) for x in inputs]
        output = function(*leaves)
        output, category = output if isinstance(output, tuple) else (output, None)
        if not backward:
            return [output], category
        weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(9)).to(dtype).to(output.device)
        return [output, *torch.autograd.grad(output, leaves, weights.to(output.dtype))], category

    given = [x.to(dtype) for x in inputs]
    exact, category = run(reference, lambda x: x.to(dtype).double())
    eager, _ = run(reference, lambda x: x.to(dtype))
    ours, our_category = run(kernel, lambda x: x.to(dtype))
    for index, (a, e, x, like) in enumerate(zip(ours, eager, exact, [None, *given], strict=False)):
        assert a.shape == x.shape
        assert like is None or a.dtype == like.dtype
        limit = 2 * relative(e, x) + FLOOR[dtype]
        assert relative(a, x) <= limit, f"result {index}: {relative(a, x):.2e}, allowed {limit:.2e}"
    return our_category, category


def on(backend, function):
    """``function`` run by one backend."""

    def run(*args):
        with ops.use(backend):
            return function(*args)

    return run


def randn(*shape, seed=0, device="cpu"):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(device)


def randint(high, *shape, seed=0, device="cpu"):
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed)).to(device)


def check_dictionary_attention(
    dtype, batch, tokens, entries, rank, channels, per_entry, device="cpu", *, zero_rows=False
):
    """``zero_rows`` have a category and an output, but gradients of the order of 1/eps: they are checked forward."""
    query, key, value = (
        randn(batch, *shape, seed=seed, device=device)
        for seed, shape in enumerate([(tokens, rank), (entries, rank), (entries, channels)])
    )
    # An exact tie: products of such multiples of 1/8 add up without rounding, in whatever order a matrix product adds.
    key[:, -1] = (8 * key[:, -1]).round() / 8
    key[:, entries // 2] = key[:, -1]
    query[:, 3] = 5 * key[:, -1]
    if zero_rows:
        key[:, 1] = 0
        query[:, 5] = 0
    scale = 1 + 2 * torch.rand(entries if per_entry else 1, generator=torch.Generator().manual_seed(3)).to(device)
    scale[entries // 2 :] = 2.5  # equal for the two that tie
    scale = scale.double()

    def call(query, key, value, scale):
        return ops.dictionary_attention(query, key, value, scale.float() if dtype != torch.float64 else scale)

    ours, exact = check(
        on("triton", call), on("reference", call), [query, key, value, scale], dtype, backward=not zero_rows
    )
    assert ours.dtype == torch.int64
    assert (ours[:, 3] == entries // 2).all()
    assert not zero_rows or (ours[:, 5] == 0).all()
    # A category may differ only where float32 cannot tell two logits apart.
    logits = op_module("dictionary_attention").cosine_logits(
        *(x.to(dtype).double() for x in (query, key)), scale.to(dtype).double()
    )
    chosen, best = (logits.gather(2, c[..., None]) for c in (ours, exact))
    assert ((best - chosen) <= 1e-5).all()


def check_window_attention(dtype, batch, grid, window, shift, heads, head, device="cpu", backward=True):
    qkv = randn(batch, grid[0] * grid[1], 3 * heads * head, device=device)
    table = randn((2 * window - 1) ** 2, heads, seed=1, device=device)

    def call(qkv, table):
        return ops.window_attention(qkv, table, grid, window, shift, heads)

    check(on("triton", call), on("reference", call), [qkv, table], dtype, backward=backward)


def check_category_attention(
    dtype, batch, tokens, group, categories, heads, head, learned, device="cpu", backward=True
):
    qkv = randn(batch, tokens, 3 * heads * head, device=device)
    order, inverse = op_module("category_partition")._reference(
        randint(categories, batch, tokens, device=device), categories
    )
    inputs = [qkv, torch.tensor(0.4, dtype=torch.float64, device=device)] if learned else [qkv]

    def call(qkv, *scale):
        return ops.category_attention(qkv, order, inverse, group, heads, scale[0] if scale else head**-0.5)

    check(on("triton", call), on("reference", call), inputs, dtype, backward=backward)


def check_feedforward(dtype, batch, grid, hidden, extra, categories, side, with_bias, device="cpu", backward=True):
    tokens = grid[0] * grid[1]
    category = randint(categories, batch, tokens, device=device) if extra else None
    inputs = [
        randn(batch, tokens, hidden, device=device),
        randn(hidden + extra, 1, side, side, seed=1, device=device) / side,
    ]
    if with_bias:
        inputs.append(randn(hidden + extra, seed=2, device=device))
    if extra:
        inputs.append(randn(batch, categories, extra, seed=3, device=device))

    def call(values, weight, *others):
        others = list(others)
        bias = others.pop(0) if with_bias else None
        return ops.category_feedforward(values, grid, weight, bias, others[0] if extra else None, category)

    check(on("triton", call), on("reference", call), inputs, dtype, backward=backward)


def check_partition(category, count):
    with ops.use("triton"):
        order, inverse = ops.category_partition(category, count)
    for b, row in enumerate(category.tolist()):
        expected = sorted(range(len(row)), key=row.__getitem__)  # Python's sort is stable
        assert order[b].tolist() == expected
        assert [expected[place] for place in inverse[b].tolist()] == list(range(len(row)))
