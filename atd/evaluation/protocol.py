"""How a task is measured: what the input of an image is, how the output is rounded, and what is compared with what.

One `Protocol` holds everything that a score depends on beside the network and the images:

* super-resolution: the published LR file, or MATLAB's bicubic reduction of the reference cropped to a multiple of the
  scale; output rounded to 8 bits; `scale` pixels left out along each border; Y of BT.601 in studio range.
* denoising: white Gaussian noise from NumPy's legacy generator seeded 0, the same for every image, not clipped; float
  output clamped to [0, 1]; RGB or gray, no border left out.
* JPEG: libjpeg through Pillow, gray by default (colour images become studio-range Y first); no border left out. PSNR of
  gray images is that of the float output clamped to [0, 1], as published; everything else is of 8 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from atd import degrade, metrics
from atd.errors import ImageError, InputError
from atd.evaluation.datasets import ImagePair
from atd.images import read_image
from atd.images.gray import GRAY_FROM_COLOUR, GrayFromColour, opencv_gray, rounded_gray
from atd.tasks import Denoising, JpegArtefacts, RealWorld, SuperResolution, Task


@dataclass(frozen=True)
class Protocol:
    """The measuring rules of one run.

    task     what is measured, at its scale, noise level or JPEG quality
    channel  "y" (RGB images, compared on luminance), "rgb", or "gray" (gray images; colour ones are converted)
    crop     pixels left out along each border
    border   how LR images treat their border: "edge" or "symmetric" (see `atd.degrade.bicubic_downscale`)
    gray_from_colour  how colour files become gray where gray is compared. "standard": their luma, rounded to the
        nearest level, and studio-range Y before JPEG. "authors": as in the authors' code, which decodes them by
        OpenCV's grayscale flag (see `atd.images.gray`), and before JPEG applies the weights of R, G and B to B, G and R
        (theirs does so for Urban100 only)
    """

    task: Task
    channel: metrics.Channel
    crop: int = 0
    border: degrade.Border = "edge"
    gray_from_colour: GrayFromColour = "standard"

    def __post_init__(self) -> None:
        """Refuse a task of any strength, as a score belongs to one, and a rule that does not exist."""
        if self.gray_from_colour not in GRAY_FROM_COLOUR:
            raise InputError(
                f"gray_from_colour must be one of {', '.join(GRAY_FROM_COLOUR)}, got {self.gray_from_colour!r}"
            )
        if isinstance(self.task, Denoising) and self.task.sigma is None:
            raise InputError("denoising is measured at a noise level: give sigma, e.g. 25 (--sigma 25)")
        if isinstance(self.task, JpegArtefacts) and self.task.quality is None:
            raise InputError("JPEG artefact removal is measured at a quality: give it, e.g. 10 (--quality 10)")

    @classmethod
    def published(
        cls,
        task: Task,
        *,
        gray: bool = False,
        channel: metrics.Channel | None = None,
        crop: int | None = None,
        border: degrade.Border = "edge",
        gray_from_colour: GrayFromColour = "standard",
    ) -> Protocol:
        """The papers' rules for `task`; `channel` and `crop` depart from them."""
        enlarging = isinstance(task, SuperResolution | RealWorld)
        usual: metrics.Channel = "gray" if gray else "y" if enlarging else "rgb"
        left_out = (task.scale if enlarging else 0) if crop is None else crop
        return cls(task, channel or usual, left_out, border, gray_from_colour)

    @property
    def scale(self) -> int:
        """Output side / input side, 1 except for super-resolution."""
        return self.task.scale

    @property
    def sigma(self) -> float | None:
        """Noise level on the scale 0..255; None except for denoising."""
        return self.task.sigma if isinstance(self.task, Denoising) else None

    @property
    def quality(self) -> int | None:
        """Quality of libjpeg; None except for JPEG artefacts."""
        return self.task.quality if isinstance(self.task, JpegArtefacts) else None

    @property
    def rounds(self) -> bool:
        """Whether outputs are rounded to 8 bits before they are compared.

        PSNR of gray JPEG is not, as in the code that made the published numbers; its SSIM always is.
        """
        return not (isinstance(self.task, Denoising) or self._is_gray_jpeg)

    @property
    def _is_gray_jpeg(self) -> bool:
        return isinstance(self.task, JpegArtefacts) and self.channel == "gray"

    def load(self, pair: ImagePair) -> tuple[np.ndarray, np.ndarray]:
        """The input, float32 of range 0..1 (noise is not clipped), and the reference, uint8; (H, W) or (H, W, 3)."""
        reference = self.read(pair.reference)
        height, width = reference.shape[:2]
        if min(height, width) < self.scale:
            raise InputError(f"{pair.reference} has {width}x{height} pixels: nothing is left of it at 1/{self.scale}")
        reference = degrade.crop_to_multiple(reference, self.scale)
        if pair.degraded is None:
            degraded = degrade.for_task(reference, self.task, border=self.border)
            return _to_unit(degraded), reference
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
        as_authors = self.gray_from_colour == "authors"
        if isinstance(self.task, JpegArtefacts):
            return degrade.studio_y(rgb[..., ::-1] if as_authors else rgb)
        return opencv_gray(path, rgb) if as_authors else rounded_gray(rgb)

    def finish(self, output: torch.Tensor) -> np.ndarray:
        """The network's (c, h, w) output as it is compared: (H, W) or (H, W, 3), uint8 or float32 in [0, 1]."""
        image = output.clamp(0, 1).movedim(0, -1).numpy()
        image = image[..., 0] if self.channel == "gray" else image
        return to_uint8(image) if self.rounds else image

    def score(self, finished: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
        """PSNR in dB and SSIM of an output of `finish` against the reference of `load`.

        Raises:
            InputError: the images are too small to be compared.
        """
        target = reference if finished.dtype == np.uint8 else _to_unit(reference)
        if finished.shape != reference.shape:
            raise ValueError(f"the output has shape {finished.shape}, the reference {reference.shape}")
        channel, peak = self.channel, None
        if channel == "y":  # computed once for both metrics
            finished, target, channel, peak = _luminance(finished), _luminance(target), "gray", 255
        psnr = metrics.psnr(finished, target, crop=self.crop, channel=channel, peak=peak)
        if self._is_gray_jpeg:
            finished, target = to_uint8(finished), reference
        ssim = metrics.ssim(finished, target, crop=self.crop, channel=channel, peak=peak)
        return float(psnr), float(ssim)

    def tensor(self, image: np.ndarray) -> torch.Tensor:
        """An input of `load` as the (c, h, w) float32 tensor that networks take."""
        return torch.as_tensor(image if image.ndim == 3 else image[..., None], device="cpu").movedim(-1, 0).contiguous()


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Float values of range 0..1 to 8 bits, half to even as the field's evaluation code rounds; uint8 as it is."""
    return image if image.dtype == np.uint8 else np.rint(image * 255).clip(0, 255).astype(np.uint8)


def _to_unit(image: np.ndarray) -> np.ndarray:
    """8 bits to float32 of range 0..1; float values as they are."""
    return image.astype(np.float32) / 255 if image.dtype == np.uint8 else image


def _luminance(image: np.ndarray) -> np.ndarray:
    return metrics.to_y(image if image.dtype == np.uint8 else image * np.float64(255))
