import json
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from atd import metrics
from atd.degrade import add_noise, bicubic_upscale, crop_to_multiple

RGB = np.zeros((8, 8, 3), np.uint8)


def pair(data, name, scale):
    """Bicubic upscaling of the published LR image, and its reference, both uint8 RGB."""
    lr = np.asarray(Image.open(data / f"sr/Set5/LR_bicubic/X{scale}/{name}x{scale}.png").convert("RGB"))
    hr = np.asarray(Image.open(data / f"sr/Set5/HR/{name}.png").convert("RGB"))
    return bicubic_upscale(lr, scale), crop_to_multiple(hr, scale)


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (3, 24, 31, 3), dtype=np.uint8)
    return a, np.clip(a + rng.normal(0, 20, a.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_published_protocol_on_set5(data, golden, scale):
    reference = json.loads((golden / "metrics.json").read_text())["results"][f"Set5/x{scale}"]
    for name, (psnr, ssim) in reference["images"].items():
        upscaled, hr = pair(data, name, scale)
        assert metrics.psnr(upscaled, hr, crop=scale) == pytest.approx(psnr, abs=0.005)
        assert metrics.ssim(upscaled, hr, crop=scale) == pytest.approx(ssim, abs=0.0002)


@pytest.mark.parametrize("channel", ["y", "rgb", "gray"])
def test_agrees_with_scikit_image(images, channel):
    reference = pytest.importorskip("skimage.metrics")
    a, b = (image[0] for image in images)
    if channel == "gray":
        a, b = a[..., 0], b[..., 0]
    crop, axis = 2, -1 if channel == "rgb" else None
    x, y = (metrics.to_y(image) if channel == "y" else image.astype(np.float64) for image in (a, b))
    x, y = x[crop:-crop, crop:-crop], y[crop:-crop, crop:-crop]
    psnr = reference.peak_signal_noise_ratio(x, y, data_range=255)
    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    _, quality = reference.structural_similarity(x, y, channel_axis=axis, full=True, **window)
    assert metrics.psnr(a, b, crop=crop, channel=channel) == pytest.approx(psnr, abs=1e-9)
    assert metrics.ssim(a, b, crop=crop, channel=channel) == pytest.approx(quality[5:-5, 5:-5].mean(), abs=1e-9)


def test_to_y_of_the_primaries():
    primaries = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    assert metrics.to_y(primaries)[0] == pytest.approx([16, 235, 81.481, 144.553, 40.966])


@pytest.mark.parametrize("metric", [metrics.psnr, metrics.ssim])
def test_torch_numpy_and_batches_agree(images, metric):
    a, b = images
    one_by_one = [metric(x, y) for x, y in zip(a, b, strict=True)]
    assert all(isinstance(value, float) for value in one_by_one)
    batch = metric(a, b)
    assert isinstance(batch, np.ndarray)
    assert batch == pytest.approx(one_by_one, abs=1e-12)
    tensors = [torch.from_numpy(image).movedim(-1, 1) for image in images]
    assert metric(*tensors).tolist() == pytest.approx(one_by_one, abs=1e-12)
    assert metric(tensors[0][0], tensors[1][0]) == pytest.approx(one_by_one[0], abs=1e-12)
    assert metric(tensors[0].double() / 255, tensors[1].double() / 255).tolist() == pytest.approx(one_by_one, abs=1e-9)
    assert metric(a.astype(np.float32), b.astype(np.float32), peak=255) == pytest.approx(one_by_one, abs=1e-12)


def test_equal_images(images):
    assert metrics.psnr(images[0], images[0]) == pytest.approx([np.inf] * 3)
    assert metrics.ssim(images[0], images[0]) == pytest.approx([1, 1, 1])


def test_noise_has_the_psnr_of_its_variance():
    clean = np.full((512, 512), 0.5, np.float32)
    assert metrics.psnr(add_noise(clean, 25), clean, channel="gray") == pytest.approx(20 * np.log10(255 / 25), abs=0.02)


@pytest.mark.parametrize(
    ("a", "b", "options", "message"),
    [
        (RGB, RGB[:, 1:], {}, "differ in shape"),
        (RGB, RGB.astype(np.float32), {}, "differ in range"),
        (np.full((8, 8, 3), 9.0), np.zeros((8, 8, 3)), {}, "peak=255"),
        (np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.uint8), {}, "does not suit images of 1"),
        (RGB, RGB, {"channel": "gray"}, "does not suit images of 3"),
        (RGB, RGB, {"crop": 4}, "cannot crop 4"),
        (RGB, RGB, {"channel": "v"}, "'y', 'rgb' or 'gray'"),
    ],
)
def test_errors_say_what_is_wrong(a, b, options, message):
    with pytest.raises(ValueError, match=message):
        metrics.psnr(a, b, **options)


def test_ssim_needs_its_window():
    small = np.zeros((16, 16, 3), np.uint8)
    with pytest.raises(ValueError, match="at least 11x11"):
        metrics.ssim(small, small, crop=3)


def test_lpips_is_the_packages(images, tmp_path, monkeypatch):
    """With random backbone weights, because the trained ones are a download; the linear weights are in the package."""
    lpips = pytest.importorskip("lpips")
    torchvision = pytest.importorskip("torchvision")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    torch.manual_seed(0)
    weights = tmp_path / "hub/checkpoints/squeezenet1_1-b8a52dc0.pth"
    weights.parent.mkdir(parents=True)
    torch.save(torchvision.models.squeezenet1_1().state_dict(), weights)
    a, b = (np.repeat(np.repeat(image, 3, 1), 3, 2) for image in images)  # the network needs more pixels
    x, y = (torch.from_numpy(image).movedim(-1, 1).float() / 127.5 - 1 for image in (a, b))
    metrics._lpips_model.cache_clear()
    found = metrics.lpips(a, b, net="squeeze")
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):
        expected = lpips.LPIPS(net="squeeze", verbose=False).eval()(x, y).flatten().tolist()
    assert found == pytest.approx(expected, rel=1e-4)
    assert metrics.lpips(a[0], b[0], net="squeeze") == pytest.approx(expected[0], rel=1e-4)
    assert metrics.lpips(a[0], a[0], net="squeeze") == 0
    metrics._lpips_model.cache_clear()


def test_lpips_without_its_package_names_the_extra(images, monkeypatch):
    monkeypatch.setitem(sys.modules, "lpips", None)
    metrics._lpips_model.cache_clear()
    with pytest.raises(ImportError, match=r"atd-restoration\[metrics\]"):
        metrics.lpips(*images)
