"""Standard streams that end no command: closed ones, full ones, those whose reader has gone, any name of a file."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import re
import sys
from collections.abc import Generator
from pathlib import Path
from typing import TextIO

_PLAIN = {"×": "x", "…": "...", "∞": "inf", "²": "^2"}
"""What our own tables say where the terminal has ASCII only."""

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def _as_bytes(error: UnicodeError) -> tuple[str | bytes, int]:
    """An error handler of `codecs`: the bytes that a file name was made of, plain letters, or an escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if 0xDC80 <= ord(character) <= 0xDCFF:
        return bytes([ord(character) - 0xDC00]), error.start + 1
    escape = _PLAIN.get(character) or character.encode("ascii", "backslashreplace").decode()
    return escape, error.start + 1


codecs.register_error("atd-bytes", _as_bytes)


@contextlib.contextmanager
def lasting_streams() -> Generator[None, None, None]:
    """Standard streams that take every text, for as long as the block runs; those that are closed lead nowhere.

    A closed one would otherwise be the number of the next file that is opened, and what a C library says on stderr
    would be written into that file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    with contextlib.ExitStack() as stack:
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is None:
                setattr(sys, name, stack.enter_context(open(os.devnull, "w", encoding="utf-8", errors="atd-bytes")))
                stack.callback(setattr, sys, name, None)
            elif isinstance(stream, io.TextIOWrapper) and stream.errors != "atd-bytes":
                stack.callback(stream.reconfigure, errors=stream.errors)
                stream.reconfigure(errors="atd-bytes")
        yield


def one_line(text: str | Path) -> str:
    """`text` with line breaks and other control characters escaped: names of files may hold them."""
    return _CONTROLS.sub(lambda match: match[0].encode("unicode_escape").decode(), str(text))


def say(line: str) -> None:
    """A line on stderr; where nobody can read it, nowhere."""
    # Line and newline in one write: torchrun's processes are unbuffered and would write into each other's lines.
    try:
        print(f"{line}\n", end="", file=sys.stderr, flush=True)
    except OSError:
        discard(sys.stderr)


def discard(stream: TextIO) -> None:
    """Let what is still to come go nowhere: Python flushes `stream` once more at its end and would complain."""
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


class ResultLines:
    """The results of a run on stdout, one a line.

    Attributes:
        error: why nothing more is written: the reader has gone, the disk is full. The run goes on without.
    """

    def __init__(self) -> None:
        self.error: OSError | None = None

    def write(self, result: Path) -> None:
        """Write the path of a result."""
        if self.error is not None:
            return
        try:
            print(f"{one_line(result)}\n", end="", flush=True)
        except OSError as error:
            self.error = error
            discard(sys.stdout)

    @property
    def were_lost(self) -> bool:
        """Whether lines did not get where they were meant to; a reader that has gone wants no more of them."""
        return self.error is not None and not isinstance(self.error, BrokenPipeError)
