"""What an exported file says of its network."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import torch
from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType]  (of a path's type)

from atd import registry
from atd.models import RestorationModel
from atd.registry import BUNDLED_LICENCE
from atd.restoration.streaming import fingerprint
from atd.runtime.metadata import Metadata
from atd.system.extras import DISTRIBUTION
from atd.weights.detection import INDEX_BUFFER


def describe(
    network: RestorationModel,
    *,
    dtype: torch.dtype,
    size: tuple[int, int] | None,
    licence: str | None,
) -> Metadata:
    """The entries for `network` as it was loaded, before its copy for `dtype`."""
    return Metadata(
        name=network.name or network.architecture,
        architecture=network.architecture,
        task=network.task,
        scale=network.scale,
        channels=network.in_channels,
        size_multiple=network.size_multiple,
        static_size="" if size is None else f"{size[0]}x{size[1]}",
        dtype=str(dtype).removeprefix("torch."),
        licence=BUNDLED_LICENCE if _is_bundled(network) else licence or "",
        weights_sha256=fingerprint(network),
        atd_version=_version(),
    )


def _version() -> str:
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:  # a source tree that is on the path without being installed
        return ""


def _is_bundled(network: RestorationModel) -> bool:
    """Whether these are the weights inside the package: they carry their own notice wherever they go."""
    row = registry.find(network.name)
    if row is None or not row.bundled:
        return False
    own = {key: value for key, value in network.state_dict().items() if not key.endswith(INDEX_BUFFER)}
    bundled = load_file(row.bundled_path)
    return own.keys() == bundled.keys() and all(
        torch.equal(own[key].cpu().to(value.dtype), value) for key, value in bundled.items()
    )
