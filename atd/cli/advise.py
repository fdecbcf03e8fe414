"""`atd advise`: what is wrong with a picture, and which network undoes it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from atd.cli.streams import one_line, say

if TYPE_CHECKING:
    from atd.cli.command_parser import Subcommands


def add_parser(subparsers: Subcommands) -> None:
    """Add the command to the parser of `atd`."""
    parser = subparsers.add_parser(
        "advise",
        help="say which network a picture needs, with the command",
        description="Look at pictures and say which network each needs, why, and the command to type. Measured are "
        "JPEG quality, noise, whether colour is stored for gray, whether the picture was enlarged before. No network "
        "is loaded; a bad file is reported and the rest go on.",
        common=("recursive", "json"),
        examples=(
            ("atd advise photo.jpg", "which network for this photo?"),
            ("atd advise photos --recursive --json", "for every image of a folder tree, for another program"),
        ),
    )
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="image files and folders")
    parser.add_argument("--recursive", action="store_true", help="also take the folders below")
    parser.add_argument("--json", action="store_true", help="print JSON, a list with an entry for each file")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit status: 1 where a file could not be read."""
    import json

    from atd.advice import advise
    from atd.cli.restore import warnings_as_lines
    from atd.errors import InputError, sentence_for
    from atd.images.decoding import silence_libtiff
    from atd.system import check_exists

    for path in args.paths:
        check_exists(path)
    files = [file for path in args.paths for file in _files(path, recursive=args.recursive)]
    if not files:
        raise InputError(f"{', '.join(map(str, args.paths))}: no images in there; --recursive also takes folders below")
    silence_libtiff()
    rows: list[dict[str, object]] = []
    failed = 0
    with warnings_as_lines():
        for number, file in enumerate(files):
            try:
                advice = advise(file)
            except Exception as error:
                sentence = sentence_for(error)
                if sentence is None:
                    raise
                failed += 1
                rows.append({"source": str(file), "error": sentence})
                say(f"atd: {one_line(sentence if str(file) in sentence else f'{file}: {sentence}')}")
                continue
            rows.append(advice.to_dict())
            if not args.json:
                text = "\n".join(f"  {line}".rstrip() for line in str(advice).split("\n"))
                print(f"{chr(10) if number else ''}{one_line(file)}\n{text}", flush=True)
    if args.json:
        print(json.dumps(rows, indent=2))
    return 1 if failed else 0


def _files(path: Path, *, recursive: bool) -> Iterator[Path]:
    """A file itself; of a folder, the files whose endings are those of images, in the order of their names."""
    from atd.images import READABLE_SUFFIXES

    if not path.is_dir():
        yield path
        return
    for entry in sorted(path.rglob("*") if recursive else path.iterdir()):
        if entry.suffix.lower() in READABLE_SUFFIXES and not entry.name.startswith(".") and entry.is_file():
            yield entry
