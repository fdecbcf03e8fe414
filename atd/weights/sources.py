"""Find trained weights by name, file, folder or hub repository. Nothing is ever substituted."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path

from atd import registry
from atd.errors import LoadError
from atd.registry import ModelInfo
from atd.weights import drive, hub
from atd.weights.format import SUFFIXES, Params, WeightFile, read_weights
from atd.weights.integrity import check_file

Place = Callable[[Path, ModelInfo], Path]
"""Checks that a file holds the weights of a row's network and writes them to the cache; gives the folder."""


def find_weights(
    name_or_path: str | Path,
    weights: str | Path,
    revision: str | None,
    local_files_only: bool,
    params: Params,
    place: Place,
) -> tuple[WeightFile, ModelInfo | None]:
    """The weights that the arguments of `atd.load` mean, and the registry row when a name was given.

    Args:
        name_or_path, weights, revision, local_files_only, params: as in `atd.load`.
        place: called for a file that was fetched in the authors' format.

    Raises:
        LoadError: see `atd.load`.
    """
    info = registry.find(str(name_or_path))
    if info is not None:
        return _named(info, weights, revision, local_files_only, params, place), info
    if weights != "official":
        raise LoadError(
            f"weights={str(weights)!r} chooses the weights of a registry name, and {str(name_or_path)!r} is none; "
            f"atd.list_models() gives the names."
        )
    weight_file = _elsewhere(name_or_path, revision, local_files_only, params)
    if weight_file is None:
        raise registry.unknown_name(str(name_or_path))
    return weight_file, None


def fetch_official(info: ModelInfo, source: str, place: Place) -> Path:
    """Fetch the official weights of `info` from "hub" or "drive" and place them in the cache; gives the folder.

    Weights that are there already are left alone.
    """
    placed = hub.placed_file(info.name)
    if placed.is_file():
        return placed.parent
    if hub.home().is_file():
        raise LoadError(f"The cache {hub.home()} is a file; set ATD_HOME to a folder.")
    if source == "hub":
        pinned = hub.official_repository(info)
        if pinned is None:
            ways = [
                f"No hub repository is known for {info.name}; set ATD_HUB_REPO=org/repo@revision, or use --from drive."
            ]
            raise LoadError("\n".join([*ways, *_bundled_way(info)]))
        return place(hub.official_file(info, *pinned), info)
    if source == "drive":
        return _from_drive(info, place).parent
    raise LoadError(f'source is {source!r}; expected "hub" or "drive".')


def _named(
    info: ModelInfo, weights: str | Path, revision: str | None, local_files_only: bool, params: Params, place: Place
) -> WeightFile:
    if weights in ("official", "bundled") and params != "auto":
        raise LoadError(
            f"params={params!r} chooses between the two weights of a checkpoint file, and the {weights} weights of "
            f"{info.name} are one: give the file, or place its other weights in the cache by `atd convert FILE --as "
            f"{info.name} --params {params}`."
        )
    if weights == "official":
        return read_weights(_official(info, revision, local_files_only, place))
    if weights == "bundled":
        if revision:
            raise LoadError(f"revision={revision!r} goes with a hub repository, not with bundled weights.")
        if not info.bundled:
            names = ", ".join(name for name in registry.list_models() if registry.get(name).bundled) or "none"
            none = f"No weights of {info.name} are bundled with this package; bundled are: {names}."
            raise LoadError("\n".join([none, *_bundled_way(info)]))
        return read_weights(info.bundled_path)
    weight_file = _elsewhere(weights, revision, local_files_only, params)
    if weight_file is None:
        raise LoadError(
            f'weights={str(weights)!r} is not "official", "bundled", a file or folder that exists, or '
            "org/repo[@revision]."
        )
    return weight_file


def _elsewhere(source: str | Path, revision: str | None, local_files_only: bool, params: Params) -> WeightFile | None:
    """The weights in a file, a folder or a hub repository; None when `source` looks like none of them."""
    path = Path(source).expanduser()
    if path.exists() or path.suffix in SUFFIXES:
        if revision:
            raise LoadError(f"revision={revision!r} goes with a hub repository, and {path} is a path.")
        return read_weights(path, params)
    repository = hub.split_repository(str(source))
    if repository:
        repo_id, pinned = repository
        if revision and pinned and revision != pinned:
            raise LoadError(f"{source} names the revision {pinned} and revision={revision!r} another; give one.")
        return _from_repository(repo_id, revision or pinned or "main", local_files_only, params)
    if path.name != str(source):
        raise LoadError(f"There is no file or folder {source}.")
    return None


def _from_repository(repo_id: str, revision: str, local_files_only: bool, params: Params) -> WeightFile:
    weights = hub.hub_file(repo_id, revision, hub.WEIGHTS_FILE, local_files_only=local_files_only)
    # The folder of the file is named after its commit: take the description of that commit, whatever the branch does.
    commit = weights.parent.name
    with contextlib.suppress(hub.MissingFileError):  # a bare file is described by its header or its keys
        hub.hub_file(repo_id, commit, hub.CONFIG_FILE, local_files_only=local_files_only)
    return read_weights(weights, params)


def _official(info: ModelInfo, revision: str | None, local_files_only: bool, place: Place) -> Path:
    """The official weights: the cache, the hub, the authors' Drive, or one error that names every way."""
    placed = hub.placed_file(info.name)
    if revision is None and placed.is_file():
        check_file(placed)
        return placed
    pinned = hub.official_repository(info, revision)
    failures: list[str] = []
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
            return _from_drive(info, place)
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
    ways: list[str] = []
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
    return [*ways, *_bundled_way(info)]


def _bundled_way(info: ModelInfo) -> list[str]:
    """A sentence on what works now, without any request; none where nothing does."""
    row = registry.bundled_for(info)
    if row is None:
        return []
    start = "To use the small weights inside this package" if row is info else f"To use {row.name}, small and bundled"
    return [
        f"{start}: `atd restore -i INPUT -o OUTPUT --model {row.name} --weights bundled`, "
        f'atd.load("{row.name}", weights="bundled")'
    ]


def _from_drive(info: ModelInfo, place: Place) -> Path:
    """Fetch and place the authors' file; it reaches the cache only when it is whole and fits the network."""
    if info.sources.drive is None:
        raise LoadError(f"The authors' Google Drive has no weights of {info.name}.")
    hub.home().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".drive-", dir=hub.home()) as folder:
        place(drive.download(info.sources.drive, Path(folder)), info)
    return hub.placed_file(info.name)
