"""The network that a recipe trains."""

from __future__ import annotations

from atd.errors import RecipeError
from atd.loading import create
from atd.models import RestorationModel
from atd.tasks import RealWorld, SuperResolution
from atd.training.recipes import Recipe


def create_network(recipe: Recipe, *, activation_checkpointing: bool = False) -> RestorationModel:
    """The recipe's network with random parameters.

    One that is registered for bicubic super-resolution and learns real photos is another network than its name says:
    its task is that of real photos, and it has no name.

    Raises:
        RecipeError: it cannot be built with the recipe's config.
    """
    memory = {"use_checkpoint": True} if activation_checkpointing else {}
    try:
        model = create(recipe.model, **{**recipe.config, **memory})
    except (TypeError, ValueError) as error:
        raise RecipeError(f"recipe {recipe.id}: {recipe.model} cannot be built with its config: {error}") from error
    if recipe.real and model.task == SuperResolution.key:
        model.task, model.name = RealWorld.key, None
    return model
