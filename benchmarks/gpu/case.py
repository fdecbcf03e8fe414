"""What a call is made of: steps, and the cases of a step."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.gpu.sizes import Sizes

Figures = Iterable[tuple[str, float | str | Exception]]
"""Quantities with their values; an error where one could not be had. Each is written down as it comes."""


class NeedsCardError(Exception):
    """What a rehearsal cannot do."""


@dataclass(frozen=True)
class Case:
    """One thing to measure; failing, it leaves the others alone."""

    name: str
    size: str
    variant: str
    measure: Callable[[], Figures]

    @property
    def key(self) -> tuple[str, str, str]:
        return self.name, self.size, self.variant


@dataclass(frozen=True)
class Context:
    """Where and at what sizes the cases run."""

    device: torch.device
    sizes: Sizes
    files: Path
    """Folder for tables and listings, packed at the end."""

    @property
    def on_card(self) -> bool:
        return self.device.type == "cuda"

    def need_card(self, what: str) -> None:
        """Refuse, in a rehearsal, what the processor cannot do."""
        if not self.on_card:
            raise NeedsCardError(f"{what} needs a CUDA card")
