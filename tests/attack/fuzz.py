"""Coverage-guided fuzzing of what reads bytes of strangers: images, state dicts, config.json and recipes.

``pip install atheris``, then ``python tests/attack/fuzz.py images -max_total_time=600``; the other targets are
detection, config and recipe. It begins with the committed corpus, which `make_corpus.py` makes; whatever is not an
error of ours ends it with a traceback.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import tempfile
from pathlib import Path

import atheris

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support")]

with atheris.instrument_imports(include=["atd.images", "atd.weights", "atd.training.recipes"]):
    from attacks.fuzz_targets import CORPUS, TARGETS

from atd.errors import AtdError

if __name__ == "__main__":
    name, *options = sys.argv[1:] or [""]
    if name not in TARGETS:
        sys.exit(f"expected one of {', '.join(TARGETS)} before the options of libFuzzer, got {name!r}")
    logging.disable(logging.CRITICAL)

    def try_all(data: bytes) -> None:
        """One input through each function of the target."""
        for target in TARGETS[name]:
            with contextlib.suppress(AtdError):
                target(data)

    with tempfile.TemporaryDirectory() as folder:
        # What it finds worth keeping goes into the first folder.
        atheris.Setup([sys.argv[0], *options, folder, str(CORPUS / name)], try_all)
        atheris.Fuzz()
