"""Devices that are neither a CPU nor NVIDIA's: stand-ins for their modules in torch, as no such device is here."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from atd import ops
from atd.restoration import memory
from atd.system import release_cached_memory


def test_free_memory_of_intels_cards_is_asked_of_their_own_module(monkeypatch):
    asked = []
    module = SimpleNamespace(
        mem_get_info=lambda device: asked.append(device) or (1000, 9000),
        memory_reserved=lambda device: 300,
        memory_allocated=lambda device: 100,
    )
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    assert memory.free_bytes(torch.device("xpu", 1)) == 1200
    assert asked == [torch.device("xpu", 1)]


@pytest.mark.parametrize("name", ["xpu", "mps", "cuda"])
def test_what_torch_keeps_of_freed_memory_is_given_back_on_every_device(name, monkeypatch):
    released = []
    modules = {name: SimpleNamespace(empty_cache=lambda: released.append(name))}
    monkeypatch.setattr(torch, "get_device_module", lambda device: modules[device.type])
    release_cached_memory(torch.device(name))
    release_cached_memory(torch.device("cpu"))
    assert released == [name]


def test_a_device_without_a_cache_has_nothing_to_release(monkeypatch):
    monkeypatch.setattr(torch, "get_device_module", lambda device: SimpleNamespace())
    release_cached_memory(torch.device("mtia"))


class OnMps(torch.Tensor):
    """A tensor that says it is on MPS, where a new tensor cannot be made here."""

    @property
    def device(self) -> torch.device:
        return torch.device("mps")


class NoFloat64(TorchDispatchMode):
    """What MPS does with float64: refuse it."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for part in result if isinstance(result, tuple | list) else [result]:
            assert not (isinstance(part, torch.Tensor) and part.dtype == torch.float64), f"{func} made a float64 tensor"
        return result


def test_the_dictionary_refinement_makes_no_float64_tensors_on_mps_which_has_none():
    generator = torch.Generator().manual_seed(0)
    sizes = [(1, 30, 4), (1, 5, 4), (5,), (1, 30, 8), (1, 5, 8), (5,), (5,), (5, 1)]
    query, *others = (torch.randn(size, generator=generator) for size in sizes)
    with ops.use("reference"):
        expected = ops.dictionary_refinement(query, *others)
    with ops.use("torch"), NoFloat64():
        result = ops.dictionary_refinement(query.as_subclass(OnMps), *others)
    assert torch.allclose(result.as_subclass(torch.Tensor), expected, atol=1e-6)
