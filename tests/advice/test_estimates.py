"""What is measured in a picture, beside a truth that is known: Pillow's libjpeg, NumPy's noise, Pillow's filters."""

import io

import numpy as np
import pytest
from advice_pictures import KODAK, crop_of, jpeg_file, with_noise
from PIL import Image, ImageFilter

import atd
from atd.advice.compression import quality_of_table
from atd.advice.recommendations import NOISY
from atd.images.jpeg_tables import LUMINANCE, steps_at

FILTERS = (Image.Resampling.NEAREST, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)


def measured(image):
    return atd.advise(np.asarray(image)).measurements


def enlarged(image, factor, kernel):
    """As large as the image, from its middle; cut so that the grid of the small pixels begins anywhere."""
    width, height = (int(side / factor) + 8 for side in image.size)
    small = image.crop((9, 11, 9 + width, 11 + height))
    large = small.resize((int(width * factor), int(height * factor)), kernel)
    return large.crop((5, 3, 5 + image.width, 3 + image.height))


def test_tables_of_libjpeg_give_the_quality_exactly():
    image = crop_of(KODAK[0]).crop((0, 0, 16, 16))
    for quality in range(1, 101):
        file = jpeg_file(image, quality)
        assert quality_of_table(file.quantization[0]) == (quality, True)
    for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
        found = atd.advise(jpeg_file(image, 63, subsampling)).measurements.compression
        assert (found.quality, found.exact, found.subsampling) == (63, True, subsampling)


@pytest.mark.parametrize("quality", [20, 50, 75, 85])
def test_tables_of_other_programs_give_the_nearest_quality(quality):
    steps = steps_at(quality, LUMINANCE).ravel()
    steps = np.clip(steps + np.random.default_rng(quality).integers(-1, 2, 64), 1, 255).tolist()
    file = io.BytesIO()
    crop_of(KODAK[0]).save(file, "JPEG", qtables=[steps, steps])
    found = atd.advise(Image.open(file)).measurements.compression
    assert abs(found.quality - quality) <= 2
    assert not found.exact


@pytest.mark.parametrize("subsampling", ["4:2:0", "4:4:4"])
@pytest.mark.parametrize("quality", [10, 30, 50, 75, 90])
@pytest.mark.parametrize("path", KODAK, ids=lambda path: path.stem)
def test_pixels_betray_the_quality_at_which_they_were_compressed(path, quality, subsampling):
    decoded = jpeg_file(crop_of(path), quality, subsampling).convert("RGB")
    for picture in (decoded, decoded.crop((3, 5, 224, 224))):
        found = measured(picture).compression
        assert found.source == "pixels"
        assert abs(found.quality - quality) <= 2


def test_pixels_betray_a_compression_before_that_of_the_file():
    twice = jpeg_file(jpeg_file(crop_of(KODAK[1]), 40).convert("RGB"), 92)
    found = atd.advise(twice).measurements.compression
    assert found.quality == 92
    assert abs(found.earlier - 40) <= 2
    assert atd.advise(jpeg_file(crop_of(KODAK[1]), 92)).measurements.compression.earlier is None


@pytest.mark.parametrize("path", KODAK, ids=lambda path: path.stem)
def test_a_clean_picture_has_no_fault(path):
    advice = atd.advise(path)
    assert advice.verdict == "clean"
    found = advice.measurements
    assert found.compression is None
    assert found.noise.strength < NOISY
    assert found.resolution.enlarged is None
    assert found.resolution.soft is None
    assert not found.gray


# The range that is documented, for crops of this size.
BOUNDS = {5: (4.5, 9.5), 10: (8.5, 12.5), 15: (13, 17), 25: (21, 27), 50: (32, 51)}


@pytest.mark.parametrize("sigma", BOUNDS)
@pytest.mark.parametrize("path", KODAK, ids=lambda path: path.stem)
def test_noise_is_as_strong_as_it_was_made(path, sigma):
    low, high = BOUNDS[sigma]
    image = crop_of(path)
    assert low <= measured(with_noise(image, sigma)).noise.colour <= high
    gray = measured(with_noise(image.convert("L"), sigma)).noise
    assert low <= gray.luma <= high
    assert gray.colour is None
    same = measured(with_noise(image, sigma, same=True)).noise
    assert low <= same.luma <= high
    assert same.colour < NOISY


def test_textures_are_not_called_noise():
    rows, columns = np.mgrid[:224, :224]
    gratings = 128 + 50 * np.sin(columns / 1.7) * np.sin(rows / 2.3) + 40 * np.sin((rows + 2 * columns) / 5)
    weave = 128 + 60 * ((rows // 2 + columns // 3) % 2)
    for texture in (gratings, weave):
        picture = np.rint(texture).astype(np.uint8)
        noise = measured(picture).noise
        assert noise.strength is None or noise.strength < NOISY


@pytest.mark.parametrize("kernel", FILTERS, ids=lambda kernel: kernel.name)
@pytest.mark.parametrize("factor", [2, 3, 4])
def test_an_enlarged_picture_is_told_with_its_factor(factor, kernel):
    found = [measured(enlarged(crop_of(path), factor, kernel)).resolution for path in KODAK]
    assert [each.enlarged for each in found] == [factor] * len(KODAK)


@pytest.mark.parametrize("radius", [1, 2])
def test_a_blurred_picture_is_soft_and_not_called_enlarged(radius):
    for path in KODAK:
        found = measured(crop_of(path).filter(ImageFilter.GaussianBlur(radius))).resolution
        assert found.enlarged is None
    assert found.soft is not None or radius == 1


@pytest.mark.parametrize("quality", [10, 50, 90])
def test_blocks_of_jpeg_are_not_taken_for_enlarged_pixels(quality):
    for path in KODAK:
        found = measured(jpeg_file(crop_of(path), quality).convert("RGB")).resolution
        assert found is None if quality < 30 else found.enlarged is None


def test_gray_content_is_told_from_colour():
    gray = crop_of(KODAK[0]).convert("L")
    assert measured(gray.convert("RGB")).gray
    assert atd.advise(jpeg_file(gray.convert("RGB"), 30)).measurements.gray
    assert not measured(crop_of(KODAK[0])).gray


def test_the_same_picture_measures_alike_however_it_is_given(tmp_path):
    image = with_noise(crop_of(KODAK[2]).convert("L"), 15)
    path = tmp_path / "gray.png"
    image.save(path)
    eight = np.asarray(image)
    found = [
        measured(value).noise.luma for value in (eight, eight.astype(np.uint16) * 257, eight.astype(np.float64) / 255)
    ]
    found += [atd.advise(value).measurements.noise.luma for value in (image, path, str(path))]
    assert np.ptp(found) < 0.01
    alpha = np.dstack([eight, np.arange(224, dtype=np.uint8) * np.ones_like(eight)])
    assert atd.advise(alpha).measurements.noise.luma == pytest.approx(found[0])
