"""Networks → weight files: our folders, the files inside the package, and files for the authors' programs."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import torch
from safetensors.torch import save as serialize
from torch import Tensor

from atd.errors import InputError
from atd.system import atomic_write
from atd.weights.card import CARD_MARK, model_card
from atd.weights.detection import INDEX_BUFFER
from atd.weights.format import Description, parse_description
from atd.weights.hub import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE
from atd.weights.network import StorableNetwork

AUTHORS_KEY = "params_ema"
"""Under which the authors' programs look for the weights in their files."""


def write_weights(model: StorableNetwork, directory: Path, card: str | None = None) -> Path:
    """Write model.safetensors, config.json and README.md (`card`, or a generated one) into `directory`.

    The three are written aside and then put in their places, the old config.json leaving first: whenever the call is
    interrupted, what lies in the folder is the old network or the new one, whose weights describe themselves. Equal
    networks give equal bytes. A README.md that is somebody else's stays.

    Raises:
        InputError: there is a config.json of another program.
        OSError: a file cannot be written; nothing was changed.
    """
    directory.mkdir(parents=True, exist_ok=True)
    config_file, card_file = directory / CONFIG_FILE, directory / CARD_FILE
    if config_file.exists() and not _is_ours(config_file):
        raise InputError(f"{config_file} belongs to another program: name another folder, or move it away")
    with contextlib.ExitStack() as files:
        # Entered first, put in its place last.
        if not card_file.exists() or CARD_MARK in card_file.read_text(encoding="utf-8", errors="replace"):
            path = files.enter_context(atomic_write(card_file))
            path.write_text(card or model_card(model), encoding="utf-8")
        path = files.enter_context(atomic_write(config_file))
        path.write_text(json.dumps(_describe(model), indent=2) + "\n", encoding="utf-8")
        path = files.enter_context(atomic_write(directory / WEIGHTS_FILE))
        path.write_bytes(_safetensors(_tensors(model), _describe(model)))
        config_file.unlink(missing_ok=True)
    return directory


def write_bundled(model: StorableNetwork, path: Path) -> Path:
    """Write a file as the wheel carries it: float16, without the index buffers; `ValueError` when a value overflows."""
    tensors: dict[str, Tensor] = {}
    for key, value in _tensors(model).items():
        if not key.endswith(INDEX_BUFFER):
            tensors[key] = value.to(torch.float16)
            if not torch.isfinite(tensors[key]).all():
                raise ValueError(f"{key} has values that float16 cannot hold.")
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        temporary.write_bytes(_safetensors(tensors, _describe(model)))
    return path


def write_for_authors(model: StorableNetwork, path: Path, *, overwrite: bool = False) -> Path:
    """Write a .pth that the authors' programs read: their keys, float32, the index buffers, under `AUTHORS_KEY`.

    Equal weights give equal bytes.

    Raises:
        InputError: there is a file with other bytes, and `overwrite` is not set.
    """
    tensors = {key: value.float() if value.is_floating_point() else value for key, value in _tensors(model).items()}
    buffer = io.BytesIO()  # torch.save would write the name of a file into it
    torch.save({AUTHORS_KEY: tensors}, buffer)
    if path.exists() and not overwrite:
        if path.read_bytes() != buffer.getvalue():
            raise InputError(f"{path} holds something else: overwrite=True (--overwrite) replaces it")
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        temporary.write_bytes(buffer.getvalue())
    return path


def _tensors(model: StorableNetwork) -> dict[str, Tensor]:
    return {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}


def _describe(model: StorableNetwork) -> Description:
    return {"architecture": model.architecture, "name": model.name, "task": model.task, "config": model.config}


def _is_ours(config_file: Path) -> bool:
    try:
        return parse_description(config_file.read_bytes(), config_file) is not None
    except (RuntimeError, ValueError):
        return False


def _safetensors(tensors: dict[str, Tensor], description: Description) -> bytes:
    """The content of a safetensors file that says what it holds; equal arguments give equal bytes."""
    data = serialize(tensors, metadata={"format": "pt", "atd": json.dumps(description)})
    # safetensors writes its metadata in any order; only their order within the header is changed here.
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    assert len(text) <= size, (len(text), size)
    return data[:8] + text.ljust(size) + data[8 + size :]
