"""Trained weights: find them by name, file, folder or hub repository; check, load, convert, save and publish them."""

import contextlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from atd import registry
from atd.errors import LoadError
from atd.registry import ModelInfo
from atd.weights import drive, hub
from atd.weights import format as weight_format
from atd.weights.card import model_card
from atd.weights.detection import INDEX_BUFFER, detect
from atd.weights.format import SUFFIXES, Checkpoint, write_bundled

if TYPE_CHECKING:
    from atd.models import RestorationModel

__all__ = ["LoadError", "convert", "download", "load", "push", "save", "write_bundled"]


def load(
    name_or_path: str | Path,
    weights: str | Path = "official",
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
    **overrides: Any,
) -> "RestorationModel":
    """A network with trained weights, in evaluation mode.

    Args:
        name_or_path: a name of `atd.list_models()`; a `.safetensors`, `.pth`, `.pt` or `.ckpt` file of ATD, ATD-U or
            ATD of CVPR 2024; a folder that holds one; or a hub repository, `org/repo[@revision]`.
        weights: which weights of a named network: "official" (the authors'), "bundled" (small ones in this package),
            or a file, folder or hub repository. Nothing is substituted: what cannot be had is an error.
        device: where the model goes; the CPU by default.
        dtype: of the parameters; float32 by default.
        revision: commit, tag or branch of the hub repository.
        local_files_only: make no request.
        overrides: constructor keywords in place of those that the registry, config.json or the file's keys give
            (`category_size` and `img_range` leave no trace in a bare checkpoint).

    A file in the cache is used without a request. "official" looks in the cache (`atd info` prints where), then in the
    hub repository named by ATD_HUB_REPO, then, where gdown is installed, in the authors' Google Drive.

    Raises:
        LoadError: unknown name, weights not to be had, damaged, unsafe, or of another network; the message says what
            mends it.
    """
    _check_placement(device, dtype)
    checkpoint, info = _find(name_or_path, weights, revision, local_files_only)
    return _build(checkpoint, info, overrides, device, dtype)


def convert(file: str | Path, name: str | None = None, directory: str | Path | None = None, **overrides: Any) -> Path:
    """Turn a checkpoint of anyone's making into our format and return the folder that holds it.

    With `name` (a registry name) the file is checked to be that network and placed in the cache, so that
    `atd.load(name)` finds it without a request; `directory` chooses another folder, the default without a name being
    the file's own path less its suffix. `overrides` are as in `load`.
    """
    file = Path(file)
    info = registry.get(name) if name else None
    model = _build(weight_format.read(file), info, overrides)
    if directory is None:
        directory = hub.home() / name if name else file.with_suffix("")
    if directory == file:
        raise ValueError(f"{file} is a folder already; name another folder to write to.")
    return weight_format.write(model, Path(directory), model_card(model, source=f"from {file.name}") if info else None)


def download(name: str, source: str = "hub") -> Path:
    """Fetch the official weights of `name` from "hub" (ATD_HUB_REPO) or "drive" (the authors' Google Drive) and place
    them in the cache; returns the folder. Weights that are there already are left alone."""
    info = registry.get(name)
    placed = hub.placed_file(name)
    if placed.is_file():
        return placed.parent
    if source == "hub":
        pinned = hub.official_repository(info)
        if pinned is None:
            raise LoadError(
                f"No hub repository is known for {name}; set ATD_HUB_REPO=org/repo@revision, or use --from drive."
            )
        return convert(hub.official_file(info, *pinned), name)
    if source == "drive":
        return _from_drive(info).parent
    raise ValueError(f'source is {source!r}; expected "hub" or "drive".')


def save(model: "RestorationModel", directory: str | Path) -> Path:
    """Write model.safetensors, config.json and a model card (README.md) into `directory`, made if need be."""
    return weight_format.write(model, Path(directory))


def push(
    model: "RestorationModel",
    repo_id: str,
    *,
    private: bool = False,
    token: str | None = None,
    commit_message: str = "Upload weights with atd",
) -> str:
    """Upload what `save` writes to the hub repository `repo_id` ("org/repo", made if need be); the commit's URL."""
    from huggingface_hub import HfApi

    api = HfApi(endpoint=hub.endpoint(), token=token)
    with tempfile.TemporaryDirectory() as folder:
        save(model, folder)
        api.create_repo(repo_id, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=commit_message).commit_url)


def _check_placement(device: torch.device | str | None, dtype: torch.dtype | None) -> None:
    """Fail before anything is fetched when the model could not go where it should."""
    if dtype is not None and not dtype.is_floating_point:
        raise LoadError(f"dtype is {dtype}; expected a floating one, such as torch.float32 or torch.bfloat16.")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA answers with an AssertionError
        raise LoadError(f"The device {str(device)!r} cannot be used here: {str(error).splitlines()[0]}") from error


def _find(
    name_or_path: str | Path, weights: str | Path, revision: str | None, local_files_only: bool
) -> tuple[Checkpoint, ModelInfo | None]:
    """The weights that the arguments of `load` mean, and the registry row when a name was given."""
    if name_or_path in registry.list_models():
        info = registry.get(str(name_or_path))
        return _named(info, weights, revision, local_files_only), info
    if weights != "official":
        raise LoadError(
            f"weights={str(weights)!r} chooses the weights of a registry name, and {str(name_or_path)!r} is none; "
            f"atd.list_models() gives the names."
        )
    checkpoint = _elsewhere(name_or_path, revision, local_files_only)
    if checkpoint is None:
        raise registry.unknown_name(str(name_or_path))
    return checkpoint, None


def _named(info: ModelInfo, weights: str | Path, revision: str | None, local_files_only: bool) -> Checkpoint:
    if weights == "official":
        return weight_format.read(_official(info, revision, local_files_only))
    if weights == "bundled":
        if revision:
            raise LoadError(f"revision={revision!r} goes with a hub repository, not with bundled weights.")
        if not info.bundled:
            names = ", ".join(name for name in registry.list_models() if registry.get(name).bundled) or "none"
            raise LoadError(f"No weights of {info.name} are bundled with this package; bundled are: {names}.")
        return weight_format.read(info.bundled_path)
    checkpoint = _elsewhere(weights, revision, local_files_only)
    if checkpoint is None:
        raise LoadError(
            f'weights={str(weights)!r} is not "official", "bundled", a file or folder that exists, or '
            "org/repo[@revision]."
        )
    return checkpoint


def _elsewhere(source: str | Path, revision: str | None, local_files_only: bool) -> Checkpoint | None:
    """The weights in a file, a folder or a hub repository; None when `source` looks like none of them."""
    path = Path(source).expanduser()
    if path.exists() or path.suffix in SUFFIXES:
        if revision:
            raise LoadError(f"revision={revision!r} goes with a hub repository, and {path} is a path.")
        return weight_format.read(path)
    repository = hub.split_repository(str(source))
    if repository:
        repo_id, pinned = repository
        if revision and pinned and revision != pinned:
            raise LoadError(f"{source} names the revision {pinned} and revision={revision!r} another; give one.")
        return _from_repository(repo_id, revision or pinned or "main", local_files_only)
    if path.name != str(source):
        raise LoadError(f"There is no file or folder {source}.")
    return None


def _from_repository(repo_id: str, revision: str, local_files_only: bool) -> Checkpoint:
    weights = hub.hub_file(repo_id, revision, hub.WEIGHTS_FILE, local_files_only=local_files_only)
    # The folder of the file is named after its commit: take the description of that commit, whatever the branch does.
    commit = weights.parent.name
    with contextlib.suppress(hub.MissingFileError):  # a bare file is described by its header or its keys
        hub.hub_file(repo_id, commit, hub.CONFIG_FILE, local_files_only=local_files_only)
    return weight_format.read(weights)


def _official(info: ModelInfo, revision: str | None, local_files_only: bool) -> Path:
    """The official weights: the cache, the hub, the authors' Drive, or one error that names every way."""
    placed = hub.placed_file(info.name)
    if revision is None and placed.is_file():
        return placed
    pinned = hub.official_repository(info, revision)
    failures = []
    if pinned:
        try:
            return hub.official_file(info, *pinned, local_files_only=local_files_only)
        except LoadError as error:
            if revision:
                raise
            failures.append(str(error))
    elif revision:
        raise LoadError(f"revision={revision!r} is one of a hub repository; name it with ATD_HUB_REPO=org/repo.")
    no_requests = local_files_only or hub.offline()
    if info.sources.drive and drive.available() and not no_requests:
        try:
            return _from_drive(info)
        except LoadError as error:
            failures.append(str(error))
    raise LoadError("\n".join([_not_here(info, no_requests), *failures, *_ways(info)]))


def _not_here(info: ModelInfo, no_requests: bool) -> str:
    if info.sources == registry.Sources():
        return f"There are no official weights of {info.name}: it is this project's own."
    offline = " and requests are switched off" if no_requests else ""
    return f"The official weights of {info.name} are not in the cache {hub.home()}{offline}."


def _ways(info: ModelInfo) -> list[str]:
    """One sentence for each way to weights, in the order in which they are worth trying."""
    ways = []
    if file := info.sources.drive:
        if not drive.available():
            ways.append(f"To fetch them from the authors' Google Drive: {drive.INSTALL_HINT}")
        ways.append(
            f"To use a file: download {file.name} from {file.folder_url} and run "
            f"`atd convert {file.name} --as {info.name}`"
        )
    ways.append(
        f"To use a hub repository that holds {info.name}/{hub.WEIGHTS_FILE}: set ATD_HUB_REPO=org/repo@revision"
    )
    if info.bundled:
        ways.append('To use the small weights inside this package: weights="bundled"')
    return ways


def _from_drive(info: ModelInfo) -> Path:
    """Fetch and convert the authors' file; it reaches the cache only when it is whole and fits the network."""
    if info.sources.drive is None:
        raise LoadError(f"The authors' Google Drive has no weights of {info.name}.")
    hub.home().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".drive-", dir=hub.home()) as folder:
        convert(drive.download(info.sources.drive, Path(folder)), info.name)
    return hub.placed_file(info.name)


def _build(
    checkpoint: Checkpoint,
    info: ModelInfo | None,
    overrides: Mapping[str, Any],
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> "RestorationModel":
    from atd.models import ARCHITECTURES

    architecture = info.architecture if info else checkpoint.architecture
    config = {**(info.config if info else checkpoint.config), **overrides}
    if architecture not in ARCHITECTURES:
        raise LoadError(
            f"{checkpoint.path} asks for the architecture {architecture!r}; expected {', '.join(ARCHITECTURES)}."
        )
    try:
        with torch.device("meta"):  # the file's tensors become the parameters: nothing is initialised in vain
            model = ARCHITECTURES[architecture](**config)
    except (TypeError, ValueError) as error:
        raise LoadError(f"{checkpoint.path} does not describe a valid {architecture}: {error}") from error
    _fill(model, checkpoint, info, dtype or torch.float32)
    if info:
        _check_description(model, checkpoint, info, overrides)
    model.task = info.task if info else checkpoint.task or model.task
    model.name = _registered_name(info.name if info else checkpoint.name, model)
    return model.eval().to(device=device)


def _check_description(
    model: "RestorationModel", checkpoint: Checkpoint, info: ModelInfo, overrides: Mapping[str, Any]
) -> None:
    """A file that says what it holds must agree with the name in what the tensors' shapes cannot show."""
    if not checkpoint.described:
        return
    if checkpoint.name not in (None, info.name):
        raise LoadError(
            f"{checkpoint.path} was saved as {checkpoint.name}, not as {info.name}; load the file by itself, "
            f"atd.load({str(checkpoint.path)!r})."
        )
    for key in {"category_size", "img_range"} - overrides.keys():
        own, named = checkpoint.config.get(key), model.config.get(key)
        if own is not None and own != named:
            raise LoadError(
                f"{checkpoint.path} was saved with {key} {own}, and {info.name} has {named}; load the file by itself, "
                f"atd.load({str(checkpoint.path)!r})."
            )


def _registered_name(claimed: str | None, model: "RestorationModel") -> str | None:
    """The claimed name, when the registry knows it as this very network."""
    if claimed not in registry.list_models():
        return None
    row = registry.get(claimed)
    same = row.architecture == model.architecture and row.config.items() <= model.config.items()
    return claimed if same else None


def _fill(model: "RestorationModel", checkpoint: Checkpoint, info: ModelInfo | None, dtype: torch.dtype) -> None:
    """Give the model the file's tensors; every key must be there with its shape (index buffers may be absent)."""
    given = checkpoint.state_dict
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
            f"{checkpoint.path} holds {_label(checkpoint)}, not {info.name if info else 'what its description says'}: "
            f"{', '.join(faults[:5])}{more}."
        )
    layout = torch.contiguous_format
    tensors = {
        key: value.to(dtype, copy=True, memory_format=layout) if key in expected else value
        for key, value in given.items()
    }
    try:
        model.load_state_dict(tensors, strict=True, assign=True)
    except RuntimeError as error:
        raise LoadError(f"{checkpoint.path}: {str(error).splitlines()[-1].strip()}") from error


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "scalar"


def _label(checkpoint: Checkpoint) -> str:
    """What the tensors are, by the names of the registry where one fits."""
    try:
        architecture, config = detect(checkpoint.state_dict)
    except LoadError:
        return "weights of another network"
    for name in registry.list_models():
        row = registry.get(name)
        if row.architecture == architecture and all(config.get(key) == value for key, value in row.config.items()):
            return f"the weights of {name}" if row.task == "sr" else f"weights of {architecture} as in {name}"
    scale = f" ×{config['upscale']}" if config.get("upscale", 1) > 1 else ""
    return f"weights of {architecture}{scale} with embed_dim {config['embed_dim']}"
