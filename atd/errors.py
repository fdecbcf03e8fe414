"""The exceptions that are written for the user: what happened, what was expected, what to do.

The command line prints these as one sentence. Every other exception is a defect and keeps its traceback. Each also is
the built-in exception that its kind of mistake has in Python, so ``except ValueError`` catches an `InputError`.
"""

from __future__ import annotations


class AtdError(Exception):
    """Base of all errors that this library raises for its user."""


class InputError(AtdError, ValueError):
    """An argument, an option or an input is not one of those that are described."""


class ImageError(InputError):
    """A file that cannot be read or written as asked; the message is one sentence that names the file."""


class DataNotFoundError(InputError, FileNotFoundError):
    """A folder or a set of images is not where it was looked for."""


class RecipeError(InputError):
    """A training recipe that does not fit together, or does not fit its network or its data."""


class LoadError(AtdError, RuntimeError):
    """A model or its weights could not be had; the message says what happened, why, and what mends it."""


class BackendError(AtdError, RuntimeError):
    """A backend of the ops was asked for by name and cannot run here."""


class TrainingError(AtdError, ValueError):
    """A training that went wrong: a loss or weights that are no longer finite."""


class NotEnoughMemoryError(AtdError, MemoryError):
    """The work does not fit into the RAM or the device memory that is free."""


class NotEnoughDiskError(AtdError, OSError):
    """The result does not fit onto the free disk."""


class ExportError(AtdError, RuntimeError):
    """A network could not be exported, or the exported file does not give what the network gives.

    Attributes:
        report: the comparison, an `atd.export.ParityReport`, where there was one.
    """

    def __init__(self, message: str, report: object = None) -> None:
        super().__init__(message)
        self.report = report


class MissingExtraError(AtdError, ImportError):
    """A package is missing that an extra of this one installs; the message has the command."""


def sentence_for(error: BaseException) -> str | None:
    """What the command line prints in place of a traceback; None where the traceback is what helps.

    The errors of this module and an OSError that names a file are about something that the user can mend. Everything
    else is a defect, here or below.
    """
    if isinstance(error, AtdError):
        return str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror or type(error).__name__}"
    return None
