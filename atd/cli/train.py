"""`atd train`: run a recipe."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from atd.cli import arguments, console, streams
from atd.errors import InputError

if TYPE_CHECKING:
    from atd.cli.command_parser import Subcommands

_OVERRIDE = re.compile(r"[a-z_]+(\.[a-z_]+)?=")


def add_parser(subparsers: Subcommands) -> None:
    """Add the command to the parser of `atd`."""
    parser = subparsers.add_parser(
        "train",
        help="train a network from a recipe",
        usage="atd train RECIPE --data DIR -o DIR [options] | --list | --show RECIPE",
        description="Train a network from a recipe. Any key that --show prints can be set by --set.",
        common=("list", "show", "data", "output", "overrides", "resume"),
        examples=(
            ("atd train laptop_x4 --data photos -o runs/laptop", "a small network in five minutes on a laptop"),
            (
                "atd train 103 --data datasets -o runs/103 --set batch=8 --set amp=bf16",
                "a published training with two keys changed",
            ),
        ),
        rewrite=_named_overrides,
        hint=_recipe_key,
    )
    parser.add_argument("recipe", nargs="?", metavar="RECIPE", help="an id that --list prints, or a TOML file")
    parser.add_argument("--list", action="store_true", help="one line a recipe, id first")
    parser.add_argument("--show", metavar="RECIPE", help="print a recipe with all its keys")
    arguments.add_data(parser, "folder the recipe's image folders lie in")
    arguments.add_output(parser, "folder for checkpoints, logs and the trained model", old=("--out",))
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a key of the recipe, e.g. --set lr=1e-4; may be repeated",
    )
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in --output")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit status."""
    from atd.training import recipes

    if args.list:
        for name in recipes.names():
            print(f"{name:24s} {recipes.get(name).summary}")
        return 0
    if args.show:
        print(recipes.get(args.show).override(args.overrides).to_toml(), end="")
        return 0
    if not (args.recipe and args.data and args.output):
        raise InputError("atd train needs a recipe, --data DIR and --output DIR; atd train --list shows the recipes")
    from atd.training import loop
    from atd.training.interruption import TrainingInterrupted

    recipe = recipes.get(args.recipe).override(args.overrides)
    try:
        loop.train(recipe, args.data, args.output, resume=args.resume, say=lambda line: print(line, flush=True))
    except TrainingInterrupted as interrupted:
        if interrupted.main:
            streams.say(f"atd: {interrupted}; to go on:\n{_resume_command(args, interrupted.processes)}")
        return console.SIGNALLED + interrupted.number
    return 0


def _recipe_key(flag: str) -> str | None:
    """How to set the key of a recipe that was given as a flag."""
    from atd.training import recipes

    key = recipes.meant_key(flag.lstrip("-").replace("-", "_"))
    return f"{flag} is a key of the recipe: --set {key}=VALUE" if key else None


def _resume_command(args: argparse.Namespace, processes: int) -> str:
    """The command that goes on with a training that was interrupted."""
    words = ["train", args.recipe, "--data", str(args.data), "--output", str(args.output)]
    words += [word for override in args.overrides for word in ("--set", override)]
    # How several processes were started is not known here.
    start = "atd" if processes == 1 else f"(as before, with {processes} processes) -m atd"
    return f"{start} {shlex.join([*words, '--resume'])}"


def _named_overrides(words: Sequence[str]) -> list[str]:
    """Bare words key=value, the old spelling, as --set key=value; they may stand anywhere."""
    named: list[str] = []
    for word in words:
        if _OVERRIDE.match(word) and named[-1:] != ["--set"]:
            named.append("--set")
        named.append(word)
    return named
