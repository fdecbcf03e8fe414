"""What a training reports: lines on the terminal and `log.csv`, and the same to trackers."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from atd.system import atomic_write
from atd.training.trackers import Tracker

FIELDS = ("iteration", "minutes", "lr", "loss")
"""Columns of `log.csv`, followed by `discriminator` where there is one, and a column for each validation set."""


class TrainingLog:
    """Rows of `log.csv`: iteration, minutes, lr, loss, and a column `psnr_<set>` for each validation set.

    Args:
        out: output folder of the training.
        sets: names of the validation sets.
        iteration: rows after it are removed: they belong to iterations that a resumed training repeats.
        total: iterations of the whole training, for the time that remains.
        limit: minutes that the training may take; 0 for no limit.
        say: receives each line for the terminal.
        trackers: receive the same numbers, and some of the restored images.
        columns: more of them, behind `loss`.
    """

    def __init__(
        self,
        out: Path,
        sets: list[str],
        iteration: int,
        total: int,
        limit: float,
        say: Callable[[str], None],
        trackers: Sequence[Tracker] = (),
        columns: Sequence[str] = (),
    ):
        self.path = out / "log.csv"
        self.fields = (*FIELDS, *columns, *(f"psnr_{name}" for name in sets))
        self.total = total
        self.limit = limit
        self.say = say
        rows = []
        if iteration and self.path.exists():
            with self.path.open(newline="", encoding="utf-8") as file:
                rows = [row for row in csv.DictReader(file) if int(row["iteration"]) <= iteration]
        with atomic_write(self.path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.fields, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        self.trackers = trackers
        self.start = (iteration, time.monotonic())

    def progress(
        self, iteration: int, minutes: float, rate: float, loss: float, discriminator: float | None = None
    ) -> None:
        """One line of training; the loss of the discriminator where there is one."""
        first, since = self.start
        seconds = (time.monotonic() - since) / (iteration - first)
        remaining = seconds * (self.total - iteration)
        if self._clock_rules(iteration, minutes):
            remaining = (self.limit - minutes) * 60
        of_both = f"loss {loss:.5f}" if discriminator is None else f"loss {loss:.5f}, discriminator {discriminator:.5f}"
        self.say(
            f"{self._position(iteration, minutes)}  {of_both}  lr {rate:.2e}  "
            f"{seconds:.2f} s/it  {duration(minutes * 60)} gone, {duration(remaining)} to go"
        )
        more = {} if discriminator is None else {"discriminator": discriminator}
        self._row(iteration, minutes, lr=rate, loss=loss, **more)

    def scores(
        self,
        iteration: int,
        minutes: float,
        scores: dict[str, float],
        inputs: dict[str, float],
        input_label: str,
        samples: Path,
    ) -> None:
        """One line of validation: the PSNR of each set, and in brackets that of the input without a network."""
        if not scores:
            return
        text = "  ".join(f"{name} {psnr:.3f} dB ({input_label} {inputs[name]:.3f})" for name, psnr in scores.items())
        self.say(f"{self._position(iteration, minutes)}  {text}")
        self._row(iteration, minutes, **{f"psnr_{name}": psnr for name, psnr in scores.items()})
        for name in scores if self.trackers else ():
            for path in sorted((samples / name).glob("*.png"))[:4]:
                image = np.asarray(Image.open(path).convert("RGB"))
                for tracker in self.trackers:
                    tracker.image(iteration, f"{name}/{path.stem}", image)

    def close(self) -> None:
        """Have the trackers write what is left."""
        for tracker in self.trackers:
            tracker.close()

    def _clock_rules(self, iteration: int, minutes: float) -> bool:
        """Whether the training ends by its minutes rather than by its iterations, as far as it has got."""
        return bool(self.limit) and minutes / self.limit > iteration / self.total

    def _position(self, iteration: int, minutes: float) -> str:
        number = f"{iteration:>{len(str(self.total))}}"
        if self._clock_rules(iteration, minutes):
            return f"{number}, {min(minutes / self.limit, 1):4.0%} of {duration(self.limit * 60)}"
        return f"{number}/{self.total}"

    def _row(self, iteration: int, minutes: float, **values: float) -> None:
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.fields).writerow(
                {"iteration": iteration, "minutes": f"{minutes:.3f}", **{k: f"{v:.6g}" for k, v in values.items()}}
            )
        for tracker in self.trackers:
            tracker.scalars(iteration, values)


def duration(seconds: float) -> str:
    """`0:07`, `1:05:00`, `3 d 04:00:00`."""
    minutes, second = divmod(int(max(seconds, 0)), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days} d {hour:02d}:{minute:02d}:{second:02d}"
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
