"""Who started this process of a training, alone or as one of several: torchrun or SLURM's srun, by the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Launch:
    """One process among several.

    rank        number of this process
    count       how many there are
    local_rank  number of this process on its machine
    restarts    how often torchrun has started all of them again
    address     host and port of the main process; None: torchrun has made the store where they meet
    """

    rank: int
    count: int
    local_rank: int
    restarts: int = 0
    address: tuple[str, int] | None = None


def from_environment(environment: Mapping[str, str] = os.environ) -> Launch | None:
    """What torchrun or srun says; None for a process alone.

    torchrun sets ``RANK`` and comes first, also where srun has started it. srun with several tasks sets
    ``SLURM_STEP_NUM_TASKS``, which a batch script outside of srun does not have. Their meeting place is then the first
    machine of the step, at a port made from the job's number; ``MASTER_ADDR`` and ``MASTER_PORT`` say otherwise.
    """
    if "RANK" in environment:
        return Launch(
            rank=int(environment["RANK"]),
            count=int(environment["WORLD_SIZE"]),
            local_rank=int(environment["LOCAL_RANK"]),
            restarts=int(environment.get("TORCHELASTIC_RESTART_COUNT", "0")),
        )
    count = int(environment.get("SLURM_STEP_NUM_TASKS", "1"))
    if count < 2:
        return None
    host = environment.get("MASTER_ADDR") or first_host(environment["SLURM_STEP_NODELIST"])
    step = int(environment.get("SLURM_JOB_ID", "0")) + int(environment.get("SLURM_STEP_ID", "0"))
    port = int(environment.get("MASTER_PORT", 20_000 + step % 20_000))
    return Launch(
        rank=int(environment["SLURM_PROCID"]),
        count=count,
        local_rank=int(environment["SLURM_LOCALID"]),
        address=(host, port),
    )


def first_host(nodes: str) -> str:
    """The first machine of SLURM's list: ``gpu[003-005,9],cpu1`` begins with ``gpu003``."""
    first = re.split(r",(?![^\[]*\])", nodes)[0]
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first)
