"""`atd download`: fetch official weights and place them in the cache."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from atd.cli.networks import chosen_names
from atd.cli.streams import say

if TYPE_CHECKING:
    from atd.cli.command_parser import Subcommands


def add_parser(subparsers: Subcommands) -> None:
    """Add the command to the parser of `atd`."""
    from atd.registry import ANY_SOURCE, SOURCE_KINDS

    parser = subparsers.add_parser(
        "download",
        help="fetch official weights into the cache",
        description="Fetch official weights, check that they fit their network, convert them and place them in the "
        "cache; afterwards atd.load(NAME) makes no request. Weights that are there already are left alone.",
        common=("source",),
        examples=(
            ("atd download atd_sr_x4", "fetch one network from the first of its sources that has it"),
            ('atd download "atd_u_*" --from drive', "fetch all that fit a pattern, from the authors' Google Drive"),
        ),
        epilog="A download that broke off goes on where it was. atd info NAME shows the sources of a network. None "
        "could be tried against the real Google Drive, GitHub or Hugging Face; Drive may refuse a file after many "
        "downloads: then download it in a browser and use atd convert.",
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help="names or patterns of atd list, or all")
    parser.add_argument(
        "--from",
        dest="source",
        choices=(ANY_SOURCE, *SOURCE_KINDS),
        default=ANY_SOURCE,
        help="any: the first that has it (default); hub: ATD_HUB_REPO=org/repo@revision or the network's own "
        "repository; https: an address; drive: the authors' Google Drive",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit status."""
    from atd import loading
    from atd.errors import sentence_for

    failed = 0
    for name in chosen_names(args.names):
        try:
            print(f"{name}: {loading.download(name, args.source)}")
        except Exception as error:
            if (sentence := sentence_for(error)) is None:
                raise
            failed += 1
            say(f"{name}: failed: {sentence}")
    return 1 if failed else 0
