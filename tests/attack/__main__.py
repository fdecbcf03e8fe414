"""Attack the library for a time: ``python tests/attack --minutes 60``."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support")]

from attacks.command import main  # noqa: E402  (found in the folders above)

if __name__ == "__main__":
    sys.exit(main())
