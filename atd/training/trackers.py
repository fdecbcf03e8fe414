"""Where a training's numbers and images go beside `log.csv`: TensorBoard, Weights & Biases."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from atd.system import atomic_write, import_extra
from atd.training.recipes import Recipe


class Tracker(Protocol):
    """One of them."""

    def scalars(self, iteration: int, values: Mapping[str, float]) -> None:
        """Take in numbers by their names."""
        ...

    def image(self, iteration: int, name: str, image: np.ndarray) -> None:
        """Take in an image, uint8 (h, w, 3)."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...


def trackers_of(recipe: Recipe, out: Path, iteration: int) -> list[Tracker]:
    """Those that the recipe asks for; `iteration` is the number of iterations done when the training goes on.

    Raises:
        MissingExtraError: the package of one is not installed.
    """
    trackers: list[Tracker] = []
    if recipe.tensorboard:
        trackers.append(TensorBoard(out / "tensorboard", iteration))
    if recipe.wandb:
        trackers.append(WeightsAndBiases(recipe, out, iteration))
    return trackers


class _EventWriter(Protocol):
    """What is used of torch's SummaryWriter, whose methods have no types."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int, /) -> None: ...
    def add_image(self, tag: str, img_tensor: np.ndarray, global_step: int, /, *, dataformats: str) -> None: ...
    def close(self) -> None: ...


class TensorBoard:
    """Event files in a folder."""

    def __init__(self, folder: Path, iteration: int):
        import_extra("tensorboard", purpose="TensorBoard logging (tensorboard=true in the recipe)", extra="train")
        from torch.utils.tensorboard import SummaryWriter

        self.writer: _EventWriter = SummaryWriter(str(folder), purge_step=iteration + 1 if iteration else None)

    def scalars(self, iteration: int, values: Mapping[str, float]) -> None:
        """Add a point to the curve of each name."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, iteration)

    def image(self, iteration: int, name: str, image: np.ndarray) -> None:
        """Add an image, uint8 (h, w, 3)."""
        self.writer.add_image(name, image, iteration, dataformats="HWC")

    def close(self) -> None:
        """Write what is left."""
        self.writer.close()


class WeightsAndBiases:
    """A run in the project `recipe.wandb`, with the recipe as its configuration.

    ``WANDB_MODE=offline`` and the other variables of the package mean what they mean there. The run's id is kept in
    `out/wandb-id.txt`, so that a training that goes on adds to the same run.
    """

    def __init__(self, recipe: Recipe, out: Path, iteration: int):
        self.wandb = import_extra("wandb", purpose="logging to Weights & Biases (wandb in the recipe)", extra="wandb")
        note = out / "wandb-id.txt"
        former = note.read_text(encoding="utf-8").strip() if iteration and note.is_file() else None
        self.run = self.wandb.init(
            project=recipe.wandb,
            name=out.resolve().name,
            dir=str(out),
            config=dataclasses.asdict(recipe),
            id=former,
            resume="allow" if former else None,
        )
        with atomic_write(note) as path:
            path.write_text(f"{self.run.id}\n", encoding="utf-8")

    def scalars(self, iteration: int, values: Mapping[str, float]) -> None:
        """Add a point to the curve of each name."""
        self.run.log(dict(values), step=iteration)

    def image(self, iteration: int, name: str, image: np.ndarray) -> None:
        """Add an image, uint8 (h, w, 3)."""
        self.run.log({name: self.wandb.Image(image)}, step=iteration)

    def close(self) -> None:
        """Send what is left."""
        self.run.finish()
