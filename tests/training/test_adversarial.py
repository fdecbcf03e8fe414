"""Trainings with a discriminator: what it is, that it learns, and that a training goes on as though never stopped."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import atd
from atd.errors import RecipeError
from atd.training import loop, recipes
from atd.training.adversary import Adversary
from atd.training.discriminator import UNetDiscriminator, discriminator_loss, generator_loss
from atd.training.distributed import Processes

TINY = ["patch=8", "batch=2", "images=.", "validation=[]", "held_out=0", "minutes=0", "context=8", "iterations=4",
        "finetune_from=", "schedule=multistep", "log_every=1", "save_minutes=0", "small_images=pad", "sharpen=true",
        "adversarial=0.1", "discriminator_channels=4", "config.embed_dim=8", "config.depths=[1]",
        "config.num_heads=[2]",
        "config.window_size=8", "config.category_size=16", "config.num_tokens=8", "config.reducted_dim=4",
        "config.convffn_kernel_size=3"]  # fmt: skip
ALONE = Processes(0, 1, torch.device("cpu"), False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(3):
        low = Image.fromarray(rng.integers(0, 256, (8, 9, 3), dtype=np.uint8))
        low.resize((72, 64), Image.Resampling.BICUBIC).save(root / f"{number}.png")
    return root


def train(folder, out, *overrides, **options):
    recipe = recipes.get("small_real_x4").override([*TINY, *overrides])
    loop.train(recipe, folder, out, say=lambda line: None, **options)


def rows(out):
    return list(csv.DictReader((out / "log.csv").open()))


def seeded(make):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()


def test_every_normalised_convolution_has_the_spectral_norm_one():
    network = seeded(lambda: UNetDiscriminator(3, 8)).train()
    images = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    for _ in range(60):  # each forward pass is one power iteration
        network(images)
    network.eval()
    layers = [*network.down, *network.up, *network.last]
    assert [layer.weight.shape[0] for layer in layers] == [16, 32, 64, 32, 16, 8, 8, 8]
    for layer in layers:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.02)


def test_the_published_discriminator_has_4_376_897_parameters():
    """Counted from the option file and the table of layers: 64 features, biases in the first and last layer only."""
    layers = [
        (64, 128, 4),
        (128, 256, 4),
        (256, 512, 4),
        (512, 256, 3),
        (256, 128, 3),
        (128, 64, 3),
        (64, 64, 3),
        (64, 64, 3),
    ]
    expected = sum(a * b * k * k for a, b, k in layers) + (3 * 64 * 9 + 64) + (64 * 9 + 1)
    assert expected == 4_376_897
    assert sum(parameter.numel() for parameter in UNetDiscriminator().parameters()) == expected


@pytest.mark.parametrize("size", [(16, 24), (13, 9), (1, 5)])
def test_there_is_a_logit_for_every_pixel(size):
    assert seeded(lambda: UNetDiscriminator(3, 2))(torch.rand(2, 3, *size)).shape == (2, 1, *size)


def test_losses_are_their_formulas():
    real, fake = np.random.default_rng(0).normal(0, 2, (2, 3, 1, 4, 5))
    r, f = torch.from_numpy(real), torch.from_numpy(fake)
    on_real, on_fake = np.log1p(np.exp(-real)).mean(), np.log1p(np.exp(fake)).mean()
    assert discriminator_loss(r, f, "vanilla").item() == pytest.approx(on_real + on_fake)
    assert generator_loss(f, "vanilla").item() == pytest.approx(np.log1p(np.exp(-fake)).mean())
    hinge = np.maximum(0, 1 - real).mean() + np.maximum(0, 1 + fake).mean()
    assert discriminator_loss(r, f, "hinge").item() == pytest.approx(hinge)
    assert generator_loss(f, "hinge").item() == pytest.approx(-fake.mean())


@pytest.mark.parametrize("kind", ["vanilla", "hinge"])
def test_the_discriminator_learns_a_planted_difference(kind):
    """Fakes are the real images without their texture."""
    overrides = [*TINY, f"adversarial_loss={kind}", "discriminator_channels=8", "discriminator_lr=5e-3"]
    adversary = seeded(lambda: Adversary(recipes.get("small_real_x4").override(overrides), 3, ALONE))
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    generator = torch.Generator().manual_seed(2)
    losses = []
    for _ in range(100):
        smooth = torch.rand(4, 3, 1, 1, generator=generator) * 0.5 + 0.25
        real = smooth + 0.4 * torch.randn(4, 3, 16, 16, generator=generator)
        fake = smooth.expand_as(real)
        losses.append(adversary.learn([(fake[:2], real[:2]), (fake[2:], real[2:])], scaler, 1.0).item())
    assert np.isfinite(losses).all()
    assert np.mean(losses[-5:]) < 0.7 * losses[0]
    with torch.no_grad():
        assert adversary.network(real).mean() > adversary.network(fake).mean() + 1
    # The network hears of it, and the discriminator learns nothing by telling.
    output = fake.clone().requires_grad_()
    loss = adversary.loss_of_generator(output)
    loss.backward()
    assert output.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in adversary.discriminator.parameters())
    assert loss > adversary.loss_of_generator(real)


def test_parts_of_a_batch_teach_as_the_whole_batch():
    real, fake = torch.rand(2, 4, 3, 8, 8, generator=torch.Generator().manual_seed(1)).unbind(0)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    results = []
    for sizes in ([4], [3, 1]):
        adversary = seeded(lambda: Adversary(recipes.get("small_real_x4").override(TINY), 3, ALONE))
        for _ in range(20):  # so that the vectors of the spectral norm have settled, whatever the number of passes
            adversary.network(real)
        parts = list(zip(fake.split(sizes), real.split(sizes), strict=True))
        results.append(adversary.learn(parts, scaler, 1.0))
    torch.testing.assert_close(*results, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("amp", ["none", "bf16"])
def test_a_training_with_a_discriminator_has_finite_losses_of_both(folder, tmp_path, amp):
    train(folder, tmp_path / "run", f"amp={amp}")
    logged = rows(tmp_path / "run")
    assert len(logged) == 4
    for row in logged:
        assert 0 < float(row["loss"]) < 10
        assert 0.5 < float(row["discriminator"]) < 10
    assert atd.load(tmp_path / "run/model").task == "real"


def test_a_resumed_training_has_the_same_discriminator(folder, tmp_path):
    """Stopped after two of four iterations: weights, spectral vectors and moments go on bit for bit."""
    train(folder, tmp_path / "whole")
    train(folder, tmp_path / "parts", "iterations=2")
    train(folder, tmp_path / "parts", resume=True)
    for part in ("model", "average", "adversary", "optimiser"):
        first, second = (
            load_file(tmp_path / run / f"checkpoints/00000004/{part}.safetensors") for run in ("whole", "parts")
        )
        assert first.keys() == second.keys()
        assert all(torch.equal(tensor, second[name]) for name, tensor in first.items()), part
    assert [row["discriminator"] for row in rows(tmp_path / "whole")] == [
        row["discriminator"] for row in rows(tmp_path / "parts")
    ]
    with pytest.raises(RecipeError, match="another discriminator"):
        train(folder, tmp_path / "parts", "adversarial=0", "iterations=6", resume=True)


def test_checkpoints_from_before_discriminators_go_on(folder, tmp_path):
    train(folder, tmp_path / "run", "adversarial=0", "iterations=2")
    described = tmp_path / "run/checkpoints/00000002/state.json"
    numbers = json.loads(described.read_text())
    assert numbers.pop("discriminator") == 0
    described.write_text(json.dumps(numbers))
    train(folder, tmp_path / "run", "adversarial=0", "iterations=3", resume=True)
    assert (tmp_path / "run/checkpoints/00000003").is_dir()


def test_a_second_training_starts_from_the_first_by_one_key(folder, tmp_path):
    train(folder, tmp_path / "mse", "adversarial=0", "ema=0")
    train(folder, tmp_path / "gan", f"finetune_from={tmp_path / 'mse'}", "iterations=1", "lr=0", "ema=0")
    first, second = (load_file(tmp_path / run / "model/model.safetensors") for run in ("mse", "gan"))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [(["parallel=fsdp"], "goes with parallel=ddp"), (["mixup=0.5"], "does not go with mixup")],
)
def test_what_does_not_go_with_a_discriminator_is_refused(overrides, message):
    with pytest.raises(RecipeError, match=message):
        recipes.get("real_x4_gan").override(overrides)


@pytest.mark.parametrize(
    ("id", "model", "start"),
    [("real_x4_gan", "atd_sr_x4", "real_x4_mse"), ("real_light_x4_gan", "atd_light_sr_x4", "real_light_x4_mse")],
)
def test_the_second_training_is_that_of_real_esrgan(id, model, start):
    recipe = recipes.get(id)
    assert (recipe.model, recipe.finetune_from, recipe.real, recipe.sharpen) == (model, start, True, True)
    assert (recipe.patch, recipe.batch, recipe.iterations) == ((64,), (48,), (400_000,))
    assert (recipe.lr, recipe.discriminator_lr, recipe.betas, recipe.ema) == (1e-4, 1e-4, (0.9, 0.99), 0.999)
    assert (recipe.loss, recipe.pixel, recipe.perceptual, recipe.adversarial) == ("l1", 1, 1, 0.1)
    assert (recipe.adversarial_loss, recipe.discriminator_channels) == ("vanilla", 64)
