"""Coverage-guided fuzzing of the checks of TIFF and PNG, and of config.json.

``pip install atheris``, then ``python tests/attack/fuzz.py -max_total_time=600``. It begins with the seeds of the
attack; whatever is not an error of ours ends it with a traceback.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
from pathlib import Path

import atheris

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support")]

with atheris.instrument_imports(include=["atd.images", "atd.weights"]):
    from atd.images import integrity
    from atd.weights import description, format

from attacks.image_seeds import seeds

from atd.errors import AtdError

CONFIG = b'{"architecture": "ATD", "config": {"depths": [2, 1], "window_size": 4, "upscale": 2, "img_range": 1.0}}'


def try_all(data: bytes) -> None:
    """One input through everything that reads bytes of strangers."""
    with contextlib.suppress(AtdError):
        integrity.check_header(io.BytesIO(data), Path("fuzzed"))
    if not data.startswith(integrity.JPEG_SIGNATURE):  # its check maps a real file
        with contextlib.suppress(AtdError):
            integrity.check_whole(io.BytesIO(data), Path("fuzzed"))
    with contextlib.suppress(AtdError):
        if described := format.parse_description(data, Path("fuzzed")):
            description.check_config(described["config"], 100, "fuzzed")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(seeds()):
            if len(seed.data) < 10_000:
                Path(folder, str(number)).write_bytes(seed.data)
        Path(folder, "config").write_bytes(CONFIG)
        atheris.Setup([*sys.argv, folder], try_all)
        atheris.Fuzz()
