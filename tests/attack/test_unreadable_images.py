"""Images that decoders would answer with black, gray or shifted colours: refused in a sentence, or read rightly."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin, features
from restoration_networks import Nearest

from atd.errors import ImageError, NotEnoughMemoryError
from atd.images import probe, read_image
from atd.images.integrity import check_header
from atd.restoration import memory
from atd.restoration.api import restore_file

COMPRESSION = 259


def photo(mode, size=(96, 80)):
    """Smooth colours with some noise: what codecs are made for, and nowhere black."""
    rows, columns = np.mgrid[: size[1], : size[0]]
    channels = [60 + rows, 200 - columns, 80 + (rows + columns) // 2]
    noise = np.random.default_rng(0).integers(0, 12, (size[1], size[0], 3))
    image = Image.fromarray((np.stack(channels, -1) + noise).astype(np.uint8))
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.fromarray((255 - columns).astype(np.uint8)))
    return image.convert(mode)


def tag_at(data, tag):
    """Where the field is in the first directory of a little-endian classic TIFF."""
    (place,) = struct.unpack_from("<I", data, 4)
    for index in range(struct.unpack_from("<H", data, place)[0]):
        if struct.unpack_from("<H", data, place + 2 + 12 * index)[0] == tag:
            return place + 2 + 12 * index
    raise AssertionError(f"no field {tag}")


def with_tag(data, tag, value):
    """A little-endian classic TIFF with one 16-bit field of its first directory replaced."""
    data = bytearray(data)
    struct.pack_into("<HII", data, tag_at(data, tag) + 2, 4, 1, value)
    return bytes(data)


@pytest.mark.parametrize("codec", [34887, 34925, 34712, 50000, 50001])
def test_deep_tiff_of_a_codec_that_libvips_lacks_is_not_black(tmp_path, codec):
    pyvips = pytest.importorskip("pyvips")
    pixels = np.random.default_rng(0).integers(0, 65_536, (40, 50, 3)).astype(np.uint16)
    pyvips.Image.new_from_array(pixels, interpretation="rgb16").tiffsave(str(tmp_path / "deep.tif"))
    source = tmp_path / "in.tif"
    source.write_bytes(with_tag((tmp_path / "deep.tif").read_bytes(), COMPRESSION, codec))
    with pytest.raises(ImageError, match=r"in\.tif"):
        restore_file(Nearest(scale=2), source, tmp_path / "out.png")
    assert not (tmp_path / "out.png").exists()


CODECS = ["raw", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits", "zstd", "lzma"]
PAIRS = [(mode, codec) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "YCbCr") for codec in CODECS]
PAIRS += [("1", "group3"), ("1", "group4")]
PAIRS += [(mode, "jpeg") for mode in ("L", "RGB", "YCbCr")]


@pytest.mark.parametrize(("mode", "codec"), PAIRS)
def test_streamed_tiff_is_what_pillow_decodes(tmp_path, mode, codec):
    pytest.importorskip("pyvips")
    if not features.check("libtiff"):
        pytest.skip("Pillow lacks libtiff")
    source, target = tmp_path / "in.tif", tmp_path / "out.png"
    try:
        photo(mode).save(source, compression=codec)
        with Image.open(source) as image:
            image.load()
            keyed = mode in ("LA", "RGBA")
            kind = mode if keyed else "L" if mode in ("1", "L") else "RGB"
            expected = np.asarray(image.convert(kind)).astype(int)
    except (OSError, ValueError, RuntimeError):
        pytest.skip(f"this Pillow does not write {mode} as {codec}")
    restore_file(Nearest(scale=2), source, target, tile=32, overlap=8, stream=True)
    with Image.open(target) as image:
        assert image.mode == kind
        result = np.asarray(image).astype(int)[::2, ::2]
    difference = np.abs(result - expected)
    assert difference.max() <= (2 if codec == "jpeg" else 0)


@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp", ".gif", ".bmp", ".ppm"])
def test_streamed_regions_are_what_pillow_decodes(tmp_path, ending):
    """BMP and PPM, which libvips does not read, are restored in memory instead."""
    pytest.importorskip("pyvips")
    source, target = tmp_path / f"in{ending}", tmp_path / "out.png"
    photo("RGB").save(source)
    restore_file(Nearest(scale=2), source, target, tile=32, overlap=8, stream=True)
    with Image.open(source) as image, Image.open(target) as result:
        difference = np.abs(np.asarray(result.convert("RGB")).astype(int)[::2, ::2] - np.asarray(image.convert("RGB")))
    assert difference.max() <= (2 if ending in (".jpg", ".webp") else 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([source.name, "out.png"])


@pytest.mark.parametrize("ending", [".bmp", ".ppm", ".pgm"])
def test_what_cannot_stream_and_does_not_fit_is_one_sentence_and_leaves_no_part(tmp_path, monkeypatch, ending):
    pytest.importorskip("pyvips")
    source = tmp_path / f"in{ending}"
    photo("L" if ending == ".pgm" else "RGB").save(source)
    assert read_image(source).pixels.any()
    if ending == ".bmp":
        monkeypatch.setattr(memory, "free_ram", lambda: 100_000)
        with pytest.raises(NotEnoughMemoryError, match=r"in\.bmp: .*streaming is not possible"):
            restore_file(Nearest(scale=4), source, tmp_path / "out.png")
    else:
        restore_file(Nearest(scale=4), source, tmp_path / "out.png", stream=True)
    assert not (tmp_path / "out.png.part").exists()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("ending", [".png", ".jpg"])
def test_a_tail_of_zeros_or_nothing_is_refused(tmp_path, ending, stream):
    """However much is lost: all but a few bytes, or the last ones."""
    if stream:
        pytest.importorskip("pyvips")
    source = tmp_path / f"in{ending}"
    photo("RGB").save(source)
    data = source.read_bytes()
    for kept in [*range(len(data) // 3, len(data) - 3, 211), len(data) - 3]:
        for tail in (b"", bytes(len(data) - kept)):
            source.write_bytes(data[:kept] + tail)
            with pytest.raises(ImageError, match=r"in\.(png|jpg)"):
                restore_file(Nearest(scale=2), source, tmp_path / "out.png", tile=32, stream=stream)
    assert [path.name for path in tmp_path.iterdir()] == [source.name]


@pytest.mark.parametrize("arguments", [{"progressive": True}, {"quality": 30, "optimize": True}])
def test_whole_jpegs_of_every_kind_are_read(tmp_path, arguments):
    photo("RGB").save(tmp_path / "in.jpg", exif=bytes(Image.Exif().tobytes()), **arguments)
    with Image.open(tmp_path / "in.jpg") as image:
        assert np.array_equal(read_image(tmp_path / "in.jpg").pixels, np.asarray(image))


@pytest.mark.parametrize("codec", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd"])
def test_a_tiff_that_promises_more_than_it_holds_is_refused_by_its_header(tmp_path, codec):
    source = tmp_path / "in.tif"
    photo("RGB").save(source, compression=codec)
    data = source.read_bytes()
    assert probe(source).shape == (80, 96, 3)
    source.write_bytes(with_tag(with_tag(data, 256, 30_000), 257, 30_000))
    with pytest.raises(ImageError, match=r"in\.tif cannot be decoded: .*promises"):
        probe(source)


def deep_tiff(**arguments):
    pyvips = pytest.importorskip("pyvips")
    pixels = np.random.default_rng(0).integers(0, 65_536, (40, 50, 3)).astype(np.uint16)
    return bytes(pyvips.Image.new_from_array(pixels, interpretation="rgb16").tiffsave_buffer(**arguments))


def refused(tmp_path, data, match, ending=".tif"):
    source = tmp_path / f"in{ending}"
    source.write_bytes(data)
    for stream in (False, True):
        with pytest.raises(ImageError, match=match) as caught:
            restore_file(Nearest(scale=2), source, tmp_path / "out.tif", tile=32, overlap=8, stream=stream)
        assert source.name in str(caught.value)
        assert [path.name for path in tmp_path.iterdir()] == [source.name]


PREDICTOR, PHOTOMETRIC, SAMPLES, PALETTE, PLANES = 317, 262, 277, 320, 284


def test_deep_tiff_with_a_predictor_that_nobody_knows_is_not_black(tmp_path):
    refused(tmp_path, with_tag(deep_tiff(compression="deflate", predictor="horizontal"), PREDICTOR, 4), "Predictor")


@pytest.mark.parametrize("tile", [False, True])
def test_tiff_with_an_unknown_predictor_is_not_black_in_strips_or_tiles(tmp_path, tile):
    pyvips = pytest.importorskip("pyvips")
    image = pyvips.Image.new_from_array(np.asarray(photo("RGB")), interpretation="srgb")
    options = {"tile": tile, "tile_width": 16, "tile_height": 16} if tile else {}
    data = bytes(image.tiffsave_buffer(compression="deflate", predictor="horizontal", **options))
    refused(tmp_path, with_tag(data, PREDICTOR, 6), "cannot be decoded|Predictor")


def test_one_bit_in_separate_planes_is_not_black_in_strips(tmp_path):
    image = photo("1")
    image.save(tmp_path / "in.tif")
    data = (tmp_path / "in.tif").read_bytes()
    (tmp_path / "in.tif").write_bytes(with_tag(data, PLANES, 2))
    restore_file(Nearest(scale=2), tmp_path / "in.tif", tmp_path / "out.png", tile=32, overlap=8, stream=True)
    with Image.open(tmp_path / "out.png") as result:
        assert np.array_equal(np.asarray(result)[::2, ::2], np.asarray(image) * np.uint8(255))


def test_deep_tiff_that_says_it_is_a_fax_is_not_black(tmp_path):
    refused(tmp_path, with_tag(deep_tiff(), COMPRESSION, 4), "one bit a pixel, this one says 48")


@pytest.mark.parametrize("kind", [4, 32_767])
def test_deep_tiff_of_a_kind_of_colour_that_is_not_read_is_refused(tmp_path, kind):
    refused(tmp_path, with_tag(deep_tiff(), PHOTOMETRIC, kind), "kind of colour")


def test_a_tiff_with_bits_for_more_samples_than_it_has_is_refused(tmp_path):
    photo("RGBA").save(tmp_path / "whole.tif")
    data = (tmp_path / "whole.tif").read_bytes()
    (tmp_path / "whole.tif").unlink()
    refused(tmp_path, with_tag(data, SAMPLES, 1), "contradicts itself: 1 samples a pixel, bits for 4")


def test_a_tiff_with_fewer_samples_than_its_colour_has_is_refused(tmp_path):
    photo("L").save(tmp_path / "whole.tif")
    data = (tmp_path / "whole.tif").read_bytes()
    (tmp_path / "whole.tif").unlink()
    refused(tmp_path, with_tag(data, PHOTOMETRIC, 2), "contradicts itself")


@pytest.mark.parametrize("codec", ["raw", "tiff_lzw", "packbits"])
def test_a_tiff_whose_palette_was_cut_off_is_not_read_as_gray(tmp_path, codec):
    photo("P").save(tmp_path / "whole.tif", compression=codec)
    data = (tmp_path / "whole.tif").read_bytes()
    (tmp_path / "whole.tif").unlink()
    refused(tmp_path, with_tag(data, PALETTE, 0), "palette that is not whole")
    cut = bytearray(data)
    struct.pack_into("<I", cut, tag_at(data, PALETTE) + 8, len(data) - 100)
    refused(tmp_path, bytes(cut), "palette|outside the file")


def test_a_further_channel_that_is_not_said_to_be_alpha_is_not_taken_for_it(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    pixels = np.random.default_rng(0).integers(0, 65_536, (40, 50, 4)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "in.tif", pixels, photometric="rgb", extrasamples=["unspecified"])
    data = (tmp_path / "in.tif").read_bytes()
    (tmp_path / "in.tif").unlink()
    refused(tmp_path, data, "does not say that it is transparency")


def test_numbers_that_are_none_are_refused_with_the_name_of_the_file_in_strips_too(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "in.tif", np.full((40, 50, 3), np.nan, np.float32), photometric="rgb")
    data = (tmp_path / "in.tif").read_bytes()
    (tmp_path / "in.tif").unlink()
    refused(tmp_path, data, r"nan, expected \[0, 1\]")


TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_SIZES, SAMPLE_FORMAT = 322, 323, 324, 325, 339


def tiled(mode, **arguments):
    """A TIFF in tiles of 16x16 by libvips; mode "16 bits" is deep colour."""
    arguments = {"tile": True, "tile_width": 16, "tile_height": 16} | arguments
    if mode == "16 bits":
        return deep_tiff(**arguments)
    pyvips = pytest.importorskip("pyvips")
    interpretation = "b-w" if mode in ("L", "LA") else "srgb"
    image = pyvips.Image.new_from_array(np.asarray(photo(mode)), interpretation=interpretation)
    return bytes(image.tiffsave_buffer(**arguments))


def with_entry(data, tag, index, value):
    """A little-endian classic TIFF with one number of a table of its first directory replaced."""
    kind, _, place = struct.unpack_from("<HII", data, tag_at(data, tag) + 2)
    data, form = bytearray(data), {3: "<H", 4: "<I"}[kind]
    struct.pack_into(form, data, place + index * struct.calcsize(form), value)
    return bytes(data)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "16 bits"])
@pytest.mark.parametrize("codec", ["lzw", "deflate", "packbits"])
def test_tiles_of_a_tiff_that_cannot_be_unpacked_are_not_read_as_they_are(tmp_path, mode, codec):
    """libvips warns of them, and goes on with what was in memory before."""
    data = tiled(mode, compression=codec)
    offset = struct.unpack_from("<I", data, struct.unpack_from("<I", data, tag_at(data, TILE_OFFSETS) + 8)[0] + 16)[0]
    garbage = bytearray(data)
    garbage[offset + 6 : offset + 60] = np.random.default_rng(0).bytes(54)
    damages = [with_entry(data, TILE_SIZES, 3, 20), with_tag(data, TILE_WIDTH, 32), with_tag(data, TILE_HEIGHT, 64)]
    if codec != "packbits":  # to which any bytes are runs
        damages += [bytes(garbage), with_entry(data, TILE_OFFSETS, 2, 40)]
    for damaged in damages:
        refused(tmp_path, damaged, r"in\.tif")


def test_tiles_with_fields_that_nobody_knows_are_still_streamed(tmp_path):
    """Damaged tiles are warnings to libvips; what else is a warning must not refuse a file."""
    tifffile = pytest.importorskip("tifffile")
    pytest.importorskip("pyvips")
    pixels = np.asarray(photo("RGB"))
    known = {"photometric": "rgb", "extratags": [(65_000, 3, 1, 7, True), (33_550, 12, 3, (1.0, 1.0, 0.0), True)]}
    for index, layout in enumerate([{"tile": (16, 16), "compression": "zlib"}, {"rowsperstrip": 5}]):
        source, target = tmp_path / f"{index}.tif", tmp_path / f"{index}.png"
        tifffile.imwrite(source, pixels, **known, **layout)
        data = bytearray(source.read_bytes())
        (place,) = struct.unpack_from("<I", data, 4)
        (count,) = struct.unpack_from("<H", data, place)
        entries = [bytes(data[place + 2 + 12 * number :][:12]) for number in range(count)]
        data[place + 2 : place + 2 + 12 * count] = b"".join(reversed(entries))
        source.write_bytes(data)
        restore_file(Nearest(scale=2), source, target, tile=32, overlap=8, stream=True)
        with Image.open(target) as result:
            assert np.array_equal(np.asarray(result)[::2, ::2], pixels)


@pytest.mark.parametrize("kind", ["separate planes", "fax"])
def test_tiles_that_libvips_does_not_read_are_restored_in_memory(tmp_path, kind):
    tifffile = pytest.importorskip("tifffile")
    source = tmp_path / "in.tif"
    if kind == "fax":
        pyvips = pytest.importorskip("pyvips")
        pixels = np.asarray(photo("1")) * np.uint8(255)
        image = pyvips.Image.new_from_array(pixels, interpretation="b-w")
        image.tiffsave(str(source), tile=True, tile_width=16, tile_height=16, bitdepth=1, compression="ccittfax4")
    else:
        pixels = np.asarray(photo("RGB"))
        planes = np.moveaxis(pixels, 2, 0)
        tifffile.imwrite(source, planes, photometric="rgb", planarconfig="separate", tile=(16, 16))
    restore_file(Nearest(scale=2), source, tmp_path / "out.png", tile=32, overlap=8, stream=True)
    with Image.open(tmp_path / "out.png") as result:
        assert np.array_equal(np.asarray(result)[::2, ::2], pixels)


def test_gray_in_strips_whose_second_channel_is_named_by_a_damaged_field_is_refused(tmp_path):
    """The field of the strips' sizes became a second one of planes: libtiff takes the first of two, Pillow the last."""
    photo("LA").save(tmp_path / "whole.tif")
    data = bytearray((tmp_path / "whole.tif").read_bytes())
    (tmp_path / "whole.tif").unlink()
    struct.pack_into("<HHII", data, tag_at(data, 279), PLANES, 3, 1, 2)
    refused(tmp_path, bytes(data), "contradicts itself: field 284 is there twice")


def test_one_bit_that_says_it_has_a_sign_is_refused(tmp_path):
    photo("1").save(tmp_path / "whole.tif", compression="tiff_lzw")
    data = bytearray((tmp_path / "whole.tif").read_bytes())
    (tmp_path / "whole.tif").unlink()
    struct.pack_into("<HHII", data, tag_at(data, PLANES), SAMPLE_FORMAT, 3, 1, 2)
    refused(tmp_path, bytes(data), "signed or floating samples of 1 bits")


def test_channels_beyond_colour_and_alpha_are_not_read_as_colour(tmp_path):
    """Found by an hour of the attack: gray from white, of four channels, whose gray was not turned over."""
    tifffile = pytest.importorskip("tifffile")
    pixels = np.random.default_rng(0).integers(0, 65_536, (40, 50, 4)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "whole.tif", pixels, photometric="rgb", extrasamples=["unassalpha"], metadata=None)
    data = (tmp_path / "whole.tif").read_bytes()
    (tmp_path / "whole.tif").unlink()
    refused(tmp_path, with_tag(data, PHOTOMETRIC, 0), "3 channels beyond those of its colour")


@pytest.mark.parametrize("stream", [False, True])
def test_gray_of_16_bits_whose_white_is_zero_is_turned_over(tmp_path, stream):
    """Pillow turns 8 bits over and leaves 16 as they are."""
    tifffile = pytest.importorskip("tifffile")
    pixels = np.random.default_rng(0).integers(0, 65_536, (40, 50)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "in.tif", pixels, photometric="miniswhite")
    restore_file(Nearest(scale=2), tmp_path / "in.tif", tmp_path / "out.tif", tile=32, overlap=8, stream=stream)
    assert np.array_equal(tifffile.imread(tmp_path / "out.tif")[::2, ::2].squeeze(), 65_535 - pixels)


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.uint32])
def test_white_that_is_zero_without_a_black_is_refused(tmp_path, dtype):
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "whole.tif", np.ones((40, 50), dtype), photometric="miniswhite")
    data = (tmp_path / "whole.tif").read_bytes()
    (tmp_path / "whole.tif").unlink()
    refused(tmp_path, data, "its white is zero")


@pytest.mark.parametrize(("tag", "value"), [(TILE_WIDTH, 256), (TILE_HEIGHT, 32)])
def test_tiles_of_jpeg_that_have_another_size_than_the_header_says_are_refused(tmp_path, tag, value):
    """Found by an hour of the attack: each decoder makes something else of them."""
    refused(tmp_path, with_tag(tiled("RGB", compression="jpeg"), tag, value), "the first has 16x16")


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_promises_more_than_it_holds_is_refused_before_it_is_decoded(tmp_path, progressive):
    """Found by an hour of the attack: 60,000 rows of gray from a kilobyte."""
    photo("RGB").save(tmp_path / "whole.jpg", progressive=progressive)
    data = bytearray((tmp_path / "whole.jpg").read_bytes())
    (tmp_path / "whole.jpg").unlink()
    frame = data.index(b"\xff\xc2" if progressive else b"\xff\xc0")
    struct.pack_into(">H", data, frame + 5, 60_000)
    refused(tmp_path, bytes(data), "too short for the 96x60000 pixels", ".jpg")


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("arguments", [{}, {"progressive": True}, {"subsampling": "4:2:0", "quality": 1}])
def test_jpegs_of_one_colour_which_are_the_shortest_are_read(tmp_path, mode, arguments):
    Image.new(mode, (1001, 999), 77).save(tmp_path / "in.jpg", optimize=True, **arguments)
    assert read_image(tmp_path / "in.jpg").pixels.shape[:2] == (999, 1001)


def test_a_gif_with_lost_data_is_refused_in_strips_too(tmp_path):
    """libvips restores it with what it has; Pillow does not."""
    photo("P").save(tmp_path / "whole.gif")
    data = bytearray((tmp_path / "whole.gif").read_bytes())
    (tmp_path / "whole.gif").unlink()
    frame = data.index(b",\0\0\0\0")
    data[frame + 7 : frame + 9] = (90).to_bytes(2, "little")
    refused(tmp_path, bytes(data), "cannot be decoded", ".gif")


def test_a_png_that_promises_more_than_it_holds_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    photo("L").save(tmp_path / "in.png")
    data = bytearray((tmp_path / "in.png").read_bytes())
    data[16:24] = struct.pack(">II", 12_000, 12_000)
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")

    def decoded(self):
        raise AssertionError("decoded")

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", decoded)
    refused(tmp_path, bytes(data), "too short for the 12000x12000 pixels", ".png")


def test_a_bigtiff_whose_directory_lies_beyond_all_files_is_an_error_of_ours(tmp_path):
    """Found by `fuzz.py`: an offset that no system call takes."""
    (tmp_path / "in.tif").write_bytes(b"II+\0\x08\0\0\0" + b"\xff" * 8)
    with (tmp_path / "in.tif").open("rb") as file, pytest.raises(ImageError, match="directory is broken"):
        check_header(file, tmp_path / "in.tif")
