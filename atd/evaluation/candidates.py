"""What can be evaluated: a network and how it is run, or one of the baselines that need no weights."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from atd import degrade, loading, ops, registry
from atd.errors import InputError
from atd.images import lanczos
from atd.models import RestorationModel
from atd.restoration import Tile, TileProgress, restore_tensor
from atd.restoration.api import load_network
from atd.restoration.network import device_of, scale_of
from atd.restoration.runner import tell_tile_size
from atd.system import default_device
from atd.system.backends import BACKENDS, Backend
from atd.system.dtypes import DTYPES
from atd.weights.format import Params

BASELINES = ("bicubic", "lanczos", "identity")


@dataclass(frozen=True)
class RunOptions:
    """How a network is run. Every one of these is stated in the output.

    weights        "official", "bundled", or a file, folder or hub repository; None: "official"
    tile, overlap  as in `atd.restore`: "auto" is untiled where memory allows, None or 0 is untiled
    self_ensemble  average over the eight flips and rotations
    dtype          of the computation, one of `DTYPES`
    device         None: the first CUDA card, else the CPU
    backend        of the ops; None leaves the process's choice
    params         which weights of a checkpoint that holds two, as in `atd.load`
    """

    weights: str | Path | None = None
    tile: Tile = "auto"
    overlap: int = 32
    self_ensemble: bool = False
    dtype: str = "float32"
    device: str | torch.device | None = None
    backend: Backend | None = None
    params: Params = "auto"

    def __post_init__(self) -> None:
        """Refuse a dtype or a backend that does not exist."""
        if self.dtype not in DTYPES:
            raise InputError(f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")
        if self.backend is not None and self.backend not in BACKENDS:
            raise InputError(f"backend must be one of {', '.join(BACKENDS)}, got {self.backend!r}")

    @property
    def torch_dtype(self) -> torch.dtype:
        """`dtype` as torch has it."""
        return getattr(torch, self.dtype)


@dataclass(frozen=True)
class RunConditions:
    """How a network has been run, in the words and the order in which results.json states it.

    tile     side in pixels, "auto" (untiled where memory allows) or 0 (untiled)
    backend  the one that ran, not the one that was asked for
    """

    tile: int | str
    overlap: int
    self_ensemble: bool
    dtype: str
    device: str
    backend: str


@dataclass
class Candidate:
    """Something that turns a degraded image into a restored one.

    run         (c, h, w) float32 on the CPU -> (c, scale*h, scale*w) float32 on the CPU
    weights     "official", "bundled" or where they come from, for a network that was loaded by its registered name
    conditions  how `run` runs the network; None for a baseline
    model       the network; None for a baseline
    tiled       images that were cut into tiles so far
    """

    name: str
    run: Callable[[Tensor], Tensor]
    scale: int
    weights: str | None = None
    conditions: RunConditions | None = None
    model: nn.Module | None = None
    tiled: int = 0

    @property
    def label(self) -> str:
        """The name, and the weights where they are not the official ones."""
        return label(self.name, self.weights)


def label(name: str, weights: str | None) -> str:
    """A network as tables show it: its name, and its weights where they are not the official ones."""
    return name if weights in (None, "official") else f"{name} ({weights})"


def open_candidate(model: str | Path | nn.Module, options: RunOptions, scale: int | None = None) -> Candidate:
    """A baseline by its name, a network that exists already, or the one that `atd.load` finds.

    Args:
        model: one of `BASELINES`, a name, file, folder or repository for `atd.load`, or a module, which stays where
            it is.
        options: how a network is run; a baseline looks at none of them.
        scale: output side / input side of the enlarging baselines; a network is only checked to have it.

    Raises:
        InputError: the scale is not that of `model`, or the options do not suit a module.
        LoadError: there are no such weights.
    """
    if model in BASELINES:
        return baseline(str(model), scale or 1)
    if isinstance(model, nn.Module):
        if options.params != "auto":
            raise InputError(f"params={options.params!r} chooses within a checkpoint file, but a module was given")
        candidate = from_model(load_network(model, options.weights, options.device), options)
    else:
        candidate = from_name(model, options)
    if scale is not None and scale != candidate.scale:
        raise InputError(f"{candidate.name} enlarges {candidate.scale} times, but scale {scale} was asked for")
    return candidate


def baseline(name: str, scale: int) -> Candidate:
    """`bicubic` and `lanczos` enlarge by `scale`; `identity` returns the degraded image."""
    if name == "identity":
        if scale != 1:
            raise InputError("identity changes no size and cannot be measured at a scale: use bicubic or lanczos")
        return Candidate(name, lambda x: x, 1)
    if scale == 1:
        raise InputError(f"{name} enlarges images and cannot restore them: give a scale (--scale), or use identity")
    enlarge = _bicubic if name == "bicubic" else _lanczos
    return Candidate(name, lambda x: enlarge(x, scale), scale)


def _bicubic(x: Tensor, scale: int) -> Tensor:
    return torch.as_tensor(degrade.bicubic_upscale(x.movedim(0, -1).numpy(), scale), device="cpu").movedim(-1, 0)


def _lanczos(x: Tensor, scale: int) -> Tensor:
    return lanczos(x, x.shape[1] * scale, x.shape[2] * scale)


def from_name(name_or_path: str | Path, options: RunOptions) -> Candidate:
    """The network that `atd.load` finds, ready to run under `options`."""
    weights = options.weights or "official"
    model = loading.load(
        name_or_path,
        weights=weights,
        device=options.device or default_device(),
        dtype=torch.float64 if options.dtype == "float64" else None,
        params=options.params,
    )
    chosen = "" if options.params == "auto" else f" ({options.params} weights)"
    candidate = from_model(model, options, name=f"{name_or_path}{chosen}")
    # A file, folder or repository is its own weights.
    candidate.weights = str(weights) if registry.find(str(name_or_path)) else None
    return candidate


def from_model(model: nn.Module, options: RunOptions, name: str | None = None) -> Candidate:
    """A network that exists already, where it is; `options.weights` and `options.device` play no part."""
    tile = options.tile or None  # restoration's word for untiled is None
    tell_tile_size(model, tile, options.overlap)

    def backend() -> contextlib.AbstractContextManager[object]:
        return ops.use(options.backend) if options.backend else contextlib.nullcontext()

    def run(x: Tensor) -> Tensor:
        tiles = 1

        def count(progress: TileProgress) -> None:
            nonlocal tiles
            tiles = progress.total

        with backend():
            output = restore_tensor(
                model,
                x,
                tile=tile,
                overlap=options.overlap,
                self_ensemble=options.self_ensemble,
                dtype=options.torch_dtype,
                callback=count,
            )
        candidate.tiled += tiles > 1
        return output

    device = device_of(model)
    with backend():
        backend_used = ops.backend_report(device, options.torch_dtype)[0]
    conditions = RunConditions(
        tile=options.tile or 0,
        overlap=options.overlap,
        self_ensemble=options.self_ensemble,
        dtype=options.dtype,
        device=str(device),
        backend=backend_used,
    )
    candidate = Candidate(name or _name(model), run, scale_of(model), conditions=conditions, model=model)
    return candidate


def _name(model: nn.Module) -> str:
    registered = isinstance(model, RestorationModel) and model.name
    return registered or type(model).__name__
