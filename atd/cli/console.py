"""What the commands say on stderr: events of the library, errors, and the end of an interrupted run.

The library tells events to the logger "atd"; here they become lines. Nothing outside that logger is touched, and it is
as before when the command is done.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import traceback
from collections.abc import Generator

from atd.cli.streams import discard, one_line, say
from atd.errors import LoadError, sentence_for

SIGNALLED = 128
"""Exit status after a signal, to which its number is added, as shells count."""
INTERRUPTED = SIGNALLED + signal.SIGINT
"""Exit status after Ctrl-C."""
PIPE_CLOSED = 141
"""Exit status when the reader of our output has gone (``atd list | head -1``): 128 + SIGPIPE."""
BAD_INPUT = 2
"""Exit status of an error that the user can mend."""


class EventLines(logging.Handler):
    """Writes each event as the line ``atd: …``; warnings and errors say that they are."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record. A defect in its arguments is reported as `logging` does, and never stops the command."""
        try:
            kind = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
            text = one_line(record.getMessage())
            if record.exc_info:
                text += "\n" + "".join(traceback.format_exception(*record.exc_info)).rstrip()
            with _progress_bars_aside():
                # Line and newline in one write: torchrun's processes are unbuffered and share the terminal.
                sys.stderr.write(f"atd: {kind}{text}\n")
                sys.stderr.flush()
        except Exception:
            self.handleError(record)


@contextlib.contextmanager
def shown_events(*, quiet: bool = False, verbose: bool = False) -> Generator[None, None, None]:
    """Show the events of the logger "atd" on stderr while the block runs.

    Args:
        quiet: warnings and errors only.
        verbose: also what is of use for finding a fault (level DEBUG). It wins over `quiet`.
    """
    logger = logging.getLogger("atd")
    handler, level = EventLines(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


def report_error(error: Exception, *, with_traceback: bool = False) -> int | None:
    """Print the sentence of an error that was written for the user and return the exit status.

    None, and nothing is printed, for any other error: it is a defect and keeps its traceback.
    """
    sentence = sentence_for(error)
    if sentence is None:
        return None
    if with_traceback:
        traceback.print_exception(error)
    # The ways to weights are told one a line; elsewhere a line break is that of a file's name.
    say(f"atd: error: {sentence if isinstance(error, LoadError) else one_line(sentence)}")
    return BAD_INPUT


def report_interrupt() -> int:
    """Say that Ctrl-C ended the run; the exit status."""
    say("atd: interrupted")
    return INTERRUPTED


def refusal_of_stdout() -> OSError | None:
    """Why our stdout takes nothing more, where it does not; what is left to print then goes nowhere."""
    try:
        print(
            flush=True
        )  # only a write tells; where the error is another file's, an empty line before its traceback is no harm
    except OSError as error:
        discard(sys.stdout)
        return error
    return None


def report_refusal(error: OSError) -> int:
    """Say why stdout takes nothing more, unless its reader has gone, who wants no more; the exit status."""
    if isinstance(error, BrokenPipeError):
        return PIPE_CLOSED
    say(f"atd: error: stdout: {error.strerror}")
    return BAD_INPUT


def _progress_bars_aside() -> contextlib.AbstractContextManager[object]:
    """Clears the progress bars on stderr for the time of a line, and draws them again below it."""
    tqdm = sys.modules.get("tqdm")  # no bar was drawn by a module that was never imported
    return tqdm.tqdm.external_write_mode(file=sys.stderr) if tqdm else contextlib.nullcontext()
