"""JPEG in torch against libjpeg, as Pillow brings it."""

import io

import numpy as np
import pytest
import torch
from PIL import Image, features

from atd.degrade import jpeg_batch
from atd.errors import InputError


def through_libjpeg(image, quality, **options):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=quality, **options)
    return np.asarray(Image.open(stream)).astype(int)


def photos():
    """Smooth shapes with edges, texture and noise, like a photo; and noise alone, like none."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:96, :112] / 96
    smooth = np.stack([np.sin(5 * x + 3 * y), np.cos(7 * x * y), x - y], -1) * 100 + 128
    smooth[30:60, 20:70] = (200, 40, 30)
    smooth = smooth + rng.normal(0, 8, smooth.shape)
    return [smooth.clip(0, 255).astype(np.uint8), rng.integers(0, 256, (96, 112, 3), dtype=np.uint8)]


@pytest.mark.parametrize(("subsampling", "code"), [("4:2:0", 2), ("4:4:4", 0)])
@pytest.mark.parametrize("size", [(96, 112), (61, 53), (17, 5), (16, 4), (9, 3), (1, 1)])
def test_a_batch_is_what_libjpeg_makes_of_its_images(size, subsampling, code):
    qualities = [1, 30, 31, 49, 50, 75, 88, 95, 100]
    for photo in photos():
        image = np.ascontiguousarray(photo[: size[0], : size[1]])
        batch = torch.from_numpy(image).movedim(2, 0).expand(len(qualities), -1, -1, -1)
        results = jpeg_batch(batch, qualities, subsampling).movedim(1, 3).numpy().astype(int)
        expected = np.stack([through_libjpeg(image, quality, subsampling=code) for quality in qualities])
        difference = np.abs(results - expected)
        if features.check("libjpeg_turbo"):
            assert difference.max() == 0
        assert difference.mean() <= 0.1
        assert (difference <= 2).mean() >= 0.999


def test_gray_images():
    image = np.ascontiguousarray(photos()[0][:50, :43, 0])
    results = jpeg_batch(torch.from_numpy(image).expand(2, 1, -1, -1), [30, 80])
    expected = np.stack([through_libjpeg(image, quality) for quality in (30, 80)])
    difference = np.abs(results[:, 0].numpy() - expected)
    assert difference.max() <= (0 if features.check("libjpeg_turbo") else 2)


def test_what_is_no_batch_is_refused():
    image = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    with pytest.raises(InputError, match="float32"):
        jpeg_batch(image.float(), [50, 50])
    with pytest.raises(InputError, match="2 qualities from 1 to 100"):
        jpeg_batch(image, [50, 0])
    with pytest.raises(InputError, match="2 qualities"):
        jpeg_batch(image, [50])
    with pytest.raises(InputError, match="4:2:2"):
        jpeg_batch(image, [50, 50], "4:2:2")  # pyright: ignore[reportArgumentType]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card")
def test_the_same_on_a_gpu():
    batch = torch.from_numpy(np.stack(photos())).movedim(3, 1)
    assert torch.equal(jpeg_batch(batch.cuda(), [30, 90]).cpu(), jpeg_batch(batch, [30, 90]))
