"""Weight files from this machine's cache or from a hub repository. The environment is read at every call.

ATD_HOME            folder of converted weights, `<name>/model.safetensors` (default: `atd` inside HF_HOME)
ATD_HUB_REPO        `org/repo[@revision]`: the hub repository that holds the official weights under the same paths
HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN   as in huggingface_hub
"""

import os
import re
from pathlib import Path

from atd.errors import LoadError
from atd.registry import ModelInfo
from atd.system import expand_user
from atd.weights.integrity import file_sha256

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
CARD_FILE = "README.md"

_REPOSITORY = re.compile(r"(?P<id>[\w-][\w.-]*/[\w-][\w.-]*)(?:@(?P<revision>[\w./-]+))?", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")


class MissingFileError(LoadError):
    """The repository exists and does not hold the file."""


def home() -> Path:
    """Folder of converted official weights, one subfolder per registry name."""
    return expand_user(Path(os.environ.get("ATD_HOME") or _hf_home() / "atd"))


def hub_cache() -> Path:
    """Folder in which huggingface_hub keeps downloaded files."""
    chosen = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    return expand_user(Path(chosen or _hf_home() / "hub"))


def _hf_home() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path("~") / ".cache"
    return expand_user(Path(os.environ.get("HF_HOME") or Path(base) / "huggingface"))


def offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids every request."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def placed_file(name: str) -> Path:
    """Where the converted official weights of `name` are, or would be."""
    return home() / name / WEIGHTS_FILE


def endpoint() -> str | None:
    """The hub's address in HF_ENDPOINT; None stands for the client's own default."""
    return os.environ.get("HF_ENDPOINT") or None


def is_cached(info: ModelInfo) -> bool:
    """Whether `atd.load(info.name)` would succeed without a request."""
    if placed_file(info.name).is_file():
        return True
    pinned = official_repository(info)
    return pinned is not None and isinstance(_cached(*pinned, f"{info.name}/{WEIGHTS_FILE}"), str)


def split_repository(text: str) -> tuple[str, str | None] | None:
    """(`org/repo`, revision or None) of `org/repo[@revision]`; None when `text` is not of that form."""
    match = _REPOSITORY.fullmatch(text)
    return (match["id"], match["revision"]) if match else None


def official_repository(info: ModelInfo, revision: str | None = None) -> tuple[str, str] | None:
    """Repository and pinned revision of the official weights; None unless both are known, so that nothing floats.

    The revision is the argument, else the one in ATD_HUB_REPO, else the one of the registry.
    """
    text = os.environ.get("ATD_HUB_REPO")
    if not text:
        return None
    parts = split_repository(text)
    if parts is None:
        raise LoadError(f"ATD_HUB_REPO is {text!r}; expected org/repo or org/repo@revision.")
    repository, named = parts
    pinned = revision or named or (info.sources.hub.revision if info.sources.hub else None)
    return (repository, pinned) if pinned else None


def official_file(info: ModelInfo, repository: str, revision: str, *, local_files_only: bool = False) -> Path:
    """The official weights of `info` in `repository`, checked against the registry's SHA-256 where it has one."""
    pinned = info.sources.hub
    sha256 = pinned.sha256 if pinned and pinned.revision == revision else None
    name = f"{info.name}/{WEIGHTS_FILE}"
    return hub_file(repository, revision, name, sha256=sha256, local_files_only=local_files_only)


def hub_file(
    repository: str, revision: str, filename: str, *, sha256: str | None = None, local_files_only: bool = False
) -> Path:
    """Path in the cache of a repository's file. No request is made when it is there; a wrong file is never kept.

    The content is checked against `sha256`, and against the hash by which the hub names large files. Raises
    `MissingFileError` when the repository lacks the file, `LoadError` when it cannot be had for another reason.
    """
    from huggingface_hub import _CACHED_NO_EXIST

    cached = _cached(repository, revision, filename)
    if cached is _CACHED_NO_EXIST:
        raise MissingFileError(f"The hub repository {repository} has no file {filename} at {revision}.")
    if isinstance(cached, str):
        path = Path(cached)
    else:
        if local_files_only or offline():
            why = "local_files_only=True" if local_files_only else "HF_HUB_OFFLINE"
            raise LoadError(
                f"{repository}@{revision} has no {filename} in the cache {hub_cache()} and {why} forbids fetching it; "
                "load it once with a connection, or give the path of a local copy."
            )
        path = _download(repository, revision, filename)
    _check_hash(path, sha256, f"{filename} of {repository}@{revision}")
    return path


def _cached(repository: str, revision: str, filename: str) -> object:
    """Path of the file in the cache, `_CACHED_NO_EXIST` when the repository is known to lack it, else None."""
    from huggingface_hub import try_to_load_from_cache

    return try_to_load_from_cache(repository, filename, cache_dir=hub_cache(), revision=revision)


def _download(repository: str, revision: str, filename: str) -> Path:
    # Its annotations do not say what a dict of theirs holds.
    from huggingface_hub import hf_hub_download  # pyright: ignore[reportUnknownVariableType]
    from huggingface_hub.errors import (
        EntryNotFoundError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(
            hf_hub_download(repository, filename, revision=revision, cache_dir=hub_cache(), endpoint=endpoint())
        )
    except RevisionNotFoundError as error:
        raise LoadError(f"The hub repository {repository} has no revision {revision}.") from error
    except RepositoryNotFoundError as error:
        raise LoadError(
            f"There is no hub repository {repository} (nor such a path), or it is private and HF_TOKEN does not open "
            "it."
        ) from error
    except LocalEntryNotFoundError as error:  # before its base class EntryNotFoundError: the server was not reached
        raise LoadError(
            f"The hub could not be reached for {filename} of {repository}@{revision}: {_cause(error)}."
        ) from error
    except EntryNotFoundError as error:
        raise MissingFileError(f"The hub repository {repository} has no file {filename} at {revision}.") from error
    except Exception as error:  # the client's own errors and those of whichever HTTP library it uses
        raise LoadError(f"Fetching {filename} of {repository}@{revision} failed: {_cause(error)}.") from error


def _cause(error: BaseException) -> str:
    """The innermost reason in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}".strip().splitlines()[0].rstrip(".: ")


def _check_hash(path: Path, sha256: str | None, what: str) -> None:
    blob = path.resolve()
    expected = {value for value in (sha256, blob.name if _SHA256.fullmatch(blob.name) else None) if value}
    if not expected:
        return
    actual = file_sha256(path)
    if expected != {actual}:
        path.unlink()
        blob.unlink(missing_ok=True)
        raise LoadError(
            f"{what} has the SHA-256 {actual}, expected {' and '.join(sorted(expected))}; the file was removed from "
            f"the cache, so load again to fetch it anew."
        )
