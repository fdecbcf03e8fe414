"""Optimisers against their published rules, rates and weight averages."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import atd
from atd.training import optim, recipes


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv_first = nn.Conv2d(3, 4, 3)
        self.linear = nn.Linear(6, 24)
        self.conv = nn.Conv2d(4, 4, 3, groups=4)
        self.norm = nn.LayerNorm(4)


def newton_schulz(matrix: torch.Tensor) -> torch.Tensor:
    """Five quintic steps of Keller Jordan's Muon, in bfloat16 as there, on the wide orientation."""
    x = matrix.bfloat16()
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return (x.T if tall else x).float()


def test_muon_follows_its_published_rule():
    """Three steps written out: momentum 0.95, Nesterov, shape factor, decoupled decay; Adam for the other group."""
    torch.manual_seed(0)
    network = Network()
    recipe = recipes.get("201")
    optimiser = optim.build(network, recipe)
    start = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    expected = {name: value.clone() for name, value in start.items()}
    momentum = {name: torch.zeros_like(value) for name, value in expected.items()}
    square = {name: torch.zeros_like(value) for name, value in expected.items()}
    for step in range(1, 4):
        for name, parameter in network.named_parameters():
            parameter.grad = grad = torch.randn_like(parameter)
            value = expected[name]
            if name in ("linear.weight", "conv.weight"):
                momentum[name] = 0.95 * momentum[name] + 0.05 * grad
                update = newton_schulz((0.05 * grad + 0.95 * momentum[name]).flatten(1))
                height, width = grad.shape[-2:]
                value *= 1 - 1e-3 * 0.01
                value -= 1e-3 * max(1, height / width) ** 0.5 * update.view_as(value)
            else:
                momentum[name] = 0.9 * momentum[name] + 0.1 * grad
                square[name] = 0.95 * square[name] + 0.05 * grad**2
                corrected = (square[name] / (1 - 0.95**step)).sqrt() + 1e-10
                value *= 1 - 2e-4 * 0.01
                value -= 2e-4 * momentum[name] / (1 - 0.9**step) / corrected
        optimiser.step()
    for name, parameter in network.named_parameters():
        # bfloat16 products summed in another order turn into a few per cent of an orthogonalised update.
        tolerance = 0.06 if name in ("linear.weight", "conv.weight") else 1e-4
        difference = (parameter.detach() - expected[name]).norm() / (expected[name] - start[name]).norm()
        assert difference < tolerance, name


def float64_muon_step(grad: np.ndarray) -> np.ndarray:
    """The first Muon update of a gradient in float64: Nesterov momentum from zero, Newton–Schulz, factor of shape."""
    momentum = 0.05 * grad
    x = (0.05 * grad + 0.95 * momentum).reshape(len(grad), -1)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / np.sqrt((x**2).sum())
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    height, width = grad.shape[-2:]  # of the gradient as it is: a convolution's kernel, not its flattened matrix
    return max(1.0, height / width) ** 0.5 * (x.T if tall else x).reshape(grad.shape)


@pytest.mark.slow
def test_muon_steps_of_every_parameter_shape_of_atd_u_are_the_rules():
    """Depthwise 5×5 kernels used to take steps 2.3 to 6.4 times too large.

    Gradients have orthonormal rows or columns. Newton–Schulz keeps them a multiple of themselves, so that rounding to
    bfloat16 is not amplified and the step's size is known well.
    """
    with torch.device("meta"):
        names = {
            parameter.shape: name
            for name, parameter in atd.create("atd_u_gray_jpeg10", embed_dim=24).named_parameters()
        }
    shapes = {name: shape for shape, name in names.items()}
    assert sum(len(shape) == 4 and shape[1] == 1 for shape in shapes.values()) >= 4, "depthwise kernels"
    rng = np.random.default_rng(0)
    network = nn.Module()
    for number, (name, shape) in enumerate(shapes.items()):
        parameter = nn.Parameter(torch.from_numpy(rng.normal(size=shape).astype(np.float32)))
        network.register_parameter(f"{name}.{number}".replace(".", "_"), parameter)
    recipe = recipes.get("401")
    optimiser = optim.build(network, recipe)
    start = {name: parameter.detach().double().numpy().copy() for name, parameter in network.named_parameters()}
    for parameter in network.parameters():
        grad = rng.normal(size=parameter.shape)
        if grad.ndim >= 2:
            left, _, right = np.linalg.svd(grad.reshape(len(grad), -1), full_matrices=False)
            grad = (left @ right).reshape(grad.shape)
        parameter.grad = torch.from_numpy(grad.astype(np.float32))
    optimiser.step()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None
        grad = parameter.grad.double().numpy()
        if grad.ndim >= 2 and "first" not in name:
            expected = -8e-4 * float64_muon_step(grad)
            tolerance = 0.06  # five Newton–Schulz steps in bfloat16
        else:
            expected = -2e-4 * grad / (np.abs(grad) + 1e-10)  # Adam's first step: both moments corrected
            tolerance = 1e-3
        rate = 8e-4 if grad.ndim >= 2 and "first" not in name else 2e-4
        step = parameter.detach().double().numpy() - start[name] * (1 - rate * 0.01)
        assert np.linalg.norm(step - expected) < tolerance * np.linalg.norm(expected), (name, grad.shape)


def test_muon_takes_hidden_matrices_only():
    model = atd.create("atd_u_tiny_color_dn")
    matrices, convolutions, others = optim.build(model, recipes.get("401")).param_groups
    names = {parameter: name for name, parameter in model.named_parameters()}
    hidden = {names[parameter] for parameter in matrices["params"] + convolutions["params"]}
    rest = {names[parameter] for parameter in others["params"]}
    assert hidden | rest == set(names.values())
    assert not hidden & rest
    assert "conv_first.weight" in rest
    assert "conv_last.weight" in hidden
    assert all(model.get_parameter(name).ndim >= 2 for name in hidden)
    assert all(model.get_parameter(name).ndim < 2 or "first" in name for name in rest)
    assert [group["lr"] for group in (matrices, convolutions, others)] == [8e-4, 8e-4, 2e-4]


@pytest.mark.parametrize(
    ("id", "iteration", "factor"),
    [
        ("101", 0, 0.0),
        ("101", 10_000, 0.5),
        ("101", 20_000, 1.0),
        ("101", 249_999, 1.0),
        ("101", 250_000, 0.5),
        ("101", 480_000, 0.0625),
        ("201", 0, 1.0),
        ("201", 90_000, 0.125),
    ],
)
def test_published_rates(id, iteration, factor):
    assert optim.rate_factor(recipes.get(id), iteration) == pytest.approx(factor, abs=1e-4)


def test_cosine_follows_iterations_or_the_clock():
    recipe = recipes.get("small_light_x3").override(["warmup=0", "iterations=100", "minutes=10"])
    assert optim.rate_factor(recipe, 50, 0) == pytest.approx(0.5)
    assert optim.rate_factor(recipe, 10, 5) == pytest.approx(0.5)
    assert optim.rate_factor(recipe, 25, 0) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert optim.rate_factor(recipe, 10, 20) == 0
    rates = [optim.rate_factor(recipe, iteration) for iteration in range(101)]
    assert rates == sorted(rates, reverse=True)


def torch_rates(make, count):
    """Factors of a schedule of torch itself on a rate of 2e-4."""
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=2e-4)
    schedule = make(optimiser)
    factors = []
    for _ in range(count):
        factors.append(optimiser.param_groups[0]["lr"] / 2e-4)
        optimiser.step()
        schedule.step()
    return factors


def test_cosines_are_torchs():
    base = ["warmup=0", "lr=2e-4", "lr_min=1e-6", "iterations=35", "minutes=0"]
    recipe = recipes.get("small_light_x3").override(base)
    expected = torch_rates(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 35, eta_min=1e-6), 35)
    assert [optim.rate_factor(recipe, i) for i in range(35)] == pytest.approx(expected, abs=1e-9)
    restarts = recipe.override(["schedule=cosine_restarts", "periods=10"])
    expected = torch_rates(lambda o: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(o, 10, eta_min=1e-6), 35)
    assert [optim.rate_factor(restarts, i) for i in range(35)] == pytest.approx(expected, abs=1e-9)


def test_restarts_have_periods_and_weights_of_their_own():
    """lr_min + w · (lr − lr_min) · (1 + cos(π t / T)) / 2 in a period of T iterations and weight w."""
    changes = ["warmup=0", "lr=2e-4", "lr_min=1e-5", "schedule=cosine_restarts", "periods=[4, 6]"]
    recipe = recipes.get("101").override([*changes, "restart_weights=[1, 0.5]"])
    rates = [2e-4 * optim.rate_factor(recipe, i) for i in range(16)]
    expected = []
    for weight, period in ((1, 4), (0.5, 6), (0.5, 6)):
        expected += [1e-5 + weight * 1.9e-4 * (1 + math.cos(math.pi * t / period)) / 2 for t in range(period)]
    assert rates == pytest.approx(expected)


def test_set_rate_scales_every_group():
    optimiser = optim.build(Network(), recipes.get("401"))
    for factor in (0.5, 0.25):
        optim.set_rate(optimiser, factor)
        assert [group["lr"] for group in optimiser.param_groups] == [8e-4 * factor, 8e-4 * factor, 2e-4 * factor]


@pytest.mark.parametrize("warmup", [True, False])
def test_weight_average(warmup):
    model = nn.Linear(2, 2)
    average = optim.WeightAverage(model, 0.9, warmup=warmup)
    expected = model.weight.detach().double()
    for updates in range(200):
        with torch.no_grad():
            model.weight += 0.1
        average.update(updates)
        decay = min(0.9, (1 + updates) / (10 + updates)) if warmup else 0.9
        expected = decay * expected + (1 - decay) * model.weight.detach().double()
        if updates < 5:  # where the two differ most
            torch.testing.assert_close(average.tensors["weight"].double(), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(average.tensors["weight"].double(), expected, rtol=1e-6, atol=1e-5)
    assert not average.tensors["weight"].requires_grad


@pytest.mark.parametrize("id", ["101", "201"])
def test_optimiser_state_round_trip(id):
    def run(network, optimiser, seed):
        torch.manual_seed(seed)
        for parameter in network.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimiser.step()

    first, second = Network(), Network()
    optimiser = optim.build(first, recipes.get(id))
    run(first, optimiser, 1)
    second.load_state_dict(first.state_dict())
    restored = optim.build(second, recipes.get(id))
    optim.load_state(second, restored, optim.state_of(first, optimiser))
    run(first, optimiser, 2)
    run(second, restored, 2)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
