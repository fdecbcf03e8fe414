"""Where a finetuning starts from, and which of its weights fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from einops import rearrange
from torch import nn

from atd.errors import LoadError, RecipeError
from atd.loading import load
from atd.models import RestorationModel
from atd.training import recipes
from atd.training.recipes import Recipe

UPSAMPLER = ("conv_before_upsample.", "upsample.", "conv_up1.", "conv_up2.", "conv_hr.", "conv_last.")
"""How the names of an upsampler's parameters begin."""


def initialise(
    model: RestorationModel, recipe: Recipe, out: Path, say: Callable[[str], None]
) -> dict[str, torch.Tensor] | None:
    """Give a new `model` the weights that the recipe's training starts from, where they are not random.

    Returns:
        What the training's weight average starts from; None where it is the network's own start.

    Raises:
        RecipeError: the weights, or the kind of start, do not fit the network.
        LoadError: there are no such weights.
    """
    average = None
    if recipe.finetune_from:
        average = start_from(model, recipe.finetune_from, out, say, recipe.resample_upsampler)
    if recipe.bicubic_start:
        start_as_bicubic(model)
        average = None
    return average


def start_from(
    model: RestorationModel, source: str, out: Path, say: Callable[[str], None], resample_upsampler: bool = False
) -> dict[str, torch.Tensor] | None:
    """Load the weights of another training into `model`; only the upsampler may differ, and what stays new is said.

    A weight file can hold raw weights (`params`) and their average (`params_ema`). The network then goes on from the
    raw ones and the new average from the old one, as the authors' trainings do.

    Args:
        source: a recipe, whose results are looked for beside `out`; the output folder of a training; or anything that
            `atd.load` takes.
        out: output folder of the training that starts.
        resample_upsampler: make the upsampler `pixelshuffledirect` of another scale from the trained one, by linear
            interpolation among its sub-pixels, instead of leaving it random.
        say: receives the line that names what has stayed new.

    Returns:
        The start of the weight average by parameter name, where `source` is such a file.

    Raises:
        RecipeError: more than the upsampler differs, or it cannot be resampled.
        LoadError: there are no such weights.
    """
    trained, trained_average = _raw_and_average(locate(source, out))
    average = None
    if trained_average is not None:
        parameters = {name for name, _ in model.named_parameters()}
        weights, _, _ = _fitted(trained_average, model, source, resample_upsampler)
        average = {name: tensor for name, tensor in weights.items() if name in parameters}
    weights, new, resampled = _fitted(trained, model, source, resample_upsampler)
    model.load_state_dict(weights)
    differing = f"; new, because they do not fit: {', '.join(new)}" if new else ""
    differing += f"; resampled from ×{trained.scale}: {', '.join(resampled)}" if resampled else ""
    differing += "; the average starts from that of the file" if average else ""
    say(f"weights from {source}{differing}")
    return average


def _raw_and_average(source: str) -> tuple[RestorationModel, RestorationModel | None]:
    """The raw weights and their average, of a file that holds both; of any other source what `load` takes of it."""
    if Path(source).is_file():
        try:
            return load(source, params="raw"), load(source, params="ema")
        except LoadError:  # one of them is not there, or the file cannot be read at all, which the next line says
            pass
    return load(source), None


def _fitted(
    trained: RestorationModel, model: RestorationModel, source: str, resample_upsampler: bool
) -> tuple[dict[str, torch.Tensor], list[str], list[str]]:
    """The state of `model` with the weights of `trained` where they fit, the keys that stay new, those resampled."""
    given, own = trained.state_dict(), model.state_dict()
    resampled = []
    if resample_upsampler and trained.scale != model.scale:
        for kind in (trained.upsampler, model.upsampler):
            if kind != "pixelshuffledirect":
                raise RecipeError(f'resample_upsampler is made for the upsampler "pixelshuffledirect", not {kind!r}')
        resampled = ["upsample.0.bias", "upsample.0.weight"]
        for key in resampled:
            given[key] = _resample_subpixels(given[key], trained.scale, model.scale)
    new = sorted(key for key, value in own.items() if key not in given or given[key].shape != value.shape)
    for key in new:
        if not key.startswith(UPSAMPLER):
            shape = tuple(given[key].shape) if key in given else "absent"
            raise RecipeError(
                f"cannot start from {source}: {key} is {shape} there and {tuple(own[key].shape)} here, "
                "and only the upsampler may differ"
            )
    return {key: value if key in new else given[key] for key, value in own.items()}, new, resampled


def locate(source: str, out: Path) -> str:
    """The argument of `atd.load` that `source` means.

    Raises:
        RecipeError: it is a recipe that has not been trained beside `out`.
    """
    if (Path(source) / "model").is_dir():
        return str(Path(source) / "model")
    if source not in recipes.names():
        return source
    beside = out.resolve().parent / source / "model"
    if not beside.is_dir():
        raise RecipeError(
            f"this recipe starts from the results of recipe {source}, and there is no {beside}: train it with "
            f"--output {beside.parent}, or name other weights with finetune_from=FOLDER or "
            f"finetune_from={recipes.get(source).model} (the published ones)"
        )
    return str(beside)


def _resample_subpixels(tensor: torch.Tensor, old: int, new: int) -> torch.Tensor:
    """(c·old², …) → (c·new², …): the outputs of a convolution before PixelShuffle, interpolated at the new places."""
    grid = tensor.flatten(1) if tensor.dim() > 1 else tensor[:, None]
    grid = rearrange(grid, "(c y x) k -> c k y x", y=old, x=old)
    grid = nn.functional.interpolate(grid, size=(new, new), mode="bilinear")
    return rearrange(grid, "c k y x -> (c y x) k").reshape(-1, *tensor.shape[1:])


@torch.no_grad()
def start_as_bicubic(model: RestorationModel) -> None:
    """Change a fresh super-resolution network so that it begins near bicubic interpolation.

    The network has no shortcut from its input to its output and spends the first thousand iterations learning to copy
    the image. Here the first channels of the shallow features carry the image itself, the upsampler interpolates them
    (the cubic kernel, a = −0.5, cut to its three inner taps), and the deep features enter small.

    Raises:
        RecipeError: the model has another upsampler than ``pixelshuffledirect``, or a body that ends in ``3conv``.
    """
    if getattr(model, "upsampler", None) != "pixelshuffledirect" or not isinstance(model.conv_after_body, nn.Conv2d):
        raise RecipeError('bicubic_start is made for networks with upsampler "pixelshuffledirect" and "1conv"')
    channels, scale = model.in_channels, model.scale
    first = model.get_parameter("conv_first.weight")
    first[:channels] = 0
    first[range(channels), range(channels), 1, 1] = 1
    model.get_parameter("conv_first.bias")[:channels] = 0
    for part in model.conv_after_body.parameters():
        part.mul_(0.1)
    upsampler = model.get_parameter("upsample.0.weight")
    upsampler.mul_(0.1)
    upsampler[:, :channels] = 0
    model.get_parameter("upsample.0.bias").zero_()
    offset = (torch.arange(scale) + 0.5) / scale - 0.5
    taps = _cubic(offset[:, None] - torch.tensor([-1.0, 0.0, 1.0]))
    taps /= taps.sum(dim=1, keepdim=True)
    kernels = torch.einsum("ya,xb->yxab", taps, taps).flatten(0, 1)  # (scale², 3, 3), in the order of PixelShuffle
    for channel in range(channels):
        upsampler[channel * scale**2 : (channel + 1) * scale**2, channel] = kernels


def _cubic(distance: torch.Tensor) -> torch.Tensor:
    x = distance.abs()
    inner = 1.5 * x**3 - 2.5 * x**2 + 1
    outer = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return torch.where(x <= 1, inner, torch.where(x < 2, outer, 0.0))
