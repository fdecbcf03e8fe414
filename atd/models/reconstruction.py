"""From feature maps to pixels: the upsamplers of the ATD networks, and the convolution that closes a residual group."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atd.ops.tracing import is_traced

UPSAMPLERS = ("pixelshuffle", "pixelshuffledirect", "nearest+conv", "")
_FEATURES = 64
# Without gradients a head runs in strips whose maps hold at most this many values: at ×4 they would take 7 kB of half
# values a pixel of the input, more than a layer does.
_STRIP_VALUES = 1 << 25
# Rows of the input that reach a strip from each side, at least: three 3×3 convolutions, less after each enlargement.
_REACH = 4


def residual_conv(dim: int, kind: str) -> nn.Module:
    """The convolution at the end of a residual group and of the body: ``"1conv"`` or the narrower ``"3conv"``."""
    if kind == "1conv":
        return nn.Conv2d(dim, dim, 3, padding=1)
    if kind == "3conv":
        return nn.Sequential(
            nn.Conv2d(dim, dim // 4, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(dim // 4, dim // 4, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(dim // 4, dim, 3, padding=1),
        )
    raise ValueError(f'resi_connection is {kind!r}; expected "1conv" or "3conv".')


def _pixel_shuffle_steps(scale: int) -> nn.Sequential:
    if scale == 3:
        return nn.Sequential(nn.Conv2d(_FEATURES, 9 * _FEATURES, 3, padding=1), nn.PixelShuffle(3))
    if scale & (scale - 1):
        raise ValueError(f'upscale is {scale}; the upsampler "pixelshuffle" takes 3 and powers of two.')
    steps: list[nn.Module] = []
    for _ in range(int(math.log2(scale))):
        steps += [nn.Conv2d(_FEATURES, 4 * _FEATURES, 3, padding=1), nn.PixelShuffle(2)]
    return nn.Sequential(*steps)


class ReconstructionHead(nn.Module):
    """Mixin that gives a network its upsampler under the authors' module names, and runs it.

    Not a child module: the authors keep ``upsample``, ``conv_last`` and the rest at the root of the state dict.
    """

    upsampler: str
    scale: int

    def add_head(self, upsampler: str | None, dim: int, channels: int, scale: int) -> None:
        """Make the modules that turn `dim` features into `channels`, `scale` times as many pixels each way."""
        self.upsampler = upsampler or ""
        if self.upsampler not in UPSAMPLERS:
            raise ValueError(f"upsampler is {upsampler!r}; expected one of {', '.join(map(repr, UPSAMPLERS))}.")
        if self.upsampler == "pixelshuffledirect":
            self.upsample = nn.Sequential(nn.Conv2d(dim, channels * scale**2, 3, padding=1), nn.PixelShuffle(scale))
            return
        if self.upsampler == "":
            if scale != 1:
                raise ValueError(f"upscale is {scale} without an upsampler; choose one, or upscale=1.")
            self.conv_last = nn.Conv2d(dim, channels, 3, padding=1)
            return
        self.conv_before_upsample = nn.Sequential(nn.Conv2d(dim, _FEATURES, 3, padding=1), nn.LeakyReLU())
        if self.upsampler == "pixelshuffle":
            self.upsample = _pixel_shuffle_steps(scale)
        else:
            if scale != 4:
                raise ValueError(f'upscale is {scale}; the upsampler "nearest+conv" is made for 4.')
            self.conv_up1 = nn.Conv2d(_FEATURES, _FEATURES, 3, padding=1)
            self.conv_up2 = nn.Conv2d(_FEATURES, _FEATURES, 3, padding=1)
            self.conv_hr = nn.Conv2d(_FEATURES, _FEATURES, 3, padding=1)
        self.conv_last = nn.Conv2d(_FEATURES, channels, 3, padding=1)

    def reconstruct(self, features: Tensor, normalised: Tensor) -> Tensor:
        """Pixels (b, c, s·h, s·w) from features (b, C, h, w); ``normalised`` is the network's normalised input.

        Without gradients, large images are enlarged strip by strip, with the rows around each that reach it.
        """
        batch, _, height, width = features.shape
        # What stands for a tensor has no memory to save, and operations may be counted.
        counted = type(features) is not Tensor or features.is_meta
        if torch.is_grad_enabled() or is_traced() or counted or self.upsampler in ("pixelshuffledirect", ""):
            return self._reconstruct(features, normalised)
        rows = max(_STRIP_VALUES // (batch * width * self.scale**2 * _FEATURES), 2 * _REACH)
        if rows >= height:
            return self._reconstruct(features, normalised)
        strips: list[Tensor] = []
        for start in range(0, height, rows):
            first, end = max(start - _REACH, 0), min(start + rows, height)
            around = slice(first, end + _REACH)
            strip = self._reconstruct(features[:, :, around], normalised[:, :, around])
            strips.append(strip[:, :, (start - first) * self.scale : (end - first) * self.scale].contiguous())
        return torch.cat(strips, dim=2)

    def _reconstruct(self, features: Tensor, normalised: Tensor) -> Tensor:
        if self.upsampler == "pixelshuffledirect":
            return self.upsample(features)
        if self.upsampler == "":
            return normalised + self.conv_last(features)
        features = self.conv_before_upsample(features)
        if self.upsampler == "pixelshuffle":
            return self.conv_last(self.upsample(features))
        for conv in (self.conv_up1, self.conv_up2):
            features = F.leaky_relu(conv(F.interpolate(features, scale_factor=2, mode="nearest")), 0.2)
        return self.conv_last(F.leaky_relu(self.conv_hr(features), 0.2))
