"""Restore images: one function for images in memory, one for files, and the tensor core below both. No state."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from atd.images.files import check_pil, check_writable, from_pil, probe, read_image, to_pil, write_image
from atd.images.image import Picture, SaveOptions
from atd.images.resampling import lanczos
from atd.restoration import memory, streaming
from atd.restoration.options import Settings, output_size, passes, ram_needed
from atd.restoration.progress import Callback, tile_callback
from atd.restoration.runner import Source, Tile, check_device, scale_of, strips


def restore(
    model: nn.Module | str | Path,
    image: Any,
    *,
    weights: str | Path = "official",
    tile: Tile = "auto",
    overlap: int = 32,
    batch_size: int = 1,
    outscale: float | None = None,
    self_ensemble: bool = False,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    progress: bool | Callback = False,
) -> Any:
    """Restore one image, and return the same kind of image.

    Args:
        model: a network, or a name, file or folder for `atd.load`. A module is neither moved nor changed, and threads
            may share it.
        image: a path (gives a PIL image), a PIL image, an array (h, w), (h, w, 1|2|3|4) of uint8, uint16 or float in
            [0, 1], or a float tensor (c, h, w) or (b, c, h, w) in [0, 1] on any device. One channel is gray, two are
            gray and alpha, three RGB, four RGB and alpha. A gray network restores the luma of a colour image and
            keeps its chroma; alpha is enlarged with the colour and never denoised.
        weights: which weights of a named model (see `atd.load`).
        tile: ``"auto"``: untiled when that fits into free memory, else the largest tile that does; None: untiled; or
            the longest side of a tile in input pixels, rounded to what the network asks for. ATD looks at its whole
            input, so tiles change the result a little everywhere.
        overlap: input pixels that neighbouring tiles share (at most half a tile); half of them are cross-faded.
        batch_size: tiles per call of the network.
        outscale: output size divided by input size, any factor > 0; the network is applied as often as needed and the
            result resized by a Lanczos filter. None: the network's own scale.
        self_ensemble: average over the eight flips and rotations of every tile, eight times the work.
        device: where a named model is loaded; the GPU when there is one, else the CPU.
        dtype: precision of the network: None means bfloat16 on a GPU that has it, else float32. Tiles that come out
            non-finite in half precision are computed again in float32.
        progress: True draws a bar on stderr; a callable receives a `TileProgress` after every batch of tiles, and
            cancels the run by raising an exception.

    Returns:
        The image in the kind, dtype and layout that came in, scale times larger, clamped to its range. A path gives a
        PIL image, upright, with profile, EXIF, XMP and resolution in `info`.

    Raises:
        ValueError: an argument or the image is not what is described above.
        atd.LoadError: the named model cannot be loaded.
    """
    network = load_network(model, weights, device)
    with tile_callback(progress) as callback:
        settings = Settings(tile, overlap, batch_size, outscale, self_ensemble, dtype, callback)
        if isinstance(image, str | os.PathLike | Image.Image):
            picture = from_pil(image) if isinstance(image, Image.Image) else read_image(image)
            check_pil(picture)
            return to_pil(restore_picture(network, picture, settings))
        if isinstance(image, np.ndarray):
            return _restore_array(network, image, settings)
        if isinstance(image, Tensor):
            return _restore_tensor_kind(network, image, settings)
    raise TypeError(f"expected a path, a PIL image, an array or a tensor, got {type(image).__name__}")


def restore_file(
    model: nn.Module | str | Path,
    src: str | Path,
    dst: str | Path,
    *,
    weights: str | Path = "official",
    tile: Tile = "auto",
    overlap: int = 32,
    batch_size: int = 1,
    outscale: float | None = None,
    self_ensemble: bool = False,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
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
            result is ``<dst>.part``.
        resume: go on with the ``.part`` of a streaming run that was interrupted; a ValueError when it was made from
            another input, other weights or other settings.

    Returns:
        `dst` as a Path.

    Raises:
        ImageError (a ValueError): a file cannot be read or written as asked; the message names it.
    """
    target = Path(dst)
    network = load_network(model, weights, device)
    scale = scale_of(network)
    if stream is None:
        unfinished = resume and streaming.part_of(target).exists()
        stream = unfinished or streaming.should_stream(Path(src), target, scale, outscale, eight_bit=eight_bit)
    with tile_callback(progress) as callback:
        settings = Settings(tile, overlap, batch_size, outscale, self_ensemble, dtype, callback)
        if stream:
            streaming.stream_file(network, Path(src), target, settings, resume=resume, eight_bit=eight_bit)
            return target
        check_file(src, target, scale, outscale, eight_bit=eight_bit)
        restored = restore_picture(network, read_image(src, eight_bit=eight_bit), settings)
    write_image(target, restored, save)
    return target


def restore_tensor(
    model: nn.Module,
    x: Tensor,
    *,
    tile: Tile = "auto",
    overlap: int = 32,
    batch_size: int = 1,
    self_ensemble: bool = False,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Run `model` over one image that lies on the CPU, tile by tile: `restore` without image kinds.

    Args:
        model: a module (b, c, h, w) → (b, c, scale·h, scale·w); its attributes `scale`, `in_channels` and
            `size_multiple` are respected, absent ones mean 1, any and 1. It is neither moved nor changed.
        x: (c, h, w) float32 in [0, 1].
        device: only checked; a ValueError when the model is elsewhere.
        dtype: precision of the network; None means that of half-precision weights, bfloat16 on a GPU that has it, else
            float32. Give ``torch.float32`` to measure.
        callback: called with a `TileProgress` after every batch of tiles.
        tile, overlap, batch_size, self_ensemble: as in `restore`.

    Returns:
        (c, scale·h, scale·w) float32 on the CPU, not clamped.
    """
    if x.ndim != 3 or 0 in x.shape:
        raise ValueError(f"expected a (c, h, w) image with at least one pixel, got shape {tuple(x.shape)}")
    check_device(model, device)
    scale = scale_of(model)
    height, width = x.shape[-2] * scale, x.shape[-1] * scale
    result: Tensor | None = None
    for strip in strips(
        model,
        Source.of(x.to("cpu", torch.float32)),
        tile=tile,
        overlap=overlap,
        batch_size=batch_size,
        self_ensemble=self_ensemble,
        dtype=dtype,
        callback=callback,
    ):
        if strip.rows.shape[-2] == height:
            return strip.rows
        if result is None:
            result = strip.rows.new_empty((strip.rows.shape[0], height, width))
        result[:, strip.top : strip.top + strip.rows.shape[-2]] = strip.rows
    assert result is not None
    return result


def load_network(
    model: nn.Module | str | Path,
    weights: str | Path = "official",
    device: str | torch.device | None = None,
) -> nn.Module:
    """The module itself, checked to be on `device`; or the named model, loaded on `device`."""
    if isinstance(model, nn.Module):
        check_device(model, device)
        return model
    from atd.loading import load

    return load(model, weights=weights, device=device or default_device())


def default_device() -> torch.device:
    """The GPU when there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def check_file(src: str | Path, target: Path, scale: int, outscale: float | None, *, eight_bit: bool = False) -> None:
    """Refuse, from the header of `src`, a result that the format of `target`, free RAM or free disk cannot hold."""
    header = probe(src, eight_bit=eight_bit)
    height, width, channels = header.shape
    result_height, result_width = output_size(height, width, scale, outscale)
    check_writable(target, header.dtype, channels, result_height, result_width)
    try:
        _require_ram(header.shape, scale, outscale)
    except MemoryError as error:
        raise MemoryError(f"{src}: {error}") from None
    memory.require_disk(result_height * result_width * channels * header.dtype.itemsize, target)


def _require_ram(shape: tuple[int, ...], scale: int, outscale: float | None) -> None:
    height, width, _ = shape
    what = f"restoring {width}x{height} pixels to {outscale or scale:g} times the size"
    memory.require_ram(ram_needed(shape, scale, outscale), what)


def restore_picture(network: nn.Module, picture: Picture, settings: Settings) -> Picture:
    """Restore a decoded image; dtype, channels and metadata stay."""
    return replace(picture, pixels=_restore_pixels(network, picture.pixels, settings))


def _restore_pixels(network: nn.Module, pixels: np.ndarray, settings: Settings) -> np.ndarray:
    """(h, w, c) uint8, uint16 or float32 → the same, larger."""
    _require_ram(pixels.shape, scale_of(network), settings.outscale)
    x = torch.from_numpy(np.ascontiguousarray(np.moveaxis(pixels, 2, 0)))
    peak = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65_535}.get(pixels.dtype)
    result = _enlarge(network, x.float().div_(peak) if peak else x.float(), settings).permute(1, 2, 0)
    if peak:
        result = result.mul_(peak).round_()
    return np.ascontiguousarray(result.numpy().astype(pixels.dtype))


def _enlarge(network: nn.Module, x: Tensor, settings: Settings) -> Tensor:
    """(c, h, w) float32 in [0, 1] on the CPU → the result at the wanted size, clamped to [0, 1]."""
    scale = scale_of(network)
    height, width = output_size(x.shape[-2], x.shape[-1], scale, settings.outscale)
    for _ in range(passes(scale, settings.outscale)):
        x = restore_tensor(
            network,
            x,
            tile=settings.tile,
            overlap=settings.overlap,
            batch_size=settings.batch_size,
            self_ensemble=settings.self_ensemble,
            dtype=settings.dtype,
            callback=settings.callback,
        ).clamp_(0, 1)
    return lanczos(x, height, width).clamp_(0, 1)


def _restore_array(network: nn.Module, array: np.ndarray, settings: Settings) -> np.ndarray:
    if array.ndim not in (2, 3) or array.size == 0 or (array.ndim == 3 and array.shape[2] > 4):
        raise ValueError(f"expected an array (h, w) or (h, w, 1|2|3|4), got shape {array.shape}")
    if array.dtype not in (np.uint8, np.uint16) and array.dtype.kind != "f":
        raise ValueError(f"expected an array of uint8, uint16 or float in [0, 1], got {array.dtype}")
    pixels = array.reshape(*array.shape[:2], -1)
    if array.dtype.kind == "f":
        _check_float(float(array.min()), float(array.max()))
        pixels = pixels.astype(np.float32)
    result = _restore_pixels(network, pixels, settings)
    return result.reshape(*result.shape[:2], *array.shape[2:]).astype(array.dtype)


def _restore_tensor_kind(network: nn.Module, x: Tensor, settings: Settings) -> Tensor:
    if x.ndim not in (3, 4) or x.numel() == 0 or x.shape[-3] > 4:
        raise ValueError(f"expected a tensor (1|2|3|4, h, w) or (b, 1|2|3|4, h, w), got shape {tuple(x.shape)}")
    if not x.is_floating_point():
        raise ValueError(f"expected a float tensor in [0, 1], got {x.dtype}: divide it by its largest value first")
    _check_float(float(x.min()), float(x.max()))
    images = [x] if x.ndim == 3 else list(x)
    results = [_enlarge(network, one.detach().to("cpu", torch.float32), settings) for one in images]
    return (results[0] if x.ndim == 3 else torch.stack(results)).to(x)


def _check_float(low: float, high: float) -> None:
    """Noise may leave [0, 1]; values of 0 to 255 are a mistake that would come out white."""
    if not (low >= -4 and high <= 4):
        raise ValueError(f"expected float values in [0, 1], got {low:g} to {high:g}: divide by the largest value first")
