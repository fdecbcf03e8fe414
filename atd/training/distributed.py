"""One training process, or several under torchrun or SLURM."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.rendezvous import rendezvous  # pyright: ignore[reportUnknownVariableType]  (of its options)
from torch.nn.parallel import DistributedDataParallel

from atd.errors import BackendError
from atd.models.super_resolution import DictionaryBlock
from atd.system import default_device
from atd.training import launch
from atd.training.launch import Launch
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
    """This process among all of the training; torchrun or srun tells through the environment.

    rank       number of this one
    count      how many there are
    device     where this one computes
    restarted  torchrun has started the processes again after a failure
    control    processes talk here about what is no work for the device; None: where they talk about everything
    """

    rank: int
    count: int
    device: torch.device
    restarted: bool
    control: dist.ProcessGroup | None = None

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

    def any(self, value: bool) -> bool:
        """Whether it is true in at least one process; the same answer in all of them. Waits for no device."""
        if self.count == 1:
            return value
        tensor = torch.tensor(float(value))
        dist.all_reduce(tensor, dist.ReduceOp.MAX, group=self.control)
        return bool(tensor.item())

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
    """Join the processes that torchrun or srun started, one per device; without them there is one.

    The current CUDA device and the filters of warnings are put back afterwards.
    """
    started = launch.from_environment()
    if started is None:
        yield Processes(0, 1, default_device(), False)
        return
    cuda = torch.cuda.is_available()
    # A cluster may show each process its own card only, as number 0.
    device = torch.device("cuda", started.local_rank % torch.cuda.device_count()) if cuda else torch.device("cpu")
    with torch.cuda.device(device) if cuda else nullcontext(), warnings.catch_warnings():
        for message in _HARMLESS:
            warnings.filterwarnings("ignore", message=message)
        store, rank, count = _meeting_place(started), started.rank, started.count
        dist.init_process_group("nccl" if cuda else "gloo", store=store, rank=rank, world_size=count)
        _logger.debug("process %d of %d on %s", rank + 1, count, device)
        try:
            control = dist.new_group(backend="gloo") if cuda else None
            assert control is None or isinstance(control, dist.ProcessGroup)  # all processes are members
            yield Processes(rank, count, device, started.restarts > 0, control)
        finally:
            dist.destroy_process_group()


def _meeting_place(started: Launch) -> Store:
    if started.address is not None:
        host, port = started.address
        is_master = started.rank == 0
        # Documented under this name, though only torch.distributed itself imports it.
        return dist.TCPStore(host, port, started.count, is_master=is_master)  # pyright: ignore[reportPrivateImportUsage]
    # torchrun's store outlives the processes: without a name of its own, a restarted process would find the addresses
    # of its predecessors in it.
    store, _, _ = next(iter(rendezvous("env://")))
    return PrefixStore(f"restart_{started.restarts}", store)


def distribute(model: nn.Module, recipe: Recipe, processes: Processes) -> nn.Module:
    """Compile and distribute `model` as the recipe says; returns what runs in its place, often `model` itself."""
    if recipe.compile:
        for layer in repeated_layers(model):
            layer.compile()  # pyright: ignore[reportUnknownMemberType]  (torch leaves its options untyped)
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
    # Older releases do not have the newer name.
    dist.reduce_scatter_tensor(  # pyright: ignore[reportDeprecated]
        mean, torch.ones(processes.count, device=processes.device), op=dist.ReduceOp.AVG
    )
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
