"""Run a network over one image and keep what its layers looked up."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from atd.errors import InputError
from atd.explanation.maps import Explanation, LayerMaps
from atd.images import from_pil, open_image, samples_to_tensor, tensor_to_samples
from atd.images.image import LARGEST_INPUT
from atd.models import RestorationModel
from atd.models.layer_events import LookupEvent, recording
from atd.models.layers import DictionaryLayer
from atd.restoration.api import array_pixels, load_network, restore_tensor
from atd.restoration.channels import bleed, through_network
from atd.restoration.memory import require_ram
from atd.restoration.network import channels_of
from atd.restoration.plan import check_size

MOST_PIXELS = 1 << 20
"""Of an image that is explained: it is not cut into tiles, since a tile has other neighbours than the image."""

Box = tuple[int, int, int, int]
"""Left, top, width and height in pixels."""


def explain(
    model: nn.Module | str | Path,
    image: str | os.PathLike[str] | Image.Image | np.ndarray | Tensor,
    *,
    weights: str | Path | None = None,
    crop: Box | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str | None = None,
) -> Explanation:
    """What the layers of a network looked up in their token dictionaries for one image.

    The categories are those that the forward pass computed and used, in any backend. The image goes through whole, as
    `atd.restore` takes it with ``tile=None``: gray for a colour network is replicated, colour for a gray one reduced to
    luma, alpha left out.

    Args:
        model: a network of this library, or a name, file or folder for `atd.load`.
        image: a path, a PIL image, an array (h, w) or (h, w, 1|2|3|4) of uint8, uint16 or float in [0, 1], or a float
            tensor (c, h, w) in [0, 1].
        weights: which weights of a named model (see `atd.load`); only beside a name.
        crop: left, top, width and height of the part to explain, in pixels; None: all of it.
        device, dtype: as in `atd.restore`.

    Returns:
        The image and the maps of every layer, in the order of computation.

    Raises:
        InputError (a ValueError): an argument or the image is not what is described above; the image, or its `crop`,
            has more than 2²⁰ pixels; or the network is not one of this library.
        ImageError (a ValueError): a file cannot be read, or its header claims more pixels than `atd.restore` takes.
        LoadError: the named model cannot be loaded.
        NotEnoughMemoryError: the image does not go through whole, or its maps do not fit into the free RAM.
    """
    network = load_network(model, weights, device)
    if not isinstance(network, RestorationModel):
        raise InputError(
            f"expected a network of this library, which has layers with a token dictionary, got "
            f"{type(network).__name__}: give the network itself, not a compiled or exported one"
        )
    layers = _layers(network)
    pixels = _cropped(_pixels(image), crop)
    _check_memory(pixels, list(layers))
    padded = -(-pixels.shape[0] // network.size_multiple) * network.size_multiple
    maps: list[LayerMaps] = []

    def record(event: LookupEvent) -> None:
        assert isinstance(event.layer, DictionaryLayer)
        side = padded // event.grid[0]
        maps.append(_maps(event, event.layer, layers[event.layer], pixels.shape, side))

    def run(x: Tensor) -> Tensor:
        return restore_tensor(network, x[0], tile=None, dtype=dtype)[None]

    with recording(record):
        through_network(run, _colour(samples_to_tensor(pixels)[None]), channels_of(network))
    # Where half precision overflows, the network runs a second time in float32, and that result counts.
    maps = maps[-len(layers) :]
    assert {layer.name for layer in maps} == set(layers.values())
    return Explanation(network.name or network.architecture, _eight_bits(pixels), tuple(maps))


def _layers(network: nn.Module) -> dict[DictionaryLayer, str]:
    """The layers and their names, in the order in which they were made."""
    modules = cast("Iterator[tuple[str, nn.Module]]", network.named_modules())
    return {module: name for name, module in modules if isinstance(module, DictionaryLayer)}


def _pixels(image: str | os.PathLike[str] | Image.Image | np.ndarray | Tensor) -> np.ndarray:
    """(h, w, c) of uint8, uint16 or float32."""
    if isinstance(image, str | os.PathLike):
        with open_image(Path(image)) as file:
            check_size(file, LARGEST_INPUT)
            return file.decode().pixels
    if isinstance(image, Image.Image):
        return from_pil(image).pixels
    if isinstance(image, np.ndarray):
        return array_pixels(image)
    if isinstance(image, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]  (not everybody has a type checker)
        if image.ndim != 3:
            raise InputError(f"expected a tensor (1|2|3|4, h, w), got shape {tuple(image.shape)}")
        return array_pixels(image.detach().to("cpu", torch.float32).movedim(0, -1).numpy())
    raise TypeError(f"expected a path, a PIL image, an array or a tensor, got {type(image).__name__}")


def _cropped(pixels: np.ndarray, crop: Box | None) -> np.ndarray:
    height, width = pixels.shape[:2]
    if crop is not None:
        left, top, columns, rows = crop
        if not (0 <= left < left + columns <= width and 0 <= top < top + rows <= height):
            raise InputError(
                f"the part of {columns}×{rows} pixels at {left}, {top} does not lie in the image of {width}×{height}"
            )
        pixels = pixels[top : top + rows, left : left + columns]
    elif height * width > MOST_PIXELS:
        raise InputError(
            f"the image has {width}×{height} pixels, and maps are made of at most {MOST_PIXELS:,} at once, because "
            f"tiles would change them: choose a part with crop=(left, top, width, height), on the command line "
            f"--crop LEFT,TOP,WIDTH,HEIGHT"
        )
    if pixels.shape[0] * pixels.shape[1] > MOST_PIXELS:
        raise InputError(f"the part has {pixels.shape[1]}×{pixels.shape[0]} pixels; expected at most {MOST_PIXELS:,}")
    return np.ascontiguousarray(pixels)


def _check_memory(pixels: np.ndarray, layers: Sequence[DictionaryLayer]) -> None:
    tokens = pixels.shape[0] * pixels.shape[1]
    numbers = sum(1 + layer.attn_atd.wq.out_features for layer in layers)
    require_ram(4 * tokens * numbers, f"the maps of {len(layers)} layers")


def _colour(x: Tensor) -> Tensor:
    """(1, c, h, w) without its alpha."""
    return bleed(x[:, :-1], x[:, -1:]) if x.shape[1] in (2, 4) else x


def _eight_bits(pixels: np.ndarray) -> np.ndarray:
    colour = _colour(samples_to_tensor(pixels)[None])[0].clamp_(0, 1)
    return tensor_to_samples(colour.expand(3, -1, -1).clone(), np.dtype(np.uint8))


def _maps(event: LookupEvent, layer: DictionaryLayer, name: str, image: tuple[int, ...], side: int) -> LayerMaps:
    """The maps of a layer whose tokens are `side` pixels wide, for an `image` of that shape."""
    rows, columns = event.grid

    def unit(x: Tensor) -> np.ndarray:
        return F.normalize(x[0].detach().to("cpu", torch.float32), dim=-1).numpy()

    return LayerMaps(
        name=name,
        pixels=side,
        shape=(-(-image[0] // side), -(-image[1] // side)),
        group_size=layer.attn_aca.category_size,
        grid_category=event.category[0].to("cpu", torch.int32, copy=True).numpy().reshape(rows, columns),
        grid_query=unit(event.query).reshape(rows, columns, -1),
        key=unit(event.key),
    )
