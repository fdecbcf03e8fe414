"""Packages that only an extra of this one installs, and the sentence for those that are missing."""

from __future__ import annotations

import importlib
from types import ModuleType

from atd.errors import MissingExtraError

DISTRIBUTION = "atd-restoration"


def install_hint(extra: str) -> str:
    """The command that installs an extra."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"


def missing_extra(purpose: str, package: str, extra: str) -> MissingExtraError:
    """The error for `purpose`, a noun phrase such as "TensorBoard logging", when `package` cannot be imported."""
    return MissingExtraError(f"{purpose} needs {package}: {install_hint(extra)}")


def import_extra(module: str, *, purpose: str, extra: str) -> ModuleType:
    """The module `module`, or a `MissingExtraError` that names the extra.

    A shared library that is missing below it (an OSError) is told the same way.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:
        raise missing_extra(purpose, module.partition(".")[0], extra) from error
