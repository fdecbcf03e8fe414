import io
import json

import numpy as np
import pytest
from PIL import Image

from atd import degrade, metrics
from atd.errors import InputError
from atd.tasks import Denoising, JpegArtefacts, SuperResolution


def read(path):
    return np.asarray(Image.open(path))


@pytest.mark.slow
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_reproduces_every_published_lr_image(data, scale):
    compared = 0
    for folder, border in (("LR_bicubic", "edge"), ("LR_bicubic_symmetric", "symmetric")):
        for path in sorted((data / "sr").glob(f"*/{folder}/X{scale}/*.png")):
            hr = read(path.parents[2] / "HR" / path.name.replace(f"x{scale}.png", ".png"))
            lr = degrade.bicubic_downscale(degrade.crop_to_multiple(hr, scale), scale, border)
            assert np.array_equal(lr, read(path)), path
            compared += 1
    assert compared >= 124


def test_colour_jpeg_baseline(data, golden):
    reference = json.loads((golden / "metrics.json").read_text())["jpeg"]["results"]
    images = [read(path) for path in sorted((data / "jpeg/LIVE1").glob("*.png"))]
    mean = np.mean([metrics.psnr(degrade.jpeg(image, 10), image, channel="rgb") for image in images])
    assert mean == pytest.approx(reference["LIVE1/colour/q10 (Pillow, 4:2:0)"], abs=0.005)


def matlab_weights(length, out_length, scale):
    """MATLAB's `imresize` contributions, edge border, as a dense float64 matrix: from the formula."""
    matrix = np.zeros((out_length, length))
    width = max(1, 1 / scale)
    for i in range(out_length):
        centre = (i + 0.5) / scale - 0.5
        k = np.arange(np.floor(centre - 2 * width), np.ceil(centre + 2 * width) + 1)
        x = np.abs(k - centre) / width
        w = np.where(x <= 1, 1.5 * x**3 - 2.5 * x**2 + 1, np.where(x < 2, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2, 0))
        np.add.at(matrix[i], np.clip(k, 0, length - 1).astype(int), w / w.sum())
    return matrix


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [1, 2, 3, 4, 5, 8])
def test_float_images_of_any_range(scale, dtype):
    image = np.random.default_rng(0).normal(0, 1000, (scale * 6, scale * 5, 2)).astype(dtype)
    h, w = scale * 6, scale * 5
    planes = np.moveaxis(image, 2, 0)
    down, up = (
        np.moveaxis(matlab_weights(h, round(h * f), f) @ planes @ matlab_weights(w, round(w * f), f).T, 0, 2)
        for f in (1 / scale, scale)
    )
    tolerance = 1e-3 if dtype == np.float32 else 1e-9
    results = degrade.bicubic_downscale(image, scale), degrade.bicubic_upscale(image, scale)
    for ours, reference in zip(results, (down, up), strict=True):
        assert ours.dtype == dtype
        np.testing.assert_allclose(ours, reference, atol=tolerance, rtol=0)


@pytest.mark.parametrize("border", ["edge", "symmetric"])
def test_resizing_keeps_a_constant_image(border):
    flat = np.full((12, 12), 255, np.uint8)
    assert (degrade.bicubic_downscale(flat, 3, border) == 255).all()
    assert (degrade.bicubic_upscale(flat, 3, border) == 255).all()


def test_downscale_refuses_a_remainder():
    with pytest.raises(ValueError, match="crop_to_multiple"):
        degrade.bicubic_downscale(np.zeros((13, 12), np.uint8), 4)
    with pytest.raises(ValueError, match="'edge' or 'symmetric'"):
        degrade.bicubic_downscale(np.zeros((12, 12), np.uint8), 4, "reflect")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="scale must be an integer"):
        degrade.bicubic_upscale(np.zeros((12, 12), np.uint8), 0)
    with pytest.raises(ValueError, match="int16"):
        degrade.bicubic_downscale(np.zeros((12, 12), np.int16), 4)


def test_noise_generators():
    image = np.full((64, 48, 3), 128, np.uint8)
    first, second = degrade.add_noise(image, 25), degrade.add_noise(image, 25)
    assert first.dtype == np.float32
    assert np.array_equal(first, second), "the protocol's noise is the same for every image"
    drawn = [degrade.add_noise(image, 25, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])
    assert drawn[2].std() == pytest.approx(25 / 255, rel=0.03)
    assert drawn[2].mean() == pytest.approx(128 / 255, abs=0.005)


def test_noise_is_not_clipped():
    assert degrade.add_noise(np.zeros((16, 16), np.uint8), 50).min() < 0


def test_jpeg_is_libjpeg():
    image = np.random.default_rng(0).integers(0, 256, (40, 56), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=30)
    assert np.array_equal(degrade.jpeg(image, 30), read(stream))
    assert np.array_equal(degrade.jpeg(image[..., None], 30)[..., 0], read(stream))
    with pytest.raises(ValueError, match=r"1\.\.100"):
        degrade.jpeg(image, 0)
    with pytest.raises(ValueError, match="uint8"):
        degrade.jpeg(image / 255, 10)


def test_the_input_of_a_task_is_its_degradation():
    image = np.random.default_rng(0).integers(0, 256, (24, 36, 3), dtype=np.uint8)
    reduced = degrade.for_task(image, SuperResolution(3), border="symmetric")
    assert np.array_equal(reduced, degrade.bicubic_downscale(image, 3, "symmetric"))
    noise = np.random.default_rng(5).normal(0, 15 / 255, image.shape)
    noisy = degrade.for_task(image, Denoising(15), np.random.default_rng(5))
    np.testing.assert_allclose(noisy, image / 255 + noise, atol=1e-6)
    protocol_noise = np.random.RandomState(0).normal(0, 15 / 255, image.shape)
    np.testing.assert_allclose(degrade.for_task(image, Denoising(15)), image / 255 + protocol_noise, atol=1e-6)
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=40)
    assert np.array_equal(degrade.for_task(image, JpegArtefacts(40)), read(stream))


@pytest.mark.parametrize("task", [Denoising(), JpegArtefacts()])
def test_a_task_of_any_strength_degrades_nothing(task):
    with pytest.raises(InputError, match="give sigma or quality"):
        degrade.for_task(np.zeros((8, 8), np.uint8), task)
