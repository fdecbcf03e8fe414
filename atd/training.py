"""One training from recipe to saved model, read top to bottom: data, network, optimiser, loop, results."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from atd import checkpointing, data, degrade, metrics, optim, registry
from atd.checkpointing import Checkpoint
from atd.checkpoints import load
from atd.data import Degradation, ImageSource, Patches
from atd.recipes import Recipe


def train(recipe: Recipe, data_folder: Path, out: Path, *, resume: bool = False, say: Callable[[str], None] = print) -> Path:
    """Run or continue a training.

    Args:
        recipe: what to train.
        data_folder: folder the recipe's image folders lie in.
        out: results: `checkpoints/`, `log.csv`, `recipe.toml` and at the end `model/`, which `atd.load` takes.
        resume: continue from the newest whole checkpoint in `out`; starts afresh when there is none.

    Returns:
        The folder of the saved model.
    """
    out.mkdir(parents=True, exist_ok=True)
    checkpoint, problems = checkpointing.load_latest(out / "checkpoints")
    for problem in problems:
        say(problem)
    if checkpoint and not resume:
        raise ValueError(f"{out} holds a training already: continue it with --resume or choose another --out")
    (out / "recipe.toml").write_text(recipe.to_toml(), encoding="utf-8")

    torch.manual_seed(recipe.seed)
    torch.set_flush_denormal(True)  # shifted windows mask with exp(−100), which slow arithmetic handles otherwise
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = registry.create(recipe.model, **recipe.config).to(device).train()
    if recipe.finetune_from and not checkpoint:
        start_from(model, recipe.finetune_from, say)
    degradation = degradation_of(recipe, model)
    files = [path for name in recipe.images for path in data.find_images(data_folder / name)]
    if not files:
        raise ValueError(f"no training images: looked for {', '.join(recipe.images)} in {data_folder}")
    source = ImageSource(files, degradation, model.in_channels, max(recipe.patch) * degradation.scale, cache_gb=recipe.cache_gb)
    say(f"{len(source)} training images, {source.skipped} too small for the patch left out")
    tests = validation_pairs(recipe, data_folder, degradation, model.in_channels)

    optimiser = optim.build(model, recipe)
    average = None
    if recipe.ema:
        average = torch.optim.swa_utils.AveragedModel(
            model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(recipe.ema)
        ).eval()
    iteration, minutes = 0, 0.0
    if checkpoint:
        model.load_state_dict(checkpoint.tensors["model"])
        if average:
            average.module.load_state_dict(checkpoint.tensors["average"])
            average.n_averaged.fill_(checkpoint.state["iteration"])
        optim.load_state(model, optimiser, checkpoint.tensors["optimiser"])
        iteration, minutes = checkpoint.state["iteration"], checkpoint.state["minutes"]
        say(f"continuing after iteration {iteration}")

    def save() -> None:
        tensors = {"model": model.state_dict(), "optimiser": optim.state_of(model, optimiser)}
        if average:
            tensors["average"] = average.module.state_dict()
        state = {"iteration": iteration, "minutes": minutes}
        try:
            checkpointing.save(out / "checkpoints", iteration, Checkpoint(tensors, state))
        except OSError as error:
            say(f"checkpoint not written, the one before stays: {error}")

    def log(**row: float) -> None:
        path = out / "log.csv"
        new = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["iteration", "minutes", "lr", "loss", "psnr"])
            if new:
                writer.writeheader()
            writer.writerow(row)

    parameters = sum(parameter.numel() for parameter in model.parameters())
    say(f"{recipe.model}: {parameters / 1e6:.3f} M parameters on {device}, {recipe.total_iterations} iterations")
    saved, losses = time.monotonic(), []
    first_sample = stage_start = 0
    for patch, batch, count in zip(recipe.patch, recipe.batch, recipe.iterations, strict=True):
        done = min(max(iteration - stage_start, 0), count)
        stage_start += count
        batches = data.loader(
            Patches(source, patch, recipe.seed),
            first_sample + done * batch,
            batch,
            count - done,
            workers=recipe.workers,
        )
        first_sample += count * batch
        clock = time.monotonic()
        for inputs, targets in batches:
            if recipe.minutes and minutes >= recipe.minutes:
                break
            factor = optim.rate_factor(recipe, iteration, minutes)
            optim.set_rate(optimiser, factor)
            optimiser.zero_grad(set_to_none=True)
            loss = loss_of(recipe, model(inputs.to(device)), targets.to(device))
            loss.backward()
            if recipe.clip:
                nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
            optimiser.step()
            if average:
                average.update_parameters(model)
            iteration += 1
            minutes += (time.monotonic() - clock) / 60
            losses.append(loss.item())
            if not math.isfinite(losses[-1]):
                raise ValueError(f"the loss became {losses[-1]} in iteration {iteration}: continue with --resume lr=<smaller>")
            if iteration % recipe.log_every == 0:
                mean = sum(losses) / len(losses)
                losses.clear()
                say(f"{iteration:7d}  {minutes:6.1f} min  lr {recipe.lr * factor:.2e}  loss {mean:.5f}")
                log(iteration=iteration, minutes=round(minutes, 3), lr=recipe.lr * factor, loss=mean)
            if iteration % recipe.validate_every == 0:
                psnr = validate(average.module if average else model, tests, degradation)
                say(f"{iteration:7d}  PSNR {psnr:.3f} dB")
                log(iteration=iteration, minutes=round(minutes, 3), psnr=psnr)
            if time.monotonic() - saved > recipe.save_minutes * 60:
                save()
                saved = time.monotonic()
            clock = time.monotonic()
    save()
    final = average.module if average else model
    psnr = validate(final, tests, degradation)
    say(f"{iteration:7d}  PSNR {psnr:.3f} dB, the end")
    log(iteration=iteration, minutes=round(minutes, 3), psnr=psnr)
    final.save_pretrained(out / "model")
    return out / "model"


def degradation_of(recipe: Recipe, model: nn.Module) -> Degradation:
    """The recipe's degradation; a single sigma or quality is a range of one."""
    sigma = (recipe.sigma[0], recipe.sigma[-1]) if recipe.sigma else (0.0, 0.0)
    quality = (recipe.quality[0], recipe.quality[-1]) if recipe.quality else (100, 100)
    task = "denoise" if recipe.sigma else "jpeg" if recipe.quality else "sr"
    return Degradation(task, model.scale, sigma, quality)


def loss_of(recipe: Recipe, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean absolute error, or Charbonnier's smooth form of it, sqrt(d² + 1e-3)."""
    if recipe.loss == "l1":
        return nn.functional.l1_loss(output, target)
    return ((output - target).square() + 1e-3).sqrt().mean()


def start_from(model: nn.Module, folder: str, say: Callable[[str], None]) -> None:
    """Take the weights of another scale: everything but the upsampler, whose shapes differ."""
    trained = load(folder).state_dict()
    own = model.state_dict()
    fresh = sorted(key for key, value in own.items() if key not in trained or trained[key].shape != value.shape)
    for key in fresh:
        if not key.startswith(("upsample", "conv_last", "conv_before_upsample")):
            raise ValueError(f"{folder} does not fit: {key} differs, and only the upsampler may")
    model.load_state_dict({key: trained.get(key) if key not in fresh else value for key, value in own.items()})
    say(f"weights from {folder}" + (f"; new, not taken from it: {', '.join(fresh)}" if fresh else ""))


def validation_pairs(
    recipe: Recipe, folder: Path, degradation: Degradation, channels: int
) -> list[tuple[torch.Tensor, np.ndarray]]:
    """(input (c, h, w) float32, clean image (s·h, s·w, c) uint8) of the first validation folder that exists."""
    for name in recipe.validation:
        pairs = []
        for path in data.find_images(folder / name):
            clean = data.read_image(path, channels)
            clean = degrade.crop_to_multiple(clean, degradation.scale)
            if degradation.task == "sr":
                degraded = degrade.bicubic_downscale(clean, degradation.scale).astype(np.float32) / 255
            elif degradation.task == "denoise":
                degraded = degrade.add_noise(clean, 25)
            else:
                degraded = degrade.jpeg(clean, 10).astype(np.float32) / 255
            pairs.append((torch.from_numpy(degraded).permute(2, 0, 1).contiguous(), clean))
        if pairs:
            return pairs
    return []


@torch.no_grad()
def validate(model: nn.Module, pairs: list[tuple[torch.Tensor, np.ndarray]], degradation: Degradation) -> float:
    """Mean PSNR; super-resolution through uint8 on the Y channel, `scale` pixels of border left out."""
    if not pairs:
        return math.nan
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    total = 0.0
    for degraded, clean in pairs:
        output = model(degraded[None].to(device))[0].clamp(0, 1).cpu()
        image = (output * 255).round().byte().permute(1, 2, 0).numpy()
        if degradation.task == "sr":
            total += metrics.psnr(image, clean, crop=degradation.scale, channel="y" if clean.shape[2] == 3 else "gray")
        else:
            total += metrics.psnr(image, clean, channel="rgb" if clean.shape[2] == 3 else "gray")
    model.train(was_training)
    return total / len(pairs)
