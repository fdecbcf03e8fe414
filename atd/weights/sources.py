"""Find trained weights by name, file, folder or hub repository. Nothing is ever substituted."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from atd import registry
from atd.errors import LoadError
from atd.registry import DriveFile, HttpsFile, HubFile, ModelInfo
from atd.weights import drive, hub
from atd.weights.format import SUFFIXES, Params, WeightFile, read_weights
from atd.weights.integrity import Origin, check_file
from atd.weights.transfer import Wanted, fetch, incomplete_file

INCOMPLETE = ".incomplete"
"""Folder of the cache in which files lie that are not whole yet, or not yet found to be the right ones."""


class Place(Protocol):
    """Checks that a file holds the weights of a row's network and writes them to the cache; gives the folder."""

    def __call__(self, file: Path, info: ModelInfo, origin: Origin | None = None) -> Path:
        """`origin`: what the file is called where it was fetched."""
        ...


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
    """Fetch the official weights of `info` and place them in the cache; gives the folder.

    `source` is "hub", "https" or "drive", or "any": the first of them that has the weights. Weights that are there
    already are left alone.
    """
    placed = hub.placed_file(info.name)
    if placed.is_file():
        return placed.parent
    if hub.home().is_file():
        raise LoadError(f"The cache {hub.home()} is a file; set ATD_HOME to a folder.")
    choices = (registry.ANY_SOURCE, *registry.SOURCE_KINDS)
    if source not in choices:
        raise LoadError(f"source is {source!r}; expected one of {', '.join(map(repr, choices))}.")
    file = _official(info, None, False, place, only=None if source == registry.ANY_SOURCE else source)
    return placed.parent if file == placed else place(file, info)


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


def _official(
    info: ModelInfo, revision: str | None, local_files_only: bool, place: Place, only: str | None = None
) -> Path:
    """The official weights from the cache or the first source that has them, or one error that names every way.

    `only` is the kind of the one source that is meant.
    """
    placed = hub.placed_file(info.name)
    if revision is None and placed.is_file():
        check_file(placed)
        return placed
    if revision and not hub.copies(info, revision):
        raise LoadError(f"revision={revision!r} is one of a hub repository; name it with ATD_HUB_REPO=org/repo.")
    no_requests = local_files_only or hub.offline()
    failures: list[str] = []
    for kind in registry.SOURCE_KINDS if only is None else [only]:
        for attempt in _attempts(info, kind, revision, local_files_only, place):
            try:
                return attempt()
            except LoadError as error:
                failures.append(str(error))
    if revision:
        raise LoadError("\n".join(failures))
    if only is not None and not failures and not no_requests:
        failures = [_no_such_source(info, only)]
    raise LoadError("\n".join([_not_here(info, no_requests), *failures, *_ways(info)]))


def _attempts(
    info: ModelInfo, kind: str, revision: str | None, local_files_only: bool, place: Place
) -> list[Callable[[], Path]]:
    """What to call for the weights of the sources of one kind; a revision is one of hubs."""
    if kind == "hub":
        return [
            functools.partial(hub.official_file, info, copy, local_files_only=local_files_only)
            for copy in hub.copies(info, revision)
        ]
    source = info.sources.in_order.get(kind)
    if source is None or isinstance(source, HubFile) or revision or local_files_only or hub.offline():
        return []
    return [functools.partial(_fetch_and_place, info, kind, source, place)]


def _fetch_and_place(info: ModelInfo, kind: str, source: HttpsFile | DriveFile, place: Place) -> Path:
    """Fetch a file in its author's format and place it; it gets its name when it is whole, right, and of the network.

    Of two processes that want it, one does the work.
    """
    placed = hub.placed_file(info.name)
    path = hub.home() / INCOMPLETE / f"{info.name}.{kind}.incomplete{Path(source.name).suffix}"
    beside = 5 * info.parameters  # the copy in our format
    with incomplete_file(path, info.name) as file:
        if placed.is_file():
            return placed
        if isinstance(source, DriveFile):
            received = drive.fetch_file(source, file, most=info.largest_file, beside=beside)
        else:
            wanted = Wanted(
                label=source.url,
                address=source.url,
                most=info.largest_file,
                size=source.size,
                sha256=source.sha256,
                beside=beside,
            )
            received = fetch(wanted, file)
        origin = Origin(name=source.name, where=source.label, sha256=received.sha256, size=received.size)
        try:
            place(path, info, origin)
        except LoadError:
            file.discard()
            raise
        file.discard()
    return placed


def _no_such_source(info: ModelInfo, only: str) -> str:
    return {
        "hub": f"No hub repository is known for {info.name}; set ATD_HUB_REPO=org/repo@revision.",
        "https": f"No https address is known for {info.name}.",
        "drive": f"The authors' Google Drive has no weights of {info.name}.",
    }[only]


def _not_here(info: ModelInfo, no_requests: bool) -> str:
    if info.sources == registry.Sources():
        return f"There are no official weights of {info.name}: it is this project's own."
    offline = " and requests are switched off" if no_requests else ""
    return f"The official weights of {info.name} are not in the cache {hub.home()}{offline}."


def _ways(info: ModelInfo) -> list[str]:
    """One sentence for each way to weights, in the order in which they are worth trying."""
    ways: list[str] = []
    file = info.sources.https or info.sources.drive
    if file is not None:
        place = file.folder_url if isinstance(file, DriveFile) else file.url
        ways.append(
            f"To use a file: download {file.name} from {place} and run `atd convert {file.name} --as {info.name}`"
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
