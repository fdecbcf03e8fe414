"""Scores during a training, by the rules of `atd evaluate`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from atd.errors import DataNotFoundError
from atd.evaluation.candidates import RunOptions, from_model
from atd.evaluation.datasets import find_sets
from atd.evaluation.protocol import Protocol
from atd.evaluation.scoring import score_sets
from atd.models import RestorationModel
from atd.tasks import make_task
from atd.training.recipes import Recipe


class Validation:
    """The recipe's validation sets as found under the data folder; those that are missing are said and left out."""

    def __init__(self, recipe: Recipe, model: RestorationModel, folder: Path, out: Path, say: Callable[[str], None]):
        gray = model.in_channels == 1
        task = make_task(recipe.task.key, scale=model.scale, sigma=recipe.level, quality=int(recipe.level))
        self.protocol = Protocol.published(task, gray=gray)
        self.samples = out / "samples"
        self.sets = []
        for name in recipe.validation:
            try:
                self.sets += find_sets(folder, [name], task, gray=gray)[0]
            except DataNotFoundError as error:
                say(f"no validation on {name}: {error}")

    def run(self, model: RestorationModel) -> dict[str, float]:
        """PSNR in dB of each set; the restored images replace those of the last time in `samples`."""
        if not self.sets:
            return {}
        scores = score_sets(from_model(model, RunOptions()), self.protocol, self.sets, images=self.samples)
        return {name: of_set.mean.psnr for name, of_set in scores.items()}
