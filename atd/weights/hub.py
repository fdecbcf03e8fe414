"""Weight files from this machine's cache or from a hub repository. The environment is read at every call.

The cache of hub files is the one that huggingface_hub keeps, in its layout, and is read by it. Files are put there by
us: huggingface_hub (seen in 2.4) makes paths of the ETags that a server gives, which may lead out of the cache.

ATD_HOME            folder of converted weights, `<name>/model.safetensors` (default: `atd` inside HF_HOME)
ATD_HUB_REPO        `org/repo[@revision]`: the hub repository that holds the official weights under the same paths
HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN   as in huggingface_hub
"""

import contextlib
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from urllib.parse import quote

from atd.errors import LoadError
from atd.registry import ModelInfo
from atd.system import atomic_write, expand_user
from atd.weights.integrity import file_sha256
from atd.weights.transfer import IncompleteFile, Received, StatusError, UnreachableError, Wanted, fetch, incomplete_file

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
CARD_FILE = "README.md"

HUB = "https://huggingface.co"
"""The hub, where HF_ENDPOINT names no other."""

MOST_BYTES = 4 << 30
"""Bytes that are read at most of a weight file that no row of the registry knows; the largest published one has 0.2."""
_MOST_OF_CONFIG = 1 << 20

_REPOSITORY = re.compile(r"(?P<id>[\w-][\w.-]*/[\w-][\w.-]*)(?:@(?P<revision>[\w./-]+))?", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")


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


@dataclass(frozen=True, kw_only=True)
class HubCopy:
    """Official weights of a network in a hub repository: which file of which revision, and what is known of it."""

    repository: str
    revision: str
    filename: str
    sha256: str | None = None
    size: int | None = None


def copies(info: ModelInfo, revision: str | None = None) -> list[HubCopy]:
    """The pinned copies of the official weights, in the order in which they are asked for.

    First the one in ATD_HUB_REPO, then the one that the registry knows. `revision` takes the place of the pinned ones.
    """
    found: list[HubCopy] = []
    row = info.sources.hub
    if pinned := official_repository(info, revision):
        known = row if row and row.repository is None and row.revision == pinned[1] else None
        found.append(
            HubCopy(
                repository=pinned[0],
                revision=pinned[1],
                filename=f"{info.name}/{WEIGHTS_FILE}",
                sha256=known and known.sha256,
                size=known and known.size,
            )
        )
    if row and row.repository and row.name:
        same = revision in (None, row.revision)
        found.append(
            HubCopy(
                repository=row.repository,
                revision=revision or row.revision,
                filename=row.name,
                sha256=row.sha256 if same else None,
                size=row.size if same else None,
            )
        )
    return found


def is_cached(info: ModelInfo) -> bool:
    """Whether `atd.load(info.name)` would succeed without a request."""
    return placed_file(info.name).is_file() or any(
        isinstance(_cached(copy.repository, copy.revision, copy.filename), str) for copy in copies(info)
    )


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
    own = info.sources.hub.revision if info.sources.hub and info.sources.hub.repository is None else None
    pinned = revision or named or own
    return (repository, pinned) if pinned else None


def official_file(info: ModelInfo, copy: HubCopy, *, local_files_only: bool = False) -> Path:
    """A copy of the official weights of `info`, checked against what the registry knows of it."""
    return hub_file(
        copy.repository,
        copy.revision,
        copy.filename,
        sha256=copy.sha256,
        size=copy.size,
        most=info.largest_file,
        local_files_only=local_files_only,
    )


def hub_file(
    repository: str,
    revision: str,
    filename: str,
    *,
    sha256: str | None = None,
    size: int | None = None,
    most: int = MOST_BYTES,
    local_files_only: bool = False,
) -> Path:
    """Path in the cache of a repository's file. No request is made when it is there; a wrong file is never kept.

    The content is checked against `sha256` and `size`, and against the hash by which the hub names large files; `most`
    bytes are read at most. Raises `MissingFileError` when the repository lacks the file, `LoadError` when it cannot be
    had for another reason.
    """
    from huggingface_hub import _CACHED_NO_EXIST

    label = f"{filename} of {repository}@{revision}"
    if any(part in ("", ".", "..") for part in revision.split("/")):
        raise LoadError(f"The revision {revision!r} of {repository} is none; expected a commit, a tag or a branch.")
    cached = _cached(repository, revision, filename)
    if cached is _CACHED_NO_EXIST:
        raise MissingFileError(f"The hub repository {repository} has no file {filename} at {revision}.")
    if isinstance(cached, str):
        return _checked(Path(cached), sha256, label)
    if local_files_only or offline():
        why = "local_files_only=True" if local_files_only else "HF_HUB_OFFLINE"
        raise LoadError(
            f"{repository}@{revision} has no {filename} in the cache {hub_cache()} and {why} forbids fetching it; "
            "load it once with a connection, or give the path of a local copy."
        )
    wanted = Wanted(
        label=label,
        address=_address(repository, revision, filename),
        most=most if filename.endswith(".safetensors") else _MOST_OF_CONFIG,
        size=size,
        sha256=sha256,
        headers=_headers(),
        hub=endpoint(),
    )
    return _download(_Place(repository, revision, filename), wanted)


def _address(repository: str, revision: str, filename: str) -> str:
    server = (endpoint() or HUB).rstrip("/")
    return f"{server}/{repository}/resolve/{quote(revision, safe='')}/{quote(filename)}"


def _cached(repository: str, revision: str, filename: str) -> object:
    """Path of the file in the cache, `_CACHED_NO_EXIST` when the repository is known to lack it, else None."""
    # Asked without the client first: `atd list` asks this of every network, and should not wait for its import.
    if not _folder_of(repository).is_dir():
        return None
    from huggingface_hub import try_to_load_from_cache

    return try_to_load_from_cache(repository, filename, cache_dir=hub_cache(), revision=revision)


def _folder_of(repository: str) -> Path:
    return hub_cache() / f"models--{repository.replace('/', '--')}"


def _headers() -> Mapping[str, str]:
    """Those that huggingface_hub sends, with the token where there is one."""
    # Its annotations do not say what a dict of theirs holds.
    from huggingface_hub.utils import build_hf_headers  # pyright: ignore[reportUnknownVariableType]

    return build_hf_headers(library_name="atd-restoration")


@dataclass(frozen=True)
class _Place:
    """Where a file of a repository lies in the cache. No name in it is one that a server has given."""

    repository: str
    revision: str
    filename: str

    @property
    def storage(self) -> Path:
        return _folder_of(self.repository)

    @property
    def incomplete(self) -> Path:
        key = hashlib.sha256(f"{self.revision}/{self.filename}".encode()).hexdigest()
        return self.storage / "blobs" / f"{key}.incomplete"

    def keep(self, file: IncompleteFile, received: Received, commit: str) -> Path:
        """Put a whole file into the cache; the name under which it is found comes last."""
        blob, found = self.storage / "blobs" / received.sha256, self.storage / "snapshots" / commit / self.filename
        file.move(blob)
        found.parent.mkdir(parents=True, exist_ok=True)
        found.unlink(missing_ok=True)  # a link that leads nowhere
        try:
            found.symlink_to(os.path.relpath(blob, found.parent))
        except FileExistsError:  # by another revision of the same commit
            pass
        except (OSError, NotImplementedError):  # no links here
            os.replace(blob, found)
        if commit != self.revision:
            reference = self.storage / "refs" / self.revision
            reference.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(reference) as temporary:
                temporary.write_text(commit, encoding="utf-8")
        return found

    def keep_absence(self, commit: str) -> None:
        """Remember that the commit has no such file."""
        path = self.storage / ".no_exist" / commit / self.filename
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()


def _download(place: _Place, wanted: Wanted) -> Path:
    """Fetch a file into the cache.

    Raises:
        LoadError: it cannot be had.
    """
    repository, revision, filename = place.repository, place.revision, place.filename
    try:
        with incomplete_file(place.incomplete, wanted.label) as file:
            cached = _cached(repository, revision, filename)  # by the process that was waited for
            if isinstance(cached, str):
                return _checked(Path(cached), wanted.sha256, wanted.label)
            received = fetch(wanted, file)
            if received.answer is None:  # interrupted when it was whole: of which commit it is, nobody knows any more
                file.discard()
                received = fetch(wanted, file)
            own = received.answer.own if received.answer else []
            named = next((tag for name in ("X-Linked-Etag", "ETag") for tag in _tags(own, name)), None)
            if named not in (None, received.sha256):
                file.discard()
                raise LoadError(
                    f"{wanted.label} has the SHA-256 {received.sha256}, expected {named}, by which the hub names it: "
                    "nothing was kept."
                )
            commit = _commit(revision, own)
            if commit is None:
                file.discard()
                raise LoadError(f"The hub does not say of which commit {wanted.label} is; name a commit.")
            return place.keep(file, received, commit)
    except StatusError as error:
        with contextlib.suppress(OSError):
            place.storage.rmdir()
        raise _refusal(place, error) from error
    except UnreachableError as error:
        raise LoadError(f"The hub could not be reached for {error}") from error


def _refusal(place: _Place, error: StatusError) -> LoadError:
    """The sentence for the hub's answer."""
    repository, revision, filename = place.repository, place.revision, place.filename
    status, code = error.answer.status, error.answer.headers.get("X-Error-Code")
    if code == "RevisionNotFound":
        return LoadError(f"The hub repository {repository} has no revision {revision}.")
    if code == "EntryNotFound":
        if commit := _commit(revision, error.answer.own):
            place.keep_absence(commit)
        return MissingFileError(f"The hub repository {repository} has no file {filename} at {revision}.")
    if code == "GatedRepo":
        return LoadError(
            f"The hub repository {repository} is open to those who have agreed to its terms: agree to them at "
            f"{HUB}/{repository} and set HF_TOKEN."
        )
    if code == "RepoNotFound" or status in (401, 404):
        return LoadError(
            f"There is no hub repository {repository} (nor such a path), or it is private and HF_TOKEN does not open "
            "it."
        )
    return LoadError(f"Fetching {filename} of {repository}@{revision} failed: {error}")


def _commit(revision: str, headers: Sequence[Message]) -> str | None:
    """The commit that a revision is: itself, or what the hub says."""
    said = (answer.get("X-Repo-Commit", "") for answer in headers)
    return next((commit for commit in (revision, *said) if _COMMIT.fullmatch(commit)), None)


def _tags(headers: Sequence[Message], name: str) -> list[str]:
    """SHA-256s among the tags that the hub gives a file."""
    tags = (answer.get(name, "").removeprefix("W/").strip('"') for answer in headers)
    return [tag for tag in tags if _SHA256.fullmatch(tag)]


def _checked(path: Path, sha256: str | None, what: str) -> Path:
    """A file of the cache, compared with the hash that is known of it and the one that it is called by."""
    blob = path.resolve()
    expected = {value for value in (sha256, blob.name if _SHA256.fullmatch(blob.name) else None) if value}
    if expected and expected != {actual := file_sha256(path)}:
        path.unlink()
        blob.unlink(missing_ok=True)
        raise LoadError(
            f"{what} has the SHA-256 {actual}, expected {' and '.join(sorted(expected))}; the file was removed from "
            f"the cache, so load again to fetch it anew."
        )
    return path
