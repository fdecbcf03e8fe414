"""Training pairs with the faults of real photos, and a training on them."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import atd
from atd import degrade
from atd.degrade import Order, RealWorld
from atd.errors import RecipeError
from atd.evaluation.datasets import find_sets
from atd.evaluation.protocol import Protocol
from atd.tasks import RealWorld as RealWorldTask
from atd.training import data, loop, recipes
from atd.training.data import Degradation, ImageSource, Patches, PhotoFaults

CALM = Order(blur=0.0, up=0.0, down=0.0, gaussian=1.0, gaussian_sigma=(0.0, 0.0), quality=(100, 100))
NO_FAULTS = RealWorld(first=CALM, second=CALM, final_sinc=0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four smooth images of different sizes and colours, the last one smaller than a patch."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number, (height, width) in enumerate([(96, 120), (80, 81), (130, 66), (20, 70)]):
        low = Image.fromarray(rng.integers(0, 256, (height // 10, width // 10, 3), dtype=np.uint8))
        low.resize((width, height), Image.Resampling.BICUBIC).save(root / f"{number}.png")
    return root


def source(folder, faults=None, *, context=24, sharpen=False, cache_gb=1.0):
    photos = PhotoFaults(faults or RealWorld(), context, sharpen)
    degradation = Degradation(RealWorldTask(4), photos=photos)
    return ImageSource(data.find_images(folder), degradation, 3, 0, cache_gb=cache_gb)


@pytest.mark.parametrize("cache_gb", [1.0, 0.0])
def test_patch_and_target_show_the_same_place(folder, cache_gb):
    """Without faults the input is the target, reduced; one LR pixel away, or turned, it would be another."""
    samples = Patches(source(folder, NO_FAULTS, cache_gb=cache_gb), 8, seed=3)
    turned = 0
    for number in range(24):
        low, high = samples[number]
        assert low.shape == (3, 8, 8)
        assert high.shape == (3, 32, 32)
        assert low.is_contiguous()
        gray, reduced = to_gray(low), torch.nn.functional.avg_pool2d(to_gray(high)[None], 4)[0]
        error = (gray - reduced).abs().mean()
        others = [reduced.roll(1, dim) for dim in (1, 2)] + [reduced.flip(dim) for dim in (1, 2)]
        assert all(error < (gray - other).abs().mean() / 2 for other in others)
        turned += int(not _is_upright(high, folder))
    assert 12 < turned < 24


def to_gray(image):
    """Luminance: JPEG reduces the rest."""
    return (image * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0, keepdim=True)


def _is_upright(patch, folder):
    pixels = (patch * 255).round().byte().movedim(0, 2).numpy()
    for path in data.find_images(folder):
        image = data.pad(np.asarray(Image.open(path)), 32)
        windows = np.lib.stride_tricks.sliding_window_view(image[..., 0], (32, 32))
        if (windows == pixels[..., 0]).all((-2, -1)).any():
            return True
    return False


def test_a_sample_is_a_function_of_the_seed_and_its_number(folder):
    images = source(folder)
    first, again, other = (Patches(images, 8, seed) for seed in (3, 3, 4))
    for number in (5, 0, 11):
        for one, two in zip(first[number], again[number], strict=True):
            assert torch.equal(one, two)
    assert not torch.equal(first[0][0], other[0][0])
    here = [batch[0] for batch in data.loader(first, 4, 4, 2)]
    there = [batch[0] for batch in data.loader(first, 4, 4, 2, workers=2)]
    assert all(torch.equal(one, two) for one, two in zip(here, there, strict=True))
    assert torch.equal(here[0][1], first[5][0])


def test_the_faults_are_those_of_the_sample(folder):
    """The input as `degrade_batch` makes it of the whole region, with the numbers drawn for the sample."""
    images = source(folder, context=1000)
    samples = Patches(images, 8, seed=3)
    low, _ = samples[2]
    matches = 0
    draw = RealWorld().draw(np.random.default_rng([3, 3, 2]))
    for path in images.images:
        whole = degrade.crop_to_multiple(np.asarray(Image.open(path)), 4)
        degraded = degrade.degrade_batch(
            torch.from_numpy(data.pad(whole, 32).copy()).movedim(2, 0)[None] / 255, [draw], 4
        )
        for symmetry in range(8):
            turned = np.rot90(degraded[0].movedim(0, 2).numpy(), symmetry % 4)
            turned = turned[:, ::-1] if symmetry >= 4 else turned
            windows = np.lib.stride_tricks.sliding_window_view(turned, (8, 8), (0, 1))
            matches += int((np.abs(windows - low.numpy()) < 1e-6).all((-3, -2, -1)).any())
    assert matches == 1


def test_targets_are_sharpened_when_the_recipe_says_so(folder):
    plain, sharp = (Patches(source(folder, NO_FAULTS, sharpen=sharpen), 8, seed=3) for sharpen in (False, True))
    assert any((plain[number][1] - sharp[number][1]).abs().max() > 0.02 for number in range(4))
    assert all(0 <= sharp[number][1].min() <= sharp[number][1].max() <= 1 for number in range(4))


def test_a_discriminator_gets_the_targets_before_sharpening(folder):
    plain = Patches(source(folder), 8, seed=3)
    both = Patches(source(folder, sharpen=True), 8, seed=3, unsharpened=True)
    for number in range(4):
        _, sharp, real = both[number]
        assert torch.equal(real, plain[number][1])
        assert not torch.equal(real, sharp)
    sharpening = recipes.get("real_x4_gan").override(["images=.", "patch=8", "batch=2", "workers=0", "iterations=1"])
    ((_, _, targets, reals),) = data.batches(source(folder, sharpen=True), sharpening, 0)
    assert targets.shape == reals.shape == (2, 3, 32, 32)
    ((*_, reals),) = data.batches(source(folder), sharpening.override(["adversarial=0"]), 0)
    assert reals is None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["sigma=25"], "goes with neither sigma, quality nor lr_images"),
        (["lr_images=lq"], "goes with neither"),
        (["webp=2"], "webp must be from 0 to 1"),
        (["context=-1"], "context must not be negative"),
    ],
)
def test_keys_that_do_not_go_with_real_photos_are_refused(overrides, message):
    with pytest.raises(RecipeError, match=message):
        recipes.get("real_x4_mse").override(overrides)


def test_a_network_for_another_task_does_not_train_on_photos():
    recipe = recipes.get("real_x4_mse").override(["model=atd_u_color_dn15"])
    model = atd.create("atd_u_color_dn15", embed_dim=4, depths=[1, 1], num_heads=[1, 2], window_size=[4, 2],
                       category_size=[8, 16], num_tokens=[5, 6], reducted_dim=[2, 2], dim_ffn_td=[1, 2])  # fmt: skip
    with pytest.raises(RecipeError, match="trains real, but atd_u_color_dn15 is a network for denoise"):
        data.degradation_of(recipe, model)


@pytest.mark.parametrize(("id", "model"), [("real_x4_mse", "atd_sr_x4"), ("real_light_x4_mse", "atd_light_sr_x4")])
def test_the_first_training_is_that_of_real_esrgan(id, model):
    """Real-ESRNet: 256-pixel targets, 48 a batch, 1 000 000 iterations, Adam 2e-4, EMA 0.999, L1, sharpened targets."""
    recipe = recipes.get(id)
    assert (recipe.model, recipe.real, recipe.sharpen, recipe.webp) == (model, True, True, 0)
    assert (recipe.patch, recipe.batch, recipe.iterations) == ((64,), (48,), (1_000_000,))
    assert (recipe.lr, recipe.betas, recipe.weight_decay, recipe.milestones) == (2e-4, (0.9, 0.99), 0, ())
    assert (recipe.ema, recipe.loss, 2 * recipe.context) == (0.999, "l1", 400 - 256)


def test_training_on_photos_makes_a_network_for_photos(folder, tmp_path):
    tiny = ["patch=8", "batch=2", "images=.", "validation=[]", "held_out=0", "iterations=2", "minutes=0", "context=8",
            "finetune_from=", "log_every=1", "small_images=pad", "config.embed_dim=8", "config.depths=[1]",
            "config.num_heads=[2]", "config.window_size=8", "config.category_size=16", "config.num_tokens=8",
            "config.reducted_dim=4", "config.convffn_kernel_size=3"]  # fmt: skip
    lines = []
    loop.train(recipes.get("small_real_x4").override(tiny), folder, tmp_path / "run", say=lines.append)
    described = json.loads((tmp_path / "run/model/config.json").read_text())
    assert (described["task"], described["name"]) == ("real", None)
    assert atd.load(tmp_path / "run/model").task == "real"


def test_scores_of_photos_are_those_of_super_resolution(folder, tmp_path):
    """PSNR of Y without a border of `scale` pixels, on pairs from `atd degrade` or on inputs that are made the same."""
    task = RealWorldTask(4)
    protocol = Protocol.published(task)
    assert (protocol.channel, protocol.crop, protocol.rounds) == ("y", 4, True)
    (made,), _ = find_sets(folder.parent, [folder.name], task)
    degraded, reference = protocol.load(made.pairs[0])
    assert np.array_equal(degraded * 255, degrade.for_task(reference, task))
    for part, image in (("hr", reference), ("lq", np.zeros_like(reference[::4, ::4]))):
        (tmp_path / "pairs" / part).mkdir(parents=True)
        Image.fromarray(image).save(tmp_path / "pairs" / part / "a.png")
    (paired,), _ = find_sets(tmp_path, ["pairs"], task)
    assert not protocol.load(paired.pairs[0])[0].any()
