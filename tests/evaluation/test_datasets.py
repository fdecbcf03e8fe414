import numpy as np
import pytest
from PIL import Image

from atd.evaluation.datasets import canonical_name, find_sets
from atd.evaluation.protocol import Protocol
from atd.tasks import Denoising, JpegArtefacts, SuperResolution, make_task


def image(path, size=(24, 24), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def one(*args, **kwargs):
    sets, missing = find_sets(*args, **kwargs)
    assert not missing
    (found,) = sets
    return found


def files(benchmark):
    return {pair.name: pair.degraded and pair.degraded.name for pair in benchmark.pairs}


def test_folder_per_set(tmp_path):
    for name in "ba":
        image(tmp_path / f"Set5/HR/{name}.png")
        image(tmp_path / f"Set5/LR_bicubic/X4/{name}x4.png")
    image(tmp_path / "Set5/LR_bicubic_symmetric/X4/ax4.png")
    found = one(tmp_path, ["set5", "SET5"], SuperResolution(4))
    assert found.name == "Set5"
    assert list(files(found).items()) == [("a.png", "ax4.png"), ("b.png", "bx4.png")]
    assert files(one(tmp_path, ["Set5"], SuperResolution(3))) == {"a.png": None, "b.png": None}
    with pytest.raises(ValueError, match=r"1 of 2 references have no degraded file .* the first is b\.png"):
        find_sets(tmp_path, ["Set5"], SuperResolution(4), border="symmetric")
    # The folder of the set itself serves too.
    assert files(one(tmp_path / "Set5", None, SuperResolution(4))) == files(found)


@pytest.mark.parametrize("root", ["datasets/TestDataSR", "TestDataSR", "."])
@pytest.mark.parametrize(("hr", "lr"), [("a.png", "a.png"), ("a_HR_x4.png", "a_LRBI_x4.png"), ("a.png", "ax4.png")])
def test_the_authors_super_resolution_layout(tmp_path, root, hr, lr):
    image(tmp_path / root / "HR/B100/x4" / hr)
    image(tmp_path / root / "LR/LRBI/B100/x4" / lr)
    assert files(one(tmp_path, ["bsd100"], SuperResolution(4))) == {hr: lr}


@pytest.mark.parametrize("root", ["datasets", "."])
@pytest.mark.parametrize(
    ("folder", "name", "task"),
    [
        ("ColorDN/CBSD68HQ", "cbsd68", "denoise"),
        ("GrayDN/Set12", "set12", "denoise"),
        ("ColorDN/Urban100HQ", "urban100", "jpeg"),
        ("CAR/classic5/Classic5_HQ", "Classic5", "jpeg"),
        ("CAR/LIVE1/LIVE1_HQ", "live1", "jpeg"),
        ("denoise/Kodak24", "kodak", "denoise"),
        ("jpeg/LIVE1", "LIVE1", "jpeg"),
        ("sr/Urban100/HR", "Urban100", "denoise"),
    ],
)
def test_layouts_of_clean_images(tmp_path, root, folder, name, task):
    image(tmp_path / root / folder / "a.png")
    found = one(tmp_path, [name], make_task(task))
    assert files(found) == {"a.png": None}
    assert found.name == canonical_name(name)


def test_plain_folders(tmp_path):
    image(tmp_path / "photos/b.jpg")
    image(tmp_path / "photos/a.PNG")
    (tmp_path / "photos/notes.txt").write_text("not an image")
    (tmp_path / "photos/.hidden.png").write_bytes(b"")
    for found in (one(tmp_path / "photos", None, SuperResolution(2)), one(tmp_path, ["photos"], JpegArtefacts())):
        assert found.name == "photos"
        assert files(found) == {"a.PNG": None, "b.jpg": None}


def test_the_papers_sets_are_the_default(tmp_path):
    for path in ("Set5/HR/a.png", "B100/HR/a.png", "denoise/BSD68/a.png", "denoise/McMaster/a.png"):
        image(tmp_path / path)
    sets, missing = find_sets(tmp_path, None, SuperResolution(2))
    assert [found.name for found in sets] == ["Set5", "B100"]
    assert missing == ["Set14", "Urban100", "Manga109"]
    assert [found.name for found in find_sets(tmp_path, None, Denoising())[0]] == ["McMaster"]
    assert [found.name for found in find_sets(tmp_path, None, Denoising(), gray=True)[0]] == ["BSD68"]


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no set 'Set5' .* expected e\.g\. .*Set5/HR"):
        find_sets(tmp_path, ["set5"], SuperResolution(2))
    with pytest.raises(FileNotFoundError, match="none of the sets classic5, LIVE1, Urban100"):
        find_sets(tmp_path, None, JpegArtefacts(), gray=True)
    with pytest.raises(FileNotFoundError, match="absent does not exist"):
        find_sets(tmp_path / "absent", None, JpegArtefacts())


def test_sizes_that_do_not_fit_are_refused(tmp_path):
    image(tmp_path / "Set5/HR/a.png", size=(25, 26))
    image(tmp_path / "Set5/LR_bicubic/X4/ax4.png", size=(6, 6))
    found = one(tmp_path, ["Set5"], SuperResolution(4))
    degraded, reference = Protocol.published(SuperResolution(4)).load(found.pairs[0])
    assert (degraded.shape, reference.shape) == ((6, 6, 3), (24, 24, 3))
    image(tmp_path / "Set5/LR_bicubic/X4/ax4.png", size=(7, 6))
    with pytest.raises(ValueError, match="7x6 pixels, expected 6x6"):
        Protocol.published(SuperResolution(4)).load(found.pairs[0])


def test_gray_files_and_colour_files(tmp_path):
    gray, colour = image(tmp_path / "gray.png", mode="L"), image(tmp_path / "colour.png")
    assert Protocol.published(SuperResolution(2)).read(gray).shape == (24, 24, 3)
    assert Protocol.published(Denoising(15), gray=True).read(colour).shape == (24, 24)
    # JPEG is measured on studio-range luminance, noise on the full range.
    rgb = np.asarray(Image.open(colour)).astype(np.float64)
    y = 16 + rgb @ (65.481 / 255, 128.553 / 255, 24.966 / 255)
    full = rgb @ (0.299, 0.587, 0.114)
    assert np.abs(Protocol.published(JpegArtefacts(10), gray=True).read(colour) - y).max() <= 0.5 + 1e-9
    assert np.abs(Protocol.published(Denoising(15), gray=True).read(colour) - full).max() <= 0.51
    deep = tmp_path / "deep.png"
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(deep)
    with pytest.raises(ValueError, match="scores are defined for 8-bit images"):
        Protocol.published(SuperResolution(2)).read(deep)
