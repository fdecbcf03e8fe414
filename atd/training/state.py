"""Training state on disk: written beside the last one, flushed, then renamed; damage is detected when read.

A checkpoint is a folder `checkpoints/<iteration>` with `model.safetensors`, `average.safetensors` (where there is a
weight average), `optimiser.safetensors` and `state.json`, which is written last and holds the checksums of the others.
A kill at any moment, a full disk or a torn write leaves the previous checkpoint in place.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

KEEP = 2


@dataclass
class Checkpoint:
    tensors: dict[str, dict[str, torch.Tensor]]  # file stem → tensors
    state: dict[str, Any]  # JSON


def save(folder: Path, iteration: int, checkpoint: Checkpoint) -> Path:
    """Write atomically and remove all but the newest `KEEP`. OSError: nothing changed."""
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob("*.partial"):
        shutil.rmtree(leftover)
    partial = folder / f"{iteration:08d}.partial"
    partial.mkdir()
    try:
        checksums = {}
        for stem, tensors in checkpoint.tensors.items():
            path = partial / f"{stem}.safetensors"
            _write({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
            checksums[path.name] = _checksum(path)
            _flush(path)
        state = partial / "state.json"
        state.write_text(json.dumps({**checkpoint.state, "checksums": checksums}), encoding="utf-8")
        _flush(state)
        final = folder / f"{iteration:08d}"
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


def load_latest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that is whole, and a sentence for each damaged one passed over."""
    problems = []
    for path in reversed(_all(folder)):
        try:
            return _load(path), problems
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            problems.append(f"checkpoint {path} is damaged and was passed over: {error}")
    return None, problems


def _all(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.name.isdigit())


def _load(path: Path) -> Checkpoint:
    state = json.loads((path / "state.json").read_text(encoding="utf-8"))
    tensors = {}
    for name, checksum in state.pop("checksums").items():
        if _checksum(path / name) != checksum:
            raise ValueError(f"the checksum of {name} does not fit")
        tensors[name.removesuffix(".safetensors")] = load_file(path / name)
    return Checkpoint(tensors, state)


def _write(tensors: dict[str, torch.Tensor], path: Path) -> None:
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
