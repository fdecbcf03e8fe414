"""`atd list`: the networks, and where their weights are."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from atd.cli.suggestions import nearest
from atd.errors import InputError

if TYPE_CHECKING:
    from atd.cli.command_parser import Subcommands


def add_parser(subparsers: Subcommands) -> None:
    """Add the command to the parser of `atd`."""
    parser = subparsers.add_parser(
        "list",
        help="list the networks and where their weights are",
        description="List the networks of the registry. The column weights says where they are: bundled (in this "
        "package), cached (on this machine) or to fetch; the column licence has that of each.",
        examples=(
            ("atd list", "all networks"),
            ('atd list "atd_light*"', "those whose names begin with atd_light"),
        ),
    )
    parser.add_argument(
        "pattern", nargs="?", default="*", metavar="PATTERN", help="shell pattern of the names, e.g. 'atd_u*'"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit status."""
    from atd import registry
    from atd.weights import hub

    names = registry.list_models(args.pattern)
    if not names:
        near = nearest(args.pattern.strip("*"), registry.list_models())
        hint = f"did you mean {near}?" if near else "atd list shows all."
        raise InputError(f"No network matches {args.pattern!r}; {hint}")
    rows = [("name", "class", "task", "channels", "parameters", "weights", "licence")]
    infos = [registry.get(name) for name in names]
    for info in infos:
        # What `weights="bundled"` and "official" load, and under which licence.
        places = {"bundled": registry.BUNDLED_LICENCE} if info.bundled else {}
        if hub.is_cached(info):
            places["cached"] = info.licence
        elif info.sources.drive or info.sources.hub:
            places["to fetch"] = info.licence
        weights, licence = " + ".join(places) or "none", " + ".join(places.values())
        channels = {1: "gray", 3: "RGB"}.get(info.in_channels, str(info.in_channels))
        size = f"{info.parameters / 1e6:.3f} M"
        rows.append((info.name, info.architecture, info.task.label, channels, size, weights, licence))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if any(info.bundled for info in infos):
        print(
            f'\nbundled: small weights trained by this project, weights="bundled" ({registry.BUNDLED_LICENCE}: trained '
            "on images with research terms, see atd/bundled/LICENSE)."
        )
    return 0
