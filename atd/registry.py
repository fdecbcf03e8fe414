"""The table of networks: what each name means, where its weights are, what its paper reports.

Everything that depends on a model's name reads this table: `atd.list_models`, `atd.create`, `atd.load`, the command
line, hubconf.py and the tables of the documentation. The rows lie in registry.toml beside this file. The table knows
names of classes, but no class.
"""

from __future__ import annotations

import difflib
import fnmatch
import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from atd.errors import LoadError
from atd.tasks import Denoising, JpegArtefacts, Task, make_task

BUNDLED_LICENCE = "LicenseRef-ATD-Bundled-Weights"
"""SPDX name of the notice atd/bundled/LICENSE: bundled weights were trained on images with research terms."""

LICENCE_TEXTS = {"CC-BY-4.0": "https://creativecommons.org/licenses/by/4.0/"}
"""Where licences are that ask for a link to their text."""

_FOLDER = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class HubFile:
    """A file in a hub repository, pinned.

    revision    commit hash
    repository  `org/repo`; None: the one that ATD_HUB_REPO names, with the file `<name>/model.safetensors`
    name        the file's name in it
    sha256      of the content, where it is known
    size        in bytes, where it is known
    """

    revision: str
    repository: str | None = None
    name: str | None = None
    sha256: str | None = None
    size: int | None = None

    @property
    def label(self) -> str:
        """Where it is, in words."""
        return f"{self.repository or 'ATD_HUB_REPO'} @ {self.revision}"


@dataclass(frozen=True, kw_only=True)
class HttpsFile:
    """A file at an address.

    url     its address
    sha256  of the content, where it is known
    size    in bytes, where it is known
    """

    url: str
    sha256: str | None = None
    size: int | None = None

    @property
    def name(self) -> str:
        """The file's name."""
        return self.url.rpartition("/")[2]

    @property
    def label(self) -> str:
        """Where it is, in words."""
        return self.url


@dataclass(frozen=True, kw_only=True)
class DriveFile:
    """A checkpoint in the authors' Google Drive.

    folder  id of the public folder
    name    the file's name in it
    id      the file's own id, where it is known
    sha256  of the content, where it is known
    size    in bytes, where it is known
    """

    folder: str
    name: str
    id: str | None = None
    sha256: str | None = None
    size: int | None = None

    @property
    def folder_url(self) -> str:
        """Address of the folder, for a browser."""
        return f"https://drive.google.com/drive/folders/{self.folder}"

    @property
    def label(self) -> str:
        """Where it is, in words."""
        place = f"file {self.id}" if self.id else f"folder {self.folder}"
        return f"Google Drive, {place}, {self.name}"


Source = HubFile | HttpsFile | DriveFile
SOURCE_KINDS = ("hub", "https", "drive")
"""Kinds of sources, in the order in which they are tried once the cache has been looked into."""
ANY_SOURCE = "any"
"""Stands for the first source that has the weights, whatever its kind."""


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Where the official weights of a network can be had."""

    hub: HubFile | None = None
    https: HttpsFile | None = None
    drive: DriveFile | None = None

    @property
    def in_order(self) -> dict[str, Source]:
        """Those that there are, by their kind, in the order of `SOURCE_KINDS`."""
        own: dict[str, Source | None] = {"hub": self.hub, "https": self.https, "drive": self.drive}
        return {kind: source for kind in SOURCE_KINDS if (source := own[kind]) is not None}


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """One row of the table.

    name          registry name, such as "atd_light_sr_x4"
    architecture  class in `atd.models`: "ATD", "ATDU", "ATDCVPR" or "ATDReal"
    task          what it is for, with its scale, sigma or quality (None there: of any strength)
    in_channels   3 (RGB) or 1 (gray)
    config        constructor keywords of the class (treat as read-only)
    parameters    number of trainable values (index buffers not counted)
    sources       where the official weights are
    scores        published results, {test set: (PSNR in dB, SSIM or None)}, under the protocol of `atd.evaluation`
    licence       SPDX name of the licence of the official weights
    paper         where the network was published
    author        who trained a community network and is to be named; None: the authors of the paper, or this project
    good_for      what it was made for, in its author's words; None: `task` says it
    faults        of photos for unknown faults, those that the network was trained to undo: "blur", "noise", "jpeg",
                  "webp"; none of them for clean photos; None: not a network for photos
    jpeg_from     the lowest JPEG quality that is meant by "jpeg"
    """

    name: str
    architecture: str
    task: Task
    config: dict[str, Any]
    parameters: int
    paper: str
    in_channels: int = 3
    sources: Sources = field(default_factory=Sources)
    scores: dict[str, tuple[float, float | None]] = field(default_factory=dict[str, tuple[float, float | None]])
    licence: str = "Apache-2.0"
    author: str | None = None
    good_for: str | None = None
    faults: tuple[str, ...] | None = None
    jpeg_from: int = 1

    @property
    def attribution(self) -> str | None:
        """Who is to be named with a community network and under which licence, as CC-BY asks; None for others."""
        if self.author is None:
            return None
        where = f"https://huggingface.co/{hub.repository}" if (hub := self.sources.hub) and hub.repository else None
        link = f" ({LICENCE_TEXTS[self.licence]})" if self.licence in LICENCE_TEXTS else ""
        return f"{self.name} by {self.author}, licence {self.licence}{link}{f', {where}' if where else ''}"

    @property
    def largest_file(self) -> int:
        """Bytes that no checkpoint of this network has: two sets of float32 weights, twice over, and 16 MiB."""
        return 16 * self.parameters + (16 << 20)

    @property
    def scale(self) -> int:
        """Output side / input side; 1 for restoration at the same size."""
        return self.task.scale

    @property
    def sigma(self) -> float | None:
        """Standard deviation of the noise a denoiser was trained for, in units of 1/255; None: any, or no denoiser."""
        return self.task.sigma if isinstance(self.task, Denoising) else None

    @property
    def quality(self) -> int | None:
        """JPEG quality a JPEG network was trained for; None: any, or no JPEG network."""
        return self.task.quality if isinstance(self.task, JpegArtefacts) else None

    @property
    def bundled_path(self) -> Path:
        """Where the weights inside the package would be; the file exists for the few that are bundled."""
        return _FOLDER / "bundled" / f"{self.name}.safetensors"

    @property
    def bundled(self) -> bool:
        """Whether `weights="bundled"` exists for this network."""
        return self.bundled_path.is_file()


@functools.cache
def _table() -> dict[str, ModelInfo]:
    content = tomllib.loads((_FOLDER / "registry.toml").read_text(encoding="utf-8"))
    return {row["name"]: _row(row, content["families"], content["papers"]) for row in content["networks"]}


def _row(row: dict[str, Any], families: dict[str, Any], papers: dict[str, Any]) -> ModelInfo:
    family, paper = families[row["family"]], papers[row["paper"]]
    config = {**family["config"], **row["config"]}
    hub, https, drive = row.get("hub"), row.get("https"), row.get("drive")
    return ModelInfo(
        name=row["name"],
        architecture=family["architecture"],
        task=make_task(row["task"], scale=row.get("scale", 1), sigma=row.get("sigma"), quality=row.get("quality")),
        config=config,
        parameters=row["parameters"],
        paper=paper["citation"],
        in_channels=config.get("in_chans", 3),
        sources=Sources(
            hub=HubFile(**hub) if hub else None,
            https=HttpsFile(**https) if https else None,
            drive=DriveFile(folder=paper["drive_folder"], **drive) if drive else None,
        ),
        scores={name: (psnr, *ssim) if ssim else (psnr, None) for name, (psnr, *ssim) in row.get("scores", {}).items()},
        licence=row.get("licence", "Apache-2.0"),
        author=row.get("author"),
        good_for=row.get("good_for"),
        faults=tuple(row["faults"]) if "faults" in row else None,
        jpeg_from=row.get("jpeg_from", 1),
    )


def list_models(pattern: str = "*") -> list[str]:
    """Names of the table that match a shell-style `pattern`, in the table's order."""
    return [name for name in _table() if fnmatch.fnmatchcase(name, pattern)]


def get(name: str) -> ModelInfo:
    """The row of `name`; `LoadError` names the nearest ones when there is none."""
    try:
        return _table()[name]
    except KeyError:
        raise unknown_name(name) from None


def bundled_for(info: ModelInfo) -> ModelInfo | None:
    """A network with weights inside this package for the work of `info`: itself, or one of the same task and scale.

    None where there is none. No colour denoiser stands for a gray one: gray noise is other noise.
    """
    if info.bundled:
        return info
    for row in _table().values():
        same = row.task.key == info.task.key and row.scale == info.scale and row.task.level in (None, info.task.level)
        if row.bundled and same and (row.in_channels == info.in_channels or not isinstance(info.task, Denoising)):
            return row
    return None


def find(name: str | None) -> ModelInfo | None:
    """The row of `name`; None when there is none, or no name."""
    return _table().get(name) if name else None


def match(name: str | None, architecture: str, config: Mapping[str, Any]) -> str | None:
    """`name`, when the table knows the network of these constructor keywords by it; else None.

    The one answer to the question whether a network is a registered one. The weights play no part, and neither do
    keywords that the table leaves at their defaults.

    Args:
        name: the name that the network claims; None claims none.
        architecture: name of its class.
        config: its constructor keywords; tuples and lists are the same.
    """
    row = find(name)
    if row is None or row.architecture != architecture:
        return None
    own = {
        key: list(cast(tuple[Any, ...], value)) if isinstance(value, tuple) else value for key, value in config.items()
    }
    return name if row.config.items() <= own.items() else None


def names_of(architecture: str, config: Mapping[str, Any]) -> list[str]:
    """All names whose networks have these constructor keywords; they differ in their weights alone."""
    return [name for name in _table() if match(name, architecture, config)]


def name_of_content(sha256: str) -> str | None:
    """The network whose source has a file of this SHA-256; None where no source that is known has."""
    for name, row in _table().items():
        if any(source.sha256 == sha256 for source in row.sources.in_order.values()):
            return name
    return None


def unknown_name(name: str) -> LoadError:
    """The error for a name that is not in the table, with the nearest ones."""
    near = difflib.get_close_matches(name, _table(), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "atd.list_models() gives the names."
    return LoadError(f"There is no model named {name!r}; {hint}")
