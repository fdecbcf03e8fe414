"""One training from recipe to saved network, read top to bottom: network, data, optimiser, loop, results."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import torch
from torch import Tensor, nn

from atd.errors import InputError, RecipeError, TrainingError
from atd.system import exclusive_file
from atd.training import data, distributed, finetuning, optim
from atd.training import state as training_state
from atd.training.adversary import Adversary
from atd.training.distributed import Processes
from atd.training.interruption import Interruption, TrainingInterrupted, watched_signals
from atd.training.losses import TrainingLoss
from atd.training.main_process import RATE_ADVICE, MainProcess
from atd.training.network import create_network
from atd.training.optim import WeightAverage
from atd.training.precision import autocast
from atd.training.recipes import Recipe
from atd.training.state import TrainingState
from atd.training.validation import Validation


def train(recipe: Recipe, folder: Path, out: Path, *, resume: bool = False, say: Callable[[str], None] = print) -> Path:
    """Run or continue a training, alone or as one of the processes that torchrun or srun started.

    The first Ctrl-C or SIGTERM lets the iteration finish and saves it; the second one ends at once.

    Args:
        recipe: the training.
        folder: where the recipe's image folders and validation sets lie.
        out: results, `checkpoints/`, `log.csv`, `recipe.toml`, `samples/`, `models/`, `best/` and at the end `model/`,
            which `atd.load` takes. With several machines it must be on a file system that all of them see.
        resume: continue from the newest whole checkpoint in `out`, or start when there is none. Processes that
            torchrun restarts after a failure always do.
        say: receives each line of the report.

    Returns:
        The folder of the saved network.

    Raises:
        RecipeError: the recipe does not fit its network, its data, the processes, or the training in `out`.
        InputError: `out` holds a training already and `resume` is not set, or another process trains there, or an
            image cannot be used.
        LoadError: there is no such network, or no such weights to start from.
        TrainingError: the loss or a weight is no longer finite.
        MissingExtraError: TensorBoard or wandb is asked for and not installed.
        TrainingInterrupted: a signal has ended the training, a `KeyboardInterrupt`.
    """
    with ExitStack() as stack:
        processes = stack.enter_context(distributed.processes())
        stack.enter_context(_seeded(recipe.seed, processes.device))
        if processes.main:
            stack.enter_context(_alone_in(out))
        resume = resume or processes.restarted
        return _train(recipe, folder, out, resume, processes, stack, say if processes.main else _quiet)


def _train(
    recipe: Recipe,
    folder: Path,
    out: Path,
    resume: bool,
    processes: Processes,
    stack: ExitStack,
    say: Callable[[str], None],
) -> Path:
    device = processes.device
    for batch in recipe.batch:
        if batch % processes.count:
            raise RecipeError(f"batch {batch} does not divide among {processes.count} processes")

    # The start: nothing done yet, or what the newest whole checkpoint holds.
    resumed = training_state.state_to_continue(recipe, out, resume, say)
    iteration = resumed.iteration if resumed else 0
    minutes = resumed.minutes if resumed else 0.0

    # The network.
    model = create_network(recipe, activation_checkpointing=recipe.activation_checkpointing)
    degradation = data.degradation_of(recipe, model)
    average_start = None
    if resumed:
        model.load_state_dict(resumed.model)
    else:
        average_start = finetuning.initialise(model, recipe, out, say)
    model = model.to(device).train()

    # The data, and the process that keeps the log and the results.
    validation = Validation(recipe, model, folder, out, say)
    hold_out = validation.images_to_hold_out(resumed is not None)
    source, held_out = data.open_source(recipe, folder, degradation, model.in_channels, say, hold_out)
    processes.wait()  # all of them have looked for what was held out before
    main = None
    if processes.main:
        validation.hold_out(held_out, resumed is not None)
        main = MainProcess(recipe, model, validation, out, iteration, processes, say)
        stack.callback(main.close)

    # Optimiser and weight average; `network` is what runs, `model` is what it is made of.
    network = distributed.distribute(model, recipe, processes)
    optimiser = optim.build(model, recipe)
    average = WeightAverage(model, recipe.ema, warmup=recipe.ema_warmup) if recipe.ema else None
    if average and average_start:
        average.load(average_start)
    loss_of = TrainingLoss(recipe, model.in_channels, device)
    adversary = Adversary(recipe, model.in_channels, processes) if recipe.adversarial else None
    scaler = torch.amp.GradScaler(device.type, enabled=recipe.amp == "fp16")
    if resumed:
        optim.load_state(model, optimiser, resumed.optimiser)
        if average and resumed.average:
            average.load(resumed.average)
        if adversary and resumed.adversary:
            adversary.load_state(resumed.adversary)
        if resumed.scaler:
            scaler.load_state_dict(resumed.scaler)
    resumed = None  # its tensors would otherwise stay in memory until the training ends
    processes.wait()

    # The loop; losses are summed up since the last line of the log.
    interruption = stack.enter_context(watched_signals())
    losses, adversary_losses, counted = torch.zeros((), device=device), torch.zeros((), device=device), 0
    saved = clock = time.monotonic()
    samples = data.batches(source, recipe, iteration, rank=processes.rank, world=processes.count)
    for stage, inputs, targets, reals in samples:
        if recipe.minutes:
            minutes = processes.share(minutes)
            if minutes >= recipe.minutes:
                break
        factor = optim.rate_factor(recipe, iteration, minutes)
        optim.set_rate(optimiser, factor)

        # Gradients of the whole batch, gathered part by part.
        inputs, targets = inputs.to(device, non_blocking=True), targets.to(device, non_blocking=True)
        reals = targets if reals is None else reals.to(device, non_blocking=True)
        inputs, targets = data.mix(inputs, targets, recipe, iteration, processes.rank)
        size = stage.micro_batch or len(inputs)
        parts = list(zip(torch.split(inputs, size), torch.split(targets, size), torch.split(reals, size), strict=True))
        outputs: list[tuple[Tensor, Tensor]] = []
        for number, (part, target, real) in enumerate(parts, 1):
            with distributed.without_synchronisation(network, last=number == len(parts)):
                with autocast(recipe, device):
                    output = network(part)
                output = output.float()
                loss = loss_of(output, target)
                if adversary:
                    loss = loss + recipe.adversarial * adversary.loss_of_generator(output)
                    outputs.append((output.detach(), real))
                loss = loss * (len(part) / len(inputs))
                scaler.scale(loss).backward()  # pyright: ignore[reportUnknownMemberType]  (torch leaves it untyped)
            losses += loss.detach()

        # One step.
        if recipe.clip:
            scaler.unscale_(optimiser)
            nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        scaler.step(optimiser)
        optimiser.zero_grad()
        if adversary:
            adversary_losses += adversary.learn(outputs, scaler, factor)
        scaler.update()
        if average:
            average.update(iteration)
        iteration += 1
        counted += 1
        minutes += (time.monotonic() - clock) / 60

        # Log, checkpoint, validation; the time they take is not the training's.
        if iteration % recipe.log_every == 0:
            mean = processes.mean(losses) / counted
            of_adversary = processes.mean(adversary_losses) / counted if adversary else None
            losses, adversary_losses, counted = torch.zeros((), device=device), torch.zeros((), device=device), 0
            if not (math.isfinite(mean) and math.isfinite(of_adversary or 0.0)):
                both = f"{mean}" if of_adversary is None else f"{mean}, that of the discriminator {of_adversary},"
                raise TrainingError(f"the loss is {both} in iteration {iteration}: {RATE_ADVICE}")
            if main:
                main.progress(iteration, minutes, recipe.lr * factor, mean, of_adversary)
            if processes.share(time.monotonic() - saved) >= recipe.save_minutes * 60:
                _save(main, recipe, iteration, minutes, model, optimiser, average, adversary, scaler)
                saved = time.monotonic()
        if iteration < recipe.total_iterations:
            if iteration % recipe.validate_every == 0:
                _validate(main, iteration, minutes, model, average, interruption)
            if iteration % (recipe.keep_every or recipe.validate_every) == 0:
                _keep(main, iteration, model, average)
            if processes.any(interruption.requested):
                _save(main, recipe, iteration, minutes, model, optimiser, average, adversary, scaler)
                raise _interrupted(interruption, iteration, processes)
        clock = time.monotonic()

    # The results.
    _save(main, recipe, iteration, minutes, model, optimiser, average, adversary, scaler)
    _validate(main, iteration, minutes, model, average, interruption)
    if processes.any(interruption.requested):
        raise _interrupted(interruption, iteration, processes)
    if main:
        main.finish()
    processes.wait()
    return out / "model"


def _save(
    main: MainProcess | None,
    recipe: Recipe,
    iteration: int,
    minutes: float,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    average: WeightAverage | None,
    adversary: Adversary | None,
    scaler: torch.amp.GradScaler,
) -> None:
    """Write a checkpoint: all processes gather the tensors, the main one writes them."""
    state = TrainingState(
        iteration=iteration,
        minutes=minutes,
        identity=training_state.identity_of(recipe),
        scaler=scaler.state_dict(),
        model=optim.full(model.named_parameters()),
        optimiser=optim.state_of(model, optimiser),
        average=optim.full(average.tensors.items()) if average else None,
        adversary=adversary.state() if adversary else None,
    )
    if main:
        main.save(state)


def _validate(
    main: MainProcess | None,
    iteration: int,
    minutes: float,
    model: nn.Module,
    average: WeightAverage | None,
    interruption: Interruption,
) -> None:
    """Score the result so far, which is the average where there is one."""
    weights = _result(model, average)
    if main:
        main.validate(iteration, minutes, weights, interruption)


def _keep(main: MainProcess | None, iteration: int, model: nn.Module, average: WeightAverage | None) -> None:
    """Leave the result so far as a model of its own."""
    weights = _result(model, average)
    if main:
        main.keep(iteration, weights)


def _result(model: nn.Module, average: WeightAverage | None) -> dict[str, Tensor]:
    """What the training has come to: the average where there is one; gathered from all processes."""
    return optim.full(average.tensors.items() if average else model.named_parameters())


def _interrupted(interruption: Interruption, iteration: int, processes: Processes) -> TrainingInterrupted:
    # Without a signal of its own this process ends because another one was told to.
    number = interruption.number or signal.SIGTERM
    return TrainingInterrupted(iteration, number, main=processes.main, processes=processes.count)


@contextmanager
def _alone_in(out: Path) -> Generator[None, None, None]:
    """Keep other trainings out of `out`. What a killed one has left does not: its lock went with it."""
    existed = out.exists()
    out.mkdir(parents=True, exist_ok=True)
    path = out / ".lock"
    with ExitStack() as stack:
        try:
            stack.enter_context(exclusive_file(path))
        except BlockingIOError:
            raise InputError(
                f"another process is training in {out}: wait for its end, or choose another --output"
            ) from None
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            if not existed:
                with suppress(OSError):  # not empty, as after any training that has begun
                    out.rmdir()


@contextmanager
def _seeded(seed: int, device: torch.device) -> Generator[None, None, None]:
    """Seed torch's random numbers for a training and put the caller's back afterwards."""
    cards = [torch.cuda.current_device()] if device.type == "cuda" else []
    with torch.random.fork_rng(cards):  # pyright: ignore[reportUnknownMemberType]  (torch leaves it untyped)
        torch.default_generator.manual_seed(seed)
        if cards:
            torch.cuda.manual_seed(seed)
        yield


def _quiet(line: str) -> None:
    """Processes other than the main one say nothing."""
