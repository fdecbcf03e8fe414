"""Networks by name: load them with trained weights, create them without, convert and fetch weight files.

The one place that knows both the weights and the network classes.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch

from atd import registry
from atd.errors import InputError
from atd.models import ARCHITECTURES, RestorationModel
from atd.weights.build import load_network, place_weights
from atd.weights.format import Params
from atd.weights.integrity import Origin
from atd.weights.saving import write_for_authors
from atd.weights.sources import fetch_official


def load(
    name_or_path: str | Path,
    weights: str | Path = "official",
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
    params: Params = "auto",
    **overrides: object,
) -> RestorationModel:
    """A network with trained weights, in evaluation mode.

    Args:
        name_or_path: a name of `atd.list_models()`; a `.safetensors`, `.pth`, `.pt` or `.ckpt` file of ATD, ATD-U or
            ATD of CVPR 2024; a folder that holds one; or a hub repository, `org/repo[@revision]`.
        weights: which weights of a named network: "official" (its authors'), "bundled" (small ones in this package),
            or a file, folder or hub repository. Nothing is substituted: what cannot be had is an error.
        device: where the model goes; the CPU by default.
        dtype: of the parameters; float32 by default. A type of torch or its name: "bfloat16", "fp16", …
        revision: commit, tag or branch of the hub repository.
        local_files_only: make no request.
        params: which weights of a checkpoint that holds both the average of its training (`params_ema`) and its raw
            weights (`params`): "auto" takes the average where there is one, "ema" insists on it, "raw" takes the
            others.
        overrides: constructor keywords in place of those that the registry, config.json or the file's keys give
            (`category_size` and `img_range` leave no trace in a bare checkpoint).

    A file in the cache is used without a request. "official" looks in the cache (`atd info` prints where), then in the
    hub repository named by ATD_HUB_REPO, then in the network's own sources, hub, https, Google Drive, one after the
    other (`atd info NAME` prints them).

    Raises:
        LoadError: unknown name, dtype or device; weights not to be had, damaged, unsafe, or of another network; the
            message says what mends it.
    """
    return load_network(
        ARCHITECTURES, name_or_path, weights, device, dtype, revision, local_files_only, params, **overrides
    )


def create(name: str, **overrides: object) -> RestorationModel:
    """The network `name` with fresh parameters, in training mode; `overrides` replace constructor keywords.

    Its `name` is None when the overrides make it another network than the one that the name stands for.

    Raises:
        LoadError: there is no such name.
        TypeError, ValueError: an override is not a keyword of the class, or impossible.
    """
    info = registry.get(name)
    model = ARCHITECTURES[info.architecture](**copy.deepcopy({**info.config, **overrides}))
    model.task = info.task.key
    model.name = registry.match(name, model.architecture, model.config)
    return model


def convert(
    file: str | Path,
    name: str | None = None,
    directory: str | Path | None = None,
    *,
    params: Params = "auto",
    overwrite: bool = False,
    **overrides: object,
) -> Path:
    """Turn a checkpoint of anyone's making into our format and return the folder that holds it.

    Args:
        file: a weight file, or a folder that holds one.
        name: a registry name. The file is checked to be that network and placed in the cache, so that
            `atd.load(name)` finds it without a request.
        directory: another folder to write to; without a name, the default is the file's own path less its suffix.
        params: as in `load`.
        overwrite: replace other weights that the cache holds under this name.
        overrides: constructor keywords, as in `load`.

    Raises:
        LoadError: the file cannot be read, or is not that network, or the cache holds other weights of that name.
        InputError: `directory` would be the file itself, or holds another program's config.json.
    """
    file = Path(file)
    info = registry.get(name) if name else None
    target = None if directory is None else Path(directory)
    if info is None and target is None:
        target = file.with_suffix("")
    if target == file:
        raise InputError(f"{file} is a folder already; name another folder to write to.")
    return place_weights(ARCHITECTURES, file, info, target, overrides, params, overwrite)


def convert_for_authors(
    source: str | Path,
    file: str | Path,
    *,
    weights: str | Path = "official",
    params: Params = "auto",
    overwrite: bool = False,
    **overrides: object,
) -> Path:
    """Write a `.pth` that the authors' programs read, and return its path.

    It holds exactly their keys and shapes in float32, index buffers included, under `params_ema`. Files of the CVPR
    2024 networks load in spandrel too. Equal weights give equal bytes.

    Args:
        source: a name, a weight file, a folder that holds one, or a hub repository, as in `load`.
        file: where to write, `.pth`.
        weights: of a name, as in `load`.
        params: as in `load`.
        overwrite: replace a file that is there and holds something else.
        overrides: constructor keywords, as in `load`.

    Raises:
        LoadError: the weights cannot be had.
        InputError: the ending is not `.pth`, `file` holds something else already, or is `source`.
    """
    file = Path(file)
    if file.suffix != ".pth":
        raise InputError(f"{file} does not end in .pth, which is the authors' format")
    for given in (source, weights):
        if file.exists() and Path(given).exists() and file.samefile(given):
            raise InputError(f"{file} is the checkpoint itself, which would be lost: name another file")
    model = load(source, weights, None, None, None, False, params, **overrides)
    return write_for_authors(model, file, overwrite=overwrite)


def download(name: str, source: str = "any") -> Path:
    """Fetch the official weights of `name`, place them in the cache and return the folder.

    Args:
        name: a registry name.
        source: "hub" (the repository ATD_HUB_REPO, or the network's own), "https" (an address) or "drive" (the authors'
            Google Drive); "any" takes the first of these that has the weights.

    Weights that are there already are left alone. A download that broke off goes on where it was.

    Raises:
        LoadError: the weights cannot be had from there.
        OSError: the cache cannot be written or is full; the error names the file.
    """

    def place(file: Path, info: registry.ModelInfo, origin: Origin | None = None) -> Path:
        return place_weights(ARCHITECTURES, file, info, origin=origin)

    return fetch_official(registry.get(name), source, place)
