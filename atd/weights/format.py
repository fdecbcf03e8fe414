"""Weight files → state dicts: `.safetensors` with a description, `.pth`, `.pt` and `.ckpt` of anyone's making.

Our own format is a folder of `model.safetensors`, `config.json` and a model card. The description (architecture,
constructor keywords, name, task) is in config.json and, for a file that left its folder, in the safetensors header too.
"""

import json
import pickle
import re
import warnings
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypedDict, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from atd.errors import LoadError
from atd.system import is_mapping
from atd.tasks import KEYS, UNKNOWN
from atd.weights.detection import detect
from atd.weights.hub import CONFIG_FILE, WEIGHTS_FILE

TRAINED = "model"
"""The folder in which a training leaves its result, below its own."""
SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt")
Params = Literal["auto", "ema", "raw"]
"""Which weights of a file that holds both: a training's average, its raw weights, or the average if there is one."""
_WRAPPERS: dict[str, tuple[str, ...]] = {
    "auto": ("params_ema", "params", "state_dict"),
    "ema": ("params_ema",),
    "raw": ("params", "state_dict"),
}
_MOST_WRAPPERS = 8
_PREFIXES = ("module.", "_orig_mod.")  # DataParallel and torch.compile


class Description(TypedDict):
    """What our files say of the network they hold, in config.json and in the header of the weights."""

    architecture: str
    config: dict[str, object]
    name: str | None
    task: str | None


class _SafetensorsFile(Protocol):
    """The open file of safetensors, which leaves its types to be guessed."""

    def metadata(self) -> dict[str, str] | None: ...
    def keys(self) -> list[str]: ...
    def get_tensor(self, name: str, /) -> Tensor: ...


@dataclass
class WeightFile:
    """The content of a weight file: tensors under the authors' keys, and the network that they belong to."""

    path: Path
    state_dict: dict[str, Tensor]
    architecture: str
    config: dict[str, object]
    name: str | None = None
    task: str | None = None
    described: bool = False
    """Whether the file said itself what it holds; otherwise it was detected from keys and shapes."""


def read_weights(path: Path, params: Params = "auto") -> WeightFile:
    """Read a weight file or a folder that holds one.

    Args:
        path: the file or the folder.
        params: which weights of a checkpoint that holds a training's average (`params_ema`) and its raw weights
            (`params`): "auto" takes the average where there is one, "ema" insists on it, "raw" takes the others.

    Raises:
        LoadError: it is damaged, unsafe, not of this family, or without the weights that `params` asks for.
    """
    if params not in _WRAPPERS:
        raise LoadError(f"params is {params!r}; expected {', '.join(map(repr, _WRAPPERS))}.")
    path = _weight_file(path)
    if path.suffix == ".safetensors":
        tensors, description = _read_safetensors(path)
    else:
        tensors, description = _read_pickle(path), None
    state_dict = _unwrap(tensors, path, params)
    if description:
        return WeightFile(path, state_dict, **description, described=True)
    try:
        architecture, config = detect(state_dict)
    except LoadError as error:
        raise LoadError(f"{path}: {error}") from error
    return WeightFile(path, state_dict, architecture, config)


def _weight_file(path: Path) -> Path:
    if path.is_dir():
        for file in (path / WEIGHTS_FILE, path / TRAINED / WEIGHTS_FILE):
            if file.is_file():
                return file
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


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], Description | None]:
    try:
        with cast("AbstractContextManager[_SafetensorsFile]", safe_open(path, framework="pt")) as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a dict)
    except (SafetensorError, OSError) as error:
        raise LoadError(f"{path} is truncated or damaged ({error}); get the file anew.") from error
    beside = path.with_name(CONFIG_FILE)
    description = parse_description(beside.read_bytes(), beside) if beside.is_file() else None
    return tensors, description or parse_description(header.get("atd", "null"), path)


def parse_description(text: str | bytes, path: Path) -> Description | None:
    """The four entries of our description, JSON in UTF-8; None for another program's config.json."""
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LoadError(f"{path} is not valid JSON ({error}).") from error
    if not is_mapping(value):
        return None
    architecture, config = value.get("architecture"), value.get("config")
    if not isinstance(architecture, str) or not is_mapping(config):
        return None
    name, task = value.get("name"), value.get("task")
    if not isinstance(name, str | None) or not isinstance(task, str | None) or task not in (None, UNKNOWN, *KEYS):
        raise LoadError(f"{path} gives a name or a task that cannot be: {name!r}, {task!r}.")
    keywords = {str(key): entry for key, entry in config.items()}
    return {"architecture": architecture, "config": keywords, "name": name, "task": task}


def _read_pickle(path: Path) -> object:
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
    except Exception as error:  # a damaged pickle can raise anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise LoadError(f"{path} is truncated or damaged ({reason}); get the file anew.") from error


def _unwrap(content: object, path: Path, params: Params) -> dict[str, Tensor]:
    """The innermost {key: tensor}, without the wrappers and prefixes that training programs add."""
    wrappers = _WRAPPERS[params]
    if params == "ema" and not (is_mapping(content) and wrappers[0] in content):
        raise LoadError(f'{path} holds no averaged weights under the key {wrappers[0]!r}: leave out params="ema".')
    if params == "raw" and is_mapping(content) and "params_ema" in content and "params" not in content:
        raise LoadError(f'{path} holds averaged weights alone: leave out params="raw".')
    for _ in range(_MOST_WRAPPERS):
        wrapper = next((name for name in wrappers if name in content), None) if is_mapping(content) else None
        if not is_mapping(content) or wrapper is None:
            break
        content = content[wrapper]
    if not is_mapping(content) or not content:
        raise LoadError(f"{path} holds no state dict; expected a mapping of parameter names to tensors.")
    state_dict = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if len(state_dict) < len(content):
        strangers = [key for key in content if key not in state_dict]
        some = ", ".join(str(key)[:80] for key in strangers[:5])
        raise LoadError(f"{path} holds no state dict; these entries are not tensors under a name: {some}.")
    for prefix in _PREFIXES:
        if all(key.startswith(prefix) for key in state_dict):
            state_dict = {key.removeprefix(prefix): value for key, value in state_dict.items()}
    return state_dict
