"""What `fuzz.py` gives bytes to: each takes any bytes of strangers, and may raise nothing but errors of ours."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

from atd.errors import AtdError
from atd.images import integrity, open_image
from atd.training import recipes
from atd.weights import description, detection, format

MOST_PIXELS = 1_000_000
"""Of an image that is decoded."""
FUZZED = Path("fuzzed")


def check_headers(data: bytes) -> None:
    """The checks of TIFF and PNG by themselves."""
    with contextlib.suppress(AtdError):
        integrity.check_header(io.BytesIO(data), FUZZED)
    if not data.startswith(integrity.JPEG_SIGNATURE):  # its check maps a real file
        integrity.check_whole(io.BytesIO(data), FUZZED)


def read_images(data: bytes) -> None:
    """An image file, whatever it is: header, metadata, whether it can be read by regions, and small ones whole."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (path := Path(folder, "fuzzed")).write_bytes(data)
        with open_image(path) as image:
            image.metadata()
            image.regions_obstacle()
            height, width, channels = image.header.shape
            if height * width <= MOST_PIXELS:
                pixels = image.decode().pixels
                assert (pixels.shape, pixels.dtype) == ((height, width, channels), image.header.dtype)


def detect_network(data: bytes) -> None:
    """Keys and shapes of a state dict, as JSON."""
    try:
        shapes = json.loads(data)
        tensors = {str(key): torch.empty(shape, device="meta") for key, shape in shapes.items()}
    except (ValueError, TypeError, AttributeError, RuntimeError, RecursionError):
        return  # no keys and shapes
    _, config = detection.detect(tensors)
    description.check_config(config, len(tensors), "fuzzed")


def parse_config(data: bytes) -> None:
    """A config.json."""
    if described := format.parse_description(data, FUZZED):
        description.check_config(described["config"], 100, "fuzzed")


def parse_recipe(data: bytes) -> None:
    """A recipe in TOML."""
    with tempfile.TemporaryDirectory() as folder:
        (path := Path(folder, "fuzzed.toml")).write_bytes(data)
        recipes.get(str(path))


TARGETS: dict[str, tuple[Callable[[bytes], None], ...]] = {
    "images": (check_headers, read_images),
    "detection": (detect_network,),
    "config": (parse_config,),
    "recipe": (parse_recipe,),
}
"""By the folder of the corpus that each begins with."""
CORPUS = Path(__file__).parents[1] / "corpus"
