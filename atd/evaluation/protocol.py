"""How a task is measured: what the input of an image is, how the output is rounded, and what is compared with what.

One `Protocol` holds everything that a score depends on beside the network and the images:

* super-resolution: the published LR file, or MATLAB's bicubic reduction of the reference cropped to a multiple of the
  scale; output rounded to 8 bits; `scale` pixels left out along each border; Y of BT.601 in studio range.
* denoising: white Gaussian noise from NumPy's legacy generator seeded 0, the same for every image, not clipped; float
  output clamped to [0, 1]; RGB or gray, no border left out.
* JPEG: libjpeg through Pillow, gray by default (colour images become studio-range Y first); output rounded to 8 bits;
  no border left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image

from atd import degrade, metrics
from atd.evaluation.datasets import Pair
from atd.images.files import read_image
from atd.images.image import ImageError

Task = Literal["sr", "denoise", "jpeg"]


@dataclass(frozen=True)
class Protocol:
    """The measuring rules of one run.

    task     "sr", "denoise" or "jpeg"
    channel  "y" (RGB images, compared on luminance), "rgb", or "gray" (gray images; colour ones are converted)
    scale    output side / input side, 1 except for "sr"
    sigma    noise level on the scale 0..255, for "denoise"
    quality  libjpeg quality, for "jpeg"
    crop     pixels left out along each border
    border   how LR images treat their border: "edge" or "symmetric" (see `atd.degrade.bicubic_downscale`)
    """

    task: Task
    channel: metrics.Channel
    scale: int = 1
    sigma: float | None = None
    quality: int | None = None
    crop: int = 0
    border: degrade.Border = "edge"

    def __post_init__(self) -> None:
        if self.task == "sr" and self.scale < 2:
            raise ValueError("super-resolution is measured at a scale: give --scale 2, 3 or 4")
        if self.task == "denoise" and self.sigma is None:
            raise ValueError("denoising is measured at a noise level: give --sigma, e.g. --sigma 25")
        if self.task == "jpeg" and self.quality is None:
            raise ValueError("JPEG artefact removal is measured at a quality: give --quality, e.g. --quality 10")

    @classmethod
    def published(
        cls,
        task: Task,
        *,
        gray: bool = False,
        scale: int = 1,
        sigma: float | None = None,
        quality: int | None = None,
        channel: metrics.Channel | None = None,
        crop: int | None = None,
        border: degrade.Border = "edge",
    ) -> Protocol:
        """The papers' rules for `task`; `channel` and `crop` depart from them."""
        usual: metrics.Channel = "gray" if gray else "y" if task == "sr" else "rgb"
        return cls(
            task=task,
            channel=channel or usual,
            scale=scale,
            sigma=sigma if task == "denoise" else None,
            quality=quality if task == "jpeg" else None,
            crop=(scale if task == "sr" else 0) if crop is None else crop,
            border=border,
        )

    @property
    def rounds(self) -> bool:
        """Whether outputs are rounded to 8 bits before they are compared."""
        return self.task != "denoise"

    def load(self, pair: Pair) -> tuple[np.ndarray, np.ndarray]:
        """The input, float32 of range 0..1 (noise is not clipped), and the reference, uint8; (H, W) or (H, W, 3)."""
        reference = self.read(pair.reference)
        if self.task == "denoise":
            return degrade.add_noise(reference, self.sigma or 0), reference
        if self.task == "jpeg":
            return _to_unit(degrade.jpeg(reference, self.quality or 0)), reference
        reference = degrade.crop_to_multiple(reference, self.scale)
        if pair.degraded is None:
            return _to_unit(degrade.bicubic_downscale(reference, self.scale, self.border)), reference
        reduced = self.read(pair.degraded)
        height, width = reference.shape[0] // self.scale, reference.shape[1] // self.scale
        if reduced.shape[:2] != (height, width):
            raise ImageError(
                f"{pair.degraded} has {reduced.shape[1]}x{reduced.shape[0]} pixels, expected {width}x{height}: "
                f"1/{self.scale} of {pair.reference.name}"
            )
        return _to_unit(reduced), reference

    def read(self, path: Path) -> np.ndarray:
        """An 8-bit image file as (H, W) uint8 where gray is compared, else (H, W, 3); transparency is left out."""
        pixels = read_image(path).pixels
        if pixels.dtype != np.uint8:
            raise ImageError(f"{path} has {pixels.dtype} samples: scores are defined for 8-bit images")
        if pixels.shape[2] < 3:
            gray = pixels[..., 0]
            return gray if self.channel == "gray" else np.repeat(gray[..., None], 3, axis=2)
        rgb = pixels[..., :3]
        if self.channel != "gray":
            return rgb
        if self.task == "jpeg":
            return degrade.studio_y(rgb)
        return np.asarray(Image.fromarray(rgb).convert("L"))

    def finish(self, output: torch.Tensor) -> np.ndarray:
        """The network's (c, h, w) output as it is compared: (H, W) or (H, W, 3), uint8 or float32 in [0, 1]."""
        image = output.clamp(0, 1).movedim(0, -1).numpy()
        image = image[..., 0] if self.channel == "gray" else image
        return to_uint8(image) if self.rounds else image

    def score(self, finished: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
        """PSNR in dB and SSIM."""
        target = reference if finished.dtype == np.uint8 else _to_unit(reference)
        if finished.shape != reference.shape:
            raise ValueError(f"the output has shape {finished.shape}, the reference {reference.shape}")
        channel, peak = self.channel, None
        if channel == "y":  # computed once for both metrics
            finished, target, channel, peak = _luminance(finished), _luminance(target), "gray", 255
        rules = {"crop": self.crop, "channel": channel, "peak": peak}
        return metrics.psnr(finished, target, **rules), metrics.ssim(finished, target, **rules)

    def tensor(self, image: np.ndarray) -> torch.Tensor:
        """An input of `load` as the (c, h, w) float32 tensor that networks take."""
        return torch.from_numpy(image if image.ndim == 3 else image[..., None]).movedim(-1, 0).contiguous()


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Float values of range 0..1 to 8 bits, half to even as the field's evaluation code rounds; uint8 as it is."""
    return image if image.dtype == np.uint8 else np.rint(image * 255).clip(0, 255).astype(np.uint8)


def _to_unit(image: np.ndarray) -> np.ndarray:
    return image.astype(np.float32) / 255


def _luminance(image: np.ndarray) -> np.ndarray:
    return metrics.to_y(image if image.dtype == np.uint8 else image * np.float64(255))
