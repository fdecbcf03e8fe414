"""One training process, or several under torchrun."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from atd.errors import BackendError
from atd.models.super_resolution import DictionaryBlock
from atd.system import default_device
from atd.training.recipes import Recipe

_logger = logging.getLogger(__name__)

# Warnings of torch about these trainings that ask for nothing, by the beginning of their text.
_HARMLESS = (
    # The network crops its output, which is a view; the training does not change it in place.
    "FSDP2-wrapped module .* returned a view tensor",
    # Gradients of the depthwise kernels come channels-last; DDP copies them, a few kilobytes a layer.
    "Grad strides do not match bucket view strides",
)


@dataclass(frozen=True)
class Processes:
    """This process among all of the training; torchrun tells through the environment.

    rank       number of this one
    count      how many there are
    device     where this one computes
    restarted  torchrun has started the processes again after a failure
    """

    rank: int
    count: int
    device: torch.device
    restarted: bool

    @property
    def main(self) -> bool:
        """Whether this is the process that reports and writes."""
        return self.rank == 0

    def share(self, value: float) -> float:
        """The main process's value, in all processes."""
        if self.count == 1:
            return value
        tensor = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.broadcast(tensor, 0)
        return tensor.item()

    def mean(self, value: torch.Tensor) -> float:
        """The mean over the processes."""
        if self.count > 1:
            dist.all_reduce(value)
        return value.item() / self.count

    def wait(self) -> None:
        """Wait for all processes."""
        if self.count > 1:
            dist.barrier()


@contextmanager
def processes() -> Generator[Processes, None, None]:
    """Join the processes that torchrun started, one per device; without torchrun there is one.

    The current CUDA device and the filters of warnings are put back afterwards.
    """
    if "RANK" not in os.environ:
        yield Processes(0, 1, default_device(), False)
        return
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
    # torchrun's store outlives the processes: without a name of its own, a restarted process would find the addresses
    # of its predecessors in it.
    restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    with torch.cuda.device(device) if cuda else nullcontext(), warnings.catch_warnings():
        for message in _HARMLESS:
            warnings.filterwarnings("ignore", message=message)
        store, rank, count = next(iter(rendezvous("env://")))
        store = PrefixStore(f"restart_{restarts}", store)
        dist.init_process_group("nccl" if cuda else "gloo", store=store, rank=rank, world_size=count)
        _logger.debug("process %d of %d on %s", rank + 1, count, device)
        try:
            yield Processes(rank, count, device, restarts > 0)
        finally:
            dist.destroy_process_group()


def distribute(model: nn.Module, recipe: Recipe, processes: Processes) -> nn.Module:
    """Compile and distribute `model` as the recipe says; returns what runs in its place, often `model` itself."""
    if recipe.compile:
        for layer in repeated_layers(model):
            layer.compile()
    if processes.count > 1 and recipe.parallel == "ddp":
        return replicate(model, processes.device)
    if processes.count > 1:
        _check_means(processes)
        shard(model)
    return model


def _check_means(processes: Processes) -> None:
    """Refuse to shard where the mean that FSDP asks for comes as a sum, as from torch 2.7's gloo: gradients would be
    as many times too large as there are processes, without a word."""
    mean = torch.zeros(1, device=processes.device)
    dist.reduce_scatter_tensor(mean, torch.ones(processes.count, device=processes.device), op=dist.ReduceOp.AVG)
    if mean.item() != 1:
        raise BackendError(
            f"parallel=fsdp cannot be used on {processes.device.type} with torch {torch.__version__}, whose "
            f"{dist.get_backend()} adds up where it should average: use parallel=ddp, or a newer torch"
        )


def repeated_layers(model: nn.Module) -> list[nn.Module]:
    """The layers of all dictionary blocks: units of sharding and of compilation."""
    return [layer for block in model.modules() if isinstance(block, DictionaryBlock) for layer in block.layers]


def shard(model: nn.Module) -> None:
    """FSDP2 in place: every layer is a unit, the rest of the network another."""
    for layer in repeated_layers(model):
        fully_shard(layer)
    fully_shard(model)


def replicate(model: nn.Module, device: torch.device) -> DistributedDataParallel:
    """The same weights in every process, gradients averaged."""
    return DistributedDataParallel(
        model, device_ids=[device.index] if device.type == "cuda" else None, gradient_as_bucket_view=True
    )


def without_synchronisation(module: nn.Module, last: bool) -> AbstractContextManager[None]:
    """For gradient accumulation: gradients are exchanged in the last backward pass of an iteration only."""
    if isinstance(module, DistributedDataParallel) and not last:
        return module.no_sync()
    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(last)
    return nullcontext()
