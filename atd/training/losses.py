"""What a network loses by the difference between its output and the target."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from atd.errors import RecipeError
from atd.system import import_extra
from atd.training.perceptual import PerceptualLoss
from atd.training.recipes import Recipe


class TrainingLoss:
    """The recipe's loss of the pixels, with the perceptual loss and LPIPS where it has them.

    Args:
        recipe: the training.
        channels: of the images.
        device: where they will be.

    Raises:
        RecipeError: a loss needs weights that are not there, or images in colour.
        MissingExtraError: LPIPS is asked for and not installed.
    """

    def __init__(self, recipe: Recipe, channels: int, device: torch.device) -> None:
        if channels != 3 and (recipe.perceptual or recipe.lpips):
            raise RecipeError(f"recipe {recipe.id}: perceptual and lpips compare images in colour, not of one channel")
        self.recipe = recipe
        weights = Path(recipe.perceptual_weights).expanduser() if recipe.perceptual_weights else None
        self.perceptual = PerceptualLoss(weights).to(device) if recipe.perceptual else None
        self.lpips = _lpips(recipe.lpips_net).to(device) if recipe.lpips else None

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """The loss, a scalar, of float32 images in [0, 1]."""
        loss = pixel_loss(self.recipe, output, target) * self.recipe.pixel
        if self.perceptual:
            loss = loss + self.recipe.perceptual * self.perceptual(output, target)
        if self.lpips:
            loss = loss + self.recipe.lpips * self.lpips(2 * output - 1, 2 * target - 1).mean()
        return loss


def pixel_loss(recipe: Recipe, output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error, mean squared error, or Charbonnier's form of the first, the mean of sqrt(d² + 1e-3)."""
    if recipe.loss == "l1":
        return nn.functional.l1_loss(output, target)
    if recipe.loss == "mse":
        return nn.functional.mse_loss(output, target)
    return ((output - target).square() + 1e-3).sqrt().mean()


def _lpips(net: str) -> nn.Module:
    """Zhang et al., CVPR 2018; its backbone comes from torch's cache, or by a request where it is not there."""
    package = import_extra("lpips", purpose="the loss LPIPS", extra="metrics")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the package calls torchvision in a way that is deprecated
            network = package.LPIPS(net=net, verbose=False)
    except OSError as error:
        raise RecipeError(
            f"the loss LPIPS needs the backbone {net} that torchvision publishes, which is neither in "
            f"{torch.hub.get_dir()} nor to be had: {error}"
        ) from error
    return network.requires_grad_(False).eval()
