"""Training: recipes, and the loop that runs them.

>>> from atd.training import get_recipe, train
>>> train(get_recipe("laptop_x4"), Path("images"), Path("run"))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atd.training.recipes import Recipe
from atd.training.recipes import get as get_recipe
from atd.training.recipes import names as list_recipes

if TYPE_CHECKING:
    from atd.training.loop import train

__all__ = ["Recipe", "get_recipe", "list_recipes", "train"]


def __getattr__(name: str) -> object:
    # Reading a recipe should not cost the import of torch.
    if name == "train":
        from atd.training.loop import train

        return train
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
