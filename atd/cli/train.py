"""`atd train`: run a recipe."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

_OVERRIDE = re.compile(r"[a-z_]+(\.[a-z_]+)?=")


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "train",
        help="train a network from a recipe",
        usage="atd train RECIPE --data DIR --out DIR [--resume] [key=value ...] | --list | --show RECIPE",
        description="Train a network from a recipe. Any key that --show prints can be overridden as key=value.",
    )
    parser.add_argument("recipe", nargs="?", metavar="RECIPE", help="recipe id, or a TOML file")
    parser.add_argument("--list", action="store_true", help="one line a recipe, id first")
    parser.add_argument("--show", metavar="RECIPE", help="print a recipe with all its keys")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder the recipe's image folders lie in")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for checkpoints, logs and the trained model")
    parser.add_argument("--resume", action="store_true", help="continue from the newest checkpoint in --out")
    parser.set_defaults(run=run)
    _accept_overrides_anywhere(parser)


def run(args: argparse.Namespace) -> int:
    from atd.training import recipes

    if args.list:
        for name in recipes.names():
            print(f"{name:24s} {recipes.get(name).summary}")
        return 0
    if args.show:
        print(recipes.get(args.show).override(args.overrides).to_toml(), end="")
        return 0
    if not (args.recipe and args.data and args.out):
        raise ValueError("atd train needs a recipe, --data DIR and --out DIR; atd train --list shows the recipes")
    from atd.training import loop

    recipe = recipes.get(args.recipe).override(args.overrides)
    loop.train(recipe, args.data, args.out, resume=args.resume, say=lambda line: print(line, flush=True))
    return 0


def _accept_overrides_anywhere(parser: argparse.ArgumentParser) -> None:
    """argparse takes positional arguments from one place of the command line only; overrides may stand at its end."""
    plain = parser.parse_known_args

    def parse_known_args(args=None, namespace=None):
        overrides = [arg for arg in args or [] if _OVERRIDE.match(arg)]
        rest = [arg for arg in args or [] if not _OVERRIDE.match(arg)]
        namespace, extras = plain(rest, namespace)
        namespace.overrides = overrides
        return namespace, extras

    parser.parse_known_args = parse_known_args
