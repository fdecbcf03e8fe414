"""Which network `atd restore --real` takes: one for photos of unknown faults, whose weights are here already."""

from __future__ import annotations

from typing import Literal, NamedTuple

from atd import registry
from atd.errors import LoadError
from atd.registry import ModelInfo
from atd.tasks import RealWorld
from atd.weights import hub


class PhotoNetwork(NamedTuple):
    """A network for photos that `atd.load(name, weights=weights)` gives without a request.

    name     in the registry
    weights  "bundled" or "official"
    reason   why this one, in words
    """

    name: str
    weights: Literal["bundled", "official"]
    reason: str


def network_for_photos() -> PhotoNetwork:
    """The bundled network for photos; without one, the first of the registry that is on this machine.

    Nothing is fetched: a community network has 80 MB, and its licence asks that its author is named, so that its user
    should have chosen it. Networks for clean photos, which undo no fault, are never taken.

    Raises:
        LoadError: there is none; the message names the networks that can be had, and the command for one of them.
    """
    rows = [registry.get(name) for name in registry.list_models()]
    photos = [row for row in rows if isinstance(row.task, RealWorld)]
    for row in photos:
        if row.bundled:
            return PhotoNetwork(row.name, "bundled", "it is in this package")
    with_faults = [row for row in photos if row.faults]
    for row in with_faults:
        if hub.is_cached(row):
            return PhotoNetwork(row.name, "official", "the first network for photos that is on this machine")
    # Those whose address is certain: the authors' own file has no known checksum yet.
    named = [row for row in with_faults if row.attribution]
    raise LoadError(
        "--real: this package holds no network for photos yet, and none is on this machine. Community networks, "
        f"fetched only when you name one: {'; '.join(map(_described, named))}. For example: "
        f"`atd restore -i INPUT -o OUTPUT -n {named[0].name}`, or `atd download {named[0].name}` and then --real."
    )


def _described(row: ModelInfo) -> str:
    source = next(iter(row.sources.in_order.values()), None)
    size = f", {source.size / 1e6:.0f} MB" if source is not None and source.size else ""
    return f"{row.name} ({row.good_for}{size})"
