"""What is measured: the ops at the shapes of the published networks, the networks, and a training step."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Self

import torch
from torch import Tensor, nn

import atd
from atd import ops
from atd.models import RestorationModel as Network
from atd.models.layers import DictionaryLayer
from benchmarks.measure import Run


@dataclass(frozen=True)
class Variant:
    """One way to run a case."""

    backend: str
    dtype: torch.dtype
    autocast: bool = False
    compiled: bool = False
    checkpointed: bool = False

    @property
    def label(self) -> str:
        name = self.backend + ("+compile" if self.compiled else "") + ("+checkpoint" if self.checkpointed else "")
        return f"{name} {str(self.dtype).removeprefix('torch.')}" + (" autocast" if self.autocast else "")

    @contextlib.contextmanager
    def active(self, device: torch.device) -> Iterator[None]:
        with ops.use(self.backend), torch.autocast(device.type, self.dtype, enabled=self.autocast):  # pyright: ignore
            yield


@dataclass(frozen=True)
class Case:
    """``make(variant, device)`` gives the call to time; ``cost(itemsize)`` the bytes and operations it cannot avoid."""

    kind: str
    name: str
    size: int
    make: Callable[[Variant, torch.device], Run]
    cost: Callable[[int], tuple[float, float]]
    variants: tuple[Variant, ...]

    @property
    def path(self) -> str:
        return f"{self.kind}/{self.name}/{self.size}"


@dataclass(frozen=True)
class Shape:
    """The sizes of one published network's layers.

    ``learned``: the category attention learns the scale of its logits, and every dictionary entry has a scale (CVPR).
    """

    channels: int
    heads: int
    window: int
    group: int
    entries: int
    rank: int
    hidden: int
    extra: int
    kernel: int
    learned: bool = False

    @classmethod
    def of(cls, layer: DictionaryLayer) -> Self:
        """The sizes of a layer."""
        weight = layer.convffn.dwconv.kernel()[0]
        hidden = layer.convffn.fc1.out_features
        return cls(
            channels=layer.wqkv.in_features,
            heads=layer.attn_win.num_heads,
            window=layer.attn_win.window_size,
            group=layer.attn_aca.category_size,
            entries=round(math.exp(layer.attn_atd.log_tokens)),
            rank=layer.attn_atd.wq.out_features,
            hidden=hidden,
            extra=len(weight) - hidden,
            kernel=weight.shape[-1],
            learned=layer.attn_aca.logit_scale is not None,
        )

    @classmethod
    def of_network(cls, network: nn.Module) -> Self:
        """The sizes of a network's first layer."""
        return cls.of(next(layer for layer in network.modules() if isinstance(layer, DictionaryLayer)))


def shapes_of(name: str) -> list[Shape]:
    """The kinds of layers of a network of the registry, each once, in the order in which the network has them."""
    with torch.device("meta"):
        network = atd.create(name)
    return list(dict.fromkeys(Shape.of(layer) for layer in network.modules() if isinstance(layer, DictionaryLayer)))


SHAPES = {"ATD": shapes_of("atd_sr_x4")[0], "ATD-light": shapes_of("atd_light_sr_x4")[0]}

NETWORKS = {
    "ATD x4": "atd_sr_x4",
    "ATD-light x4": "atd_light_sr_x4",
    "ATD-U colour": "atd_u_color_dn25",
    "CVPR ATD x4": "atd_cvpr_sr_x4",
    "CVPR ATD-light x4": "atd_cvpr_light_sr_x4",
}


def _pin(variant: Variant, device: torch.device, run: Run, *, gradients: bool = False) -> Run:
    def call() -> object:
        with variant.active(device), torch.set_grad_enabled(gradients):
            return run()

    return call


def op_inputs(shape: Shape, side: int, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
    n = side * side

    def draw(*size: int) -> Tensor:
        return torch.randn(*size, device=device).to(dtype)

    category = torch.randint(shape.entries, (1, n), device=device)
    order = torch.sort(category, stable=True).indices
    return {
        "query": draw(1, n, shape.rank),
        "key": draw(1, shape.entries, shape.rank),
        "value": draw(1, shape.entries, shape.channels),
        "scale": torch.full((1,), 6.0, device=device),
        "category": category,
        "order": order,
        "inverse": torch.argsort(order),
        "qkv": draw(1, n, 3 * shape.channels),
        "table": torch.randn((2 * shape.window - 1) ** 2, shape.heads, device=device),
        "hidden": draw(1, n, shape.hidden),
        "features": draw(1, shape.entries, shape.extra),
        "weight": torch.randn(shape.hidden + shape.extra, 1, shape.kernel, shape.kernel, device=device).to(dtype) / 5,
        "bias": draw(shape.hidden + shape.extra),
    }


def op_calls(s: Shape, side: int, t: dict[str, Tensor]) -> dict[str, Run]:
    grid = (side, side)
    scale = (s.channels // s.heads) ** -0.5
    return {
        "dictionary_attention": lambda: ops.dictionary_attention(t["query"], t["key"], t["value"], t["scale"]),
        "category_partition": lambda: ops.category_partition(t["category"], s.entries),
        "window_attention": lambda: ops.window_attention(t["qkv"], t["table"], grid, s.window, s.window // 2, s.heads),
        "category_attention": lambda: ops.category_attention(
            t["qkv"], t["order"], t["inverse"], s.group, s.heads, scale
        ),
        "category_feedforward": lambda: ops.category_feedforward(
            t["hidden"], grid, t["weight"], t["bias"], t["features"], t["category"]
        ),
    }


def _op_cost(s: Shape, side: int, op: str, itemsize: int) -> tuple[float, float]:
    """Inputs read once and outputs written once; indices are int64."""
    n = side * side
    width = s.hidden + s.extra
    return {
        "dictionary_attention": (n * (itemsize * (s.rank + s.channels) + 8), 2 * n * s.entries * (s.rank + s.channels)),
        "category_partition": (n * 24, 0),
        "window_attention": (4 * n * s.channels * itemsize, 4 * n * s.window**2 * s.channels),
        "category_attention": (n * (4 * s.channels * itemsize + 8), 4 * n * s.group * s.channels),
        "category_feedforward": (n * ((s.hidden + width) * itemsize + 8), 2 * n * width * s.kernel**2),
    }[op]


LEAVES = {
    "dictionary_attention": ("query", "key", "value", "scale"),
    "window_attention": ("qkv", "table"),
    "category_attention": ("qkv",),
    "category_feedforward": ("hidden", "features", "weight", "bias"),
}
"""Tensors that an op's backward pass differentiates."""


def make_op(shape: Shape, side: int, op: str, backward: bool, variant: Variant, device: torch.device) -> Run:
    inputs = op_inputs(shape, side, variant.dtype, device)
    call = op_calls(shape, side, inputs)[op]
    if not backward:
        return _pin(variant, device, call)
    leaves = [inputs[name].requires_grad_() for name in LEAVES[op]]

    def both() -> object:
        result = call()
        output = result[0] if isinstance(result, tuple) else result
        return torch.autograd.grad(output, leaves, output.detach())

    return _pin(variant, device, both, gradients=True)


def op_cases(sides: list[int], variants: tuple[Variant, ...]) -> Iterator[Case]:
    for name, shape in SHAPES.items():
        for side in sides:
            for op in ("dictionary_attention", "category_partition", *list(LEAVES)[1:]):
                yield Case(
                    "op",
                    f"{name} {op}",
                    side,
                    partial(make_op, shape, side, op, False),
                    partial(_op_cost, shape, side, op),
                    variants,
                )
        for op in LEAVES:
            yield Case(
                "op",
                f"{name} {op} forward+backward",
                sides[0],
                partial(make_op, shape, sides[0], op, True),
                # Forward, the same again for the recomputation, and two products for each of the forward's.
                lambda itemsize, s=shape, op=op: tuple(3.5 * x for x in _op_cost(s, sides[0], op, itemsize)),  # pyright: ignore
                tuple(variant for variant in variants if variant.backend != "native"),  # it has no backward pass
            )


def build(name: str, variant: Variant, device: torch.device, overrides: Mapping[str, object] | None = None) -> Network:
    """A network of `NETWORKS` with random weights, the same ones every time."""
    torch.manual_seed(0)
    model = atd.create(NETWORKS[name], **{"use_checkpoint": variant.checkpointed, **(overrides or {})}).to(device)
    if not variant.autocast:
        model.to(variant.dtype)
    if variant.compiled:
        # Layers of one kind share a graph, so a network compiles in the time of a few layers.
        torch._dynamo.config.recompile_limit = 64
        for layer in model.modules():
            if isinstance(layer, DictionaryLayer):
                layer.compile(fullgraph=True, dynamic=False)
    return model


def make_network(name: str, side: int, variant: Variant, device: torch.device) -> Run:
    return run_network(build(name, variant, device), side, side, variant, device)


def run_network(model: Network, height: int, width: int, variant: Variant, device: torch.device) -> Run:
    """The call of a forward pass on a random image, the same one every time."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, model.in_channels, height, width, generator=generator).to(device)
    return _pin(variant, device, partial(model.eval(), image))


def make_training(
    name: str,
    patch: int,
    batch: int,
    variant: Variant,
    device: torch.device,
    overrides: Mapping[str, object] | None = None,
) -> Run:
    model = build(name, variant, device, overrides).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    image = torch.rand(batch, 3, patch, patch, device=device)
    target = torch.rand(batch, 3, patch * model.scale, patch * model.scale, device=device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.l1_loss(model(image).float(), target)
        with torch.autocast(device.type, enabled=False):
            loss.backward()
        optimizer.step()

    return _pin(variant, device, step, gradients=True)


def network_cost(name: str, side: int, itemsize: int) -> tuple[float, float]:
    """Bytes and operations of one forward.

    Operations are counted on tensors without data; bytes are those of shared/spec's floor, where every stage of a layer
    reads its inputs once and writes its outputs once: 22 C + 4 (E + T) values per token and layer.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    moved = 0.0

    def count(layer: nn.Module, args: tuple, result: object) -> None:
        nonlocal moved
        batch, tokens, channels = args[0].shape
        wide = layer.convffn.dwconv.depthwise_conv[0].weight.shape[0]
        moved += batch * tokens * (22 * channels + 4 * wide) * itemsize

    model = atd.create(NETWORKS[name]).eval().requires_grad_(False)
    for layer in model.modules():
        if isinstance(layer, DictionaryLayer):
            layer.register_forward_hook(count)
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with ops.use("reference"), torch.no_grad(), fake, FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, side, side))
    return moved, counter.get_total_flops()


def network_cases(sizes: dict[str, list[int]], variants: Callable[[str, int], tuple[Variant, ...]]) -> Iterator[Case]:
    for name, sides in sizes.items():
        for side in sides:
            yield Case(
                "network",
                name,
                side,
                partial(make_network, name, side),
                partial(network_cost, name, side),
                variants(name, side),
            )


def training_case(name: str, patch: int, batch: int, variants: tuple[Variant, ...]) -> Case:
    def cost(itemsize: int) -> tuple[float, float]:
        return tuple(3 * batch * x for x in network_cost(name, patch, itemsize))  # pyright: ignore

    return Case("training", f"{name} batch {batch}", patch, partial(make_training, name, patch, batch), cost, variants)
