"""`atd download`: fetch official weights and place them in the cache."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from atd.cli.streams import say

if TYPE_CHECKING:
    from atd.cli.command_parser import Subcommands


def add_parser(subparsers: Subcommands) -> None:
    """Add the command to the parser of `atd`."""
    parser = subparsers.add_parser(
        "download",
        help="fetch official weights into the cache",
        description="Fetch official weights, check that they fit their network, convert them and place them in the "
        "cache; afterwards atd.load(NAME) makes no request. Weights that are there already are left alone.",
        common=("source",),
        examples=(
            ("atd download atd_sr_x4", "fetch one network"),
            ('atd download "atd_u_*" --from drive', "fetch all that fit a pattern, from the authors' Google Drive"),
        ),
        epilog="--from drive uses gdown (pip install atd-restoration[drive]). It follows gdown's documented interface "
        "and could not be tried against the real Google Drive, which may refuse a file after many downloads; then "
        "download the file in a browser and use atd convert.",
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help="names or patterns of atd list, or all")
    parser.add_argument(
        "--from",
        dest="source",
        choices=("hub", "drive"),
        default="hub",
        help="hub: the repository ATD_HUB_REPO=org/repo@revision (default); drive: the authors' Google Drive",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit status."""
    from atd import loading, registry
    from atd.errors import sentence_for

    chosen: dict[str, None] = {}
    for pattern in args.names:
        names = registry.list_models("*" if pattern == "all" else pattern)
        if not names:
            raise registry.unknown_name(pattern)
        chosen.update(dict.fromkeys(names))
    failed = 0
    for name in chosen:
        try:
            print(f"{name}: {loading.download(name, args.source)}")
        except Exception as error:
            if (sentence := sentence_for(error)) is None:
                raise
            failed += 1
            say(f"{name}: failed: {sentence}")
    return 1 if failed else 0
