"""`atd train`: run a recipe."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("train", help="train a network from a recipe", description="Train a network from a recipe.")
    parser.add_argument("recipe", nargs="?", help="recipe id, or a .toml file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="recipe keys to change")
    parser.add_argument("--list", action="store_true", help="one line a recipe, id first")
    parser.add_argument("--show", metavar="ID", help="print a recipe with all its keys")
    parser.add_argument("--data", type=Path, help="folder the recipe's image folders lie in")
    parser.add_argument("--out", type=Path, help="folder for checkpoints, logs and the trained model")
    parser.add_argument("--resume", action="store_true", help="continue from the newest checkpoint in --out")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from atd import recipes

    if args.list:
        for name in recipes.names():
            print(f"{name:20s} {recipes.get(name).summary}")
        return 0
    if args.show:
        print(recipes.get(args.show).to_toml(), end="")
        return 0
    if not (args.recipe and args.data and args.out):
        raise ValueError("atd train needs a recipe, --data and --out, e.g. atd train laptop_x4 --data photos --out run")
    from atd import training

    recipe = recipes.get(args.recipe).override(args.overrides)
    folder = training.train(recipe, args.data, args.out, resume=args.resume, say=lambda text: print(text, flush=True))
    print(f"saved to {folder}")
    return 0
