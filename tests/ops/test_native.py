"""The compiled kernels: against plain loops in float64, on both instruction sets, and where none can be built."""

import os
import subprocess
import sys

import numpy as np
import plain_ops
import pytest
import torch
from small_networks import FAMILIES, image, small
from torch._subclasses.fake_tensor import FakeTensorMode

import atd.errors
from atd import ops
from atd.ops.backend import resolve
from atd.ops.native import library

ABLE, REASON = ops.can_use_native()
pytestmark = pytest.mark.skipif(not ABLE, reason=f"no compiled kernels: {REASON}")


@pytest.fixture(autouse=True)
def native():
    """Inference with the kernels; every uninitialised allocation of torch holds NaN."""
    torch.use_deterministic_algorithms(True)
    with torch.no_grad(), ops.use("native"):
        assert resolve(torch.empty(1)) == "native"
        yield
    torch.use_deterministic_algorithms(False)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def doubles(*tensors):
    return [None if tensor is None else tensor.double().numpy() for tensor in tensors]


def agree(output, expected, eager):
    """At most twice the error of torch's own float32, and a rounding of the largest value."""
    assert output.dtype == torch.float32
    expected = np.stack(expected)
    allowed = 2 * np.abs(eager.numpy() - expected).max() + 1e-6 * np.abs(expected).max()
    assert np.abs(output.numpy() - expected).max() <= allowed


def by_torch(op, *inputs):
    with ops.use("torch"):
        return op(*inputs)


@pytest.mark.parametrize(
    ("batch", "tokens", "entries", "rank", "channels", "scales"),
    [
        (2, 150, 11, 5, 13, 1),
        (1, 20, 7, 12, 48, 7),
        (3, 1, 2, 1, 1, 2),
        (1, 90, 96, 16, 216, 1),
        (1, 9, 512, 10, 35, 512),
    ],
)
def test_dictionary_attention(batch, tokens, entries, rank, channels, scales):
    query, key, value = (draw(batch, tokens, rank), draw(batch, entries, rank, seed=1), draw(batch, entries, channels))
    query[:, 0] = 3 * key[:, entries // 2]
    query[:, tokens - 1] = 0  # all logits tie: the first entry wins
    scale = 1 + 2 * torch.rand(scales, generator=torch.Generator().manual_seed(3))
    # Queries and values as slices of wider rows: what the kernel reads is not contiguous.
    inputs = torch.cat([query, query], -1)[..., :rank], key, torch.cat([value, value], -1)[..., :channels], scale
    output, category = ops.dictionary_attention(*inputs)
    factors = scale.double().expand(entries).numpy()
    pairs = [plain_ops.dictionary_attention(*doubles(query[b], key[b], value[b]), factors) for b in range(batch)]
    agree(output, [pair[0] for pair in pairs], by_torch(ops.dictionary_attention, *inputs)[0])
    assert np.array_equal(category.numpy(), np.stack([pair[1] for pair in pairs]))
    assert (category[:, -1] == 0).all()


@pytest.mark.parametrize("entries", [5, 16, 40, 64, 130])
def test_first_of_equal_entries_is_the_category(entries):
    """With rank 1 every cosine is 1 or −1: the first entry of the query's own sign wins."""
    query, key = draw(1, 200, 1), draw(1, entries, 1, seed=1)
    key[:, : entries // 2] = -key[:, : entries // 2].abs()
    key[:, -1] = 1
    category = ops.dictionary_attention(query, key, draw(1, entries, 3, seed=2), torch.full((1,), 2.0))[1]
    first = {sign: (key[0, :, 0] * sign > 0).nonzero()[0] for sign in (-1, 1)}
    assert torch.equal(category[0], torch.where(query[0, :, 0] > 0, first[1], first[-1]))


@pytest.mark.parametrize(("heads", "width"), [(2, 12), (1, 16), (6, 8), (3, 35), (1, 48), (2, 54), (1, 96), (1, 1)])
@pytest.mark.parametrize(
    ("batch", "tokens", "group", "kinds"),
    [(2, 29, 8, 4), (1, 16, 8, 1), (1, 5, 8, 3), (1, 17, 16, 5), (1, 70, 33, 9)],  # padded, one category, n < group
)
def test_category_attention(heads, width, batch, tokens, group, kinds):
    qkv = draw(batch, tokens, 3 * heads * width)
    category = torch.randint(kinds, (batch, tokens), generator=torch.Generator().manual_seed(0))
    order, inverse = ops.category_partition(category, kinds)
    inputs = (torch.cat([qkv, qkv], -1)[..., : qkv.shape[-1]], order, inverse, group, heads, 0.37)
    expected = [
        plain_ops.category_attention(*doubles(qkv[b]), category[b].tolist(), group, heads, 0.37) for b in range(batch)
    ]
    output = ops.category_attention(*inputs)
    agree(output, expected, by_torch(ops.category_attention, *inputs))
    assert torch.equal(output, ops.category_attention(*inputs[:-1], torch.tensor(0.37)))


@pytest.mark.parametrize(
    ("batch", "grid", "window", "shift", "heads", "width"),
    [
        (2, (8, 12), 4, 2, 2, 12),
        (1, (4, 8), 4, 2, 1, 35),  # one side equals the window
        (1, (4, 4), 4, 2, 1, 54),
        (1, (6, 9), 3, 1, 3, 16),
        (2, (8, 4), 4, 0, 1, 48),
        (1, (10, 20), 5, 3, 2, 8),
    ],
)
def test_window_attention(batch, grid, window, shift, heads, width):
    qkv, table = draw(batch, grid[0] * grid[1], 3 * heads * width), draw((2 * window - 1) ** 2, heads, seed=1)
    expected = [plain_ops.window_attention(*doubles(qkv[b], table), grid, window, shift, heads) for b in range(batch)]
    inputs = (qkv, table, grid, window, shift, heads)
    agree(ops.window_attention(*inputs), expected, by_torch(ops.window_attention, *inputs))


@pytest.mark.parametrize(
    ("grid", "narrow", "added", "side", "bias"),
    [
        ((5, 40), 16, 0, 3, True),
        ((6, 33), 20, 3, 5, True),
        ((3, 17), 40, 8, 7, False),
        ((2, 2), 17, 0, 7, True),  # narrower than the kernel
        ((1, 1), 30, 2, 5, False),
        ((4, 6), 5, 2, 3, True),  # too few channels for the kernel
        ((4, 6), 16, 2, 9, True),  # too large a neighbourhood for the kernel
    ],
)
def test_category_feedforward(grid, narrow, added, side, bias):
    tokens = grid[0] * grid[1]
    hidden, weight = 2 * draw(2, tokens, narrow), draw(narrow + added, 1, side, side, seed=1) / side
    bias = draw(narrow + added, seed=2) if bias else None
    features = draw(2, 6, added, seed=3) if added else None
    category = torch.randint(6, (2, tokens), generator=torch.Generator().manual_seed(0)) if added else None
    inputs = (hidden, grid, weight, bias, features, category)
    expected = [
        plain_ops.category_feedforward(
            *doubles(hidden[b]),
            grid,
            *doubles(weight, bias, features[b] if added else None),
            category[b].numpy() if added else None,
        )
        for b in range(2)
    ]
    agree(ops.category_feedforward(*inputs), expected, by_torch(ops.category_feedforward, *inputs))


def test_logits_far_apart_and_far_from_zero():
    """exp meets its limits: weights that vanish, a largest logit of ten thousand."""
    qkv = draw(1, 32, 3 * 16)
    qkv[..., :32] *= 60
    order = torch.arange(32)[None]
    expected = plain_ops.category_attention(*doubles(qkv[0]), [0] * 32, 32, 1, 1.0)
    inputs = (qkv, order, order, 32, 1, 1.0)
    agree(ops.category_attention(*inputs), [expected], by_torch(ops.category_attention, *inputs))


def test_nan_stays_in_its_group_and_categories_stay_in_range():
    qkv, order = draw(1, 32, 3 * 16), torch.arange(32)[None]
    clean = ops.category_attention(qkv, order, order, 16, 1, 1.0)
    qkv[0, 3] = torch.nan
    output = ops.category_attention(qkv, order, order, 16, 1, 1.0)
    assert output[0, :16].isnan().all()
    assert torch.equal(output[0, 16:], clean[0, 16:])
    query, key, value = draw(1, 9, 4), draw(1, 40, 4), draw(1, 40, 8)
    query[0, 2] = torch.nan
    output, category = ops.dictionary_attention(query, key, value, torch.ones(1))
    assert output[0, 2].isnan().all()
    assert output[0, 3:].isfinite().all()
    assert 0 <= category.min() <= category.max() < 40


@pytest.mark.parametrize("wrong", [-1, 32])
def test_rows_that_do_not_exist_are_refused(wrong):
    order = torch.arange(32)[None]
    order[0, 5] = wrong
    with pytest.raises(IndexError, match=f"{wrong}.*there are 32"):
        ops.category_attention(draw(1, 32, 48), order, order, 16, 1, 1.0)


def test_types_that_do_not_fit_are_refused():
    with pytest.raises(TypeError, match="float64"):
        ops.dictionary_attention(draw(1, 9, 4), draw(1, 40, 4).double(), draw(1, 40, 8), torch.ones(1))


def test_memory_that_is_not_there_is_an_error():
    """More working memory than an address space holds: refused before a thread starts, and the process goes on."""
    a, category = torch.zeros(16), torch.zeros(16, dtype=torch.int64)
    with pytest.raises(MemoryError, match="atd_dictionary_attention found no memory"):
        library.call("atd_dictionary_attention", a, a, a, a, category, 1, 2**50, 1, 16, 1, 16)
    with pytest.raises(MemoryError, match="atd_grouped_attention found no memory"):
        library.call("atd_grouped_attention", a, category, 1, 2**30, 1, 2**20, 1.0, None, a, 1)
    order = torch.arange(16)[None]
    assert ops.category_attention(draw(1, 16, 48), order, order, 16, 1, 1.0).isfinite().all()


def test_the_result_does_not_depend_on_the_number_of_threads():
    before, outputs = torch.get_num_threads(), []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        outputs.append(ops.window_attention(draw(1, 960, 96), draw(225, 2), (40, 24), 8, 4, 2))
        outputs.append(ops.dictionary_attention(draw(1, 960, 8), draw(1, 64, 8), draw(1, 64, 32), torch.ones(1))[0])
    torch.set_num_threads(before)
    assert all(torch.equal(outputs[i % 2], outputs[i]) for i in range(len(outputs)))


@pytest.mark.parametrize("family", FAMILIES)
def test_networks(family):
    """As near to float64 as torch's float32 is."""
    # Wide enough for the convolution's kernel; the temperature of the small networks leaves no near ties.
    wide = {"embed_dim": 24} if family == "ATDU" else {"embed_dim": 24, "convffn_kernel_size": 5}
    model = small(family, **wide)
    x = image(model, 21, 30)
    output = model(x)
    eager = by_torch(model, x)
    with ops.use("reference"):
        expected = model.double()(x.double())
    assert (output - expected).abs().max() <= 2 * (eager - expected).abs().max() + 1e-6 * expected.abs().max()


def test_what_the_kernels_cannot_do_is_left_to_torch():
    x = torch.zeros(1)
    with torch.enable_grad():
        assert resolve(x) == "torch"
    assert resolve(x.double()) == "torch"
    assert resolve(x.bfloat16()) == "torch"
    with torch.autocast("cpu", torch.bfloat16):
        assert resolve(x) == "torch"
    with FakeTensorMode():
        assert resolve(torch.zeros(1)) == "torch"
    with ops.use("auto"):
        assert resolve(x) == "native"
        assert resolve(torch.zeros(1, device="meta")) == "torch"
    with pytest.raises(atd.errors.BackendError, match=r'"native".*meta.*use\("auto"\)'):
        resolve(torch.zeros(1, device="meta"))
    with torch.enable_grad():
        qkv = draw(1, 16, 48).double().requires_grad_()
        order = torch.arange(16)[None]
        assert torch.autograd.gradcheck(lambda q: ops.category_attention(q, order, order, 8, 1, 1.0), (qkv,))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # tracing is deprecated, and warns of every size that it fixes
def test_traced_and_compiled_networks_hold_torch_operations():
    model = small("ATD", depths=[1], num_heads=[2])
    x = image(model, 8, 8)
    traced = torch.jit.trace(model, x)
    with ops.use("reference"):
        expected = model(x / 2)
    torch.testing.assert_close(traced(x / 2), expected, rtol=1e-4, atol=1e-5)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x / 2), expected, rtol=1e-4, atol=1e-5)


# Further processes: what is decided once per process.

_REPORT = "import atd, torch; print(*atd.ops.backend_report('cpu'), sep=': ')"
_FORWARD = f"{_REPORT}; torch.set_grad_enabled(False); net = atd.create('atd_light_sr_x4'); "
_FORWARD += "print(net(torch.zeros(1, 3, 16, 16)).shape)"


def run(code, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, timeout=300
    )
    return done.returncode, done.stdout.strip(), done.stderr


@pytest.mark.slow
def test_another_instruction_set():
    if os.environ.get("ATEN_CPU_CAPABILITY"):
        pytest.skip("runs inside itself")
    if torch.backends.cpu.get_cpu_capability() != "AVX2":  # else every test of this file has run with it
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "not process and not set"]
        environment = {**os.environ, "ATEN_CPU_CAPABILITY": "avx2"}
        done = subprocess.run([*command, __file__], env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout
        assert "passed" in done.stdout
    assert run(_REPORT, ATEN_CPU_CAPABILITY="avx2")[1] == "native: compiled for AVX2"


NO_COMPILERS = ("no-such-compiler", "false", f"{sys.executable} -c 'raise SystemExit(\"no\")'")


@pytest.mark.parametrize("compiler", NO_COMPILERS)
def test_what_a_compiler_that_fails_says_is_the_reason(tmp_path, monkeypatch, compiler):
    monkeypatch.setenv("CXX", compiler)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    loaded, reason = library._load.__wrapped__()  # what a process does once
    assert loaded is None
    assert reason.startswith("the kernels could not be compiled and loaded: ")
    assert len(reason.splitlines()) == 1


@pytest.mark.slow
def test_process_without_a_compiler_takes_the_torch_path(tmp_path):
    """Or says why it cannot, where the kernels were asked for by name."""
    refused = "; atd.ops.use('native'); net(torch.zeros(1, 3, 16, 16))"
    code, said, errors = run(_FORWARD + refused, CXX="no-such-compiler", XDG_CACHE_HOME=str(tmp_path))
    assert said.startswith("torch: the kernels could not be compiled and loaded: ")
    assert said.endswith("torch.Size([1, 3, 64, 64])")
    assert code != 0
    assert 'BackendError: The backend "native" was asked for but cannot run' in errors


@pytest.mark.slow
def test_process_without_vector_instructions_takes_the_torch_path():
    assert run(_REPORT, ATEN_CPU_CAPABILITY="default")[1].startswith("torch: compiled kernels need AVX2")


@pytest.fixture
def copying(tmp_path):
    """A compiler that needs no time: it hands out the library that this process uses."""
    built, _ = library._load()
    script = tmp_path / "compiler"
    script.write_text(f'#!/bin/sh\nfor output; do :; done\ncp "{built._name}" "$output"\n')
    script.chmod(0o755)
    return str(script)


@pytest.mark.slow
def test_processes_compile_once_and_share_the_library(tmp_path, copying):
    code, said, errors = run(_FORWARD, XDG_CACHE_HOME=str(tmp_path))
    assert code == 0, errors
    assert said.startswith("native: compiled for")
    (library,) = (tmp_path / "atd" / "native").iterdir()
    built = library.stat().st_mtime_ns
    assert run(_REPORT, XDG_CACHE_HOME=str(tmp_path), CXX="false")[1].startswith("native: ")
    assert library.stat().st_mtime_ns == built
    library.write_bytes(b"damaged")
    assert run(_FORWARD, XDG_CACHE_HOME=str(tmp_path), CXX=copying)[1].startswith("native: ")
    assert [path.name for path in library.parent.iterdir()] == [library.name]
    assert library.stat().st_size > 10_000


@pytest.mark.slow
def test_process_without_a_cache_compiles_for_itself(tmp_path, copying):
    (tmp_path / "file").touch()
    (tmp_path / "temporary").mkdir()
    environment = {"XDG_CACHE_HOME": str(tmp_path / "file"), "TMPDIR": str(tmp_path / "temporary"), "CXX": copying}
    assert run(_FORWARD, **environment)[1].startswith("native: ")
    assert not list((tmp_path / "temporary").glob("atd_*")), "nothing is left behind"
