"""Gray from colour files: the rounded luma, and what OpenCV decodes with its grayscale flag."""

import importlib.util
import zlib

import numpy as np
import pytest
from PIL import Image

from atd.errors import InputError
from atd.evaluation.datasets import ImagePair
from atd.evaluation.protocol import Protocol
from atd.images.gray import opencv_gray, rounded_gray
from atd.tasks import make_task
from atd.training import data, recipes

OPENCV_5 = {"png": 3726791494, "bmp": 2422061333, "tif": 2422061333}
"""Checksums of cv2.imread(..., cv2.IMREAD_GRAYSCALE) of OpenCV 5.0.0 for the image of `colour`."""


@pytest.fixture
def colour():
    """Random pixels, the first rows of them gray."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    pixels[:8] = pixels[:8, :, :1]
    return pixels


def weighted_sum(rgb):
    return rgb.astype(np.float64) @ [0.299, 0.587, 0.114]


@pytest.mark.parametrize("kind", OPENCV_5)
def test_files_become_gray_as_opencv_decodes_them(colour, tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    Image.fromarray(colour).save(path)
    gray = opencv_gray(path, colour)
    assert zlib.crc32(gray.tobytes()) == OPENCV_5[kind]
    if importlib.util.find_spec("cv2"):
        import cv2

        assert np.array_equal(gray, cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
    # And without OpenCV: cut off for PNG, rounded for the others, of the same weighted sum.
    offset = gray - weighted_sum(colour)
    bounds = (-1.012, 0.012) if kind == "png" else (-0.512, 0.512)
    assert bounds[0] < offset.min()
    assert offset.max() < bounds[1]


def test_jpeg_files_become_gray_by_their_own_luma(tmp_path):
    """Turned by its EXIF note, as the pixels are."""
    low = np.random.default_rng(1).integers(80, 170, (6, 8, 3), dtype=np.uint8)  # no colour that RGB would clip
    image = Image.fromarray(low).resize((48, 32), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.jpg", quality=90, exif=exif)
    with Image.open(tmp_path / "a.jpg") as stored:
        stored.draft("YCbCr", stored.size)
        luma = np.rot90(np.asarray(stored)[..., 0], -1)
    gray = data.read_pixels(tmp_path / "a.jpg", 1, "authors")[..., 0]
    assert np.array_equal(gray, luma)
    standard = data.read_pixels(tmp_path / "a.jpg", 1)[..., 0]
    assert np.abs(gray.astype(int) - standard).max() <= 1


def test_the_two_rules_differ_by_one_level_on_nearly_half_of_the_pixels(colour, tmp_path):
    Image.fromarray(colour).save(tmp_path / "a.png")
    difference = rounded_gray(colour).astype(int) - opencv_gray(tmp_path / "a.png", colour)
    assert set(np.unique(difference)) == {0, 1}
    assert 0.35 < difference.mean() < 0.5
    assert np.abs(rounded_gray(colour) - weighted_sum(colour)).max() < 0.51


def test_a_gray_training_takes_the_rule_of_its_recipe(colour, tmp_path):
    Image.fromarray(colour).save(tmp_path / "a.png")
    for rule, expected in (("standard", rounded_gray(colour)), ("authors", opencv_gray(tmp_path / "a.png", colour))):
        recipe = recipes.get("302").override([f"gray_from_colour={rule}", "images=.", "patch=[64, 64]"])
        degradation = data.Degradation(make_task("denoise"), (25,))
        source, _ = data.open_source(recipe, tmp_path, degradation, 1, lambda line: None)
        patch, _ = source.crop(0, np.random.default_rng(0), 48)
        top = next(top for top in range(17) if np.array_equal(expected[top : top + 48], patch[..., 0]))
        assert np.array_equal(patch[..., 0], expected[top : top + 48])
    for name in recipes.names():
        gray = name[-3:].isdigit() and name[-3] in "34"
        assert recipes.get(name).gray_from_colour == ("authors" if gray else "standard"), name


def test_scores_of_colour_files_by_the_authors_rule(colour, tmp_path):
    """Denoising: as OpenCV decodes. JPEG: the weights of R, G and B on B, G and R, rounded studio-range luma."""
    Image.fromarray(colour).save(tmp_path / "a.png")
    pair = ImagePair(tmp_path / "a.png", None)
    noise, jpeg = make_task("denoise", sigma=25), make_task("jpeg", quality=10)

    def reference(task, **rule):
        return Protocol.published(task, gray=True, **rule).load(pair)[1]

    assert np.array_equal(reference(noise), rounded_gray(colour))
    assert zlib.crc32(reference(noise, gray_from_colour="authors").tobytes()) == OPENCV_5["png"]
    values = colour.astype(np.float64)
    right = 16 + values @ [65.481, 128.553, 24.966] / 255
    turned = 16 + values @ [24.966, 128.553, 65.481] / 255
    assert np.abs(reference(jpeg) - right).max() <= 0.5 + 1e-4
    assert np.abs(reference(jpeg, gray_from_colour="authors") - turned).max() <= 0.5 + 1e-4
    assert np.abs(turned - right).max() > 20
    with pytest.raises(InputError, match="gray_from_colour must be one of standard, authors, got 'bgr'"):
        reference(jpeg, gray_from_colour="bgr")
