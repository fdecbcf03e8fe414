"""A network of the library that is small enough to be loaded a hundred times a second."""

from __future__ import annotations

from pathlib import Path

import torch

import atd
from attacks.runner import Wrong

CONFIG = {
    "embed_dim": 12,
    "depths": [2, 1],
    "num_heads": [2, 3],
    "window_size": 4,
    "category_size": 16,
    "num_tokens": 6,
    "reducted_dim": 3,
    "convffn_kernel_size": 3,
    "mlp_ratio": 1,
    "upscale": 2,
    "upsampler": "pixelshuffledirect",
}


def tiny_network(seed: int = 0, **overrides: object) -> atd.ATD:
    """The same network for the same `seed`, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return atd.ATD(**{**CONFIG, **overrides}).eval()


def same_weights(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    left, right = first.state_dict(), second.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def check_one_of(place: Path, networks: list[atd.ATD]) -> None:
    """Raise `Wrong` unless the folder holds one of the networks whole: its weights with its settings."""
    try:
        loaded = atd.load(place)
    except atd.LoadError as error:
        raise Wrong(f"neither the old network nor the new one is left: {error}") from error
    settings = loaded.config["category_size"]
    if not any(same_weights(loaded, own) and settings == own.config["category_size"] for own in networks):
        raise Wrong(f"the weights of one network with category_size {settings}, that of the other")
