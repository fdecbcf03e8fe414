"""What one process does for all of a training: it keeps the log, validates, writes checkpoints and the result."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from atd.errors import TrainingError
from atd.evaluation.scoring import ScoredImage
from atd.models import RestorationModel
from atd.system import atomic_write
from atd.training import state as training_state
from atd.training.distributed import Processes
from atd.training.interruption import Interruption
from atd.training.kept_models import KeptModels
from atd.training.log import TrainingLog
from atd.training.network import create_network
from atd.training.recipes import Recipe
from atd.training.state import TrainingState
from atd.training.trackers import trackers_of
from atd.training.validation import Validation

RATE_ADVICE = (
    "continue with --resume and a smaller rate, such as lr=1e-4; where the newest folder of checkpoints/ has diverged "
    "already, delete it, and the one before is taken"
)
"""What to do about a training that has diverged."""

_logger = logging.getLogger(__name__)


class MainProcess:
    """The writing side of a training, all of it in `out`.

    `recipe.toml`, `log.csv`, `samples/`, `checkpoints/`, `models/`, `best/` and at the end `model/`.

    Args:
        recipe: the training.
        model: the network that is trained; validation and the result use a plain copy of it, which no compilation,
            sharding or activation checkpointing has changed.
        validation: the sets to score.
        out: the folder to write to.
        iteration: iterations done when the training goes on, 0 at its start.
        processes: all processes of the training.
        say: receives each line of the report.
    """

    def __init__(
        self,
        recipe: Recipe,
        model: RestorationModel,
        validation: Validation,
        out: Path,
        iteration: int,
        processes: Processes,
        say: Callable[[str], None],
    ):
        self.recipe = recipe
        self.out = out
        self.say = say
        self.network = create_network(recipe).to(processes.device).eval()
        self.validation = validation
        out.mkdir(parents=True, exist_ok=True)
        with atomic_write(out / "recipe.toml") as path:
            path.write_text(recipe.to_toml(), encoding="utf-8")
        names = [benchmark.name for benchmark in self.validation.sets]
        trackers = trackers_of(recipe, out, iteration)
        columns = ["discriminator"] if recipe.adversarial else []
        self.log = TrainingLog(out, names, iteration, recipe.total_iterations, recipe.minutes, say, trackers, columns)
        self.kept = KeptModels(out, recipe.keep, iteration, say)
        millions = sum(parameter.numel() for parameter in self.network.parameters()) / 1e6
        machine = processes.device.type
        if processes.count > 1:
            machine = f"{processes.count} × {machine}"
        say(f"{recipe.model}: {millions:.3f} M parameters on {machine}")

    def progress(self, iteration: int, minutes: float, rate: float, loss: float, discriminator: float | None) -> None:
        """Report the mean losses since the last report, and the time that remains."""
        self.log.progress(iteration, minutes, rate, loss, discriminator)

    def save(self, state: TrainingState) -> None:
        """Write a checkpoint; where that fails, say so and go on: the one before is still there.

        Raises:
            TrainingError: a weight is no longer finite; the checkpoints stay as they are.
        """
        for name, tensor in (state.model | (state.adversary or {})).items():
            if not tensor.isfinite().all():
                raise TrainingError(f"{name} is no longer finite after iteration {state.iteration}: {RATE_ADVICE}")
        try:
            path = training_state.save(self.out / "checkpoints", state)
            _logger.debug("wrote checkpoint %s", path)
        except OSError as error:
            self.say(f"checkpoint {state.iteration} could not be written, the one before is kept: {error}")

    def validate(self, iteration: int, minutes: float, weights: dict[str, Tensor], interruption: Interruption) -> None:
        """Score `weights` on the validation sets; they become those of the result. A signal ends it half-way."""
        self.network.load_state_dict(weights)

        def stop_if_asked(scored: ScoredImage) -> None:
            if interruption.requested:
                raise _ValidationStopped

        try:
            scores = self.validation.run(self.network, stop_if_asked)
            inputs = self.validation.inputs(stop_if_asked)
        except _ValidationStopped:
            return
        if not scores:
            return
        label = self.validation.input_label
        self.log.scores(iteration, minutes, scores, inputs, label, self.validation.samples)
        self.kept.consider(self.network, iteration, scores, self.validation.choosing_sets)

    def keep(self, iteration: int, weights: dict[str, Tensor]) -> None:
        """Write `models/<iteration>`."""
        self.network.load_state_dict(weights)
        self.kept.keep(self.network, iteration)

    def finish(self) -> None:
        """Write `model/`, with the weights that were validated last."""
        self.network.save_pretrained(self.out / "model")
        if best := self.kept.best:
            chosen_by = ", ".join(best.chosen_by)
            self.say(f"best on {chosen_by}: iteration {best.iteration}, {best.psnr:.3f} dB, in {self.kept.best_model}")
        self.say(f"saved to {self.out / 'model'}")

    def close(self) -> None:
        """Have the log write what is left, at the end of the training or where it is interrupted."""
        self.log.close()


class _ValidationStopped(Exception):
    """Raised after an image, where a signal has asked the training to end."""
