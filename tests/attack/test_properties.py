"""Properties that hold for all arguments, tried on those that hypothesis thinks of."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational
from restoration_networks import Nearest

pytest.importorskip("hypothesis", reason="hypothesis is not installed")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atd import degrade
from atd.errors import LoadError
from atd.images import ImageData, Metadata, read_image, write_image
from atd.images.exif import lasting_exif
from atd.restoration.api import restore
from atd.restoration.plan import output_size, passes
from atd.restoration.tiling import discarded, plan_axis, tile_limit
from atd.weights.description import check_config

settings.register_profile(
    "suite",
    max_examples=50,
    deadline=None,
    derandomize=True,  # the same ones on every machine
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("suite")


# ---- tiling


@given(
    length=st.integers(1, 5000),
    tile=st.integers(1, 600),
    overlap=st.integers(0, 200),
    multiple=st.sampled_from([1, 2, 4, 8, 16]),
    origin=st.integers(0, 4999),
)
def test_tiles_cover_every_pixel_once_outside_the_seams(length, tile, overlap, multiple, origin):
    origin %= length
    plan = plan_axis(length, tile, overlap, multiple, origin)
    # Counted pixel by pixel: each is a tile's own, or cross-faded between two that both have it.
    covered = np.zeros(length, int)
    for index, span in enumerate(plan.tiles):
        own = slice(plan.seam_before(index).stop, plan.seam_after(index).start)
        assert span.start <= own.start <= own.stop <= span.stop
        covered[own] += 1
        covered[slice(*plan.seam_after(index))] += 1
    assert (covered[origin:] == 1).all()
    assert not covered[:origin].any()
    assert plan.tiles[0].start == origin
    assert plan.tiles[-1].stop == length
    assert len({span.size for span in plan.tiles}) == 1
    if len(plan.tiles) > 1:
        assert plan.size % multiple == 0
        assert plan.size <= tile_limit(tile, multiple)
        shared = min(overlap, tile_limit(tile, multiple) // 2)
        for index, seam in enumerate(plan.seams):
            before, after = plan.tiles[index], plan.tiles[index + 1]
            assert before.stop - after.start >= shared
            assert after.start <= seam.start <= seam.stop <= before.stop
            assert seam.size == shared - 2 * discarded(shared)


@given(
    size=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    tile=st.integers(4, 30),
    overlap=st.integers(0, 30),
    batch_size=st.integers(1, 5),
    scale=st.integers(1, 4),
    channels=st.sampled_from([1, 3]),
)
def test_an_exact_network_is_exact_however_it_is_tiled(size, tile, overlap, batch_size, scale, channels):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, channels)).astype(np.uint8)
    result = restore(Nearest(scale), pixels, tile=tile, overlap=overlap, batch_size=batch_size)
    assert np.array_equal(result, pixels.repeat(scale, 0).repeat(scale, 1))


# ---- planning


@given(
    height=st.integers(1, 10**6), width=st.integers(1, 10**6), scale=st.integers(1, 8), outscale=st.floats(0.001, 1000)
)
def test_the_network_is_applied_often_enough_and_not_once_too_often(height, width, scale, outscale):
    count = passes(scale, outscale)
    assert count >= 1
    assert scale == 1 or scale**count >= outscale
    assert count == 1 or scale ** (count - 1) < outscale
    result = output_size(height, width, scale, outscale)
    assert min(result) >= 1
    assert all(abs(new - old * outscale) <= 0.5 or new == 1 for new, old in zip(result, (height, width), strict=True))


# ---- degradation


@given(
    height=st.integers(1, 8),
    width=st.integers(1, 8),
    scale=st.integers(1, 5),
    level=st.integers(0, 255),
    border=st.sampled_from(["edge", "symmetric"]),
    channels=st.sampled_from([None, 1, 3]),
)
def test_reducing_a_constant_image_gives_that_constant(height, width, scale, level, border, channels):
    shape = (height * scale, width * scale) if channels is None else (height * scale, width * scale, channels)
    flat = np.full(shape, level, np.uint8)
    reduced = degrade.bicubic_downscale(flat, scale, border)
    assert reduced.shape[:2] == (height, width)
    assert (reduced == level).all()


@given(seed=st.integers(0, 2**32 - 1), scale=st.integers(1, 4), size=st.tuples(st.integers(2, 6), st.integers(2, 6)))
def test_reducing_commutes_with_flips_and_transposition(seed, scale, size):
    """MATLAB's filter has no preferred side: rounding of exact halves apart, of which float images have none."""
    image = np.random.default_rng(seed).random((size[0] * scale, size[1] * scale))
    reduced = degrade.bicubic_downscale(image, scale)
    np.testing.assert_allclose(degrade.bicubic_downscale(image[::-1].copy(), scale)[::-1], reduced, atol=1e-12)
    np.testing.assert_allclose(degrade.bicubic_downscale(image.T.copy(), scale).T, reduced, atol=1e-12)


@given(quality=st.integers(1, 100), seed=st.integers(0, 2**32 - 1))
def test_jpeg_of_any_quality_is_what_pillow_decodes(quality, seed):
    image = np.random.default_rng(seed).integers(0, 256, (19, 23)).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=quality)
    assert np.array_equal(degrade.jpeg(image, quality), np.asarray(Image.open(stream)))


# ---- metadata

TEXT = st.text(st.characters(codec="ascii", min_codepoint=32, max_codepoint=126), min_size=1, max_size=40)


@given(
    maker=TEXT,
    artist=TEXT,
    exposure=st.tuples(st.integers(1, 10**6), st.integers(1, 10**6)),
    dpi=st.integers(1, 20_000),
    xmp=st.binary(min_size=1, max_size=300).map(lambda data: b"<x:xmpmeta>" + data.hex().encode() + b"</x:xmpmeta>"),
    ending=st.sampled_from([".png", ".jpg", ".webp", ".tif"]),
    deep=st.booleans(),
)
def test_metadata_comes_back_as_it_was_written(tmp_path, maker, artist, exposure, dpi, xmp, ending, deep):
    exif = Image.Exif()
    exif[0x010F], exif[0x013B] = maker, artist
    details = exif.get_ifd(0x8769)
    details[0x829A] = IFDRational(*exposure)
    exif[0x8769] = details
    written = Metadata(exif=lasting_exif(exif), xmp=xmp, dpi=(float(dpi), float(dpi)))
    dtype = np.uint16 if deep and ending in (".png", ".tif") else np.uint8
    path = tmp_path / f"a{ending}"
    write_image(path, ImageData(np.full((4, 5, 3), 7, dtype), written))
    # Pillow is the other reader; ours must agree with it.
    with Image.open(path) as image:
        image.load()
        read = image.getexif()
        assert (read[0x010F].strip("\0"), read[0x013B].strip("\0")) == (maker, artist)
        assert float(read.get_ifd(0x8769)[0x829A]) == pytest.approx(exposure[0] / exposure[1])
        theirs = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
        assert (theirs.encode() if isinstance(theirs, str) else theirs).rstrip(b"\0") == xmp
        if ending != ".webp":
            assert float(image.info["dpi"][0]) == pytest.approx(dpi, rel=1e-3, abs=0.6)
    again = read_image(path).metadata
    assert again.xmp is not None
    assert again.xmp.rstrip(b"\0") == xmp
    assert again.exif is not None


# ---- descriptions of networks


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=5), values, max_size=3),
    max_leaves=6,
)
KEYWORDS = ("depths", "embed_dim", "num_heads", "window_size", "category_size", "upscale", "img_range", "mlp_ratio")


@given(st.dictionaries(st.sampled_from([*KEYWORDS, "unknown"]), JSON), st.integers(0, 10**5))
def test_a_description_is_refused_in_one_line_or_is_one_of_a_network(config, tensors):
    with contextlib.suppress(LoadError):
        check_config(config, tensors, "config.json")
        for keyword in config.keys() & {"embed_dim", "upscale"}:
            assert type(config[keyword]) is int
            assert config[keyword] >= 1
        for keyword in config.keys() & {"img_range", "mlp_ratio"}:
            assert 0 < config[keyword] < float("inf")
        for keyword in config.keys() & {"depths", "num_heads"}:
            assert all(type(entry) is int and entry >= 1 for entry in config[keyword])
        assert sum(config.get("depths", [])) <= tensors
