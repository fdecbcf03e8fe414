"""Kernels and sharpening against their formulas, written out in NumPy."""

import math

import numpy as np
import pytest
import torch

from atd.degrade import Blur, blur_batch, sharpen


def bessel_j1(x):
    """Bessel's integral, (1/π) ∫ cos(τ − x sin τ) dτ from 0 to π: the trapezoidal rule converges geometrically."""
    tau = np.linspace(0, math.pi, 2001)
    values = np.cos(tau - np.multiply.outer(x, np.sin(tau)))
    return (values[..., 1:] + values[..., :-1]).sum(-1) / 2 * (tau[1] - tau[0]) / math.pi


def formula(blur):
    half = blur.size // 2
    kernel = np.zeros((blur.size, blur.size))
    turn = np.array([[math.cos(blur.angle), -math.sin(blur.angle)], [math.sin(blur.angle), math.cos(blur.angle)]])
    for row in range(blur.size):
        for column in range(blur.size):
            place = np.array([column - half, row - half], float)
            if blur.kind == "sinc":
                r = np.linalg.norm(place)
                ring = blur.cutoff * bessel_j1(blur.cutoff * r) / (2 * math.pi * r) if r else 0
                kernel[row, column] = ring if r else blur.cutoff**2 / (4 * math.pi)
                continue
            covariance = turn @ np.diag(np.square(blur.sigma)) @ turn.T
            q = place @ np.linalg.inv(covariance) @ place
            kernel[row, column] = {
                "gaussian": np.exp(-q / 2),
                "generalised": np.exp(-(q**blur.beta) / 2),
                "plateau": 1 / (1 + q**blur.beta),
            }[blur.kind]
    return kernel / kernel.sum()


@pytest.mark.parametrize(
    "blur",
    [
        Blur("gaussian", 7, (0.2, 0.2)),
        Blur("gaussian", 21, (3.0, 3.0)),
        Blur("gaussian", 13, (2.5, 0.7), angle=0.6),
        Blur("gaussian", 9, (0.4, 1.9), angle=-2.9),
        Blur("generalised", 15, (1.3, 1.3), beta=0.5),
        Blur("generalised", 17, (2.0, 1.1), angle=1.4, beta=3.7),
        Blur("plateau", 11, (1.6, 1.6), beta=1.0),
        Blur("plateau", 19, (0.8, 2.6), angle=2.2, beta=1.9),
        Blur("sinc", 7, cutoff=math.pi / 3),
        Blur("sinc", 21, cutoff=math.pi / 5),
        Blur("sinc", 13, cutoff=math.pi),
    ],
)
def test_a_kernel_is_its_formula(blur):
    # torch's J1 has seven digits.
    np.testing.assert_allclose(
        blur.kernel().numpy(), formula(blur), rtol=0, atol=2e-7 if blur.kind == "sinc" else 1e-12
    )


@pytest.mark.parametrize("shape", [(24, 31), (5, 3), (1, 4)])
def test_every_image_of_a_batch_has_its_own_kernel(shape):
    images = np.random.default_rng(0).random((3, 3, *shape))
    blurs = [Blur("gaussian", 7, (2.0, 0.8), angle=0.5), Blur("sinc", 13, cutoff=1.2), Blur("plateau", 9, (1, 1))]
    blurred = blur_batch(torch.from_numpy(images), [blur.kernel() for blur in blurs]).numpy()
    for image, blur, result in zip(images, blurs, blurred, strict=True):
        half = blur.size // 2
        bordered = np.pad(image, ((0, 0), (half, half), (half, half)), mode="reflect")
        windows = np.lib.stride_tricks.sliding_window_view(bordered, (blur.size, blur.size), (1, 2))
        np.testing.assert_allclose(result, (windows * formula(blur)).sum((-2, -1)), atol=1e-6)


def test_sharpening_is_unsharp_masking_above_a_threshold():
    image = np.random.default_rng(0).random((1, 30, 40)).repeat(3, 0) * 0.2 + 0.4
    image[:, 10:20, 12:30] = 0.95
    places = np.arange(51) - 25
    window = np.exp(-(places**2) / (2 * 8.0**2))
    window = np.outer(window, window) / window.sum() ** 2

    def smooth(values):
        bordered = np.pad(values, ((0, 0), (25, 25), (25, 25)), mode="reflect")
        windows = np.lib.stride_tricks.sliding_window_view(bordered, (51, 51), (1, 2))
        return np.einsum("chwyx,yx->chw", windows, window)

    detail = image - smooth(image)
    mask = (np.abs(detail) * 255 > 10).astype(float)
    assert 0.1 < mask.mean() < 0.9
    soft = smooth(mask)
    expected = soft * np.clip(image + 0.5 * detail, 0, 1) + (1 - soft) * image
    np.testing.assert_allclose(sharpen(torch.from_numpy(image)[None])[0].numpy(), expected, atol=1e-9)
