"""Networks that a training leaves on the way: one every so many iterations, and the best so far."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from atd.models import RestorationModel
from atd.system import atomic_write


@dataclass(frozen=True)
class Best:
    """The content of best.json: which iteration `best/` is of, and the mean PSNR in dB of the sets that chose it."""

    iteration: int
    psnr: float
    chosen_by: tuple[str, ...]


class KeptModels:
    """`models/<iteration>` and `best/` in a training's folder, each of them a folder for `atd.load`.

    Neither is the result, which is `model/`: the weights after the last iteration, whatever they score. So a test set
    among the validation sets reports how good the result is, and never chooses it.

    Args:
        out: the training's folder.
        keep: how many of `models/` stay, the newest; 0: all.
        iteration: iterations done when the training goes on; 0 at its start, which removes what an earlier one left.
        say: receives a line when one cannot be written.
    """

    def __init__(self, out: Path, keep: int, iteration: int, say: Callable[[str], None]):
        self.models = out / "models"
        self.best_model = out / "best"
        self.best_note = out / "best.json"
        self.limit = keep
        self.say = say
        if not iteration:
            shutil.rmtree(self.models, ignore_errors=True)
            shutil.rmtree(self.best_model, ignore_errors=True)
            self.best_note.unlink(missing_ok=True)
        self.best = self._read_best()

    def keep(self, network: RestorationModel, iteration: int) -> None:
        """Write `models/<iteration>` and remove those beyond the newest `keep`."""
        if self._write(network, self.models / f"{iteration:08d}") and self.limit:
            written = sorted(path for path in self.models.iterdir() if path.name.isdigit())
            for old in written[: -self.limit]:
                shutil.rmtree(old)

    def consider(
        self, network: RestorationModel, iteration: int, scores: dict[str, float], sets: Sequence[str]
    ) -> None:
        """Write `best/` where the mean PSNR of `sets`, some of `scores`, is the highest so far."""
        psnr = sum(scores[name] for name in sets) / len(sets)
        same_sets = self.best is not None and self.best.chosen_by == tuple(sets)
        if self.best is not None and same_sets and self.best.psnr >= psnr:
            return
        if self._write(network, self.best_model):
            self.best = Best(iteration, psnr, tuple(sets))
            with atomic_write(self.best_note) as path:
                path.write_text(json.dumps(asdict(self.best)) + "\n", encoding="utf-8")

    def _write(self, network: RestorationModel, folder: Path) -> bool:
        try:
            network.save_pretrained(folder)
        except OSError as error:  # the training is worth more than this copy
            self.say(f"{folder} could not be written: {error}")
            return False
        return True

    def _read_best(self) -> Best | None:
        try:
            note = json.loads(self.best_note.read_text(encoding="utf-8"))
            return Best(note["iteration"], note["psnr"], tuple(note["chosen_by"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None
