"""JPEG compression of batches in torch, on any device, by libjpeg's integer rules.

Compressing and decoding again loses nothing in the entropy code, so there is none here: colour conversion, chroma
reduction, the accurate integer DCT ("islow"), quantisation and their inverses, each rounded as libjpeg-turbo rounds.
The result is that of Pillow with libjpeg-turbo, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from atd.errors import InputError
from atd.images.jpeg_tables import CHROMINANCE, LUMINANCE, Table, steps_at

Subsampling = Literal["4:2:0", "4:4:4"]
"""Chroma at half the resolution in both directions, or at the whole."""

# Fixed-point fractions: of the DCT in units of 2^-13, of the colour conversion in units of 2^-16.
_DCT_BITS, _PASS_BITS, _COLOUR_BITS = 13, 2, 16


def jpeg_batch(images: Tensor, qualities: Sequence[int], subsampling: Subsampling = "4:2:0") -> Tensor:
    """`images` compressed as JPEG, each at its own quality, and decoded again.

    Args:
        images: uint8, (n, 1, h, w) gray or (n, 3, h, w) RGB.
        qualities: n numbers on libjpeg's scale, 1..100.
        subsampling: of the chroma of RGB.

    Returns:
        uint8 of the same shape, on the same device.

    Raises:
        InputError: a quality, the shape or the dtype is another.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        raise InputError(f"expected uint8 of shape (n, 1 or 3, h, w), got {images.dtype} of {tuple(images.shape)}")
    if len(qualities) != len(images) or not all(1 <= quality <= 100 for quality in qualities):
        raise InputError(f"expected {len(images)} qualities from 1 to 100, got {list(qualities)}")
    if subsampling not in ("4:2:0", "4:4:4"):
        raise InputError(f"subsampling must be 4:2:0 or 4:4:4, got {subsampling!r}")
    samples = images.int()
    luminance = _quantisation(LUMINANCE, qualities, images.device)
    if images.shape[1] == 1:
        return _code(samples, luminance).to(torch.uint8)
    y, chroma = _from_rgb(samples)
    y = _code(y, luminance)
    chrominance = _quantisation(CHROMINANCE, qualities, images.device)
    if subsampling == "4:4:4":
        chroma = _code(chroma, chrominance)
    else:
        height, width = images.shape[2:]
        half = _code(_halve(chroma), chrominance)[..., : (width + 1) // 2]
        chroma = _enlarge(half)[..., :height, :width]
    return _to_rgb(y, chroma).to(torch.uint8)


def _quantisation(table: Table, qualities: Sequence[int], device: torch.device) -> Tensor:
    """(n, 1, 1, 1, 8, 8) int32: the steps of each image."""
    steps = np.stack([steps_at(quality, table) for quality in qualities])
    return torch.as_tensor(steps.astype(np.int32), device=device)[:, None, None, None]


def _from_rgb(rgb: Tensor) -> tuple[Tensor, Tensor]:
    """Y (n, 1, h, w) and Cb, Cr (n, 2, h, w), all 0..255."""
    red, green, blue = rgb.unbind(1)
    half = 1 << (_COLOUR_BITS - 1)
    centre = (128 << _COLOUR_BITS) + half - 1
    y = (19595 * red + 38470 * green + 7471 * blue + half) >> _COLOUR_BITS
    cb = (-11059 * red - 21709 * green + 32768 * blue + centre) >> _COLOUR_BITS
    cr = (32768 * red - 27439 * green - 5329 * blue + centre) >> _COLOUR_BITS
    return y[:, None], torch.stack((cb, cr), 1)


def _to_rgb(y: Tensor, chroma: Tensor) -> Tensor:
    y, (cb, cr) = y[:, 0], (chroma - 128).unbind(1)
    half = 1 << (_COLOUR_BITS - 1)
    red = y + ((91881 * cr + half) >> _COLOUR_BITS)
    green = y + ((-22554 * cb - 46802 * cr + half) >> _COLOUR_BITS)
    blue = y + ((116130 * cb + half) >> _COLOUR_BITS)
    return torch.stack((red, green, blue), 1).clamp_(0, 255)


def _halve(chroma: Tensor) -> Tensor:
    """Means of 2×2 samples; a half is rounded down in even columns and up in odd ones.

    libjpeg repeats the last column of the image until whole blocks are filled, and the last row of the means.
    """
    height, width = chroma.shape[2:]
    even = _repeat_border(chroma, (0, -width % 16, 0, -height % 2))
    sums = even[..., ::2, ::2] + even[..., ::2, 1::2] + even[..., 1::2, ::2] + even[..., 1::2, 1::2]
    bias = torch.arange(sums.shape[-1], device=chroma.device, dtype=torch.int32) % 2 + 1
    return (sums + bias) >> 2


def _enlarge(chroma: Tensor) -> Tensor:
    """Twice the size: three quarters of the nearer sample and one of the further ("fancy upsampling")."""
    if chroma.shape[-1] <= 2:  # as libjpeg does for images of up to four columns
        return chroma.repeat_interleave(2, 2).repeat_interleave(2, 3)
    rows = _repeat_border(chroma, (0, 0, 1, 1))
    above, here, below = rows[:, :, :-2], rows[:, :, 1:-1], rows[:, :, 2:]
    rows = torch.stack((3 * here + above, 3 * here + below), 3).flatten(2, 3)
    columns = _repeat_border(rows, (1, 1, 0, 0))
    left, here, right = columns[..., :-2], columns[..., 1:-1], columns[..., 2:]
    return torch.stack(((3 * here + left + 8) >> 4, (3 * here + right + 7) >> 4), 4).flatten(3, 4)


def _code(samples: Tensor, steps: Tensor) -> Tensor:
    """(n, c, h, w) 0..255 through DCT, quantisation by `steps` and inverse DCT."""
    height, width = samples.shape[2:]
    whole = _repeat_border(samples, (0, -width % 8, 0, -height % 8))
    rows, columns = whole.shape[2] // 8, whole.shape[3] // 8
    blocks = whole.reshape(*whole.shape[:2], rows, 8, columns, 8).transpose(3, 4)  # (n, c, rows, columns, 8, 8)
    coefficients = _forward_dct(blocks - 128)
    divisors = 8 * steps  # libjpeg's DCT is eight times the orthonormal one
    levels = coefficients.sign() * ((coefficients.abs() + divisors // 2) // divisors)
    decoded = (_inverse_dct(levels * steps) + 128).clamp_(0, 255)
    return decoded.transpose(3, 4).flatten(4, 5).flatten(2, 3)[..., :height, :width]


def _forward_dct(blocks: Tensor) -> Tensor:
    """Rows, then columns; the first pass keeps two bits more."""
    rows = torch.stack(_forward_pass(blocks.unbind(-1), _DCT_BITS - _PASS_BITS, None), -1)
    return torch.stack(_forward_pass(rows.unbind(-2), _DCT_BITS + _PASS_BITS, _PASS_BITS), -2)


def _inverse_dct(blocks: Tensor) -> Tensor:
    """Columns, then rows; 3 bits are the factor 8 of both passes."""
    columns = torch.stack(_inverse_pass(blocks.unbind(-2), _DCT_BITS - _PASS_BITS), -2)
    return torch.stack(_inverse_pass(columns.unbind(-1), _DCT_BITS + _PASS_BITS + 3), -1)


def _forward_pass(x: Sequence[Tensor], bits: int, even_bits: int | None) -> list[Tensor]:
    """Loeffler, Ligtenberg and Moschytz's DCT of eight points (ICASSP 1989), as in libjpeg's jfdctint.c.

    `bits` are shifted out of the products, `even_bits` out of the two sums; None: `_PASS_BITS` are shifted in.
    """
    sums = [x[i] + x[7 - i] for i in range(4)]
    a, b, c, d = (x[i] - x[7 - i] for i in (3, 2, 1, 0))
    outer, inner = sums[0] + sums[3], sums[1] + sums[2]
    outer_difference, inner_difference = sums[0] - sums[3], sums[1] - sums[2]
    direct, alternating = outer + inner, outer - inner
    if even_bits is None:
        direct, alternating = direct << _PASS_BITS, alternating << _PASS_BITS
    else:
        direct, alternating = _round(direct, even_bits), _round(alternating, even_bits)
    shared = 4433 * (inner_difference + outer_difference)
    seventh, fifth, third, first = _odd_part(a, b, c, d)
    return [
        direct,
        _round(first, bits),
        _round(shared + 6270 * outer_difference, bits),
        _round(third, bits),
        alternating,
        _round(fifth, bits),
        _round(shared - 15137 * inner_difference, bits),
        _round(seventh, bits),
    ]


def _inverse_pass(x: Sequence[Tensor], bits: int) -> list[Tensor]:
    """The inverse, as in libjpeg's jidctint.c; `bits` are shifted out at its end."""
    shared = 4433 * (x[2] + x[6])
    low, high = shared - 15137 * x[6], shared + 6270 * x[2]
    total, difference = (x[0] + x[4]) << _DCT_BITS, (x[0] - x[4]) << _DCT_BITS
    even = (total + high, difference + low, difference - low, total - high)
    odd = _odd_part(x[7], x[5], x[3], x[1])[::-1]
    upper = [_round(e + o, bits) for e, o in zip(even, odd, strict=True)]
    lower = [_round(e - o, bits) for e, o in zip(even, odd, strict=True)]
    return upper + lower[::-1]


def _odd_part(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The rotations that both directions share."""
    shared = 9633 * (a + c + b + d)
    ad, bc = -7373 * (a + d), -20995 * (b + c)
    ac, bd = shared - 16069 * (a + c), shared - 3196 * (b + d)
    return 2446 * a + ad + ac, 16819 * b + bc + bd, 25172 * c + bc + ac, 12299 * d + ad + bd


def _round(values: Tensor, bits: int) -> Tensor:
    """Shift `bits` out, half up."""
    return (values + (1 << (bits - 1))) >> bits


def _repeat_border(samples: Tensor, amounts: tuple[int, int, int, int]) -> Tensor:
    """Repeat the border by (left, right, top, bottom); float32 holds these integers, and int32 has no such padding."""
    return pad(samples.float(), amounts, mode="replicate").int()
