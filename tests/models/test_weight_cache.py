"""What is made of weights is made again when they change, and only then."""

import copy
import gc
import pickle

import pytest
import torch
from torch import nn

from atd.models.weight_cache import WeightCache


class Doubled:
    """The doubled weight of a linear layer through a cache, and how often it was made."""

    def __init__(self):
        self.cache, self.made = WeightCache(), 0

    def __call__(self, layer):
        def make():
            self.made += 1
            return layer.weight * 2

        return self.cache.get(layer, layer.parameters(), make)


def step(layer):
    layer(torch.ones(3)).sum().backward()
    torch.optim.AdamW(layer.parameters(), lr=0.1).step()


def replace(layer):
    layer.weight = nn.Parameter(torch.randn(2, 3))


def replace_data(layer):
    layer.weight.data = torch.randn(2, 3)


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: layer.weight.requires_grad_(False).mul_(3),
        lambda layer: layer.load_state_dict(nn.Linear(3, 2).state_dict()),
        lambda layer: layer.double(),
        replace,
        replace_data,
        step,
    ],
)
def test_a_change_of_the_weights_is_seen(change):
    layer, doubled = nn.Linear(3, 2), Doubled()
    doubled(layer)
    assert doubled(layer) is doubled(layer)
    assert doubled.made == 1
    change(layer)
    assert torch.equal(doubled(layer), layer.weight * 2)
    assert doubled.made == 2


def test_values_of_inference_mode_serve_outside_of_it():
    layer, doubled = nn.Linear(3, 2), Doubled()
    with torch.inference_mode():
        value = doubled(layer)
    assert not value.is_inference()
    assert not value.requires_grad


def test_copies_and_pickles_take_no_value_along_and_a_module_that_is_gone_leaves_none():
    layer, doubled = nn.Linear(3, 2), Doubled()
    size = len(pickle.dumps(layer))
    doubled(layer)
    assert len(pickle.dumps(layer)) == size
    other = copy.deepcopy(layer)
    assert doubled(other) is not doubled(layer)
    del layer, other
    gc.collect()
    assert not list(doubled.cache._entries)
