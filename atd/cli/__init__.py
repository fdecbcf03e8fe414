"""The command ``atd``: one module per subcommand, and what they share."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from atd.cli import console
from atd.cli.command_parser import CommandParser
from atd.cli.streams import lasting_streams

COMMANDS = (
    "restore",
    "advise",
    "list",
    "info",
    "convert",
    "download",
    "export",
    "evaluate",
    "compare",
    "explain",
    "train",
    "prepare",
    "degrade",
    "completion",
)


def build_parser() -> CommandParser:
    """The parser of the whole command line. Building it imports neither torch nor what the commands run."""
    from atd import __version__

    parser = CommandParser(
        prog="atd",
        usage="atd COMMAND [options]",
        description="Restore, evaluate and train with the ATD networks (Adaptive Token Dictionary).",
        epilog="atd COMMAND --help explains one command.",
        common=("version",),
        hint=_restore_of_file,
        examples=(
            ("atd restore -i photo.jpg -o large.png", "enlarge a photo four times"),
            ("atd advise photo.jpg", "which network for this photo?"),
            ("atd list", "the networks, and where their weights are"),
        ),
    )
    parser.add_argument("--version", action="version", version=f"atd {__version__}", help="print the version")
    parser.set_defaults(quiet=False, verbose=False, traceback=False)
    subparsers = parser.add_subparsers(prog=parser.prog, dest="command", metavar="COMMAND", required=True)
    for command in COMMANDS:
        importlib.import_module(f"atd.cli.{command}").add_parser(subparsers)
    return parser


def _restore_of_file(word: str) -> str | None:
    """How to restore a file that stands where a command is expected."""
    return f"to restore it, atd restore -i {word} -o OUTPUT" if os.path.exists(word) else None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    0: done. 1: some files failed. 2: an error that the user can mend, told in a sentence. 130: interrupted. Any other
    exception is a defect and comes out of here as it is.
    """
    with lasting_streams():
        args = build_parser().parse_args(argv)
        with console.shown_events(quiet=args.quiet, verbose=args.verbose):
            try:
                status = args.run(args)
                sys.stdout.flush()
                return status
            except KeyboardInterrupt:
                return console.report_interrupt()
            except Exception as error:
                if isinstance(error, OSError) and (refusal := console.refusal_of_stdout()):
                    return console.report_refusal(refusal)
                status = console.report_error(error, with_traceback=args.traceback)
                if status is None:
                    raise
                return status
