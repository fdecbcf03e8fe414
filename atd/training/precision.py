"""Mixed precision in a training."""

from __future__ import annotations

import torch

from atd.training.recipes import Recipe

DTYPES = {"none": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""What `amp` in a recipe means."""


def autocast(recipe: Recipe, device: torch.device) -> torch.autocast:
    """The context in which the recipe's networks run."""
    return torch.autocast(device.type, DTYPES[recipe.amp], enabled=recipe.amp != "none")
