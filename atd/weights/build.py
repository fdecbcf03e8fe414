"""Make a network of weights: construct it as they are described, fill it, and say what does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from atd import registry
from atd.errors import InputError, LoadError
from atd.registry import ModelInfo
from atd.system import as_dtype, named_device
from atd.weights import hub
from atd.weights.card import model_card
from atd.weights.description import check_config, whole_number
from atd.weights.detection import INDEX_BUFFER, detect
from atd.weights.format import Params, WeightFile, read_weights
from atd.weights.integrity import Origin, record_file
from atd.weights.network import StorableNetwork
from atd.weights.saving import write_weights
from atd.weights.sources import find_weights

_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)

Network = TypeVar("Network", bound=StorableNetwork)


def load_network(
    architectures: Mapping[str, type[Network]],
    name_or_path: str | Path,
    weights: str | Path = "official",
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
    params: Params = "auto",
    **overrides: object,
) -> Network:
    """`atd.load` among the network classes `architectures`, by their names."""
    dtype = _checked_dtype(device, dtype)
    named = registry.find(str(name_or_path))
    if named:  # before anything is fetched
        _check_architecture(named.architecture, architectures, name_or_path)

    def place(file: Path, info: ModelInfo, origin: Origin | None = None) -> Path:
        return place_weights(architectures, file, info, origin=origin)

    weight_file, info = find_weights(name_or_path, weights, revision, local_files_only, params, place)
    return build_network(architectures, weight_file, info, overrides, device, dtype)


def place_weights(
    architectures: Mapping[str, type[Network]],
    file: Path,
    info: ModelInfo | None,
    directory: Path | None = None,
    overrides: Mapping[str, object] | None = None,
    params: Params = "auto",
    overwrite: bool = False,
    origin: Origin | None = None,
) -> Path:
    """Write the network of `file` in our format, and return the folder.

    Args:
        architectures: network classes by their names.
        file: a weight file of anyone's making.
        info: the network that it must be; None: whichever it is.
        directory: where to write; the cache by default, where `atd.load` finds the weights of `info`.
        overrides: constructor keywords, as in `atd.load`.
        params: which weights of a checkpoint that holds two.
        overwrite: replace other weights that the cache holds under this name.
        origin: what `file` is called where it was fetched, if it was.

    Raises:
        LoadError: the file cannot be read or is not that network, or the cache holds other weights.
    """
    model = build_network(architectures, read_weights(file, params), info, overrides or {})
    if directory is None:
        if info is None:
            raise ValueError("weights of no registered network have no place in the cache: name a directory")
        directory = hub.home() / info.name
        if not overwrite and hub.placed_file(info.name).is_file():
            _check_same(model, hub.placed_file(info.name), info)
    source = f"from {origin.name} (SHA-256 {origin.sha256})" if origin else f"from {file.name}"
    write_weights(model, directory, model_card(model, source=source) if info else None)
    if info and directory == hub.home() / info.name:
        record_file(hub.placed_file(info.name), origin)
    return directory


def _check_same(model: StorableNetwork, placed: Path, info: ModelInfo) -> None:
    """Refuse to replace weights in the cache by others."""
    kept, own = read_weights(placed).state_dict, model.state_dict()
    if kept.keys() != own.keys() or any(not torch.equal(kept[key], own[key].cpu()) for key in kept):
        raise LoadError(
            f"The cache holds other weights of {info.name}, {placed}: overwrite=True (--overwrite) replaces them."
        )


def build_network(
    architectures: Mapping[str, type[Network]],
    weight_file: WeightFile,
    info: ModelInfo | None,
    overrides: Mapping[str, object],
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Network:
    """The network that `weight_file` describes, or `info` when given, with its tensors, in evaluation mode.

    Raises:
        LoadError: the file is not of that network, or of none of `architectures`.
    """
    architecture = info.architecture if info else weight_file.architecture
    config = {**(info.config if info else weight_file.config), **overrides}
    _check_architecture(architecture, architectures, weight_file.path)
    check_config(config, len(weight_file.state_dict), str(weight_file.path))
    try:
        with torch.device("meta"):  # the file's tensors become the parameters: nothing is initialised in vain
            model = architectures[architecture](**config)
    except (TypeError, ValueError) as error:
        raise LoadError(f"{weight_file.path} does not describe a valid {architecture}: {error}") from error
    _fill(model, weight_file, info, dtype or torch.float32)
    if info:
        _check_description(model, weight_file, info, overrides)
    model.task = info.task.key if info else weight_file.task or model.task
    model.name = registry.match(info.name if info else weight_file.name, model.architecture, model.config)
    return model.eval().to(device=device)


def _check_architecture(architecture: str, architectures: Mapping[str, type[Network]], source: str | Path) -> None:
    if architecture in architectures:
        return
    if any(registry.get(name).architecture == architecture for name in registry.list_models()):
        raise LoadError(
            f"{source} holds weights of {architecture}; use atd.{architecture}.from_pretrained or atd.load."
        )
    raise LoadError(f"{source} asks for the architecture {architecture!r}; expected {', '.join(architectures)}.")


def _checked_dtype(device: torch.device | str | None, dtype: torch.dtype | str | None) -> torch.dtype | None:
    """The dtype as torch has it; fails before anything is fetched when the model could not go where it should."""
    try:
        dtype, device = as_dtype(dtype), named_device(device or "cpu")
    except InputError as error:
        raise LoadError(str(error)) from None
    if dtype is not None and not dtype.is_floating_point:
        raise LoadError(f"dtype is {dtype}; expected a floating one, such as torch.float32 or torch.bfloat16.")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA answers with an AssertionError
        raise LoadError(f"The device {str(device)!r} cannot be used here: {str(error).splitlines()[0]}") from error
    return dtype


def _check_description(
    model: StorableNetwork, weight_file: WeightFile, info: ModelInfo, overrides: Mapping[str, object]
) -> None:
    """A file that says what it holds must agree with the name in what the tensors' shapes cannot show."""
    if not weight_file.described:
        return
    if weight_file.name not in (None, info.name):
        raise LoadError(
            f"{weight_file.path} was saved as {weight_file.name}, not as {info.name}; load the file by itself, "
            f"atd.load({str(weight_file.path)!r})."
        )
    for key in {"category_size", "img_range"} - overrides.keys():
        own, named = weight_file.config.get(key), model.config.get(key)
        if own is not None and own != named:
            raise LoadError(
                f"{weight_file.path} was saved with {key} {own}, and {info.name} has {named}; load the file by "
                f"itself, atd.load({str(weight_file.path)!r})."
            )


def _fill(model: StorableNetwork, weight_file: WeightFile, info: ModelInfo | None, dtype: torch.dtype) -> None:
    """Give the model the file's tensors; every key must be there with its shape (index buffers may be absent)."""
    given = weight_file.state_dict
    expected = {key: value for key, value in model.state_dict().items() if not key.endswith(INDEX_BUFFER)}
    faults = [f"{key} is missing" for key in expected if key not in given]
    faults += [f"{key} is not expected" for key in given if key not in expected and not key.endswith(INDEX_BUFFER)]
    faults += [
        f"{key} has shape {_shape(given[key])} instead of {_shape(value)}"
        for key, value in expected.items()
        if key in given and given[key].shape != value.shape
    ]
    if faults:
        more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise LoadError(
            f"{weight_file.path} holds {_label(weight_file)}, not "
            f"{info.name if info else 'what its description says'}: {', '.join(faults[:5])}{more}."
        )
    for key in expected:
        if fault := _unfit(given[key]):
            raise LoadError(f"{weight_file.path} holds no weights: {key} {fault}.")
    layout = torch.contiguous_format
    tensors = {
        key: value.to(dtype, copy=True, memory_format=layout) if key in expected else value
        for key, value in given.items()
    }
    try:
        model.load_state_dict(tensors, strict=True, assign=True)
    except RuntimeError as error:
        raise LoadError(f"{weight_file.path}: {str(error).splitlines()[-1].strip()}") from error


def _unfit(tensor: Tensor) -> str | None:
    """Why a tensor cannot be a parameter; None when it can."""
    if tensor.dtype not in _DTYPES:
        return f"is {str(tensor.dtype).removeprefix('torch.')}, expected float32, bfloat16, float16 or float64"
    if tensor.is_meta or tensor.layout != torch.strided:
        return "has no values"
    if not tensor.isfinite().all():
        return "holds values that are not finite"
    return None


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "scalar"


def _label(weight_file: WeightFile) -> str:
    """What the tensors are, by the names of the registry where one fits."""
    try:
        architecture, config = detect(weight_file.state_dict)
    except LoadError:
        return "weights of another network"
    if names := registry.names_of(architecture, config):
        # The networks of one size differ in their weights alone.
        return f"the weights of {names[0]}" if len(names) == 1 else f"weights of {architecture} as in {names[0]}"
    upscale = whole_number(config, "upscale", 1)
    scale = f" ×{upscale}" if upscale > 1 else ""
    return f"weights of {architecture}{scale} with embed_dim {config['embed_dim']}"
