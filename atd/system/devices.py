"""Where networks run unless somebody says otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def default_device() -> torch.device:
    """The GPU when there is one, else the CPU."""
    import torch  # the command line asks this room for other things without it

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
