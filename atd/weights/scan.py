"""What checkpoints lie in a folder: network, task, scale, size and hash of each, or why it cannot be read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from atd import registry
from atd.errors import LoadError
from atd.tasks import RealWorld, SuperResolution
from atd.weights.description import whole_number
from atd.weights.detection import INDEX_BUFFER, detect
from atd.weights.format import SUFFIXES, WeightFile, read_weights
from atd.weights.integrity import file_sha256


@dataclass(frozen=True, kw_only=True)
class ScannedFile:
    """One weight file.

    path          the file
    error         why it cannot be read, or is none of these networks; what is below is None then
    architecture  class in `atd.models`
    name          what it says it is called, whose source has this very file, or the only registered network of its
                  shape; None: none of these
    task          key of `atd.tasks`; None where neither file nor shape tells
    scale         of the network: output side / input side
    in_channels   1 gray, 3 RGB
    parameters    number of trainable values
    sha256        of the whole file
    """

    path: Path
    error: str | None = None
    architecture: str | None = None
    name: str | None = None
    task: str | None = None
    scale: int | None = None
    in_channels: int | None = None
    parameters: int | None = None
    sha256: str | None = None


def scan(path: Path) -> list[ScannedFile]:
    """The weight files below a folder, or the one file, sorted by path. Pickles are read as safely as in `atd.load`."""
    return [_scan_file(file, obstacle) for file, obstacle in sorted(_weight_files(path))]


def _weight_files(path: Path) -> Iterator[tuple[Path, str]]:
    """Weight files, and folders that cannot be read with the reason; hidden ones and linked folders are left out."""
    if path.is_file():
        yield path, ""
        return
    unreadable: list[OSError] = []
    for folder, folders, names in os.walk(path, onerror=unreadable.append):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            file = Path(folder, name)
            if file.suffix.lower() in SUFFIXES and not name.startswith("."):
                try:
                    yield file, "" if file.is_file() else "it is no regular file"
                except OSError as error:
                    yield file, error.strerror or str(error)
    for error in unreadable:
        yield Path(error.filename), f"the folder cannot be read: {error.strerror}"


def _scan_file(path: Path, obstacle: str) -> ScannedFile:
    if obstacle:
        return ScannedFile(path=path, error=obstacle)
    try:
        weight_file = read_weights(path)
        return _described(path, weight_file, file_sha256(path))
    except LoadError as error:
        return ScannedFile(path=path, error=str(error))
    except OSError as error:
        return ScannedFile(path=path, error=error.strerror or str(error))
    except Exception as error:  # files of strangers: whatever one of them meets, the others are listed
        return ScannedFile(path=path, error=f"{type(error).__name__}: {error}")


def _described(path: Path, weight_file: WeightFile, sha256: str) -> ScannedFile:
    """From a file that was read; what it says of itself must be what its tensors are."""
    architecture, config = weight_file.architecture, weight_file.config
    detected, shapes = detect(weight_file.state_dict)
    if detected != architecture:
        raise LoadError(f"{path} says that it holds {architecture}, and its tensors are those of {detected}.")
    scale = whole_number(shapes, "upscale", 1)
    if scale != whole_number(config, "upscale", 1):
        raise LoadError(f"{path} says that it enlarges {config.get('upscale')} times, and its tensors {scale} times.")
    named = weight_file.name or registry.name_of_content(sha256) or _only_name(architecture, config)
    row = registry.find(named)
    task = weight_file.task or (row.task.key if row else None)
    if task is None and scale > 1:
        task = RealWorld.key if architecture == "ATDReal" else SuperResolution.key
    return ScannedFile(
        path=path,
        architecture=architecture,
        name=named,
        task=task,
        scale=scale,
        in_channels=whole_number(shapes, "in_chans", 3),
        parameters=sum(
            tensor.numel() for key, tensor in weight_file.state_dict.items() if not key.endswith(INDEX_BUFFER)
        ),
        sha256=sha256,
    )


def _only_name(architecture: str, config: dict[str, object]) -> str | None:
    """The registered network of these settings, where there is only one: those for noise or JPEG share theirs."""
    names = registry.names_of(architecture, config)
    return names[0] if len(names) == 1 else None
