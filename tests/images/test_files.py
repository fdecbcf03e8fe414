"""Files to pixels and back: nothing lost, nothing half-written, every bad file one sentence.

What our code wrote is read by something else: Pillow where we used libvips, tifffile, a PNG decoder of twenty lines.
"""

from __future__ import annotations

import io
import struct
import sys
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps, PngImagePlugin, TiffImagePlugin
from restoration_networks import Nearest

from atd.errors import ImageError, MissingExtraError
from atd.images import ImageData, Metadata, SaveOptions, probe, read_image, write_image
from atd.restoration import memory
from atd.restoration.api import restore, restore_file

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF/></x:xmpmeta>'


def noise(height=9, width=13, channels=3, dtype=np.uint8, seed=0):
    high = 256 if dtype == np.uint8 else 65_536
    return np.random.default_rng(seed).integers(0, high, (height, width, channels)).astype(dtype)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bytes(pixels, size=None):
    """An unfiltered PNG of 8 or 16 bits, after the specification; `size` lets the header lie."""
    height, width, channels = pixels.shape
    depth = 8 * pixels.dtype.itemsize
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", *(size or (width, height)), depth, kind, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(pixels.dtype.newbyteorder(">")).tobytes() for row in pixels)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def png_pixels(path):
    """Decode a PNG of 8 or 16 bits without interlacing, after the specification."""
    data = path.read_bytes()
    position, packed = 8, b""
    width = height = depth = kind = 0
    while position < len(data):
        (length,) = struct.unpack(">I", data[position : position + 4])
        name, body = data[position + 4 : position + 8], data[position + 8 : position + 8 + length]
        if name == b"IHDR":
            width, height, depth, kind = struct.unpack(">IIBB", body[:10])
        packed += body if name == b"IDAT" else b""
        position += length + 12
    channels = {0: 1, 4: 2, 2: 3, 6: 4}[kind]
    step, raw = channels * depth // 8, zlib.decompress(packed)
    line = width * step
    previous, rows = bytearray(line), []
    for y in range(height):
        method, row = raw[y * (line + 1)], bytearray(raw[y * (line + 1) + 1 : (y + 1) * (line + 1)])
        for x in range(line):
            left = row[x - step] if x >= step else 0
            up, corner = previous[x], previous[x - step] if x >= step else 0
            guess = left + up - corner
            nearest = min((left, up, corner), key=lambda value: abs(guess - value))
            row[x] = (row[x] + (0, left, up, (left + up) // 2, nearest)[method]) % 256
        rows.append(bytes(row))
        previous = row
    return np.frombuffer(b"".join(rows), f">u{depth // 8}").reshape(height, width, channels).astype(f"u{depth // 8}")


# ---- depth and channels


@pytest.mark.parametrize("ending", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_depth_and_channel_count_survives_bit_for_bit(tmp_path, dtype, channels, ending):
    pytest.importorskip("pyvips")
    tifffile = pytest.importorskip("tifffile")
    pixels = noise(channels=channels, dtype=dtype)
    (tmp_path / "in.png").write_bytes(png_bytes(pixels))
    image_data = read_image(tmp_path / "in.png")
    assert image_data.pixels.dtype == dtype
    assert np.array_equal(image_data.pixels, pixels)
    write_image(tmp_path / f"out{ending}", image_data)
    if ending == ".png":
        assert np.array_equal(png_pixels(tmp_path / "out.png"), pixels)
    else:
        assert np.array_equal(tifffile.imread(tmp_path / "out.tif").reshape(pixels.shape), pixels)
    assert np.array_equal(read_image(tmp_path / f"out{ending}").pixels, pixels)


def test_sixteen_bits_reach_the_network_and_come_back(tmp_path):
    pytest.importorskip("pyvips")
    pixels = noise(channels=4, dtype=np.uint16)
    (tmp_path / "in.png").write_bytes(png_bytes(pixels))
    restore_file(Nearest(scale=2), tmp_path / "in.png", tmp_path / "out.png")
    result = png_pixels(tmp_path / "out.png")
    opaque = pixels[..., 3] > 0
    assert np.array_equal(result[::2, ::2][opaque], pixels[opaque])
    network = Nearest()
    with pytest.raises(ImageError, match="4 channels of uint16: use restore_file"):
        restore(network, tmp_path / "in.png")
    assert not network.seen


def test_a_deep_file_that_has_changed_is_read_anew(tmp_path):
    """libvips caches files by name."""
    pytest.importorskip("pyvips")
    for seed in (0, 1):
        pixels = noise(dtype=np.uint16, seed=seed)
        (tmp_path / "in.png").write_bytes(png_bytes(pixels))
        assert np.array_equal(read_image(tmp_path / "in.png").pixels, pixels)


@pytest.mark.parametrize("channels", [1, 3])
def test_float_tiff(tmp_path, channels):
    tifffile = pytest.importorskip("tifffile")
    if channels == 3:
        pytest.importorskip("pyvips")
    pixels = np.random.default_rng(0).random((9, 13, channels), dtype=np.float32)
    tifffile.imwrite(tmp_path / "in.tif", pixels[:, :, 0] if channels == 1 else pixels)
    restore_file(Nearest(scale=2), tmp_path / "in.tif", tmp_path / "out.tif")
    result = tifffile.imread(tmp_path / "out.tif").reshape(18, 26, channels)
    assert result.dtype == np.float32
    # A gray image goes through a colour network by way of its luma, whose weights sum to one up to rounding.
    assert np.abs(result - pixels.repeat(2, 0).repeat(2, 1)).max() < 1e-6
    with pytest.raises(ImageError, match="PNG cannot hold float samples"):
        restore_file(Nearest(scale=2), tmp_path / "in.tif", tmp_path / "out.png")
    tifffile.imwrite(tmp_path / "bright.tif", pixels * 255)
    with pytest.raises(ImageError, match=r"expected \[0, 1\]"):
        read_image(tmp_path / "bright.tif")


def test_sixteen_bit_colour_without_libvips_is_refused_or_converted_on_request(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyvips", None)
    pixels = noise(dtype=np.uint16)
    (tmp_path / "in.png").write_bytes(png_bytes(pixels))
    with pytest.raises(MissingExtraError, match=r"in\.png.*pip install 'atd-restoration\[io\]'"):
        read_image(tmp_path / "in.png")
    with pytest.warns(UserWarning, match="read with 8 bits"):
        image_data = read_image(tmp_path / "in.png", eight_bit=True)
    assert np.array_equal(image_data.pixels, (pixels >> 8).astype(np.uint8))


def test_sixteen_bit_tiff_and_ppm_are_not_cut_to_eight(tmp_path):
    pytest.importorskip("pyvips")
    tifffile = pytest.importorskip("tifffile")
    pixels = noise(dtype=np.uint16)
    tifffile.imwrite(tmp_path / "in.tif", pixels)
    (tmp_path / "in.ppm").write_bytes(b"P6\n13 9\n65535\n" + pixels.astype(">u2").tobytes())
    assert np.array_equal(read_image(tmp_path / "in.tif").pixels, pixels)
    with pytest.raises(ImageError, match="PPM of 16 bits"):
        read_image(tmp_path / "in.ppm")


def test_sixteen_bits_into_jpeg_are_rounded_with_a_warning(tmp_path):
    image_data = ImageData(np.full((8, 8, 1), 40_000, np.uint16))
    with pytest.warns(UserWarning, match="JPEG holds 8 bits"):
        write_image(tmp_path / "out.jpg", image_data)
    assert abs(int(np.asarray(Image.open(tmp_path / "out.jpg"))[4, 4]) - round(40_000 / 257)) <= 1


def test_palette_and_colour_key_transparency(tmp_path):
    palette = Image.fromarray(noise()).quantize(8)
    palette.save(tmp_path / "palette.png", transparency=2)
    Image.fromarray(noise()).save(tmp_path / "rgb.png", transparency=tuple(int(v) for v in noise()[0, 0]))
    Image.fromarray(noise(channels=1)[..., 0]).save(tmp_path / "gray.png", transparency=int(noise(channels=1)[0, 0, 0]))
    Image.fromarray(noise(channels=1, dtype=np.uint16)[..., 0]).save(
        tmp_path / "gray16.png", transparency=int(noise(channels=1, dtype=np.uint16)[0, 0, 0])
    )
    alpha = read_image(tmp_path / "palette.png").pixels[..., 3]
    assert np.array_equal(alpha == 0, np.asarray(palette) == 2)
    assert read_image(tmp_path / "rgb.png").pixels[0, 0, 3] == 0
    for name, full in (("gray.png", 255), ("gray16.png", 65_535)):
        pixels = read_image(tmp_path / name).pixels
        assert pixels.shape[2] == 2
        assert pixels[0, 0, 1] == 0
        assert pixels[..., 1].max() == full


def test_one_bit_becomes_gray(tmp_path):
    image = Image.fromarray(noise(channels=1)[..., 0]).convert("1")
    for name in ("in.png", "in.tif", "in.bmp"):
        image.save(tmp_path / name)
        assert np.array_equal(read_image(tmp_path / name).pixels[..., 0], np.asarray(image) * np.uint8(255))


def test_cmyk_is_converted_by_its_profile_or_refused(tmp_path):
    pyvips = pytest.importorskip("pyvips")
    flat = np.zeros((16, 16, 3), np.uint8)
    flat[:] = (180, 90, 60)
    source = pyvips.Image.new_from_array(flat, interpretation="srgb")
    source.icc_transform("cmyk", input_profile="srgb").jpegsave(str(tmp_path / "in.jpg"), Q=98, subsample_mode="off")
    assert Image.open(tmp_path / "in.jpg").mode == "CMYK"
    image_data = read_image(tmp_path / "in.jpg")
    reference = pyvips.Image.new_from_file(str(tmp_path / "in.jpg")).icc_transform("srgb", intent="perceptual").numpy()
    assert np.abs(image_data.pixels.astype(int) - reference).max() <= 2
    assert image_data.metadata.icc is not None
    assert "sRGB" in (ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(image_data.metadata.icc))))
    Image.new("CMYK", (4, 4)).save(tmp_path / "bare.jpg")
    with pytest.raises(ImageError, match="CMYK without a colour profile"):
        read_image(tmp_path / "bare.jpg")


# ---- metadata


def exif_of(orientation=None):
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif[0x0131] = "Camera"
    if orientation:
        exif[0x0112] = orientation
    details = exif.get_ifd(0x8769)
    details[0x829A] = TiffImagePlugin.IFDRational(1, 250)
    details[0xA002], details[0xA003] = 13, 9
    exif[0x8769] = details
    return exif


@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp", ".tif"])
def test_profile_exif_xmp_and_resolution_survive(tmp_path, ending):
    xmp = {"xmp": XMP}
    if ending == ".png":
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", XMP.decode())
        xmp = {"pnginfo": info}
    exif = exif_of()
    if ending == ".tif":
        exif[700], xmp = XMP, {}
    source = tmp_path / f"in{ending}"
    Image.fromarray(noise()).save(source, icc_profile=SRGB, exif=exif, dpi=(300, 300), **xmp)
    target = tmp_path / f"out{ending}"
    restore_file(Nearest(scale=2), source, target)
    with Image.open(target) as image:
        image.load()
        assert image.info["icc_profile"] == SRGB
        assert image.getexif()[0x010F] == "Maker"
        assert float(image.getexif().get_ifd(0x8769)[0x829A]) == pytest.approx(1 / 250)
        # The stored size of the source would be wrong for the result.
        assert 0xA002 not in image.getexif().get_ifd(0x8769)
        xmp_kept = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
        assert (xmp_kept.encode() if isinstance(xmp_kept, str) else xmp_kept).rstrip(b"\0") == XMP
        if ending != ".webp":
            assert float(image.info["dpi"][0]) == pytest.approx(300, abs=0.1)


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_metadata_survives_sixteen_bit_colour(tmp_path, ending):
    pytest.importorskip("pyvips")
    exif = exif_of()
    metadata = Metadata(icc=SRGB, exif=exif.tobytes(), xmp=XMP, dpi=(300.0, 300.0))
    write_image(tmp_path / f"a{ending}", ImageData(noise(dtype=np.uint16), metadata))
    restore_file(Nearest(scale=2), tmp_path / f"a{ending}", tmp_path / f"b{ending}")
    with Image.open(tmp_path / f"b{ending}") as image:
        assert image.info["icc_profile"] == SRGB
        xmp_kept = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
        assert (xmp_kept.encode() if isinstance(xmp_kept, str) else xmp_kept).rstrip(b"\0") == XMP
        assert float(image.info["dpi"][0]) == pytest.approx(300, abs=0.1)
        assert image.getexif()[0x010F] == "Maker"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", [".png", ".jpg", ".tif"])
def test_orientation_is_applied_and_removed(tmp_path, orientation, ending):
    gradient = np.linspace(0, 255, 24 * 16).reshape(16, 24).astype(np.uint8)
    Image.fromarray(np.stack([gradient, gradient.T.reshape(16, 24), gradient], axis=2)).save(
        tmp_path / f"in{ending}", exif=exif_of(orientation)
    )
    with Image.open(tmp_path / f"in{ending}") as image:
        reference = np.asarray(ImageOps.exif_transpose(image))
    image_data = read_image(tmp_path / f"in{ending}")
    assert np.array_equal(image_data.pixels, reference)
    assert probe(tmp_path / f"in{ending}").shape == image_data.pixels.shape
    write_image(tmp_path / "out.png", image_data)
    with Image.open(tmp_path / "out.png") as image:
        assert 0x0112 not in image.getexif()
        assert image.getexif()[0x010F] == "Maker"
    result = restore(Nearest(scale=1), tmp_path / f"in{ending}")
    assert np.array_equal(np.asarray(result), reference)
    with Image.open(tmp_path / f"in{ending}") as image:
        assert np.array_equal(np.asarray(restore(Nearest(scale=1), image)), reference)


# ---- encoding


def test_jpeg_quality_and_subsampling(tmp_path):
    image_data = ImageData(noise(64, 64))
    sizes = []
    for options in (SaveOptions(quality=98), SaveOptions(quality=50), SaveOptions(quality=50, subsampling="420")):
        write_image(tmp_path / "out.jpg", image_data, options)
        sizes.append((tmp_path / "out.jpg").stat().st_size)
    assert sizes[0] > sizes[1] > sizes[2]


def test_webp_is_lossless_unless_a_quality_is_given(tmp_path):
    pixels = noise(channels=4)
    write_image(tmp_path / "a.webp", ImageData(pixels))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.webp")), pixels)
    write_image(tmp_path / "b.webp", ImageData(pixels), SaveOptions(quality=60))
    assert not np.array_equal(np.asarray(Image.open(tmp_path / "b.webp")), pixels)


@pytest.mark.parametrize("channels", [1, 3])
def test_bmp(tmp_path, channels):
    pixels = noise(channels=channels)
    write_image(tmp_path / "a.bmp", ImageData(pixels))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.bmp")).reshape(pixels.shape), pixels)


def test_metadata_that_a_format_cannot_hold_is_told(tmp_path):
    image_data = ImageData(noise(), Metadata(icc=SRGB, xmp=XMP))
    with pytest.warns(UserWarning, match="BMP cannot hold the colour profile and XMP"):
        write_image(tmp_path / "a.bmp", image_data)
    long = ImageData(noise(), Metadata(icc=SRGB, xmp=XMP * 2000))
    with pytest.warns(UserWarning, match="JPEG cannot hold the XMP of 116000 bytes"):
        write_image(tmp_path / "a.jpg", long)
    assert Image.open(tmp_path / "a.jpg").info["icc_profile"] == SRGB


@pytest.mark.parametrize("name", ["a.jpg", "a.bmp"])
def test_formats_without_transparency_refuse_it(tmp_path, name):
    with pytest.raises(ImageError, match="cannot hold transparency; write png"):
        write_image(tmp_path / name, ImageData(noise(channels=4)))
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_nothing_and_keeps_the_old_file(tmp_path, monkeypatch):
    (tmp_path / "out.png").write_text("old")

    def full(self, file, *arguments, **keywords):
        file.write(b"some bytes")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space left"):
        write_image(tmp_path / "out.png", ImageData(noise()))
    assert [path.name for path in tmp_path.iterdir()] == ["out.png"]
    assert (tmp_path / "out.png").read_text() == "old"


# ---- what is refused


def test_animations_and_pages_are_refused_in_a_sentence(tmp_path):
    frames = [Image.fromarray(noise(seed=seed)) for seed in range(3)]
    for name in ("a.gif", "a.webp", "a.png", "a.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        with pytest.raises(ImageError, match=rf"{name} has 3 (frames|pages)"):
            read_image(tmp_path / name)
    frames[0].convert("P").save(tmp_path / "still.gif")
    assert read_image(tmp_path / "still.gif").pixels.shape == (9, 13, 3)


def test_the_main_image_of_a_phone_photo_with_several_is_taken(tmp_path):
    first = Image.fromarray(noise(32, 32))
    first.save(tmp_path / "in.jpg", format="MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))], quality=95)
    assert Image.open(tmp_path / "in.jpg").format == "MPO"
    assert read_image(tmp_path / "in.jpg").pixels.shape == (32, 32, 3)


def test_mislabelled_images_are_read_by_content(tmp_path):
    Image.fromarray(noise()).save(tmp_path / "in.jpg", format="PNG")
    assert np.array_equal(read_image(tmp_path / "in.jpg").pixels, noise())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"empty \(0 bytes\)"),
        (b"plain text", "not an image in a format that can be read"),
        (b"\x89PNG\r\n\x1a\n", "cannot be decoded|not an image"),
        (png_bytes(noise(40, 40))[:900], "cannot be decoded"),
        (png_bytes(noise(), size=(60_000, 60_000)), "60000x60000 pixels, more than the limit"),
    ],
)
def test_bad_files_are_one_sentence(tmp_path, content, message):
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises((ImageError, MemoryError, OSError), match=message) as caught:
        restore_file(Nearest(), tmp_path / "bad.png", tmp_path / "out.png")
    assert "bad.png" in str(caught.value) or "out.png" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.png"]


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    """8 megapixels in 8 kB, on a machine with 100 MB: nothing of it is decoded."""
    (tmp_path / "bomb.png").write_bytes(png_bytes(np.zeros((2048, 4096, 1), np.uint8)))
    assert (tmp_path / "bomb.png").stat().st_size < 10_000
    monkeypatch.setattr(memory, "free_ram", lambda: 100_000_000)

    def decoded(self):
        raise AssertionError("decoded")

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", decoded)
    with pytest.raises(MemoryError, match=r"[GMk]B of RAM"):
        restore_file(Nearest(), tmp_path / "bomb.png", tmp_path / "out.png", stream=False)


def test_a_result_larger_than_the_free_disk_is_refused_before_any_work(tmp_path, monkeypatch):
    Image.fromarray(noise()).save(tmp_path / "in.png")
    monkeypatch.setattr(memory, "free_disk", lambda folder: 1000)
    network = Nearest()
    with pytest.raises(OSError, match=r"needs up to .* of disk"):
        restore_file(network, tmp_path / "in.png", tmp_path / "out.png")
    assert not network.seen


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "none.png")
    with pytest.raises(ImageError, match="is a folder"):
        read_image(tmp_path)


def malformed_files():
    """200 files: valid ones of every format cut short, with bytes changed in the header, anywhere, or inserted."""
    generator = np.random.default_rng(0)
    seeds = [png_bytes(noise(dtype=np.uint16)), png_bytes(noise(channels=2)), png_bytes(noise(channels=1))]
    for mode, name, arguments in (
        ("RGB", "JPEG", {"exif": exif_of(6), "icc_profile": SRGB}),
        ("CMYK", "JPEG", {"icc_profile": SRGB}),
        ("RGBA", "WEBP", {}),
        ("RGB", "TIFF", {"compression": "tiff_lzw"}),
        ("P", "PNG", {"transparency": 1}),
        ("RGB", "TIFF", {}),
        ("1", "TIFF", {"compression": "group4"}),
        ("RGB", "BMP", {}),
        ("P", "GIF", {}),
        ("RGB", "PPM", {}),
    ):
        file = io.BytesIO()
        Image.fromarray(noise(24, 30)).convert(mode).save(file, format=name, **arguments)
        seeds.append(file.getvalue())
    for index in range(200):
        data = bytearray(seeds[index % len(seeds)])
        match index // len(seeds) % 4:
            case 0:
                data = data[: generator.integers(0, len(data))]
            case 1:
                for position in generator.integers(0, min(len(data), 64), 4):
                    data[position] = generator.integers(0, 256)
            case 2:
                for position in generator.integers(0, len(data), 12):
                    data[position] = generator.integers(0, 256)
            case 3:
                position = generator.integers(0, len(data))
                data[position:position] = generator.integers(0, 256, 20).astype(np.uint8).tobytes()
        yield index, bytes(data)


def test_two_hundred_malformed_files_never_crash_or_leave_something(tmp_path):
    """Each is restored (the damage may be harmless) or refused in one sentence; never another exception."""
    source, target = tmp_path / "in.bin", tmp_path / "out.tif"
    messages = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for index, data in malformed_files():
            source.write_bytes(data)
            try:
                restore_file(Nearest(scale=1), source, target, tile=256)
            except (ImageError, MemoryError, OSError) as error:
                messages.append(str(error))
            else:
                with Image.open(target) as image:
                    image.load()
                target.unlink()
            assert [path.name for path in tmp_path.iterdir()] == ["in.bin"], index
    assert len(messages) > 100
    assert not any("\n" in message for message in messages)
