"""The command ``atd``: one module per subcommand, and what they share."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

COMMANDS = ("restore", "list", "info", "convert", "download", "evaluate", "compare", "train", "prepare")


def build_parser() -> argparse.ArgumentParser:
    from atd import __version__

    parser = argparse.ArgumentParser(
        prog="atd",
        description="Restore, evaluate and train with the ATD networks (Adaptive Token Dictionary).",
        epilog="atd COMMAND --help explains one command.",
    )
    parser.add_argument("--version", action="version", version=f"atd {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in COMMANDS:
        importlib.import_module(f"atd.cli.{command}").add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0 done, 1 some files failed, 2 bad input, 130 interrupted."""
    args = build_parser().parse_args(argv)
    try:
        return args.run(args)
    except KeyboardInterrupt:
        print("atd: interrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        # Errors of these kinds carry a sentence for the user; anything else is a defect and keeps its traceback.
        print(f"atd: error: {error}", file=sys.stderr)
        return 2
