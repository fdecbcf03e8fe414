"""What a network is for, as types: the task, how strong the fault is that it undoes, and how it is called.

A task is written as its `key` in files and on the command line: ``"sr"``, ``"real"``, ``"denoise"`` or ``"jpeg"``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class SuperResolution:
    """Enlarging: the inverse of MATLAB's bicubic reduction by `scale`."""

    key: ClassVar[str] = "sr"
    scale: int

    def __post_init__(self) -> None:
        if self.scale < 2:
            raise ValueError(f"expected a scale of at least 2, got {self.scale}")

    @property
    def level(self) -> None:
        """There are no strengths of this task."""
        return None

    @property
    def label(self) -> str:
        """In words."""
        return f"super-resolution ×{self.scale}"


@dataclass(frozen=True)
class RealWorld:
    """Enlarging photos whose faults nobody knows: blur, noise, compression and reduction, by `scale`."""

    key: ClassVar[str] = "real"
    scale: int

    def __post_init__(self) -> None:
        if self.scale < 1:
            raise ValueError(f"expected a scale of at least 1, got {self.scale}")

    @property
    def level(self) -> None:
        """There are no strengths of this task."""
        return None

    @property
    def label(self) -> str:
        """In words."""
        return f"real-world super-resolution ×{self.scale}"


@dataclass(frozen=True)
class Denoising:
    """Removing white Gaussian noise of standard deviation `sigma`, in units of 1/255; None: of any."""

    key: ClassVar[str] = "denoise"
    scale: ClassVar[int] = 1
    sigma: float | None = None

    def __post_init__(self) -> None:
        if self.sigma is not None and self.sigma < 0:
            raise ValueError(f"expected sigma >= 0, got {self.sigma}")

    @property
    def level(self) -> float | None:
        """The strength, `sigma`."""
        return self.sigma

    @property
    def label(self) -> str:
        """In words."""
        return "denoising, any σ" if self.sigma is None else f"denoising σ {self.sigma:g}"


@dataclass(frozen=True)
class JpegArtefacts:
    """Removing what libjpeg's compression at `quality` (1 to 100) has done; None: at any."""

    key: ClassVar[str] = "jpeg"
    scale: ClassVar[int] = 1
    quality: int | None = None

    def __post_init__(self) -> None:
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise ValueError(f"expected a JPEG quality from 1 to 100, got {self.quality}")

    @property
    def level(self) -> int | None:
        """The strength, `quality`."""
        return self.quality

    @property
    def label(self) -> str:
        """In words."""
        return "JPEG artefact removal" + (", any quality" if self.quality is None else f", quality {self.quality}")


Task = SuperResolution | RealWorld | Denoising | JpegArtefacts
KEYS: tuple[str, ...] = (SuperResolution.key, RealWorld.key, Denoising.key, JpegArtefacts.key)
UNKNOWN = "restoration"
"""The `task` of a network whose weights do not tell what they were trained for."""


def make_task(key: str, *, scale: int = 1, sigma: float | None = None, quality: int | None = None) -> Task:
    """The task of a `key`; only the value that belongs to it is looked at.

    Raises:
        ValueError: there is no such key, or the value is impossible.
    """
    if key == SuperResolution.key:
        return SuperResolution(scale)
    if key == RealWorld.key:
        return RealWorld(scale)
    if key == Denoising.key:
        return Denoising(sigma)
    if key == JpegArtefacts.key:
        return JpegArtefacts(quality)
    raise ValueError(f"there is no task {key!r}; expected one of {', '.join(KEYS)}")
