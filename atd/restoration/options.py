"""What a caller may choose about a restoration: one object for the pixels, one for files."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import Literal

import torch

from atd.errors import InputError
from atd.images import SaveOptions
from atd.images.image import LARGEST_INPUT
from atd.restoration.channels import ALPHA_UPSAMPLERS, AlphaUpsampler

Tile = int | None | Literal["auto"]
"""How an image is cut: "auto" as memory allows, None not at all, a number of pixels at most so long a side."""


LARGEST_OUTSCALE = 1000
"""Beyond it, a slip of the finger is likelier than an image that anyone wants."""


@dataclass(frozen=True, kw_only=True)
class RestoreOptions:
    """The arguments of `restore` that decide the pixels, and how many are too many; they are described there.

    Raises:
        InputError: one of them is impossible.
    """

    tile: Tile = "auto"
    overlap: int = 32
    batch_size: int = 1
    outscale: float | None = None
    self_ensemble: bool = False
    dtype: torch.dtype | None = None
    alpha_upsampler: AlphaUpsampler = "network"
    max_pixels: int | None = LARGEST_INPUT
    strength: float = 1.0

    def __post_init__(self) -> None:
        if not (self.tile in ("auto", None) or (_is_integer(self.tile) and self.tile >= 0)):
            raise InputError(f'expected tile="auto", None (untiled) or a number of pixels from 1 on, got {self.tile!r}')
        if not (_is_integer(self.overlap) and self.overlap >= 0):
            raise InputError(f"expected overlap >= 0 pixels, got {self.overlap!r}")
        if not (_is_integer(self.batch_size) and self.batch_size >= 1):
            raise InputError(f"expected batch_size >= 1, got {self.batch_size!r}")
        real = isinstance(self.outscale, Real)
        if self.outscale is not None and not (real and 0 < self.outscale <= LARGEST_OUTSCALE):
            raise InputError(f"expected outscale > 0 and at most {LARGEST_OUTSCALE}, got {self.outscale!r}")
        if self.alpha_upsampler not in ALPHA_UPSAMPLERS:
            raise InputError(f"expected alpha_upsampler {' or '.join(ALPHA_UPSAMPLERS)}, got {self.alpha_upsampler!r}")
        if self.max_pixels is not None and not (_is_integer(self.max_pixels) and self.max_pixels >= 1):
            raise InputError(f"expected max_pixels >= 1, or None for no limit, got {self.max_pixels!r}")
        if not (isinstance(self.strength, Real) and 0 <= self.strength <= 1):
            raise InputError(
                f"expected a strength from 0 (the input) to 1 (the network's result), got {self.strength!r}"
            )

    @property
    def returns_input(self) -> bool:
        """Whether an image comes back as it is, whatever the network would make of it."""
        return self.strength == 0 and self.outscale in (None, 1)


@dataclass(frozen=True, kw_only=True)
class FileOptions:
    """The arguments of `restore_file` that are about files; their meaning is described there."""

    save: SaveOptions | None = None
    eight_bit: bool = False
    stream: bool | None = None
    resume: bool = False


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
