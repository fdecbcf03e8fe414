"""One list of files among the processes of ``torchrun --nproc-per-node N -m atd restore …``."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from atd.errors import AtdError, InputError
from atd.restoration.batch import Job

PATIENCE = timedelta(days=30)
"""Ranks wait for the slowest one at the end only, and a folder may take days."""


@dataclass(frozen=True)
class Shard:
    """This process's place among the others; a single process is rank 0 of 1."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    def plan(self, plan: Callable[[], list[Job]]) -> list[Job]:
        """This rank's jobs: every world_size-th of the list that rank 0 made.

        Rank 0 alone looks at the folders, since a rank that looked later could find results of an earlier one. An
        error of `plan` is raised on every rank.
        """
        if self.world_size == 1:
            return plan()
        jobs, reason = None, ""
        if self.rank == 0:
            try:
                jobs = plan()
            except (AtdError, OSError) as error:
                reason = str(error)
        message = [(jobs, reason)]
        dist.broadcast_object_list(message)
        jobs, reason = message[0]
        if jobs is None:
            raise InputError(reason)
        return jobs[self.rank :: self.world_size]

    def total(self, counts: dict[str, int]) -> dict[str, int]:
        """The sums over all ranks."""
        if self.world_size == 1:
            return counts
        values = torch.tensor(list(counts.values()))
        dist.all_reduce(values)
        return {name: int(value) for name, value in zip(counts, values, strict=True)}

    def device(self, device: str | None) -> str | None:
        """Each process of a machine has its own GPU, unless one is named by number."""
        if self.world_size > 1 and (device == "cuda" or (device is None and torch.cuda.is_available())):
            return f"cuda:{self.local_rank}"
        return device


@contextmanager
def joined_shard() -> Generator[Shard, None, None]:
    """The place that torchrun gave this process, connected to the others; a lone process outside torchrun."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        yield Shard()
        return
    dist.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield Shard(dist.get_rank(), world_size, int(os.environ.get("LOCAL_RANK", "0")))
    finally:
        dist.destroy_process_group()
