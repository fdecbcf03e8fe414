"""What can be evaluated: a network with its settings, or one of the baselines that need no weights."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from atd import degrade

if TYPE_CHECKING:
    from atd.models import RestorationModel

BASELINES = ("bicubic", "lanczos", "identity")
DTYPES = ("float32", "bfloat16", "float16", "float64")


@dataclass(frozen=True)
class Settings:
    """How a network is run. Every one of these is stated in the output.

    weights        "official", "bundled", or a file, folder or hub repository
    tile, overlap  as in `atd.restore`: "auto" is untiled where memory allows, 0 is untiled
    self_ensemble  average over the eight flips and rotations
    dtype          of the computation, one of `DTYPES`
    device         None: the first CUDA card, else the CPU
    backend        of the ops; None leaves the process's choice
    """

    weights: str = "official"
    tile: int | Literal["auto"] = "auto"
    overlap: int = 32
    self_ensemble: bool = False
    dtype: str = "float32"
    device: str | None = None
    backend: str | None = None


@dataclass
class Candidate:
    """Something that turns a degraded image into a restored one.

    run      (c, h, w) float32 on the CPU -> (c, scale*h, scale*w) float32 on the CPU
    options  what the output states about how it was run
    model    the network; None for a baseline
    tiled    images that were cut into tiles so far
    """

    name: str
    run: Callable[[Tensor], Tensor]
    scale: int
    weights: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    model: RestorationModel | None = None
    tiled: int = 0

    @property
    def label(self) -> str:
        return self.name if self.weights in (None, "official") else f"{self.name} ({self.weights})"


def open_candidate(name: str, settings: Settings, scale: int | None = None) -> Candidate:
    """A baseline by its name, else the network that `atd.load` finds; `scale` is needed by the enlarging baselines."""
    if name in BASELINES:
        return baseline(name, scale or 1)
    candidate = network(name, settings)
    if scale is not None and scale != candidate.scale:
        raise ValueError(f"{name} enlarges {candidate.scale} times, but --scale {scale} was asked for")
    return candidate


def baseline(name: str, scale: int) -> Candidate:
    """`bicubic` and `lanczos` enlarge by `scale`; `identity` returns the degraded image."""
    if name == "identity":
        if scale != 1:
            raise ValueError("identity changes no size and cannot be measured at a scale: use bicubic or lanczos")
        return Candidate(name, lambda x: x, 1)
    if scale == 1:
        raise ValueError(f"{name} enlarges images and cannot restore them: give --scale, or use identity")
    enlarge = _bicubic if name == "bicubic" else _lanczos
    return Candidate(name, lambda x: enlarge(x, scale), scale)


def _bicubic(x: Tensor, scale: int) -> Tensor:
    return torch.from_numpy(degrade.bicubic_upscale(x.movedim(0, -1).numpy(), scale)).movedim(-1, 0)


def _lanczos(x: Tensor, scale: int) -> Tensor:
    size = (x.shape[2] * scale, x.shape[1] * scale)
    planes = [Image.fromarray(plane.numpy()).resize(size, Image.Resampling.LANCZOS) for plane in x]
    return torch.from_numpy(np.stack([np.asarray(plane) for plane in planes]))


def network(name_or_path: str, settings: Settings) -> Candidate:
    """The network that `atd.load` finds, ready to run under `settings`."""
    from atd import loading, registry

    dtype = _dtype(settings)
    device = settings.device or ("cuda" if torch.cuda.is_available() else "cpu")
    wide = dtype if dtype == torch.float64 else None
    model = loading.load(name_or_path, weights=settings.weights, device=device, dtype=wide)
    candidate = from_model(model, settings, name=name_or_path)
    # A file, folder or repository is its own weights.
    candidate.weights = settings.weights if name_or_path in registry.list_models() else None
    return candidate


def from_model(model: RestorationModel, settings: Settings, name: str | None = None) -> Candidate:
    """A network that exists already, where it is; `settings.weights` and `settings.device` play no part."""
    from atd import ops
    from atd.restoration.api import restore_tensor

    dtype, device = _dtype(settings), next(model.parameters()).device

    def backend() -> contextlib.AbstractContextManager[Any]:
        return ops.use(settings.backend) if settings.backend else contextlib.nullcontext()  # type: ignore[arg-type]

    def run(x: Tensor) -> Tensor:
        tiles = 1

        def count(progress: Any) -> None:
            nonlocal tiles
            tiles = progress.total

        with backend(), _full_float32():
            output = restore_tensor(
                model,
                x,
                tile=settings.tile,
                overlap=settings.overlap,
                self_ensemble=settings.self_ensemble,
                dtype=dtype,
                callback=count,
            )
        candidate.tiled += tiles > 1
        return output

    with backend():
        used = ops.backend_report(device, dtype)[0]
    options = {
        "tile": settings.tile,
        "overlap": settings.overlap,
        "self_ensemble": settings.self_ensemble,
        "dtype": str(dtype).removeprefix("torch."),
        "device": str(device),
        "backend": used,
    }
    candidate = Candidate(name or model.name or model.architecture, run, model.scale, options=options, model=model)
    return candidate


def _dtype(settings: Settings) -> torch.dtype:
    if settings.dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {settings.dtype!r}")
    return getattr(torch, settings.dtype)


@contextlib.contextmanager
def _full_float32() -> Iterator[None]:
    """cuDNN computes float32 convolutions in TF32 unless told otherwise; a score in float32 means float32."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
