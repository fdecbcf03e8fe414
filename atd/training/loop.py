"""One training from recipe to saved model, read top to bottom: data, network, optimiser, loop, results."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from atd.loading import create
from atd.models import RestorationModel
from atd.training import data, distributed, finetuning, optim
from atd.training import state as training_state
from atd.training.data import Degradation, ImageSource, Patches
from atd.training.distributed import Processes
from atd.training.log import TrainingLog
from atd.training.recipes import Recipe
from atd.training.state import Checkpoint
from atd.training.validation import Validation

DTYPES = {"none": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def train(recipe: Recipe, folder: Path, out: Path, *, resume: bool = False, say: Callable[[str], None] = print) -> Path:
    """Run or continue a training, alone or as one of the processes that torchrun started.

    Args:
        recipe: what to train.
        folder: where the recipe's image folders and validation sets lie.
        out: results, `checkpoints/`, `log.csv`, `recipe.toml`, `samples/` and at the end `model/`, which `atd.load`
            takes. With several machines it must be on a file system that all of them see.
        resume: continue from the newest whole checkpoint in `out`, or start when there is none. Processes that
            torchrun restarts after a failure always do.
        say: receives each line of the report.

    Returns:
        The folder of the saved model.

    Raises:
        ValueError: the recipe, the data and the network do not fit together, or the loss is no longer finite.
    """
    with distributed.processes() as processes:
        return _train(recipe, folder, out, resume or processes.restarted, processes, say if processes.main else _quiet)


def _train(
    recipe: Recipe, folder: Path, out: Path, resume: bool, processes: Processes, say: Callable[[str], None]
) -> Path:
    device = processes.device
    torch.manual_seed(recipe.seed)
    checkpoint = _checkpoint(recipe, out, resume, say)
    iteration = checkpoint.state["iteration"] if checkpoint else 0
    minutes = checkpoint.state["minutes"] if checkpoint else 0.0

    # The network, and a plain copy of it that validates and is saved.
    memory = {"use_checkpoint": True} if recipe.activation_checkpointing else {}
    model = create(recipe.model, **{**recipe.config, **memory})
    degradation = degradation_of(recipe, model)
    if checkpoint:
        model.load_state_dict(checkpoint.tensors["model"])
    elif recipe.finetune_from:
        finetuning.start_from(model, recipe.finetune_from, out, say, recipe.resample_upsampler)
    if recipe.bicubic_start and not checkpoint:
        finetuning.start_as_bicubic(model)
    model = model.to(device).train()
    plain = create(recipe.model, **recipe.config).to(device).eval() if processes.main else None

    # Data.
    source = _images(recipe, folder, degradation, model.in_channels, say)
    validation = Validation(recipe, model, folder, out, say) if processes.main else None

    # Compilation, distribution, optimiser, average.
    if recipe.compile:
        for layer in distributed.repeated_layers(model):
            layer.compile()
    network: nn.Module = model
    if processes.count > 1 and recipe.parallel == "ddp":
        network = distributed.replicate(model, device)
    elif processes.count > 1:
        distributed.shard(model)
    optimiser = optim.build(model, recipe)
    average = optim.WeightAverage(model, recipe.ema) if recipe.ema else None
    scaler = torch.amp.GradScaler(device.type, enabled=recipe.amp == "fp16")
    if checkpoint:
        optim.load_state(model, optimiser, checkpoint.tensors["optimiser"])
        scaler.load_state_dict(checkpoint.state["scaler"])
        if average:
            average.load(checkpoint.tensors["average"])

    def weights() -> dict[str, Tensor]:
        """The result so far, whole and on the CPU: the average where there is one."""
        return optim.full(average.tensors.items() if average else model.named_parameters())

    def save() -> None:
        tensors = {"model": optim.full(model.named_parameters()), "optimiser": optim.state_of(model, optimiser)}
        if average:
            tensors["average"] = optim.full(average.tensors.items())
        if not processes.main:
            return
        for name, tensor in tensors["model"].items():
            if not tensor.isfinite().all():
                raise ValueError(f"{name} is no longer finite after iteration {iteration}: {_AFTER_DIVERGENCE}")
        state = {"iteration": iteration, "minutes": minutes, "scaler": scaler.state_dict(), **_identity(recipe)}
        try:
            training_state.save(out / "checkpoints", iteration, Checkpoint(tensors, state))
        except OSError as error:
            say(f"checkpoint {iteration} could not be written, the one before is kept: {error}")

    def validate() -> None:
        tensors = weights()
        if plain and validation and log:
            plain.load_state_dict(tensors)
            log.scores(iteration, minutes, validation.run(plain), validation.samples)

    log = None
    if processes.main and validation:
        out.mkdir(parents=True, exist_ok=True)
        (out / "recipe.toml").write_text(recipe.to_toml(), encoding="utf-8")
        sets = [found.name for found in validation.sets]
        log = TrainingLog(out, sets, iteration, recipe.total_iterations, recipe.tensorboard, say)
        million = sum(parameter.numel() for parameter in plain.parameters()) / 1e6 if plain else 0.0
        machine = f"{processes.count} × {device.type}" if processes.count > 1 else device.type
        say(f"{recipe.model}: {million:.3f} M parameters on {machine}")
    processes.wait()

    # The loop.
    saved = time.monotonic()
    losses = torch.zeros((), device=device)
    counted = 0
    stage_start = stage_sample = 0
    for stage, count in enumerate(recipe.iterations):
        patch, batch = recipe.patch[stage], recipe.batch[stage]
        micro_batch = recipe.micro_batch[min(stage, len(recipe.micro_batch) - 1)]
        if batch % processes.count:
            raise ValueError(f"batch {batch} does not divide among {processes.count} processes")
        done = min(max(iteration - stage_start, 0), count)
        batches = data.loader(
            Patches(source, patch, recipe.seed),
            stage_sample + done * batch,
            batch,
            count - done,
            rank=processes.rank,
            world=processes.count,
            workers=recipe.workers,
        )
        stage_start += count
        stage_sample += count * batch
        clock = time.monotonic()
        for inputs, targets in batches:
            if recipe.minutes:
                minutes = processes.share(minutes)
                if minutes >= recipe.minutes:
                    break
            factor = optim.rate_factor(recipe, iteration, minutes)
            optim.set_rate(optimiser, factor)
            inputs, targets = inputs.to(device, non_blocking=True), targets.to(device, non_blocking=True)
            if recipe.mixup:
                inputs, targets = mix(inputs, targets, recipe, iteration, processes.rank)
            parts = list(zip(inputs.split(micro_batch or batch), targets.split(micro_batch or batch), strict=True))
            for number, (part, target) in enumerate(parts, 1):
                with distributed.without_synchronisation(network, last=number == len(parts)):
                    with torch.autocast(device.type, DTYPES[recipe.amp], enabled=recipe.amp != "none"):
                        output = network(part)
                    loss = loss_of(recipe, output.float(), target) * (len(part) / len(inputs))
                    scaler.scale(loss).backward()
                losses += loss.detach()
            if recipe.clip:
                scaler.unscale_(optimiser)
                nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
            scaler.step(optimiser)
            scaler.update()
            optimiser.zero_grad()
            if average:
                average.update(iteration)
            iteration += 1
            counted += 1
            minutes += (time.monotonic() - clock) / 60

            if iteration % recipe.log_every == 0:
                mean = processes.mean(losses) / counted
                losses, counted = torch.zeros((), device=device), 0
                if not math.isfinite(mean):
                    raise ValueError(f"the loss is {mean} in iteration {iteration}: {_AFTER_DIVERGENCE}")
                if log:
                    log.progress(iteration, minutes, recipe.lr * factor, mean, recipe.minutes)
                if processes.share(time.monotonic() - saved) >= recipe.save_minutes * 60:
                    save()
                    saved = time.monotonic()
            if iteration % recipe.validate_every == 0 and iteration < recipe.total_iterations:
                validate()
            clock = time.monotonic()

    # The results.
    save()
    validate()
    if plain:
        plain.save_pretrained(out / "model")
        say(f"saved to {out / 'model'}")
    if log:
        log.close()
    processes.wait()
    return out / "model"


_AFTER_DIVERGENCE = (
    "continue with --resume and a smaller rate, such as lr=1e-4; where the newest folder of checkpoints/ has diverged "
    "already, delete it, and the one before is taken"
)


def degradation_of(recipe: Recipe, model: RestorationModel) -> Degradation:
    """The recipe's degradation, checked to be the network's task; a single sigma or quality is a range of one."""
    if recipe.task != model.task:
        raise ValueError(
            f"recipe {recipe.id} trains {recipe.task}, but {recipe.model} is a network for {model.task}: "
            "set sigma for denoising, quality for JPEG artefact removal, neither for super-resolution"
        )
    sigma = (recipe.sigma[0], recipe.sigma[-1]) if recipe.sigma else (0.0, 0.0)
    quality = (recipe.quality[0], recipe.quality[-1]) if recipe.quality else (100, 100)
    return Degradation(recipe.task, model.scale, sigma, quality)


def loss_of(recipe: Recipe, output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error, or Charbonnier's smooth form of it, the mean of sqrt(d² + 1e-3)."""
    if recipe.loss == "l1":
        return nn.functional.l1_loss(output, target)
    return ((output - target).square() + 1e-3).sqrt().mean()


def mix(inputs: Tensor, targets: Tensor, recipe: Recipe, iteration: int, rank: int) -> tuple[Tensor, Tensor]:
    """Mixup as in Restormer: with the recipe's probability, λ · batch + (1 − λ) · shuffled batch, λ ~ Beta(1.2, 1.2).

    A function of seed, iteration and process, so that a resumed training mixes as an uninterrupted one.
    """
    rng = np.random.default_rng([recipe.seed, 2, iteration, rank])
    if rng.random() >= recipe.mixup:
        return inputs, targets
    share = rng.beta(1.2, 1.2)
    order = torch.from_numpy(rng.permutation(len(inputs))).to(inputs.device)
    return inputs.lerp(inputs[order], 1 - share), targets.lerp(targets[order], 1 - share)


def _images(
    recipe: Recipe, folder: Path, degradation: Degradation, channels: int, say: Callable[[str], None]
) -> ImageSource:
    """The recipe's training images under `folder`, with LR partners where all their folders exist."""
    images, partners = [], []
    for position, name in enumerate(recipe.images):
        found = data.find_images(folder / name)
        if not found:
            raise ValueError(
                f"no training images in {folder / name}: recipe {recipe.id} looks for "
                f"{', '.join(recipe.images)} under --data; images=FOLDER chooses another"
            )
        images += found
        if recipe.lr_images:
            lr_folder = folder / recipe.lr_images[position].format(scale=degradation.scale)
            if lr_folder.is_dir():
                partners += data.lr_partners(found, folder / name, lr_folder, degradation.scale)
            else:
                say(f"no folder {lr_folder}: LR images are made from the HR images by MATLAB's bicubic reduction")
    if partners and len(partners) != len(images):
        raise ValueError(f"some of the LR folders {', '.join(recipe.lr_images)} are missing under {folder}")
    smallest = max(recipe.patch) * degradation.scale
    source = ImageSource(images, degradation, channels, smallest, partners or None, recipe.cache_gb)
    left_out = f", {source.skipped} smaller than {smallest} pixels left out" if source.skipped else ""
    say(f"{len(source)} training images, {'in memory' if source.cached else 'read on demand'}{left_out}")
    return source


def _checkpoint(recipe: Recipe, out: Path, resume: bool, say: Callable[[str], None]) -> Checkpoint | None:
    """The checkpoint to continue from, checked to be of this network."""
    checkpoint, problems = training_state.load_latest(out / "checkpoints")
    for problem in problems:
        say(problem)
    if checkpoint is None:
        return None
    if not resume:
        raise ValueError(f"{out} holds a training already: continue it with --resume, or choose another --out")
    identity = _identity(recipe)
    differing = [key for key in identity if checkpoint.state.get(key) != identity[key]]
    if differing:
        raise ValueError(
            f"{out} was trained with another {' and '.join(differing)} than the recipe's: choose another --out, and "
            "finetune_from to start from its results"
        )
    say(f"continuing after iteration {checkpoint.state['iteration']}")
    return checkpoint


def _identity(recipe: Recipe) -> dict:
    """What must not change when a training is continued."""
    return {"model": recipe.model, "config": recipe.config, "optimiser": recipe.optimiser, "ema": recipe.ema > 0}


def _quiet(line: str) -> None:
    """Processes other than the main one say nothing."""
