"""Weight files ↔ state dicts: `.safetensors` with a description, `.pth`, `.pt` and `.ckpt` of anyone's making.

Our own format is a folder of `model.safetensors`, `config.json` and a model card. The description (architecture,
constructor keywords, name, task) is in config.json and, for a file that left its folder, in the safetensors header too.
"""

import json
import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor

from atd.errors import LoadError
from atd.system import atomic_write
from atd.weights.card import model_card
from atd.weights.detection import INDEX_BUFFER, detect
from atd.weights.hub import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE
from atd.weights.network import StorableNetwork

SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt")
_WRAPPERS = ("params_ema", "params", "state_dict")
_PREFIXES = ("module.", "_orig_mod.")  # DataParallel and torch.compile


@dataclass
class WeightFile:
    """The content of a weight file: tensors under the authors' keys, and the network that they belong to."""

    path: Path
    state_dict: dict[str, Tensor]
    architecture: str
    config: dict[str, Any]
    name: str | None = None
    task: str | None = None
    described: bool = False
    """Whether the file said itself what it holds; otherwise it was detected from keys and shapes."""


def read_weights(path: Path) -> WeightFile:
    """Read a weight file or a folder that holds one; `LoadError` when it is damaged, unsafe or not of this family."""
    path = _weight_file(path)
    if path.suffix == ".safetensors":
        tensors, description = _read_safetensors(path)
    else:
        tensors, description = _read_pickle(path), None
    state_dict = _unwrap(tensors, path)
    if description:
        return WeightFile(path, state_dict, **description, described=True)
    try:
        architecture, config = detect(state_dict)
    except LoadError as error:
        raise LoadError(f"{path}: {error}") from error
    return WeightFile(path, state_dict, architecture, config)


def write_weights(model: StorableNetwork, directory: Path, card: str | None = None) -> Path:
    """Write model.safetensors, config.json and README.md (`card`, or a generated one) into `directory`; each file is
    replaced as a whole, the weights last, so that an interrupted call leaves no half file."""
    directory.mkdir(parents=True, exist_ok=True)
    description = _describe(model)
    text = json.dumps(description, indent=2) + "\n"
    for name, content in ((CONFIG_FILE, text), (CARD_FILE, card or model_card(model))):
        with atomic_write(directory / name) as path:
            path.write_text(content, encoding="utf-8")
    tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    _save_tensors(tensors, description, directory / WEIGHTS_FILE)
    return directory


def write_bundled(model: StorableNetwork, path: Path) -> Path:
    """Write a file as the wheel carries it: float16, without the index buffers; `ValueError` when a value overflows."""
    tensors = {}
    for key, value in model.state_dict().items():
        if not key.endswith(INDEX_BUFFER):
            half = value.detach().cpu().to(torch.float16).contiguous()
            if not torch.isfinite(half).all():
                raise ValueError(f"{key} has values that float16 cannot hold.")
            tensors[key] = half
    path.parent.mkdir(parents=True, exist_ok=True)
    _save_tensors(tensors, _describe(model), path)
    return path


def _weight_file(path: Path) -> Path:
    if path.is_dir():
        if (path / WEIGHTS_FILE).is_file():
            return path / WEIGHTS_FILE
        candidates = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
        if len(candidates) != 1:
            found = ", ".join(file.name for file in candidates[:5]) or "no weight file"
            raise LoadError(f"The folder {path} holds {found}; expected {WEIGHTS_FILE}, or name one file.")
        return candidates[0]
    if not path.is_file():
        raise LoadError(f"There is no file {path}.")
    if path.suffix not in SUFFIXES:
        raise LoadError(f"{path} has the suffix {path.suffix!r}; expected one of {', '.join(SUFFIXES)}.")
    with path.open("rb") as file:
        start = file.read(64).lstrip()
    if start.startswith(b"<"):
        raise LoadError(f"{path} is a web page, not a checkpoint; download the file itself.")
    if start.startswith(b"version https://git-lfs"):
        raise LoadError(f"{path} is a Git LFS pointer, not a checkpoint; fetch it with `git lfs pull`.")
    return path


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a dict)
    except (SafetensorError, OSError) as error:
        raise LoadError(f"{path} is truncated or damaged ({error}); get the file anew.") from error
    beside = path.with_name(CONFIG_FILE)
    description = _description(beside.read_text(encoding="utf-8"), beside) if beside.is_file() else None
    return tensors, description or _description(header.get("atd", "null"), path)


def _description(text: str, path: Path) -> dict[str, Any] | None:
    """The four entries of our description; None for another program's config.json."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise LoadError(f"{path} is not valid JSON ({error}).") from error
    if not (isinstance(value, Mapping) and isinstance(value.get("architecture"), str)):
        return None
    if not isinstance(value.get("config"), Mapping):
        return None
    return {
        "architecture": value["architecture"],
        "config": dict(value["config"]),
        "name": value.get("name"),
        "task": value.get("task"),
    }


def _describe(model: StorableNetwork) -> dict[str, Any]:
    return {"architecture": model.architecture, "name": model.name, "task": model.task, "config": model.config}


def _read_pickle(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        culprit = re.search(r"(?:GLOBAL|class) ([\w.]+)", str(error))
        if culprit:
            raise LoadError(
                f"{path} holds a Python object ({culprit[1]}) and is refused, because unpickling it could run code; "
                f"ask for a file of tensors alone."
            ) from error
        raise LoadError(f"{path} is not a PyTorch checkpoint, or is damaged.") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise LoadError(f"{path} is truncated or damaged ({reason}); get the file anew.") from error


def _unwrap(content: Any, path: Path) -> dict[str, Tensor]:
    """The innermost {key: tensor}, without the wrappers and prefixes that training programs add."""
    while isinstance(content, Mapping) and (wrapper := next((w for w in _WRAPPERS if w in content), None)):
        content = content[wrapper]
    if not isinstance(content, Mapping) or not content:
        raise LoadError(f"{path} holds no state dict; expected a mapping of parameter names to tensors.")
    strangers = [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
    if strangers:
        raise LoadError(f"{path} holds no state dict; these entries are not tensors: {', '.join(strangers[:5])}.")
    state_dict = dict(content)
    for prefix in _PREFIXES:
        if all(key.startswith(prefix) for key in state_dict):
            state_dict = {key.removeprefix(prefix): value for key, value in state_dict.items()}
    return state_dict


def _save_tensors(tensors: dict[str, Tensor], description: dict[str, Any], path: Path) -> None:
    header = {"format": "pt", "atd": json.dumps(description)}
    # Not save_file: it makes files that only their owner can read.
    with atomic_write(path) as temporary:
        temporary.write_bytes(serialize(tensors, metadata=header))
