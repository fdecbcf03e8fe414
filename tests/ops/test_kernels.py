"""The Triton kernels: interpreted on the CPU in a process of their own, built without a card, and run on one."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from kernel_cases import (
    check_category_attention,
    check_dictionary_attention,
    check_feedforward,
    check_partition,
    check_window_attention,
    randint,
    relative,
)
from small_networks import FAMILIES, image, small

from atd import ops

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card"),
]


def on_card(function):
    for mark in gpu:
        function = mark(function)
    return function


def run_python(*arguments, **environment):
    """A process of its own from the repository's root; ends the test with its output when it fails."""
    command = [sys.executable, *arguments]
    done = subprocess.run(command, env={**os.environ, **environment}, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    return done.stdout


def release(package: str) -> tuple[int, ...]:
    """Major and minor version of an installed package."""
    return tuple(int(number) for number in version(package).split(".")[:2])


@pytest.mark.slow
@pytest.mark.skipif(
    release("triton") < (3, 7) and release("numpy") >= (2, 4),
    reason="Triton's interpreter of this version cannot run with this NumPy",
)
@pytest.mark.parametrize("tests", ["attention", "not attention"])
def test_kernels_in_the_interpreter(tests):
    """``TRITON_INTERPRET`` counts at the first import of triton, hence two processes of their own, side by side."""
    options = ("-q", "-x", "-n", "0", "-p", "no:cacheprovider", "-k", tests)
    file = str(HERE / "interpreted_kernels.py")
    run_python("-m", "pytest", *options, file, TRITON_INTERPRET="1", ATD_BACKEND="auto")


@pytest.mark.slow
def test_kernels_build_for_a_card_that_is_not_there():
    """Forward and backward of a layer of CVPR's ATD, within a consumer card's shared memory, and without large spills.

    CI builds those of all networks for three cards (`nox -s kernels`).
    """
    options = ("--capability", "89", "--shapes", "atd_cvpr_light_sr_x2:48", "--check")
    table = run_python("-m", "benchmarks.compiled_kernels", *options, TRITON_INTERPRET="0").splitlines()
    built = {line.split()[2] for line in table[1:]}
    assert built == {
        "category_feedforward.activate",
        "category_feedforward.convolution_backward",
        "category_feedforward.forward",
        "category_feedforward.input_backward",
        "category_feedforward.weight_backward",
        "category_partition.count",
        "category_partition.place",
        "dictionary_attention.factors",
        "dictionary_attention.forward",
        "dictionary_attention.key_backward",
        "dictionary_attention.query_backward",
        "dictionary_attention.value_backward",
        "grouped_attention.bias_backward",
        "grouped_attention.forward",
        "grouped_attention.key_backward",
        "grouped_attention.query_backward",
        "grouped_attention.spread",
        "grouped_attention.table_backward",
    }


DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)


@on_card
@DTYPES
@pytest.mark.parametrize(
    "case", [(1, 4096, 512, 16, 216, False), (2, 1000, 128, 20, 210, True), (2, 777, 128, 24, 384, False)]
)
def test_dictionary_attention_on_a_card(dtype, case):
    check_dictionary_attention(dtype, *case, device="cuda")


@on_card
@DTYPES
@pytest.mark.parametrize(
    "case",
    [(2, (48, 64), 16, 8, 4, 54), (1, (32, 16), 16, 8, 3, 16), (2, (16, 24), 8, 4, 4, 96), (1, (32, 32), 16, 0, 6, 35)],
)
def test_window_attention_on_a_card(dtype, case):
    check_window_attention(dtype, *case, device="cuda")


@on_card
@DTYPES
@pytest.mark.parametrize(
    "case",
    [
        (2, 1000, 256, 512, 4, 54, False),
        (1, 100, 128, 9, 3, 16, False),
        (2, 700, 128, 1, 4, 12, True),
        (1, 640, 128, 40, 2, 128, True),
    ],
)
def test_category_attention_on_a_card(dtype, case):
    check_category_attention(dtype, *case, device="cuda")


@on_card
@DTYPES
@pytest.mark.parametrize(
    "case",
    [(2, (33, 40), 432, 16, 64, 5, True), (1, (24, 19), 48, 4, 128, 7, True), (1, (16, 16), 255, 12, 9, 5, False)],
)
def test_category_feedforward_on_a_card(dtype, case):
    check_feedforward(dtype, *case, device="cuda")


@on_card
def test_category_partition_on_a_card():
    check_partition(randint(512, 2, 70_001, device="cuda"), 512)
    check_partition(torch.zeros(1, 5000, dtype=torch.int64, device="cuda"), 3)


@on_card
def test_the_forward_pass_is_deterministic():
    model = small("ATD").cuda()
    x = image(model, 64, 64).cuda()
    with ops.use("triton"), torch.no_grad():
        first = model(x)
        assert all(torch.equal(model(x), first) for _ in range(3))


@on_card
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_compiled_networks_on_a_card(family, backend):
    """Inductor, fullgraph; no recompile for a second image of the same size."""
    torch._dynamo.reset()
    model = small(family).cuda()
    x = image(model, 32, 48).cuda()
    with ops.use(backend), torch.no_grad():
        compiled = torch.compile(model, fullgraph=True)
        assert relative(compiled(x), model(x)) < 1e-4
        with torch.compiler.set_stance("fail_on_recompile"):
            compiled(x + 0.1)


@on_card
@pytest.mark.parametrize("family", FAMILIES)
def test_half_networks_on_a_card(family):
    """bf16 and fp16 are finite and at most twice as far from float64 as the reference in the same dtype."""
    model = small(family).cuda()
    x = image(model, 64, 80).cuda()
    with torch.no_grad():
        with ops.use("reference"):
            exact = model.double()(x.double())
        for dtype in (torch.bfloat16, torch.float16):
            model.to(dtype)
            with ops.use("reference"):
                eager = model(x)
            with ops.use("triton"):
                ours = model(x)
            assert relative(ours, exact) <= 2 * relative(eager, exact) + 1e-3


@on_card
def test_gradients_of_networks_on_a_card():
    for family in FAMILIES:
        model = small(family).cuda()
        x = image(model, 32, 32).cuda()
        gradients = {}
        for backend, dtype in (("reference", torch.float64), ("reference", torch.float32), ("triton", torch.float32)):
            model.to(dtype)
            with ops.use(backend):
                grads = torch.autograd.grad(model(x.to(dtype)).square().sum(), list(model.parameters()))
            gradients[backend, dtype] = torch.cat([g.flatten() for g in grads])
        exact, eager, ours = gradients.values()
        assert relative(ours, exact) <= 2 * relative(eager, exact) + 1e-5


@on_card
def test_addresses_beyond_32_bits():
    """The rows of an untiled 4096×4096 map: the last windows and groups agree with those of a small map."""
    free = torch.cuda.mem_get_info()[0]
    side, channels, heads = 4096, 48, 3
    n = side * side
    if free < 14 * n * channels * 2 * 1.2:
        pytest.skip(f"needs a CUDA card with {14 * n * channels * 2.4 / 1e9:.0f} GB free")
    generator = torch.Generator("cuda").manual_seed(0)
    qkv = torch.randn(1, n, 3 * channels, device="cuda", dtype=torch.bfloat16, generator=generator)
    assert qkv.numel() > 2**31
    table = torch.randn(31 * 31, heads, device="cuda", generator=generator)
    rows = torch.arange(n, device="cuda").view(side, side)[-16:, -16:].reshape(-1)
    with torch.no_grad(), ops.use("triton"):
        whole = ops.window_attention(qkv, table, (side, side), 16, 0, heads)[:, rows]
        part = ops.window_attention(qkv[:, rows], table, (16, 16), 16, 0, heads)
        assert torch.equal(whole, part)
        order = torch.arange(n, device="cuda")[None]
        whole = ops.category_attention(qkv, order, order, 128, heads, 0.25)[:, -128:]
        part = ops.category_attention(qkv[:, -128:], order[:, :128], order[:, :128], 128, heads, 0.25)
        assert torch.equal(whole, part)
        hidden, weight = qkv[:, :, :channels].contiguous(), torch.randn(channels, 1, 5, 5, device="cuda")
        del qkv
        whole = ops.category_feedforward(hidden, (side, side), weight, None)[:, -side:]
        part = ops.category_feedforward(hidden[:, -8 * side :], (8, side), weight, None)[:, -side:]
        assert torch.equal(whole, part)
        category = torch.randint(128, (1, n), device="cuda", generator=generator)
        order, inverse = ops.category_partition(category, 128)
        assert torch.equal(order, torch.sort(category, stable=True).indices)
        assert torch.equal(order.gather(1, inverse), torch.arange(n, device="cuda")[None])
