"""Training pairs: what a sample is, where it comes from, and what is said about bad folders."""

import zlib
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from atd import degrade
from atd.tasks import SuperResolution, make_task
from atd.training import data, recipes
from atd.training.data import Degradation, ImageSource, Patches


@pytest.fixture
def folder(tmp_path):
    """Five images of different sizes, random pixels."""
    rng = np.random.default_rng(0)
    for number, (height, width) in enumerate([(40, 52), (48, 40), (61, 43), (40, 40), (30, 90)]):
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    return tmp_path


def source(folder, task="sr", scale=4, **keywords):
    channels = keywords.pop("channels", 3)
    degradation = Degradation(make_task(task, scale=scale), {"denoise": (10, 50), "jpeg": (20, 40)}.get(task, (0, 0)))
    return ImageSource(data.find_images(folder), degradation, channels, 32, **keywords)


def symmetries(image: np.ndarray) -> list[np.ndarray]:
    """The eight symmetries of a square, made by flips and transposition."""
    views = []
    for view in (image, image.swapaxes(0, 1)):
        views += [view, view[::-1], view[:, ::-1], view[::-1, ::-1]]
    return views


def as_image(tensor: torch.Tensor) -> np.ndarray:
    return (tensor * 255).round().byte().movedim(0, 2).numpy()


@pytest.mark.parametrize("cache_gb", [1.0, 0.0])
def test_sr_samples_are_aligned_crops_of_the_matlab_reduction(folder, cache_gb):
    """Each pair is searched in the whole images and their whole reductions, in all eight symmetries."""
    images = source(folder, cache_gb=cache_gb)
    assert images.cached == (cache_gb > 0)
    assert len(images) == 4
    assert images.skipped == 1  # 30×90 has no 32-pixel patch
    samples = Patches(images, 8, seed=3)
    seen = set()
    for number in range(24):
        low, high = samples[number]
        assert low.shape == (3, 8, 8)
        assert high.shape == (3, 32, 32)
        low, high = as_image(low), as_image(high)
        matches = []
        for path in images.images:
            clean = degrade.crop_to_multiple(np.asarray(Image.open(path)), 4)
            reduced = degrade.bicubic_downscale(clean, 4)
            for symmetry, (small, large) in enumerate(zip(symmetries(low), symmetries(high), strict=True)):
                for top in range(reduced.shape[0] - 7):
                    for left in range(reduced.shape[1] - 7):
                        if np.array_equal(reduced[top : top + 8, left : left + 8], small):
                            assert np.array_equal(clean[4 * top : 4 * top + 32, 4 * left : 4 * left + 32], large)
                            matches.append(symmetry)
        assert len(matches) == 1
        seen.update(matches)
    assert seen == set(range(8))


def reflected(image: np.ndarray, side: int) -> np.ndarray:
    """dcba|abcd|dcba at the bottom and right, by the index of every pixel; nothing where the side is long enough."""

    def indices(length):
        positions = np.arange(max(length, side)) % (2 * length)
        return np.where(positions < length, positions, 2 * length - 1 - positions)

    return image[indices(image.shape[0])][:, indices(image.shape[1])]


@pytest.mark.parametrize("cache_gb", [1.0, 0.0])
def test_images_smaller_than_the_patch_are_reflected_not_left_out(tmp_path, cache_gb):
    """All patches of one narrow and one tiny image; the latter is reflected more than once."""
    rng = np.random.default_rng(1)
    pixels = [rng.integers(0, 256, size, dtype=np.uint8) for size in ((20, 50, 3), (6, 9, 3))]
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    images = ImageSource(data.find_images(tmp_path), Degradation(make_task("jpeg")), 3, 0, cache_gb=cache_gb)
    assert (len(images), images.skipped) == (2, 0)
    for patch in (16, 24, 32):  # the patch of the stage in force, not the largest
        for index, image in enumerate(pixels):
            whole = reflected(image, patch)
            for _ in range(4):
                target, lr = images.crop(index, rng, patch)
                assert lr is None
                lefts = range(whole.shape[1] - patch + 1)
                tops = range(whole.shape[0] - patch + 1)
                assert any(np.array_equal(whole[y : y + patch, x : x + patch], target) for y in tops for x in lefts)


@pytest.mark.parametrize("cache_gb", [1.0, 0.0])
@pytest.mark.parametrize("given", [True, False])
def test_small_super_resolution_pairs_are_reflected_each_by_itself(tmp_path, cache_gb, given):
    rng = np.random.default_rng(2)
    clean = rng.integers(0, 256, (26, 22, 3), dtype=np.uint8)
    lr = degrade.bicubic_downscale(degrade.crop_to_multiple(clean, 4), 4)
    lr = 255 - lr if given else lr
    (tmp_path / "hr").mkdir()
    Image.fromarray(clean).save(tmp_path / "hr" / "a.png")
    Image.fromarray(lr).save(tmp_path / "a.png")
    partners = [tmp_path / "a.png"] if given else None
    images = ImageSource(
        data.find_images(tmp_path / "hr"), Degradation(SuperResolution(4)), 3, 0, partners, cache_gb=cache_gb
    )
    target, small = images.crop(0, rng, 8)
    assert small is not None
    assert np.array_equal(target, reflected(clean[:24, :20], 32))
    assert np.array_equal(small, reflected(lr, 8))


@pytest.mark.parametrize(
    ("task", "scale", "patch", "checksum"),
    [("sr", 4, 8, 2096736667), ("sr", 3, 10, 4001829997), ("denoise", 1, 32, 694814715)],
)
def test_samples_of_large_images_are_what_they_were_before_small_ones_were_padded(folder, task, scale, patch, checksum):
    """Checksums of samples that the code before that change drew."""
    (folder / "4.png").unlink()
    levels = (10, 50) if task == "denoise" else (0, 0)
    images = ImageSource(data.find_images(folder), Degradation(make_task(task, scale=scale), levels), 3, 0)
    samples = Patches(images, patch, seed=3)
    total = 0
    for number in range(12):
        for tensor in samples[number]:
            total = zlib.crc32((tensor * 255).round().to(torch.int16).numpy().tobytes(), total)
    assert total == checksum


def test_cached_and_uncached_images_give_the_same_samples(folder):
    for task, scale in (("sr", 2), ("sr", 3), ("denoise", 1), ("jpeg", 1)):
        cached = Patches(source(folder, task, scale), 10, seed=1)
        uncached = Patches(source(folder, task, scale, cache_gb=0), 10, seed=1)
        for number in range(8):
            for a, b in zip(cached[number], uncached[number], strict=True):
                assert torch.equal(a, b)


@pytest.mark.parametrize("task", ["denoise", "jpeg"])
def test_a_share_of_the_patches_is_gray_with_gray_noise_and_the_others_stay_as_they_were(folder, task):
    images = source(folder, task, 1)
    colour, mixed = Patches(images, 16, seed=1), Patches(images, 16, seed=1, gray_share=0.25)
    gray = 0
    for number in range(200):
        (degraded, target), (other_degraded, other_target) = mixed[number], colour[number]
        if torch.equal(degraded, other_degraded):
            assert torch.equal(target, other_target)
            continue
        gray += 1
        for image in (degraded, target):
            assert torch.equal(image[0], image[1])
            assert torch.equal(image[0], image[2])
        luma = (other_target.double() * torch.tensor([0.299, 0.587, 0.114]).double()[:, None, None]).sum(0)
        assert (target[0] - luma).abs().max() <= 0.5001 / 255
        assert not torch.equal(degraded, target)
    assert 30 <= gray <= 70  # 50 expected, σ = 6


def test_every_epoch_takes_every_image_once_in_a_new_order(folder, monkeypatch):
    images = source(folder)
    taken, zeros = [], np.zeros((8, 8, 3), np.uint8)
    monkeypatch.setattr(images, "crop", lambda index, rng, patch: taken.append(index) or (zeros, zeros))
    samples = Patches(images, 8, seed=0)
    for number in range(40):
        samples[number]
    epochs = [tuple(taken[start : start + 4]) for start in range(0, 40, 4)]
    assert all(sorted(epoch) == [0, 1, 2, 3] for epoch in epochs)
    assert len(set(epochs)) > 3


def test_noise_and_jpeg(folder):
    flat = folder / "flat"
    flat.mkdir()
    Image.fromarray(np.full((300, 300, 3), 128, np.uint8)).save(flat / "flat.png")
    samples = Patches(source(flat, "denoise", 1), 256, seed=0)
    levels = []
    for number in range(12):
        noisy, clean = samples[number]
        assert torch.equal(clean, torch.full((3, 256, 256), 128 / 255))
        noise = (noisy - clean) * 255
        assert abs(noise.mean()) < 1
        levels.append(noise.std().item())
    assert min(levels) + 0.2 >= 10
    assert max(levels) - 0.2 <= 50
    assert max(levels) - min(levels) > 10

    samples = Patches(source(folder, "jpeg", 1, channels=1), 32, seed=0)
    for number in range(4):
        degraded, clean = samples[number]
        assert degraded.shape == clean.shape == (1, 32, 32)
        image = as_image(clean)
        assert any(np.array_equal(as_image(degraded), degrade.jpeg(image, quality)) for quality in range(20, 41))


def test_order_does_not_depend_on_workers_or_processes(folder):
    samples = Patches(source(folder), 8, seed=5)
    alone = list(data.loader(samples, 12, 4, 3))
    workers = list(data.loader(samples, 12, 4, 3, workers=2))
    halves = [list(data.loader(samples, 12, 4, 3, rank=rank, world=2)) for rank in (0, 1)]
    for number, (inputs, targets) in enumerate(alone):
        assert torch.equal(inputs, torch.stack([samples[12 + 4 * number + i][0] for i in range(4)]))
        assert torch.equal(inputs, workers[number][0])
        assert torch.equal(targets, workers[number][1])
        assert torch.equal(inputs, torch.cat([half[number][0] for half in halves]))
        assert torch.equal(targets, torch.cat([half[number][1] for half in halves]))


def test_lr_partners(folder, tmp_path):
    lr = tmp_path.parent / f"{tmp_path.name}_lr"
    lr.mkdir()
    images = data.find_images(folder)
    for number, path in enumerate(images):
        reduced = degrade.bicubic_downscale(degrade.crop_to_multiple(np.asarray(Image.open(path)), 4), 4)
        Image.fromarray(255 - reduced).save(lr / f"{path.stem}{'x4' if number % 2 else ''}.png")
    partners = data.lr_partners(images, folder, lr, 4)
    assert [path.stem for path in partners] == ["0", "1x4", "2", "3x4", "4"]
    given = Patches(source(folder, lr_images=partners), 8, seed=0)
    made = Patches(source(folder), 8, seed=0)
    for number in range(6):
        assert torch.equal(as_tensor(255 - as_image(given[number][0])), as_tensor(as_image(made[number][0])))

    Image.fromarray(np.zeros((9, 13, 3), np.uint8)).save(lr / "0.png")
    with pytest.raises(ValueError, match=r"0\.png has 13x9 pixels, expected 13x10: 1/4 of .*0\.png, which has 52x40"):
        data.lr_partners(images, folder, lr, 4)
    (lr / "0.png").unlink()
    with pytest.raises(ValueError, match=r"1 of 5 images of .* have no LR partner .* the first is 0\.png"):
        data.lr_partners(images, folder, lr, 4)


def as_tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image)


def test_bad_images_are_named(folder):
    (folder / "broken.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"broken\.png"):
        source(folder)
    (folder / "broken.png").unlink()
    whole = (folder / "2.png").read_bytes()
    (folder / "2.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"2\.png"):
        source(folder)
    (folder / "2.png").unlink()
    Image.fromarray(np.zeros((40, 40), np.uint16)).save(folder / "deep.png")
    with pytest.raises(ValueError, match=r"deep\.png has uint16 samples, training takes 8-bit images"):
        source(folder)
    (folder / "deep.png").unlink()
    degradation = Degradation(SuperResolution(4))
    with pytest.raises(ValueError, match="none of the 4 training images has 64 pixels on both sides"):
        ImageSource(data.find_images(folder), degradation, 3, 64)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_breaks_during_the_training_is_named_in_one_line(folder, workers):
    samples = Patches(source(folder, cache_gb=0), 8, seed=0)
    (folder / "1.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"1\.png") as error:
        list(data.loader(samples, 0, 2, 4, workers=workers))
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(str(folder / "1.png"))


def test_kinds_of_images(tmp_path):
    rng = np.random.default_rng(0)
    rgba = rng.integers(0, 256, (8, 9, 4), dtype=np.uint8)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    Image.fromarray(rgba[..., 0]).save(tmp_path / "b.png")
    assert np.array_equal(data.read_pixels(tmp_path / "a.png", 3), rgba[..., :3])
    gray = data.read_pixels(tmp_path / "a.png", 1)[..., 0].astype(float)
    assert np.abs(gray - rgba[..., :3] @ [0.299, 0.587, 0.114]).max() <= 1
    assert np.array_equal(data.read_pixels(tmp_path / "b.png", 3), np.stack([rgba[..., 0]] * 3, -1))
    turned = Image.fromarray(rgba[..., :3])
    turned.save(tmp_path / "c.png", exif=(lambda exif: (exif.__setitem__(0x0112, 6), exif)[1])(Image.Exif()))
    assert data.image_size(tmp_path / "c.png") == (9, 8)
    assert data.read_pixels(tmp_path / "c.png", 3).shape == (9, 8, 3)
    (tmp_path / ".hidden.png").write_bytes(b"")
    assert [path.name for path in data.find_images(tmp_path)] == ["a.png", "b.png", "c.png"]


def test_listed_levels_are_drawn_as_listed():
    """A blind training on three noise levels has these and none between them, each for a third of the patches."""
    recipe = recipes.get("201").override(["sigma=[15, 25, 50]", "levels=choice"])
    model = SimpleNamespace(task="denoise", scale=1)
    degradation = data.degradation_of(recipe, model)
    rng = np.random.default_rng(0)
    flat = np.full((64, 64, 3), 128, np.uint8)
    strengths = []
    for _ in range(300):
        noisy = degrade.for_task(flat, degradation.draw(rng), rng)
        strengths.append(float(np.std(noisy - 128 / 255) * 255))
    counts = {level: sum(abs(strength - level) < 0.04 * level for strength in strengths) for level in (15, 25, 50)}
    assert sum(counts.values()) == 300
    assert all(70 < count < 130 for count in counts.values()), counts
    two = replace(recipe, sigma=(15.0, 50.0))
    assert {data.degradation_of(two, model).draw(rng).sigma for _ in range(30)} == {15, 50}
    qualities = recipes.get("401").override(["quality=[10, 20, 30, 40]", "levels=choice"])
    drawn = data.degradation_of(qualities, SimpleNamespace(task="jpeg", scale=1))
    assert {drawn.draw(rng).quality for _ in range(60)} == {10, 20, 30, 40}
