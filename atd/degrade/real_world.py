"""The faults of real photos, drawn at random: the second-order degradation of Real-ESRGAN (Wang et al., ICCVW 2021).

An image is blurred, resized, made noisy and compressed, then once more, ending at 1/scale of its size. What happens to
one image is a `RealWorldDraw`, which `degrade_batch` applies; a `RealWorld` says how likely each is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from atd.degrade.blur import Blur, BlurKind
from atd.degrade.noise import Noise
from atd.errors import InputError

ResizeMode = Literal["area", "bilinear", "bicubic"]
RESIZE_MODES: tuple[ResizeMode, ...] = ("area", "bilinear", "bicubic")

Range = tuple[float, float]
"""Lower and upper end of what is drawn, all values between them equally likely."""


def _check_probability(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise InputError(f"{name} must be a probability, from 0 to 1, got {value:g}")


@dataclass(frozen=True, kw_only=True)
class Order:
    """How likely the faults of one order are; the defaults are those of the first.

    blur           probability that the image is blurred at all
    sinc           of a blurred image, probability that the kernel is a sinc
    sigma          standard deviations of the other kernels, in pixels
    up, down       probabilities of enlarging and reducing; else the size is kept
    factor         ends of the factors: down from the first to 1, up from 1 to the second
    gaussian       probability that the noise is Gaussian; else it is shot noise
    gaussian_sigma standard deviation of Gaussian noise, on the scale 0..255
    poisson_scale  strength of shot noise
    gray           probability that the noise is the same in all channels
    quality        of the compression, both ends included
    """

    blur: float = 1.0
    sinc: float = 0.1
    sigma: Range = (0.2, 3.0)
    up: float = 0.2
    down: float = 0.7
    factor: Range = (0.15, 1.5)
    gaussian: float = 0.5
    gaussian_sigma: Range = (1.0, 30.0)
    poisson_scale: Range = (0.05, 3.0)
    gray: float = 0.4
    quality: tuple[int, int] = (30, 95)

    def __post_init__(self) -> None:
        for name in ("blur", "sinc", "up", "down", "gaussian", "gray"):
            _check_probability(name, getattr(self, name))
        _check_probability("up + down", self.up + self.down)
        if not 1 <= self.quality[0] <= self.quality[1] <= 100:
            raise InputError(f"quality must be two numbers from 1 to 100 in order, got {list(self.quality)}")


SECOND_ORDER = Order(
    blur=0.8,
    sigma=(0.2, 1.5),
    up=0.3,
    down=0.4,
    factor=(0.3, 1.2),
    gaussian_sigma=(1.0, 25.0),
    poisson_scale=(0.05, 2.5),
)
"""The published numbers of the second order."""


@dataclass(frozen=True)
class Resize:
    """Factor on the sides, of the image in the first order and of the final size in the second; interpolation."""

    factor: float
    mode: ResizeMode


@dataclass(frozen=True)
class Compression:
    """A file format and its quality."""

    format: Literal["jpeg", "webp"]
    quality: int


@dataclass(frozen=True)
class OrderDraw:
    """What happens to an image in one order, in this order of steps; no blur where it is None."""

    blur: Blur | None
    resize: Resize
    noise: Noise
    compression: Compression


@dataclass(frozen=True)
class RealWorldDraw:
    """What happens to one image.

    first, second   the two orders
    final_sinc      blur after the last resizing; None: none
    final_mode      of the last resizing, to the final size
    compressed_last the second compression comes after the last resizing, not before it
    """

    first: OrderDraw
    second: OrderDraw
    final_sinc: Blur | None
    final_mode: ResizeMode
    compressed_last: bool


@dataclass(frozen=True, kw_only=True)
class RealWorld:
    """How likely each fault is; the defaults are the published numbers.

    first, second     the two orders
    kernel_sizes      sides of the blur kernels in pixels, odd, all equally likely
    isotropic …       probabilities of the kinds of kernels that are no sinc
    beta_generalised  exponents of generalised kernels, half of the time up to 1, else from 1 on
    beta_plateau      exponents of plateau kernels, in the same way
    final_sinc        probability of a sinc after the last resizing
    webp              probability that a compression is WebP; else it is JPEG
    """

    first: Order = Order()
    second: Order = SECOND_ORDER
    kernel_sizes: tuple[int, ...] = (7, 9, 11, 13, 15, 17, 19, 21)
    isotropic: float = 0.45
    anisotropic: float = 0.25
    generalised_isotropic: float = 0.12
    generalised_anisotropic: float = 0.03
    plateau_isotropic: float = 0.12
    plateau_anisotropic: float = 0.03
    beta_generalised: Range = (0.5, 4.0)
    beta_plateau: Range = (1.0, 2.0)
    final_sinc: float = 0.8
    webp: float = 0.0

    def __post_init__(self) -> None:
        if any(size % 2 == 0 or size < 3 for size in self.kernel_sizes) or not self.kernel_sizes:
            raise InputError(f"kernel_sizes must be odd numbers from 3 on, got {list(self.kernel_sizes)}")
        _check_probability("final_sinc", self.final_sinc)
        _check_probability("webp", self.webp)
        shares = [share for _, _, share in self._kernels()]
        if min(shares) < 0 or not math.isclose(sum(shares), 1):
            raise InputError(f"the probabilities of the kernels must sum to 1, got {sum(shares):g}")

    def _kernels(self) -> tuple[tuple[BlurKind, bool, float], ...]:
        """Each kind of kernel, whether it is isotropic, and its probability."""
        return (
            ("gaussian", True, self.isotropic),
            ("gaussian", False, self.anisotropic),
            ("generalised", True, self.generalised_isotropic),
            ("generalised", False, self.generalised_anisotropic),
            ("plateau", True, self.plateau_isotropic),
            ("plateau", False, self.plateau_anisotropic),
        )

    def draw(self, rng: np.random.Generator) -> RealWorldDraw:
        """What happens to one image: a function of the state of `rng`."""
        return RealWorldDraw(
            first=self._draw_order(self.first, rng),
            second=self._draw_order(self.second, rng),
            final_sinc=self._draw_sinc(rng, lowest=math.pi / 3) if rng.random() < self.final_sinc else None,
            final_mode=_choose(RESIZE_MODES, rng),
            compressed_last=rng.random() < 0.5,
        )

    def _draw_order(self, order: Order, rng: np.random.Generator) -> OrderDraw:
        blur = self._draw_blur(order, rng) if rng.random() < order.blur else None
        direction = rng.random()
        factor = 1.0
        if direction < order.up:
            factor = rng.uniform(1, order.factor[1])
        elif direction < order.up + order.down:
            factor = rng.uniform(order.factor[0], 1)
        resize = Resize(factor, _choose(RESIZE_MODES, rng))
        gaussian = rng.random() < order.gaussian
        strength = rng.uniform(*(order.gaussian_sigma if gaussian else order.poisson_scale))
        noise = Noise("gaussian" if gaussian else "poisson", strength, rng.random() < order.gray, _seed(rng))
        quality = int(rng.integers(order.quality[0], order.quality[1] + 1))
        return OrderDraw(blur, resize, noise, Compression("webp" if rng.random() < self.webp else "jpeg", quality))

    def _draw_blur(self, order: Order, rng: np.random.Generator) -> Blur:
        if rng.random() < order.sinc:
            return self._draw_sinc(rng)
        kernels = self._kernels()
        kind, isotropic, _ = kernels[int(rng.choice(len(kernels), p=[share for _, _, share in kernels]))]
        size = _choose(self.kernel_sizes, rng)
        first = rng.uniform(*order.sigma)
        sigma = (first, first if isotropic else rng.uniform(*order.sigma))
        angle = 0.0 if isotropic else rng.uniform(-math.pi, math.pi)
        beta = 1.0
        if kind != "gaussian":
            low, high = self.beta_generalised if kind == "generalised" else self.beta_plateau
            beta = rng.uniform(low, 1) if rng.random() < 0.5 else rng.uniform(1, high)
        return Blur(kind, size, sigma, angle, beta)

    def _draw_sinc(self, rng: np.random.Generator, lowest: float | None = None) -> Blur:
        """Small kernels cannot hold the rings of a low cutoff: it is at least π/3 for them, and π/5 for others."""
        size = _choose(self.kernel_sizes, rng)
        if lowest is None:
            lowest = math.pi / 3 if size < 13 else math.pi / 5
        return Blur("sinc", size, cutoff=rng.uniform(lowest, math.pi))


Item = TypeVar("Item")


def _choose(items: Sequence[Item], rng: np.random.Generator) -> Item:
    return items[int(rng.integers(len(items)))]


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**63))
