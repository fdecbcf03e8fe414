"""Restore images: one function for images in memory, one for files, and the tensor core below both. No state."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TypedDict, TypeVar, Unpack, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from atd import loading
from atd.errors import InputError
from atd.images import (
    ImageData,
    SaveOptions,
    check_pil,
    from_pil,
    lanczos,
    open_image,
    samples_to_tensor,
    tensor_to_samples,
    to_pil,
    write_image,
)
from atd.images.image import LARGEST_INPUT, array_samples
from atd.restoration import streaming
from atd.restoration.channels import AlphaUpsampler
from atd.restoration.network import check_device, check_strength, scale_of, warn_of_gray_noise
from atd.restoration.options import FileOptions, RestoreOptions, Tile
from atd.restoration.plan import check_size, output_size, passes, plan_file, require_ram_for
from atd.restoration.progress import Callback, TileCounter, progress_callback
from atd.restoration.runner import Source, count_tiles, strips
from atd.system import as_dtype, default_device
from atd.weights.format import Params

Sample = TypeVar("Sample", bound=np.generic)


class RestoreKeywords(TypedDict, total=False):
    """The keyword arguments of `restore`, for type checkers; they are described there."""

    weights: str | Path | None
    tile: Tile
    overlap: int
    batch_size: int
    outscale: float | None
    self_ensemble: bool
    device: str | torch.device | None
    dtype: torch.dtype | str | None
    alpha_upsampler: AlphaUpsampler
    max_pixels: int | None
    strength: float
    progress: bool | Callback


@overload
def restore(
    model: nn.Module | str | Path, image: str | os.PathLike[str] | Image.Image, **keywords: Unpack[RestoreKeywords]
) -> Image.Image: ...
@overload
def restore(
    model: nn.Module | str | Path, image: NDArray[Sample], **keywords: Unpack[RestoreKeywords]
) -> NDArray[Sample]: ...
@overload
def restore(model: nn.Module | str | Path, image: Tensor, **keywords: Unpack[RestoreKeywords]) -> Tensor: ...


def restore(
    model: nn.Module | str | Path,
    image: str | os.PathLike[str] | Image.Image | np.ndarray | Tensor,
    *,
    weights: str | Path | None = None,
    tile: Tile = "auto",
    overlap: int = 32,
    batch_size: int = 1,
    outscale: float | None = None,
    self_ensemble: bool = False,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str | None = None,
    alpha_upsampler: AlphaUpsampler = "network",
    max_pixels: int | None = LARGEST_INPUT,
    strength: float = 1.0,
    progress: bool | Callback = False,
) -> Image.Image | np.ndarray | Tensor:
    """Restore one image, and return the same kind of image.

    Args:
        model: a network, or a name, file or folder for `atd.load`. A module is neither moved nor changed, and threads
            may share it.
        image: a path (gives a PIL image), a PIL image, an array (h, w), (h, w, 1|2|3|4) of uint8, uint16 or float in
            [0, 1], or a float tensor (c, h, w) or (b, c, h, w) in [0, 1] on any device. One channel is gray, two are
            gray and alpha, three RGB, four RGB and alpha. A gray network restores the luma of a colour image and
            keeps its chroma; alpha is enlarged with the colour and never denoised.
        weights: which weights of a named model (see `atd.load`); None means "official". Only beside a name.
        tile: ``"auto"``: untiled when that fits into free memory, else the largest tile that does; None: untiled; or
            the longest side of a tile in input pixels, rounded to what the network asks for. ATD looks at its whole
            input, so tiles change the result a little everywhere.
        overlap: input pixels that neighbouring tiles share (at most half a tile); half of them are cross-faded.
        batch_size: tiles per call of the network; those of several images of a tensor (b, c, h, w) go together.
        outscale: output size divided by input size, any factor > 0; the network is applied as often as needed and the
            result resized by a Lanczos filter. None: the network's own scale.
        self_ensemble: average over the eight flips and rotations of every tile, eight times the work.
        device: where a named model is loaded; the GPU when there is one, else the CPU.
        dtype: precision of the network, a type of torch or its name ("float32", "bf16", …): None means bfloat16 on a
            GPU that has it, else float32. Tiles that come out non-finite in half precision are computed again in
            float32.
        alpha_upsampler: what enlarges an alpha channel: "network", as the colour, or "bicubic", which is faster.
        max_pixels: a file of more pixels is refused by its header, before it is decoded, since few bytes may claim any
            size. The default is Pillow's limit, about 13 000 a side; None: no limit.
        strength: how much of the restoration is wanted, of networks that keep the size: from 0, the input's own pixels,
            bit for bit, to 1, the network's result; between them both are blended in that proportion, before
            `outscale`.
        progress: True draws a bar on stderr, where that is a terminal; a callable receives a `TileProgress` after every
            batch of tiles, and cancels the run by raising an exception. Both cover the whole job: all images of a
            batch, all passes.

    Returns:
        The image in the kind, dtype and layout that came in, scale times larger, clamped to its range. A path gives a
        PIL image, upright, with profile, EXIF, XMP and resolution in `info`.

    Raises:
        InputError (a ValueError): an argument or the image is not what is described above.
        TypeError: `image` is of none of the kinds above.
        LoadError: the named model cannot be loaded.
        NotEnoughMemoryError: the result does not fit into the free RAM; nothing has been computed then.
    """
    options = RestoreOptions(
        tile=tile,
        overlap=overlap,
        batch_size=batch_size,
        outscale=outscale,
        self_ensemble=self_ensemble,
        dtype=as_dtype(dtype),
        alpha_upsampler=alpha_upsampler,
        max_pixels=max_pixels,
        strength=strength,
    )
    network = load_network(model, weights, device)
    check_strength(network, strength)
    with progress_callback(progress) as callback:
        if isinstance(image, str | os.PathLike):
            return _restore_path(network, image, options, callback)
        if isinstance(image, Image.Image):
            decoded = from_pil(image)
            require_ram_for(decoded.pixels.shape, scale_of(network), outscale)
            return to_pil(restore_image(network, decoded, options, callback))
        if isinstance(image, np.ndarray):
            return _restore_array(network, image, options, callback)
        if isinstance(image, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]  (not everybody has a type checker)
            return _restore_tensors(network, image, options, callback)
    raise TypeError(f"expected a path, a PIL image, an array or a tensor, got {type(image).__name__}")


def restore_file(
    model: nn.Module | str | Path,
    src: str | Path,
    dst: str | Path,
    *,
    weights: str | Path | None = None,
    tile: Tile = "auto",
    overlap: int = 32,
    batch_size: int = 1,
    outscale: float | None = None,
    self_ensemble: bool = False,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str | None = None,
    alpha_upsampler: AlphaUpsampler = "network",
    max_pixels: int | None = LARGEST_INPUT,
    strength: float = 1.0,
    progress: bool | Callback = False,
    save: SaveOptions | None = None,
    eight_bit: bool = False,
    stream: bool | None = None,
    resume: bool = False,
) -> Path:
    """Restore the image file `src` into `dst`, whose ending names the format.

    Bit depth, alpha, colour profile, EXIF (its orientation applied), XMP and resolution are kept. `dst` appears when
    it is complete; an existing file is replaced. The other arguments are those of `restore`.

    Args:
        save: quality and subsampling of lossy formats.
        eight_bit: read 16-bit colour as 8-bit, with a warning, where libvips (extra `io`) is not installed.
        stream: read, restore and write in strips instead of holding the image, with extra `io` and for PNG and TIFF;
            None does so when the result would take more than a quarter of the free RAM. Until it is complete, the
            result is ``<dst>.part``, and rows that lie there make None mean True.
        resume: go on with the ``.part`` of a streaming run that was interrupted; an InputError when it was made from
            another input, other weights or other settings.

    Returns:
        `dst` as a Path.

    Raises:
        ImageError (a ValueError): a file cannot be read or written as asked; the message names it.
        MissingExtraError: the file needs libvips, and extra `io` is not installed.
        NotEnoughMemoryError, NotEnoughDiskError: the result does not fit; nothing has been computed then.
    """
    options = RestoreOptions(
        tile=tile,
        overlap=overlap,
        batch_size=batch_size,
        outscale=outscale,
        self_ensemble=self_ensemble,
        dtype=as_dtype(dtype),
        alpha_upsampler=alpha_upsampler,
        max_pixels=max_pixels,
        strength=strength,
    )
    files = FileOptions(save=save, eight_bit=eight_bit, stream=stream, resume=resume)
    network = load_network(model, weights, device)
    check_strength(network, strength)
    with open_image(src, eight_bit=eight_bit) as image:
        plan = plan_file(image, Path(dst), scale_of(network), outscale, files, max_pixels=max_pixels)
        decoded = None if plan.stream else image.decode()
    with progress_callback(progress) as callback:
        if decoded is None:
            streaming.stream_file(network, plan, options, callback)
        else:
            write_image(plan.target, restore_image(network, decoded, options, callback), save)
    return plan.target


def restore_tensor(
    model: nn.Module,
    x: Tensor,
    *,
    tile: Tile = "auto",
    overlap: int = 32,
    batch_size: int = 1,
    self_ensemble: bool = False,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Run `model` over one image that lies on the CPU, tile by tile: `restore` without image kinds.

    Args:
        model: a module (b, c, h, w) → (b, c, scale·h, scale·w); its attributes `scale`, `in_channels` and
            `size_multiple` are respected, absent ones mean 1, any and 1. It is neither moved nor changed.
        x: (c, h, w) float32 in [0, 1].
        device: only checked; an InputError when the model is elsewhere.
        dtype: precision of the network; None means that of half-precision weights, bfloat16 on a GPU that has it, else
            float32. Give ``torch.float32`` to measure.
        callback: called with a `TileProgress` after every batch of tiles.
        tile, overlap, batch_size, self_ensemble: as in `restore`.

    Returns:
        (c, scale·h, scale·w) float32 on the CPU, not clamped.
    """
    if x.ndim != 3 or 0 in x.shape:
        raise InputError(f"expected a (c, h, w) image with at least one pixel, got shape {tuple(x.shape)}")
    check_device(model, device)
    options = RestoreOptions(
        tile=tile, overlap=overlap, batch_size=batch_size, self_ensemble=self_ensemble, dtype=as_dtype(dtype)
    )
    return _restore_once(model, x.to("cpu", torch.float32)[None], options, TileCounter(callback))[0]


def load_network(
    model: nn.Module | str | Path,
    weights: str | Path | None = None,
    device: str | torch.device | None = None,
    params: Params = "auto",
) -> nn.Module:
    """The module itself, checked to be on `device`; or the named model, loaded on `device`.

    Args:
        weights: of a named model, None meaning "official".
        device: None means where a module is, and the default device for a named model.
        params: of a named model, as in `atd.load`.

    Raises:
        InputError: `weights` beside a module, or the module is elsewhere.
        LoadError: the named model cannot be loaded.
    """
    if not isinstance(model, nn.Module):
        return loading.load(
            model,
            weights="official" if weights is None else weights,
            device=device or default_device(),
            params=params,
        )
    if weights is not None:
        raise InputError(
            f"weights={str(weights)!r} chooses among the weights of a named model, but a module was given, which has "
            f"its own: leave weights out, or give the model's name"
        )
    check_device(model, device)
    return model


def restore_image(
    network: nn.Module, image: ImageData, options: RestoreOptions, callback: Callback | None = None
) -> ImageData:
    """Restore a decoded image; dtype, channels and metadata stay."""
    if options.returns_input:
        return image
    return replace(image, pixels=_restore_pixels(network, image.pixels, options, callback))


def _restore_path(
    network: nn.Module, path: str | os.PathLike[str], options: RestoreOptions, callback: Callback | None
) -> Image.Image:
    with open_image(path) as file:
        check_size(file, options.max_pixels)
        check_pil(file.header)
        require_ram_for(file.header.shape, scale_of(network), options.outscale)
        decoded = file.decode()
    return to_pil(restore_image(network, decoded, options, callback))


def _restore_pixels(
    network: nn.Module, pixels: np.ndarray, options: RestoreOptions, callback: Callback | None
) -> np.ndarray:
    """(h, w, c) uint8, uint16 or float32 → the same, larger."""
    return tensor_to_samples(_enlarge(network, samples_to_tensor(pixels)[None], options, callback)[0], pixels.dtype)


def _enlarge(network: nn.Module, x: Tensor, options: RestoreOptions, callback: Callback | None) -> Tensor:
    """(n, c, h, w) float32 in [0, 1] on the CPU → the results at the wanted size, clamped to [0, 1]."""
    scale = scale_of(network)
    count, channels, height, width = x.shape
    equal = channels > 2 and torch.equal(x[:, 0], x[:, 1]) and torch.equal(x[:, 1], x[:, 2])
    warn_of_gray_noise(network, is_gray=channels <= 2 or equal)
    result_height, result_width = output_size(height, width, scale, options.outscale)
    stages = passes(scale, options.outscale)
    counter = TileCounter(callback)
    later = [
        count_tiles(network, count, height * scale**stage, width * scale**stage, options) for stage in range(1, stages)
    ]
    for stage in range(stages):
        counter.later = sum(later[stage:])
        x = _restore_once(network, x, options, counter).clamp_(0, 1)
    return lanczos(x, result_height, result_width).clamp_(0, 1)


def _restore_once(network: nn.Module, x: Tensor, options: RestoreOptions, counter: TileCounter) -> Tensor:
    """(n, c, h, w) float32 on the CPU → (n, c, scale·h, scale·w), not clamped."""
    scale = scale_of(network)
    height, width = x.shape[-2] * scale, x.shape[-1] * scale
    result: Tensor | None = None
    for strip in strips(network, Source.of(x), options, counter):
        if strip.rows.shape[-2] == height:
            return strip.rows
        if result is None:
            result = strip.rows.new_empty((*strip.rows.shape[:2], height, width))
        result[..., strip.top : strip.top + strip.rows.shape[-2], :] = strip.rows
    assert result is not None
    return result


def _restore_array(
    network: nn.Module, array: np.ndarray, options: RestoreOptions, callback: Callback | None
) -> np.ndarray:
    pixels = array_pixels(array)
    if options.returns_input:
        return array.copy()
    require_ram_for(pixels.shape, scale_of(network), options.outscale)
    result = _restore_pixels(network, pixels, options, callback)
    return result.reshape(*result.shape[:2], *array.shape[2:]).astype(array.dtype)


def array_pixels(array: np.ndarray) -> np.ndarray:
    """As `atd.images.image.array_samples`; float samples may leave [0, 1] a little, as noise does.

    Raises:
        InputError: it is no image; the message says why.
    """
    pixels = array_samples(array)
    if array.dtype.kind == "f":
        _check_float(float(array.min()), float(array.max()))
    return pixels


def _restore_tensors(network: nn.Module, x: Tensor, options: RestoreOptions, callback: Callback | None) -> Tensor:
    if x.ndim not in (3, 4) or x.numel() == 0 or x.shape[-3] > 4:
        raise InputError(f"expected a tensor (1|2|3|4, h, w) or (b, 1|2|3|4, h, w), got shape {tuple(x.shape)}")
    if not x.is_floating_point():
        raise InputError(f"expected a float tensor in [0, 1], got {x.dtype}: divide it by its largest value first")
    _check_float(float(x.min()), float(x.max()))
    if options.returns_input:
        return x.detach().clone()
    images = x.detach().to("cpu", torch.float32).reshape(-1, *x.shape[-3:])
    results = _enlarge(network, images, options, callback)
    return results.reshape(*x.shape[:-3], *results.shape[-3:]).to(x)


def _check_float(low: float, high: float) -> None:
    """Noise may leave [0, 1]; values of 0 to 255 are a mistake that would come out white."""
    if not (low >= -4 and high <= 4):
        raise InputError(f"expected float values in [0, 1], got {low:g} to {high:g}: divide by the largest value first")
