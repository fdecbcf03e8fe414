"""Ctrl-C and SIGTERM during a training: the iteration is finished and saved before the program ends."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)

_logger = logging.getLogger(__name__)


class TrainingInterrupted(KeyboardInterrupt):
    """A signal has ended a training, which was saved first and goes on with `resume`.

    iteration  iterations done
    number     of the signal
    main       whether this is the process that reports
    processes  how many there were
    """

    def __init__(self, iteration: int, number: int, *, main: bool = True, processes: int = 1):
        super().__init__(f"ended by {signal.Signals(number).name} after iteration {iteration}")
        self.iteration = iteration
        self.number = number
        self.main = main
        self.processes = processes


class Interruption:
    """What this process has been told: the number of the first signal, None as long as there was none."""

    number: int | None = None

    @property
    def requested(self) -> bool:
        """Whether the training is to end."""
        return self.number is not None


@contextmanager
def watched_signals() -> Generator[Interruption, None, None]:
    """Note the first Ctrl-C or SIGTERM instead of ending at once; the second one does what it did before.

    A signal that is ignored stays so. Outside the main thread Python has no say about signals, and nothing changes.
    """
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    # None: a handler that was not installed from Python and could not be put back.
    before = {number: signal.getsignal(number) for number in SIGNALS}
    before = {number: handler for number, handler in before.items() if handler not in (None, signal.SIG_IGN)}

    def put_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, frame: FrameType | None) -> None:
        interruption.number = number
        put_back()
        _logger.warning("%s: saving after this iteration; once more ends at once", signal.Signals(number).name)

    for number in before:
        signal.signal(number, note)
    try:
        yield interruption
    finally:
        put_back()


def leave_signals_to_the_main_process(worker: int) -> None:
    """For processes that load data, which the iteration that is to be finished needs.

    A terminal's Ctrl-C and a cluster's SIGTERM reach them too. Only the main process ends them, by a SIGTERM of its
    own; where the system does not say who has sent one, any does.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):  # macOS, Windows
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def obey_the_main_process() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
            pass
        os._exit(0)

    threading.Thread(target=obey_the_main_process, daemon=True).start()
