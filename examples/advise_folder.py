"""What each photo of a folder needs, and a script that restores those with a fault.

python advise_folder.py photos > restore.sh
"""

import argparse
import sys
from pathlib import Path

import atd


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    print("#!/bin/sh")
    for path in sorted(args.folder.iterdir()):
        try:
            advice = atd.advise(path)
        except atd.ImageError as error:
            print(error, file=sys.stderr)
            continue
        repairs = [item for item in advice.recommendations if item.purpose == "repair"]
        if repairs:
            print(f"# {advice.summary}", repairs[0].command, sep="\n")


if __name__ == "__main__":
    main()
