"""Scores during a training, by the rules of `atd evaluate`."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from atd.errors import DataNotFoundError
from atd.evaluation.candidates import Candidate, RunOptions, baseline, from_model
from atd.evaluation.datasets import BenchmarkSet, ImagePair, find_sets
from atd.evaluation.protocol import Protocol
from atd.evaluation.scoring import ScoredImage, save_image, score_sets
from atd.models import RestorationModel
from atd.tasks import Denoising, RealWorld, SuperResolution, make_task
from atd.training.data import read_pixels
from atd.training.recipes import Recipe

HELD_OUT = "held_out"
"""Name of the set, and of its folder in the training's, of images that are kept out of the training."""

HELD_OUT_SIDE = 480
"""Pixels a side of the middle part of such an image that is scored: photos of a camera would take too long."""


class Validation:
    """The recipe's validation sets as found under the data folder; those that are missing are said and left out.

    Where none is there, some of the training images are held out, see `images_to_hold_out`.
    """

    def __init__(self, recipe: Recipe, model: RestorationModel, folder: Path, out: Path, say: Callable[[str], None]):
        gray = model.in_channels == 1
        task = make_task(recipe.task.key, scale=model.scale, sigma=recipe.level, quality=int(recipe.level))
        self.recipe = recipe
        self.protocol = Protocol.published(task, gray=gray)
        self.samples = out / "samples"
        self.held_out = out / HELD_OUT
        self.sets: list[BenchmarkSet] = []
        self._inputs: dict[str, float] | None = None
        for name in recipe.validation:
            try:
                self.sets += find_sets(folder, [name], task, gray=gray)[0]
            except DataNotFoundError as error:
                say(f"no validation on {name}: {error}")

    @property
    def choosing_sets(self) -> list[str]:
        """Names of the sets whose mean PSNR says which weights are the best: held-out images before test sets."""
        names = [benchmark.name for benchmark in self.sets]
        return [HELD_OUT] if HELD_OUT in names else names

    def images_to_hold_out(self, resumed: bool) -> int:
        """How many training images are to be kept out of the training, at most.

        A training that goes on holds out those that it has held out, whatever test sets have come since.
        """
        if resumed:
            return len(list(self.held_out.glob("*.png")))
        return 0 if self.sets else self.recipe.held_out

    def hold_out(self, images: Sequence[Path], resumed: bool) -> None:
        """Make a set of these images, which the training does not see: their middles, in a folder of their own."""
        if not resumed:
            shutil.rmtree(self.held_out, ignore_errors=True)
        if not images:
            return
        channels = 1 if self.protocol.channel == "gray" else 3
        pairs: list[ImagePair] = []
        for number, path in enumerate(images):
            pixels = read_pixels(path, channels)
            top, left = (max(side - HELD_OUT_SIDE, 0) // 2 for side in pixels.shape[:2])
            middle = pixels[top : top + HELD_OUT_SIDE, left : left + HELD_OUT_SIDE]
            target = self.held_out / f"{number:02d}_{path.stem}.png"
            save_image(target, middle[..., 0] if channels == 1 else middle)
            pairs.append(ImagePair(target, None))
        self.sets.append(BenchmarkSet(HELD_OUT, tuple(pairs), self.held_out))

    @property
    def input_label(self) -> str:
        """What `inputs` are called beside the scores."""
        if isinstance(self.protocol.task, SuperResolution | RealWorld):
            return "bicubic"
        return "noisy" if isinstance(self.protocol.task, Denoising) else "compressed"

    def inputs(self, on_image: Callable[[ScoredImage], object] | None = None) -> dict[str, float]:
        """PSNR in dB of what a training must beat: bicubic enlarging, or the noisy or compressed input itself.

        Computed once; `on_image` as in `run`.
        """
        if self._inputs is None:
            enlarging = isinstance(self.protocol.task, SuperResolution | RealWorld)
            name = "bicubic" if enlarging else "identity"
            self._inputs = self._score(baseline(name, self.protocol.scale), None, on_image)
        return self._inputs

    def run(self, model: RestorationModel, on_image: Callable[[ScoredImage], object] | None = None) -> dict[str, float]:
        """PSNR in dB of each set; the restored images replace those of the last time in `samples`.

        Args:
            model: the network.
            on_image: called after every image; an exception raised in it ends the validation.
        """
        return self._score(from_model(model, RunOptions()), self.samples, on_image)

    def _score(
        self, candidate: Candidate, images: Path | None, on_image: Callable[[ScoredImage], object] | None
    ) -> dict[str, float]:
        if not self.sets:
            return {}
        scores = score_sets(candidate, self.protocol, self.sets, images=images, on_image=on_image)
        return {name: of_set.mean.psnr for name, of_set in scores.items()}
