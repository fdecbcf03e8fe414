"""Work in processes that can be killed; they are forked from one that has imported everything, and begin at once."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import NamedTuple

import torch

import atd
from attacks.environment import environment

PRELOADED = ["torch", "PIL.Image", "safetensors.torch", "restoration_networks", "attacks.images"]


class Ended(NamedTuple):
    """How a process ended."""

    status: int
    """Its exit status; minus the number of the signal that ended it."""
    seconds: float
    """From the beginning of its work."""
    peak: int
    """Bytes of RAM that it took at most."""


def run_in_process(
    work: Callable[..., object], *arguments: object, signal_number: int | None = None, after: float = 60
) -> Ended:
    """Run ``work(*arguments)``, a function of a module, in a process; send it a signal when it has worked for a time.

    Args:
        signal_number: None means SIGKILL.
        after: seconds.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    ours, theirs = context.Pipe(duplex=False)
    # The process that others are forked from finds modules by the environment.
    with environment(PYTHONPATH=os.pathsep.join(path for path in sys.path if path), PYTHONSAFEPATH="1"):
        process = context.Process(target=_work, args=(theirs, atd.__file__, work, arguments))
        process.start()
    theirs.close()
    ours.recv()  # an EOFError here: the process did not even begin
    begin = time.monotonic()
    process.join(after)
    if process.is_alive() and process.pid:
        os.kill(process.pid, signal_number or signal.SIGKILL)
        process.join(30)
        if process.is_alive():
            process.kill()
            process.join()
    peak = 0
    with contextlib.suppress(EOFError):
        peak = ours.recv()
    ours.close()
    return Ended(process.exitcode or 0, time.monotonic() - begin, peak)


def _work(pipe: Connection, edition: str, work: Callable[..., object], arguments: tuple[object, ...]) -> None:
    assert atd.__file__ == edition, f"the process would attack {atd.__file__} instead of {edition}"
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    pipe.send("begun")
    try:
        status = work(*arguments)
    finally:
        pipe.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    sys.exit(status if isinstance(status, int) else 0)
