"""The choice of a backend beside threads, what kernels refuse, and the bounds of the caches."""

import threading

import pytest
import torch

from atd import ops
from atd.models.base import run_layer
from atd.ops import backend, geometry
from atd.ops.backend import resolve
from atd.ops.cache import TableCache
from atd.ops.kernels import limits
from atd.ops.native import depthwise_convolution


@pytest.fixture
def default_torch():
    """``torch`` as the default of the process, which is put back."""
    before = backend._default
    ops.use("torch")
    yield
    backend._default = before


def in_thread(function):
    results = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0]


def now():
    return resolve(torch.zeros(1))


@pytest.mark.usefixtures("default_torch")
def test_overlapping_blocks_in_threads_restore_what_was():
    """A begins, B begins, A ends, B ends: each sees its own choice, and afterwards the default is what it was."""
    steps = [threading.Event() for _ in range(3)]
    seen = {}

    def first():
        with ops.use("reference"):
            steps[0].set()
            assert steps[1].wait(30)
            seen["first, inside"] = now()
        seen["first, after"] = now()
        steps[2].set()

    def second():
        assert steps[0].wait(30)
        seen["second, before"] = now()
        with ops.use("torch"), ops.use("reference"), ops.use("torch"):
            steps[1].set()
            assert steps[2].wait(30)
            seen["second, inside"] = now()
        seen["second, after"] = now()

    threads = [threading.Thread(target=function) for function in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {
        "first, inside": "reference",
        "first, after": "torch",
        "second, before": "torch",
        "second, inside": "torch",
        "second, after": "torch",
    }
    assert now() == in_thread(now) == "torch"


@pytest.mark.usefixtures("default_torch")
def test_a_block_never_shows_in_another_thread():
    stop, seen = threading.Event(), set()

    def watch():
        while not stop.is_set():
            seen.add(now())

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(20_000):
        with ops.use("reference"):
            pass
    stop.set()
    watcher.join()
    assert seen == {"torch"}


@pytest.mark.usefixtures("default_torch")
def test_layers_recomputed_in_another_thread_keep_their_block():
    """As autograd recomputes them for a card: in a thread of its own, after the block has ended."""
    chosen = []

    def layer(x):
        chosen.append(now())
        return x.exp()

    x = torch.ones(3, requires_grad=True)
    with ops.use("reference"):
        y = run_layer(layer, x, checkpointed=True)
    in_thread(lambda: y.sum().backward())
    assert chosen == ["reference", "reference"]


@pytest.mark.usefixtures("default_torch")
def test_a_statement_sets_the_default_of_every_thread():
    ops.use("reference")
    assert now() == in_thread(now) == "reference"
    with ops.use("torch"):
        assert now() == "torch"
        assert in_thread(now) == "reference"
    in_thread(lambda: (ops.use("torch"), None)[1])
    assert now() == "torch"
    with pytest.raises(KeyError), ops.use("reference"):
        raise KeyError
    assert now() == "torch"


def test_a_compiled_op_follows_the_choice():
    torch._dynamo.reset()
    made = []

    def count(graph, example_inputs):
        made.append(sum(torch.int16 in node.args for node in graph.graph.nodes))
        return graph.forward

    category = torch.arange(16)[None] % 3
    partition = torch.compile(lambda: ops.category_partition(category, 3), fullgraph=True, backend=count)
    with torch.no_grad():
        for backend_name in ("torch", "reference", "torch"):
            with ops.use(backend_name):
                partition()
    assert made == [1, 0], "one graph for each backend: the narrow keys of the tuned path, the plain sort"


def test_kernels_say_why_they_refuse():
    x = torch.zeros(1)
    assert limits.refuses(x, head=128, rank=128) is None
    assert "256 channels" in str(limits.refuses(x, head=256))
    assert "130 channels" in str(limits.refuses(x, rank=130))
    assert "float64" in str(limits.refuses(x.double()))
    assert depthwise_convolution.refuses(5, 16) is None
    assert "9 pixels" in str(depthwise_convolution.refuses(9, 16))
    assert "8 channels" in str(depthwise_convolution.refuses(3, 8))


def test_tables_stay_within_their_bytes_and_can_be_cleared(monkeypatch):
    monkeypatch.setattr(geometry, "_tables", TableCache(limit=100_000))
    cpu = torch.device("cpu")
    first = geometry.window_order(8, 16, 4, 2, cpu)
    assert geometry.window_order(8, 16, 4, 2, cpu) is first
    for height in range(8, 264, 8):
        geometry.window_order(height, 32, 4, 2, cpu)
        assert 0 < geometry._tables.nbytes <= 100_000
    again = geometry.window_order(8, 16, 4, 2, cpu)
    assert again is not first, "the oldest made room"
    assert torch.equal(again.order, first.order)
    kept = geometry._tables.nbytes
    assert geometry.window_order(400, 400, 4, 2, cpu).order.numel() == 160_000  # larger than the limit: not kept
    assert geometry._tables.nbytes == kept
    ops.clear_caches()
    assert geometry._tables.nbytes == 0
    assert torch.equal(geometry.window_order(8, 16, 4, 2, cpu).inverse, first.inverse)


def test_tables_made_in_inference_mode_serve_a_training():
    ops.clear_caches()
    qkv, table = torch.randn(1, 64, 24), torch.zeros(49, 2)
    with torch.inference_mode():
        ops.window_attention(qkv, table, (8, 8), 4, 2, 2)
    qkv.requires_grad_()
    with ops.use("torch"):
        ops.window_attention(qkv, table, (8, 8), 4, 2, 2).sum().backward()
    assert qkv.grad is not None


def test_threads_share_the_tables():
    cache = TableCache(limit=50 * 80)

    def work():
        for index in range(3000):
            value = cache.get(index % 70, lambda index=index: (torch.full((10,), index % 70),))
            assert value[0][0] == index % 70
        return cache.nbytes

    threads, sizes = [], []
    for _ in range(4):
        threads.append(threading.Thread(target=lambda: sizes.append(work())))
        threads[-1].start()
    for thread in threads:
        thread.join()
    assert len(sizes) == 4
    assert all(size <= 50 * 80 for size in sizes)


def test_auto_takes_triton_when_compiled_for_a_card_and_torch_when_exported(monkeypatch):
    """Without a card: what stands in for it says that there is one, and the answer is read from the graph."""
    monkeypatch.setattr(backend, "can_use_triton", lambda device: (True, "a card stands in"))

    class Answer(torch.nn.Module):
        def forward(self, x):
            return x + (1 if ops.backend_report("cuda")[0] == "triton" else 2)

    x = torch.zeros(3)
    assert Answer()(x)[0] == 1
    assert torch.compile(Answer(), backend="eager", fullgraph=True)(x)[0] == 1
    # The strict exports of torch 2.7 do not say that they are exports.
    for strict in (False,) if torch.__version__.startswith("2.7") else (True, False):
        assert torch.export.export(Answer(), (x,), strict=strict).module()(x)[0] == 2


def test_auto_takes_the_torch_path_on_cards_of_amd_where_the_kernels_were_never_tried(monkeypatch):
    """ROCm calls its cards CUDA too. What stands in says that triton is there."""
    monkeypatch.setattr(backend, "can_use_triton", lambda device: (True, "a card stands in"))
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert ops.backend_report("cuda")[0] == "torch"
    with ops.use("triton"):
        assert ops.backend_report("cuda")[0] == "triton"
