"""`atd list`: the networks and where their weights are, or the checkpoints in a folder."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from atd.cli.streams import one_line
from atd.cli.suggestions import nearest
from atd.errors import InputError

if TYPE_CHECKING:
    from atd.cli.command_parser import Subcommands
    from atd.registry import ModelInfo
    from atd.weights.scan import ScannedFile

CHANNELS = {1: "gray", 3: "RGB"}


def add_parser(subparsers: Subcommands) -> None:
    """Add the command to the parser of `atd`."""
    parser = subparsers.add_parser(
        "list",
        help="list the networks and where their weights are, or the checkpoints in a folder",
        description="List the networks of the registry. The column weights says where they are: bundled (in this "
        "package), cached (on this machine) or to fetch; the column licence has that of each. For a folder or a file, "
        "list the checkpoints in it instead: family, task, scale, parameters and SHA-256.",
        examples=(
            ("atd list", "all networks"),
            ('atd list "atd_light*"', "those whose names begin with atd_light"),
            ("atd list --sources", "where the weights of each come from, with sizes and SHA-256"),
            ("atd list ./checkpoints", "what the weight files in a folder are"),
        ),
        common=("json",),
    )
    parser.add_argument(
        "pattern",
        nargs="?",
        default="*",
        metavar="PATTERN|FOLDER",
        help="shell pattern of the names, e.g. 'atd_u*', or a folder of checkpoints",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--sources", action="store_true", help="list every source of every network instead, in the order they are tried"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit status."""
    from atd import registry

    names = registry.list_models(args.pattern)
    if names and args.sources:
        _list_sources([registry.get(name) for name in names], as_json=args.json)
    elif names:
        _list_networks([registry.get(name) for name in names], as_json=args.json)
    elif Path(args.pattern).exists():
        _list_files(Path(args.pattern), as_json=args.json)
    else:
        near = nearest(args.pattern.strip("*"), registry.list_models())
        hint = f"did you mean {near}?" if near else "atd list shows all."
        raise InputError(f"No network matches {args.pattern!r}, and there is no such folder; {hint}")
    return 0


def _list_networks(infos: Sequence[ModelInfo], *, as_json: bool) -> None:
    from atd import registry

    places = [_places(info) for info in infos]
    if as_json:
        _print_json(
            {
                "name": info.name,
                "architecture": info.architecture,
                "task": info.task.key,
                "level": info.task.level,
                "scale": info.scale,
                "in_channels": info.in_channels,
                "parameters": info.parameters,
                "weights": weights,
                "author": info.author,
                "good_for": info.good_for,
            }
            for info, weights in zip(infos, places, strict=True)
        )
        return
    _print_table(
        ("name", "class", "task", "channels", "parameters", "weights", "licence"),
        [
            (
                info.name,
                info.architecture,
                info.task.label,
                _channels(info.in_channels),
                _millions(info.parameters),
                " + ".join(weights) or "none",
                " + ".join(weights.values()),
            )
            for info, weights in zip(infos, places, strict=True)
        ],
    )
    if any(info.bundled for info in infos):
        print(
            f'\nbundled: small weights trained by this project, weights="bundled" ({registry.BUNDLED_LICENCE}: trained '
            "on images with research terms, see atd/bundled/LICENSE)."
        )
    if community := [info for info in infos if info.attribution]:
        print("\ncommunity networks, trained by others for photos; who passes them on names the author:")
        for info in community:
            print(f"  {info.attribution}: {info.good_for}")


def _list_sources(infos: Sequence[ModelInfo], *, as_json: bool) -> None:
    """A row for each source; whole hashes and addresses, so that they can be copied."""
    rows = [(info, kind, source) for info in infos for kind, source in info.sources.in_order.items()]
    if as_json:
        _print_json(
            {
                "name": info.name,
                "kind": kind,
                "source": source.label,
                "file": source.name,
                "size": source.size,
                "sha256": source.sha256,
                "licence": info.licence,
            }
            for info, kind, source in rows
        )
        return
    _print_table(
        ("name", "source", "bytes", "SHA-256", "licence", "where"),
        [
            (
                info.name,
                kind,
                str(source.size or "unknown"),
                source.sha256 or "unknown",
                info.licence,
                source.label,
            )
            for info, kind, source in rows
        ],
    )
    if own := [info.name for info in infos if not info.sources.in_order]:
        print(f"\nin this package only: {', '.join(own)}")


def _places(info: ModelInfo) -> dict[str, str]:
    """Where `weights="bundled"` and "official" are loaded from, and the licence of each."""
    from atd import registry
    from atd.weights import hub

    places = {"bundled": registry.BUNDLED_LICENCE} if info.bundled else {}
    if hub.is_cached(info):
        places["cached"] = info.licence
    elif info.sources.in_order:
        places["to fetch"] = info.licence
    return places


def _list_files(path: Path, *, as_json: bool) -> None:
    from atd.weights.format import SUFFIXES
    from atd.weights.scan import scan

    files = scan(path)
    if not files:
        raise InputError(f"{path} holds no checkpoint: none of its files ends in {', '.join(SUFFIXES)}")
    if as_json:
        _print_json({**vars(file), "path": str(file.path)} for file in files)
        return
    read = [file for file in files if file.error is None]
    if read:
        _print_table(
            ("file", "class", "task", "channels", "parameters", "network", "SHA-256"),
            [
                (
                    one_line(file.path),
                    str(file.architecture),
                    _work(file),
                    _channels(file.in_channels or 0),
                    _millions(file.parameters or 0),
                    file.name or "-",
                    str(file.sha256),
                )
                for file in read
            ],
        )
    if len(read) < len(files):
        print(f"{chr(10) if read else ''}not one of these networks, or not to be read:")
        for file in files:
            if file.error is not None:
                reason = " ".join(file.error.split())
                print(one_line(f"  {reason if str(file.path) in reason else f'{file.path}: {reason}'}"))


def _work(file: ScannedFile) -> str:
    """What a network is for, as far as its file tells."""
    words = {"sr": "super-resolution", "real": "real-world super-resolution", "denoise": "denoising", "jpeg": "JPEG"}
    label = words.get(file.task or "", "not said: noise or JPEG")
    return f"{label} ×{file.scale}" if file.scale and file.scale > 1 else label


def _channels(number: int) -> str:
    return CHANNELS.get(number, str(number))


def _millions(parameters: int) -> str:
    return f"{parameters / 1e6:.3f} M"


def _print_json(rows: Iterable[dict[str, object]]) -> None:
    print(json.dumps(list(rows), indent=2))


def _print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    rows = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
