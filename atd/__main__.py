"""``python -m atd`` is the command ``atd``."""

import sys

from atd.cli import main

if __name__ == "__main__":
    sys.exit(main())
