"""Scores during a training, by the rules of `atd evaluate`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from atd.evaluation import datasets, scoring
from atd.evaluation.candidates import Candidate
from atd.evaluation.protocol import Protocol
from atd.models import RestorationModel
from atd.restoration.api import restore_tensor
from atd.training.recipes import Recipe


class Validation:
    """The recipe's validation sets as found under the data folder; those that are missing are said and left out."""

    def __init__(self, recipe: Recipe, model: RestorationModel, folder: Path, out: Path, say: Callable[[str], None]):
        gray = model.in_channels == 1
        self.protocol = Protocol.published(
            recipe.task, gray=gray, scale=model.scale, sigma=recipe.level, quality=int(recipe.level)
        )
        self.samples = out / "samples"
        self.sets = []
        for name in recipe.validation:
            try:
                self.sets += datasets.find_sets(folder, [name], recipe.task, gray=gray, scale=model.scale)[0]
            except FileNotFoundError as error:
                say(f"no validation on {name}: {error}")

    def run(self, model: RestorationModel) -> dict[str, float]:
        """PSNR in dB of each set; the restored images replace those of the last time in `samples`."""
        if not self.sets:
            return {}

        def restore(image: torch.Tensor) -> torch.Tensor:
            return restore_tensor(model, image, dtype=torch.float32)

        candidate = Candidate(model.name or model.architecture, restore, model.scale)
        result = scoring.evaluate(candidate, self.protocol, self.sets, images=self.samples)
        return {name: scores.mean.psnr for name, scores in result.sets.items()}
