"""Whole networks beside the authors' formulas: forward by every route, training step, profiles; and the ops alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

import atd
from benchmarks.cases import LEAVES, NETWORKS, Shape, Variant, build, make_op, make_training, run_network
from benchmarks.gpu.case import Case, Context, Figures
from benchmarks.gpu.graph import captured
from benchmarks.gpu.profiles import profile_cases
from benchmarks.gpu.timing import overrides_of, peak_bytes, times

SINGLE, HALF, FP16 = torch.float32, torch.bfloat16, torch.float16
AUTHORS = Variant("reference", SINGLE), Variant("reference", HALF, autocast=True)
"""The papers' formulas as the authors' code runs them, in float32 and under autocast."""
OURS = tuple(Variant("triton", dtype) for dtype in (HALF, FP16, SINGLE))
ROUTES = (*AUTHORS, *OURS, Variant("triton", HALF, autocast=True), Variant("torch", HALF))

_exact: dict[tuple[str, int, int], Tensor] = {}
"""Outputs of the reference in float32, which the others are compared with; of this process."""


def forward(context: Context, name: str, height: int, width: int, variant: Variant, graph: bool = False) -> Figures:
    """Time, memory and distance from the reference of one forward."""
    device = context.device
    if graph:
        context.need_card("a CUDA graph")
    run = run_network(build(name, variant, device, overrides_of(context, name)), height, width, variant, device)
    if graph:
        run = captured(run)
    output = run()
    assert isinstance(output, Tensor)
    if variant == AUTHORS[0]:
        _exact[name, height, width] = output.float().cpu()
    yield "finite", str(bool(output.isfinite().all()))
    if (exact := _exact.get((name, height, width))) is not None:
        yield "relative_error", float((output.float().cpu() - exact).norm() / exact.norm())
    del output
    if not graph:  # a graph's memory was taken when it was captured
        yield "peak_bytes", peak_bytes(run, device)
    yield from times(run, context)


def routes(context: Context, sizes: tuple[tuple[str, int, int], ...]) -> Iterator[Case]:
    for name, height, width in sizes:
        size = f"{width}x{height}"
        for variant in ROUTES:
            yield Case(name, size, variant.label, partial(forward, context, name, height, width, variant))
        replayed = f"{OURS[0].label} graph"
        yield Case(name, size, replayed, partial(forward, context, name, height, width, OURS[0], graph=True))


def goals(context: Context) -> Iterator[Case]:
    yield from routes(context, context.sizes.goals)
    for name, height, width in context.sizes.goals:
        yield Case(name, f"{width}x{height}", "restore()", partial(restored, context, name, height, width))


def restored(context: Context, name: str, height: int, width: int) -> Figures:
    """An image in memory, as a user gives it: copies to the card and back, rounding and checks included."""
    model = build(name, AUTHORS[0], context.device, overrides_of(context, name)).eval()
    image = torch.randint(256, (height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels = image.numpy()
    yield "peak_bytes", peak_bytes(lambda: atd.restore(model, pixels, dtype="bfloat16"), context.device)
    yield from times(lambda: atd.restore(model, pixels, dtype="bfloat16"), context)


def training(context: Context) -> Iterator[Case]:
    variants = (
        AUTHORS[0],
        AUTHORS[1],
        Variant("reference", HALF, autocast=True, checkpointed=True),
        Variant("torch", HALF, autocast=True),
        Variant("triton", HALF, autocast=True),
    )
    for name, batch, patch in context.sizes.training:
        for variant in variants:
            run = partial(step, context, name, batch, patch, variant)
            yield Case(name, f"{batch}x{patch}x{patch}", variant.label, run)


def step(context: Context, name: str, batch: int, patch: int, variant: Variant) -> Figures:
    """Forward, backward and optimiser's step."""
    run = make_training(name, patch, batch, variant, context.device, overrides_of(context, name))
    run()
    yield "peak_bytes", peak_bytes(run, context.device)
    yield from times(run, context)


def ops(context: Context) -> Iterator[Case]:
    """Each op at the shapes of ATD and ATD-light, forward, and with its gradients."""
    side = context.sizes.op_side
    for name in ("ATD x4", "ATD-light x4"):
        shape = Shape.of_network(atd.create(NETWORKS[name], **overrides_of(context, name)))
        for op in ("category_partition", *LEAVES):
            for backward in (False, True)[: 1 + (op in LEAVES)]:
                for variant in (Variant("reference", HALF), Variant("torch", HALF), OURS[0]):
                    label = f"{name} {op}" + " forward+backward" * backward
                    make = partial(make_op, shape, side, op, backward, variant, context.device)
                    yield Case(label, f"{side}x{side}", variant.label, partial(timed, context, make))


def timed(context: Context, make: Callable[[], Callable[[], object]]) -> Figures:
    run = make()
    run()
    yield "peak_bytes", peak_bytes(run, context.device)
    yield from times(run, context)


STEPS = {
    "goals": goals,
    "training": training,
    "profiles": profile_cases,
    "further": lambda context: routes(context, context.sizes.further),
    "ops": ops,
}
