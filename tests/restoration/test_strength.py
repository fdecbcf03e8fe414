"""`strength`: a blend of the input and the result, on every way that an image can take."""

import numpy as np
import pytest
import torch
from PIL import Image
from restoration_networks import Learned, Nearest
from small_networks import small

import atd
from atd.cli import main
from atd.errors import InputError

GENERATOR = np.random.default_rng(0)
KINDS = {
    "uint8": GENERATOR.integers(0, 256, (23, 31, 3), dtype=np.uint8),
    "uint16": GENERATOR.integers(0, 65536, (23, 31, 3)).astype(np.uint16),
    "float32": GENERATOR.normal(0.5, 0.4, (23, 31, 3)).astype(np.float32),
    "float64": GENERATOR.random((23, 31, 3)),
    "gray": GENERATOR.integers(0, 256, (23, 31), dtype=np.uint8),
    "gray and alpha": GENERATOR.integers(0, 256, (23, 31, 2), dtype=np.uint8),
    "alpha": GENERATOR.integers(0, 65536, (23, 31, 4)).astype(np.uint16),
}


@pytest.fixture(scope="module")
def network():
    """Keeps the size, and leaves the range here and there."""
    return Learned(scale=1)


@pytest.mark.parametrize("tile", [None, 12])
@pytest.mark.parametrize("kind", KINDS)
def test_both_ends_are_exact_and_between_them_is_the_blend(network, kind, tile):
    image = KINDS[kind]
    options = {"tile": tile, "overlap": 4}
    whole = atd.restore(network, image, **options)
    assert not np.array_equal(whole, image)
    assert np.array_equal(atd.restore(network, image, strength=1, **options), whole)
    nothing = atd.restore(network, image, strength=0, **options)
    assert nothing.dtype == image.dtype
    assert np.array_equal(nothing, image)
    assert not np.shares_memory(nothing, image)
    half = atd.restore(network, image, strength=0.3, **options)
    peak = np.iinfo(image.dtype).max if image.dtype.kind == "u" else 1
    expected = (0.7 * image.astype(np.float64) + 0.3 * whole).clip(0, peak)
    # The whole result has been rounded to samples, and so has the blend.
    assert np.abs(half - expected).max() <= (0.8 if peak > 1 else 1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_batches_of_tensors(network, dtype):
    images = torch.rand(3, 3, 21, 17, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    whole = atd.restore(network, images, tile=10, overlap=2, batch_size=4)
    assert torch.equal(atd.restore(network, images, tile=10, overlap=2, strength=0.0), images)
    assert torch.equal(atd.restore(network, images, tile=10, overlap=2, batch_size=4, strength=1.0), whole)
    blend = atd.restore(network, images, tile=10, overlap=2, batch_size=4, strength=0.75)
    accuracy = {torch.float16: 2e-3, torch.bfloat16: 1e-2}.get(dtype, 1e-6)
    torch.testing.assert_close(blend.double(), 0.25 * images.double() + 0.75 * whole.double(), rtol=0, atol=accuracy)


def test_a_restoration_network_of_atd_and_a_gray_one():
    for channels in (1, 3):
        network = small("ATDU", in_chans=channels)
        image = KINDS["uint8"]
        whole = atd.restore(network, image).astype(float)
        half = atd.restore(network, image, strength=0.5)
        assert np.abs(half - (image + whole) / 2).max() <= 0.8
        assert np.array_equal(atd.restore(network, image, strength=0), image)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "alpha"])
def test_strips_from_file_to_file_are_the_same(network, kind, tmp_path):
    pytest.importorskip("pyvips")
    from atd.images import ImageData, write_image

    write_image(tmp_path / "in.png", ImageData(KINDS[kind]))
    for strength in (0, 0.4, 1):
        results = []
        for stream in (False, True):
            target = tmp_path / f"{strength}_{stream}.png"
            atd.restore_file(network, tmp_path / "in.png", target, strength=strength, tile=12, overlap=4, stream=stream)
            with atd.images.open_image(target) as file:
                results.append(file.decode().pixels)
        assert np.array_equal(*results)
        if strength == 0:
            assert np.array_equal(results[0], KINDS[kind])


def test_rows_of_another_strength_are_not_gone_on_with(tmp_path, monkeypatch):
    pytest.importorskip("pyvips")
    network = Learned(scale=1)
    Image.fromarray(KINDS["uint8"]).save(tmp_path / "in.png")

    def stop(progress):
        if progress.done > 4:
            raise KeyboardInterrupt

    options = {"tile": 12, "overlap": 4, "stream": True}
    with pytest.raises(KeyboardInterrupt):
        atd.restore_file(network, tmp_path / "in.png", tmp_path / "o.png", strength=0.5, progress=stop, **options)
    with pytest.raises(InputError, match="other settings"):
        atd.restore_file(network, tmp_path / "in.png", tmp_path / "o.png", strength=0.6, resume=True, **options)
    atd.restore_file(network, tmp_path / "in.png", tmp_path / "o.png", strength=0.5, resume=True, **options)
    expected = atd.restore(network, KINDS["uint8"], strength=0.5, tile=12, overlap=4)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "o.png")), expected)


@pytest.mark.parametrize("strength", [-0.1, 1.01, float("nan"), "half", None])
def test_what_is_no_strength_is_refused(network, strength):
    with pytest.raises(InputError, match=r"strength from 0 .* to 1"):
        atd.restore(network, KINDS["uint8"], strength=strength)


def test_networks_that_enlarge_take_the_whole_strength_only(tmp_path):
    image = KINDS["uint8"]
    Image.fromarray(image).save(tmp_path / "in.png")
    for strength in (0, 0.5):
        with pytest.raises(InputError, match="enlarges 4 times"):
            atd.restore(Nearest(), image, strength=strength)
        with pytest.raises(InputError, match="enlarges 4 times"):
            atd.restore_file(Nearest(), tmp_path / "in.png", tmp_path / "out.png", strength=strength)
    assert not (tmp_path / "out.png").exists()
    assert atd.restore(Nearest(), image, strength=1).shape == (92, 124, 3)


def test_the_size_of_the_result_may_be_another(network):
    image = KINDS["uint8"]
    planes = [Image.fromarray(image[..., channel].astype(np.float32)) for channel in range(3)]
    resized = np.stack([np.asarray(plane.resize((62, 46), Image.Resampling.LANCZOS)) for plane in planes], axis=2)
    found = atd.restore(network, image, strength=0, outscale=2)
    assert np.abs(found - resized.clip(0, 255)).max() <= 0.51


def test_on_the_command_line(tmp_path, capsys):
    folder = small("ATDU").save_pretrained(tmp_path / "net")
    Image.fromarray(KINDS["uint8"]).save(tmp_path / "in.png")
    words = ["restore", "-i", str(tmp_path / "in.png"), "-o", str(tmp_path / "out.png"), "-n", str(folder)]
    assert main([*words, "--strength", "0.5"]) == 0
    expected = atd.restore(folder, KINDS["uint8"], strength=0.5)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out.png")), expected)
    for strength, message in (("2", "strength from 0"), ("nan", "strength from 0")):
        assert main([*words, "--overwrite", "--strength", strength]) == 2
        assert message in capsys.readouterr().err
    enlarging = small("ATD").save_pretrained(tmp_path / "sr")
    assert main([*words[:-1], str(enlarging), "--overwrite", "--strength", "0.5"]) == 2
    assert "enlarges 2 times" in capsys.readouterr().err
