"""Where a finetuning starts from, and which of its weights fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import nn

from atd import checkpoints, recipes

UPSAMPLER = ("conv_before_upsample.", "upsample.", "conv_up1.", "conv_up2.", "conv_hr.", "conv_last.")


def start_from(model: nn.Module, source: str, out: Path, say: Callable[[str], None]) -> None:
    """Load the weights of another training into `model`; only the upsampler may differ, and what stays new is said.

    Args:
        source: a recipe, whose results are looked for beside `out`; the output folder of a training; or anything that
            `atd.load` takes.
        out: output folder of the training that starts.
    """
    trained = checkpoints.load(locate(source, out))
    given, own = trained.state_dict(), model.state_dict()
    new = sorted(key for key, value in own.items() if key not in given or given[key].shape != value.shape)
    for key in new:
        if not key.startswith(UPSAMPLER):
            shape = tuple(given[key].shape) if key in given else "absent"
            raise ValueError(
                f"cannot start from {source}: {key} is {shape} there and {tuple(own[key].shape)} here, "
                "and only the upsampler may differ"
            )
    model.load_state_dict({key: value if key in new else given[key] for key, value in own.items()})
    say(f"weights from {source}" + (f"; new, because they do not fit: {', '.join(new)}" if new else ""))


def locate(source: str, out: Path) -> str:
    """The argument of `atd.load` that `source` means."""
    if (Path(source) / "model").is_dir():
        return str(Path(source) / "model")
    if source not in recipes.names():
        return source
    beside = out.resolve().parent / source / "model"
    if not beside.is_dir():
        raise ValueError(
            f"this recipe starts from the results of recipe {source}, and there is no {beside}: train it with "
            f"--out {beside.parent}, or name other weights with finetune_from=FOLDER or "
            f"finetune_from={recipes.get(source).model} (the published ones)"
        )
    return str(beside)
