"""Optimisers, learning rates and weight averages of the published trainings."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from atd.training.recipes import Recipe


def build(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW for everything, or Muon for hidden weights of two and more dimensions with AdamW for the rest."""
    if recipe.optimiser == "muon":
        optimiser = muon(model, recipe)
    else:
        optimiser = torch.optim.AdamW(
            model.parameters(), lr=recipe.lr, betas=_pair(recipe.betas), weight_decay=recipe.weight_decay
        )
    for group in optimiser.param_groups:
        group["initial_lr"] = group["lr"]
    return optimiser


def adam(model: nn.Module, lr: float, betas: tuple[float, ...]) -> torch.optim.Optimizer:
    """Adam without weight decay for all parameters."""
    optimiser = torch.optim.Adam(model.parameters(), lr=lr, betas=_pair(betas))
    for group in optimiser.param_groups:
        group["initial_lr"] = group["lr"]
    return optimiser


def muon(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Muon as its author's package defines it (github.com/KellerJordan/Muon), with its Adam half.

    Momentum 0.95 with Nesterov, five Newton–Schulz steps with its first coefficients, convolutions flattened to
    (out, rest) for these steps. The update of a matrix is then multiplied by max(1, rows/columns)^0.5. The package
    takes this factor from the last two dimensions of the gradient as it is: of a convolution, the height and the width
    of its kernel. All kernels here are square, so the factor is 1. Parameters of fewer than two dimensions, and those
    whose name contains `first`, go to Adam, with its decoupled weight decay.
    """
    from timm.optim.muon import Muon

    named = list(model.named_parameters())
    hidden = [parameter for name, parameter in named if is_hidden(name, parameter)]
    matrices = [parameter for parameter in hidden if parameter.ndim == 2]
    convolutions = [parameter for parameter in hidden if parameter.ndim > 2]
    rest = [parameter for name, parameter in named if not is_hidden(name, parameter)]
    # use_muon is stated for each group: timm's own choice by shape would leave depthwise kernels to Adam. timm takes
    # the factor from the flattened shape, 133:25 for a depthwise kernel: none is asked for where it must be 1.
    return Muon(
        [
            {"params": matrices, "use_muon": True, "adjust_lr_fn": "original"},
            {"params": convolutions, "use_muon": True, "adjust_lr_fn": None},
            {"params": rest, "use_muon": False, "lr": recipe.adam_lr, "eps": 1e-10, "nesterov": False},
        ],
        lr=recipe.lr,
        weight_decay=recipe.weight_decay,
        momentum=0.95,
        nesterov=True,
        ns_steps=5,
        ns_coefficients="original",
        conv_mode="flatten",
        betas=_pair(recipe.betas),
    )


def is_hidden(name: str, parameter: Tensor) -> bool:
    """Whether Muon, not Adam, updates a parameter."""
    return parameter.ndim >= 2 and "first" not in name


def set_rate(optimiser: torch.optim.Optimizer, factor: float) -> None:
    """Scale every group's initial learning rate."""
    for group in optimiser.param_groups:
        group["lr"] = group["initial_lr"] * factor


def rate_factor(recipe: Recipe, iteration: int, minutes: float = 0.0) -> float:
    """Factor on the learning rates in iteration 0, 1, …, after `minutes` of training.

    Linear warm-up from 0, then ×0.5 at each milestone; or half a cosine down to `lr_min` over the iterations or over
    the time limit, whichever is nearer its end; or such a cosine in every period, begun at the period's weight.
    """
    warm = min(1.0, (iteration + 1) / (recipe.warmup + 1))
    lowest = recipe.lr_min / recipe.lr if recipe.lr else 0.0
    if recipe.schedule == "multistep":
        return warm * 0.5 ** sum(iteration >= milestone for milestone in recipe.milestones)
    if recipe.schedule == "cosine_restarts":
        number, start = 0, 0
        while iteration >= start + _period(recipe, number):
            start += _period(recipe, number)
            number += 1
        weights = recipe.restart_weights or (1.0,)
        weight = weights[min(number, len(weights) - 1)]
        return warm * (lowest + weight * (1 - lowest) * _half_cosine((iteration - start) / _period(recipe, number)))
    progress = iteration / recipe.total_iterations
    if recipe.minutes:
        progress = max(progress, minutes / recipe.minutes)
    return warm * (lowest + (1 - lowest) * _half_cosine(min(progress, 1.0)))


def _period(recipe: Recipe, number: int) -> int:
    return recipe.periods[min(number, len(recipe.periods) - 1)]


def _half_cosine(progress: float) -> float:
    """From 1 down to 0 as `progress` goes from 0 to 1."""
    return 0.5 * (1 + math.cos(math.pi * progress))


class WeightAverage:
    """Exponential moving average of a model's parameters: average ← d · average + (1 − d) · parameter.

    In the published trainings d is `decay` from the first update on. With `warmup` it is min(decay, (1 + n) / (10 + n))
    after n updates, so that the random start is forgotten in short trainings too.
    """

    def __init__(self, model: nn.Module, decay: float, *, warmup: bool = False):
        self.parameters = dict(model.named_parameters())
        self.tensors = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        self.decay = decay
        self.warmup = warmup

    def update(self, updates: int) -> None:
        """Take in the parameters after the average has been updated `updates` times."""
        decay = min(self.decay, (1 + updates) / (10 + updates)) if self.warmup else self.decay
        average = cast("Callable[[list[Tensor], list[Tensor], int], None]", get_ema_multi_avg_fn(decay))
        average(list(self.tensors.values()), list(self.parameters.values()), updates)

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `full(average.tensors)` gave, or start from other tensors of these names."""
        for name, average in self.tensors.items():
            average.copy_(shard_like(tensors[name], average))


def state_of(model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state by parameter name, `<parameter>:<key>` → tensor on the CPU, whole also under FSDP."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    return full(
        (f"{names[parameter]}:{key}", torch.as_tensor(value))
        for parameter, values in optimiser.state.items()
        for key, value in values.items()
    )


def load_state(model: nn.Module, optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `state_of` gave; none of `tensors` is held afterwards."""
    parameters = dict(model.named_parameters())
    names: dict[Tensor, str] = {parameter: name for name, parameter in parameters.items()}
    numbers = {
        names[parameter]: number
        for number, parameter in enumerate(p for group in optimiser.param_groups for p in group["params"])
    }
    state: dict[int, dict[str, object]] = {}
    for key, value in tensors.items():
        name, _, entry = key.rpartition(":")
        if value.dtype == torch.bool:
            held = value.item()
        elif value.shape == parameters[name].shape:
            held = shard_like(value, parameters[name])
        else:  # counts of steps stay on the CPU
            held = value.clone()
        state.setdefault(numbers[name], {})[entry] = held
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def full(tensors: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """Copies on the CPU, gathered from all processes where they are sharded."""
    return {
        name: (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().to("cpu", copy=True)
        for name, tensor in tensors
    }


def shard_like(tensor: Tensor, like: Tensor) -> Tensor:
    """A copy of a whole tensor where `like`, of the same shape, is: this process's part of it, when that is sharded."""
    if isinstance(like, DTensor):
        return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)
    return tensor.to(like.device, copy=True)


def _pair(values: tuple[float, ...]) -> tuple[float, float]:
    return values[0], values[1]
