"""Every kernel with other launch options than its own: checked against float64, then timed.

Only options that the grid does not depend on: warps, stages, and blocks that a kernel goes through in a loop.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

import atd
from benchmarks.cases import LEAVES, NETWORKS, Shape, Variant, make_op, op_calls, op_inputs
from benchmarks.gpu.case import Case, Context, Figures
from benchmarks.gpu.timing import overrides_of, times

Options = dict[str, Any]

_LOST: Any = getattr(torch, "AcceleratorError", ())
"""What torch raises, from 2.8 on, when a kernel has broken the card's state for the process."""

WARPS, STAGES = (2, 4, 8), (1, 2, 3, 4)
INNER_BLOCKS = {
    "grouped_attention._forward": ("BLOCK_K", (32, 64, 128)),
    "dictionary_attention._forward": ("BLOCK_M", (32, 64, 128)),
}
"""Blocks of a loop inside a kernel."""
OPS = ("category_partition", *LEAVES)


@contextlib.contextmanager
def launches(change: Callable[[str, Options], Options]) -> Iterator[None]:
    """Have `change` decide the options of every launch, given the kernel's name and its own options."""
    from triton.runtime.interpreter import InterpretedFunction
    from triton.runtime.jit import JITFunction

    kinds: list[Any] = [JITFunction, InterpretedFunction]
    originals = [kind.run for kind in kinds]

    def changed(original: Callable[..., Any]) -> Callable[..., Any]:
        def run(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
            name = f"{self.fn.__module__.rpartition('.')[2]}.{self.fn.__name__}"
            return original(self, *args, grid=grid, warmup=warmup, **change(name, options))

        return run

    for kind, original in zip(kinds, originals, strict=True):
        kind.run = changed(original)
    try:
        yield
    finally:
        for kind, original in zip(kinds, originals, strict=True):
            kind.run = original


def own_options(run: Callable[[], object]) -> dict[str, Options]:
    """The kernels that a call launches, with their options."""
    found: dict[str, Options] = {}

    def record(name: str, options: Options) -> Options:
        found.setdefault(name, dict(options))
        return options

    with launches(record):
        run()
    return found


def candidates(kernel: str, own: Options) -> Iterator[Options]:
    """Options in place of a kernel's own, one thing changed at a time but for warps and stages."""
    for warps in WARPS:
        for stages in STAGES:
            # Where a launch names no stages, the compiler takes its default.
            if (warps, stages) != (own.get("num_warps", 4), own.get("num_stages")):
                yield {"num_warps": warps, "num_stages": stages}
    block, sizes = INNER_BLOCKS.get(kernel, ("", ()))
    yield from ({block: size} for size in sizes if own.get(block, size) != size)


def tensors(result: object) -> list[Tensor]:
    return [part for part in result if isinstance(part, Tensor)] if isinstance(result, tuple | list) else [result]  # pyright: ignore


def distance(result: object, exact: list[Tensor]) -> float:
    """Of the floating-point results from those in float64; of indices, the share that differs."""
    worst = 0.0
    counts = not any(part.is_floating_point() for part in exact)  # beside a float result, categories may tie
    for ours, true in zip(tensors(result), exact, strict=True):
        if true.is_floating_point():
            if not ours.isfinite().all():
                return float("inf")
            worst = max(worst, float((ours.double() - true).norm() / true.norm()))
        elif counts:
            worst = max(worst, float((ours != true).double().mean()))
    return worst


def exact_result(shape: Shape, side: int, op: str, context: Context) -> list[Tensor]:
    """What the papers' formula gives in float64, for the inputs that the kernels get in bfloat16."""
    torch.manual_seed(0)
    inputs = op_inputs(shape, side, torch.bfloat16, context.device)
    wide = {name: value.double() if value.is_floating_point() else value for name, value in inputs.items()}
    with atd.ops.use("reference"), torch.no_grad():
        return tensors(op_calls(shape, side, wide)[op]())


def compare(context: Context, shape: Shape, op: str, backward: bool) -> Figures:
    """An op with its own options, then each candidate for each of its kernels."""
    side = context.sizes.op_side
    variant = Variant("triton", torch.bfloat16)
    torch.manual_seed(0)
    run = make_op(shape, side, op, backward, variant, context.device)
    # The gradients of an op's own options stand for the exact ones: the tests compare those with float64.
    exact = [part.double() for part in tensors(run())] if backward else exact_result(shape, side, op, context)
    own_distance = distance(run(), exact)
    yield "distance", own_distance
    for name, value in times(run, context):
        if name == "p50_ms":
            yield "own options, ms", value
    for kernel, own in own_options(run).items():
        chosen = list(candidates(kernel, own))
        for options in chosen if context.on_card else chosen[:1]:
            label = f"{kernel} " + " ".join(f"{key}={value}" for key, value in options.items())

            def change(name: str, given: Options, kernel=kernel, options=options) -> Options:
                return {**given, **options} if name == kernel else given

            with launches(change):
                try:
                    error = distance(run(), exact)
                    if error > 1.1 * own_distance + 1e-3:
                        yield label, ValueError(f"wrong: {error:.3g} from the exact result, own {own_distance:.3g}")
                        continue
                    for name, value in times(run, context):
                        if name == "p50_ms":
                            yield f"{label}, ms", value
                except _LOST:
                    raise  # nothing runs in this process any more
                except Exception as error:  # too many registers, too much shared memory: no candidate
                    yield label, error


def options(context: Context) -> Iterator[Case]:
    names = ("ATD x4", "ATD-light x4") if context.on_card else ("ATD x4",)
    side = context.sizes.op_side
    for backward in (False, True):
        for name in names:
            shape = Shape.of_network(atd.create(NETWORKS[name], **overrides_of(context, name)))
            for op in OPS if not backward else LEAVES:
                run = partial(compare, context, shape, op, backward)
                yield Case(f"{name} {op}", f"{side}x{side}", "backward" if backward else "forward", run)


STEPS = {"options": options}
