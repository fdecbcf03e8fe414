"""Training state on disk: written beside the last one, flushed, then renamed; damage is detected when read.

A checkpoint is a folder `checkpoints/<iteration>` with `model.safetensors`, `average.safetensors` (where there is a
weight average), `adversary.safetensors` (where there is a discriminator), `optimiser.safetensors` and `state.json`,
which is written last and holds the checksums of the others.
A kill at any moment, a full disk or a torn write leaves the previous checkpoint in place.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file  # pyright: ignore[reportUnknownVariableType]  (of a path's type)
from torch import Tensor

from atd.errors import InputError, RecipeError
from atd.training.recipes import Recipe

KEEP = 2
"""Checkpoints that stay in the folder."""

_UNSAID = {"discriminator": 0}
"""What a checkpoint means that does not say: those of earlier versions."""


@dataclass(kw_only=True)
class TrainingState:
    """Where a training stands: what it needs to go on as though it had never stopped.

    iteration  iterations done
    minutes    of training so far
    identity   what must not change when it goes on, see `identity_of`
    scaler     state of the gradient scaler; empty where it is not used
    model      parameters of the network, whole and on the CPU
    optimiser  its state by parameter name, see `atd.training.optim.state_of`
    average    weight average by parameter name; None where there is none
    adversary  the discriminator with its optimiser, see `atd.training.adversary`; None where there is none
    """

    iteration: int
    minutes: float
    identity: dict[str, object]
    scaler: dict[str, object]
    model: dict[str, Tensor]
    optimiser: dict[str, Tensor]
    average: dict[str, Tensor] | None
    adversary: dict[str, Tensor] | None = None


def identity_of(recipe: Recipe) -> dict[str, object]:
    """What must not change when a training is continued: networks, optimiser, an average or none."""
    return {
        "model": recipe.model,
        "config": recipe.config,
        "optimiser": recipe.optimiser,
        "ema": recipe.ema > 0,
        "discriminator": recipe.discriminator_channels if recipe.adversarial else 0,
    }


def state_to_continue(recipe: Recipe, out: Path, resume: bool, say: Callable[[str], None]) -> TrainingState | None:
    """The newest whole state of the training in `out`, checked to be one of `recipe`; None where none has begun.

    Raises:
        InputError: there is one, and `resume` is not set.
        RecipeError: there is one of another network or optimiser.
    """
    state, problems = load_latest(out / "checkpoints")
    for problem in problems:
        say(problem)
    if state is None:
        return None
    if not resume:
        raise InputError(f"{out} holds a training already: continue it with --resume, or choose another --output")
    identity = identity_of(recipe)
    differing = [key for key in identity if state.identity.get(key, _UNSAID.get(key)) != identity[key]]
    if differing:
        raise RecipeError(
            f"{out} was trained with another {' and '.join(differing)} than the recipe's: choose another --output, and "
            "finetune_from to start from its results"
        )
    say(f"continuing after iteration {state.iteration}")
    return state


def save(folder: Path, state: TrainingState) -> Path:
    """Write `folder/<iteration>` atomically and remove all but the newest `KEEP`.

    Raises:
        OSError: it could not be written, and nothing has changed.
    """
    tensors = {"model": state.model, "optimiser": state.optimiser}
    if state.average is not None:
        tensors["average"] = state.average
    if state.adversary is not None:
        tensors["adversary"] = state.adversary
    numbers = {"iteration": state.iteration, "minutes": state.minutes, "scaler": state.scaler, **state.identity}
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob("*.partial"):
        shutil.rmtree(leftover)
    partial = folder / f"{state.iteration:08d}.partial"
    partial.mkdir()
    try:
        checksums: dict[str, int] = {}
        for stem, named in tensors.items():
            path = partial / f"{stem}.safetensors"
            _write({name: tensor.contiguous() for name, tensor in named.items()}, path)
            checksums[path.name] = _checksum(path)
            _flush(path)
        path = partial / "state.json"
        path.write_text(json.dumps({**numbers, "checksums": checksums}), encoding="utf-8")
        _flush(path)
        final = folder / f"{state.iteration:08d}"
        if final.exists():
            shutil.rmtree(final)
        partial.rename(final)
        _flush(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    for old in _all(folder)[:-KEEP]:
        shutil.rmtree(old)
    return final


def load_latest(folder: Path) -> tuple[TrainingState | None, list[str]]:
    """The state of the newest checkpoint that is whole, and a sentence for each damaged one passed over."""
    problems: list[str] = []
    for path in reversed(_all(folder)):
        try:
            return _load(path), problems
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            problems.append(f"checkpoint {path} is damaged and was passed over: {error}")
    return None, problems


def _all(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.name.isdigit())


def _load(path: Path) -> TrainingState:
    numbers: dict[str, Any] = json.loads((path / "state.json").read_text(encoding="utf-8"))
    tensors: dict[str, dict[str, Tensor]] = {}
    for name, checksum in numbers.pop("checksums").items():
        if _checksum(path / name) != checksum:
            raise ValueError(f"the checksum of {name} does not fit")
        tensors[name.removesuffix(".safetensors")] = load_file(path / name)
    return TrainingState(
        iteration=numbers.pop("iteration"),
        minutes=numbers.pop("minutes"),
        scaler=numbers.pop("scaler"),
        identity=numbers,
        model=tensors["model"],
        optimiser=tensors["optimiser"],
        average=tensors.get("average"),
        adversary=tensors.get("adversary"),
    )


def _write(tensors: dict[str, Tensor], path: Path) -> None:
    try:
        save_file(tensors, path)
    except SafetensorError as error:  # its own kind of error for a full disk
        raise OSError(str(error)) from error


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            value = zlib.crc32(block, value)
    return value


def _flush(path: Path) -> None:
    """Have the operating system write a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
