"""Optimisers and learning rates of the published trainings."""

from __future__ import annotations

import math

import torch
from torch import nn

from atd.recipes import Recipe


def build(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW over everything, or Muon for hidden weights of two and more dimensions with Adam for the rest."""
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    if recipe.optimiser == "adamw":
        groups = [{"params": [parameter for _, parameter in named]}]
        optimiser = torch.optim.AdamW(groups, lr=recipe.lr, betas=recipe.betas, weight_decay=recipe.weight_decay)
    else:
        optimiser = _muon(named, recipe)
    for group in optimiser.param_groups:
        group["initial_lr"] = group["lr"]
    return optimiser


def set_rate(optimiser: torch.optim.Optimizer, factor: float) -> None:
    """Scale every group's initial learning rate."""
    for group in optimiser.param_groups:
        group["lr"] = group["initial_lr"] * factor


def rate_factor(recipe: Recipe, iteration: int, minutes: float = 0.0) -> float:
    """Factor on the learning rates in iteration 0, 1, …, after `minutes` of training.

    Linear warm-up from 0, then ×0.5 at each milestone, or half a cosine down to 0 over the iterations or over the
    time limit, whichever is nearer its end.
    """
    warm = min(1.0, (iteration + 1) / (recipe.warmup + 1))
    if recipe.schedule == "multistep":
        return warm * 0.5 ** sum(iteration >= milestone for milestone in recipe.milestones)
    progress = iteration / recipe.total_iterations
    if recipe.minutes:
        progress = max(progress, minutes / recipe.minutes)
    return warm * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def state_of(model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimiser's state by parameter name, `<parameter>:<key>` → tensor on the CPU."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    tensors = {}
    for parameter, values in optimiser.state.items():
        for key, value in values.items():
            tensors[f"{names[parameter]}:{key}"] = torch.as_tensor(value).detach().cpu()
    return tensors


def load_state(model: nn.Module, optimiser: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """Put back what `state_of` gave."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    order = [names[parameter] for group in optimiser.param_groups for parameter in group["params"]]
    state: dict[int, dict] = {}
    for key, value in tensors.items():
        name, _, entry = key.rpartition(":")
        state.setdefault(order.index(name), {})[entry] = value.item() if value.dtype == torch.bool else value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
