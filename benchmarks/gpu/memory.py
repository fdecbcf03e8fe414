"""Memory of a forward pass: per pixel for every network, and how large an image goes through at once."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from functools import partial

import torch

import atd
from atd import ops
from atd.restoration.memory import estimate
from benchmarks.cases import Variant, build, run_network
from benchmarks.gpu.case import Case, Context, Figures
from benchmarks.gpu.one_pass import ONE_OF_EACH
from benchmarks.gpu.timing import overrides_of, peak_bytes
from benchmarks.memory import is_twin


def pixels(context: Context) -> Iterator[Case]:
    """Every network of the registry that is not another one's twin, in every dtype."""
    names = [name for name in atd.list_models() if not is_twin(name)] if context.on_card else list(ONE_OF_EACH.values())
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        for name in names if context.on_card or dtype == torch.float32 else names[:1]:
            for side in context.sizes.memory_sides:
                label = Variant("triton", dtype).label
                yield Case(name, f"{side}x{side}", label, partial(per_pixel, context, name, side, dtype))
    for variant in (Variant("reference", torch.float32), Variant("reference", torch.bfloat16, autocast=True)):
        for name in list(ONE_OF_EACH.values())[: None if context.on_card else 1]:
            run = partial(of_authors, context, name, context.sizes.memory_sides[-1], variant)
            yield Case(name, f"{context.sizes.memory_sides[-1]}x" * 2, variant.label, run)


def per_pixel(context: Context, name: str, side: int, dtype: torch.dtype) -> Figures:
    """Peak beyond the weights, and what tiles are planned with."""
    model = atd.create(name, **overrides_of(context, name)).eval().to(context.device, dtype)
    image = torch.rand(1, model.in_channels, side, side, device=context.device)
    with ops.use("triton"), torch.no_grad():
        model(image[..., :16, :16])
        peak = peak_bytes(lambda: model(image), context.device)
    yield "peak_bytes", peak
    yield "bytes_per_pixel", peak / side**2
    planned = float(estimate(model, side, side, device=context.device, dtype=dtype))
    yield "estimate_bytes", planned
    if peak:
        yield "estimate_over_peak", planned / peak
    yield "weights_bytes", float(sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers())))
    # What the table of `atd.restoration.measured_memory` is read by.
    yield "architecture", model.architecture
    yield "embed_dim", str(model.config["embed_dim"])


def of_authors(context: Context, name: str, side: int, variant: Variant) -> Figures:
    model = atd.create(name, **overrides_of(context, name)).to(context.device)
    peak = peak_bytes(run_network(model, side, side, variant, context.device), context.device)
    yield "bytes_per_pixel", peak / side**2


def largest(context: Context) -> Iterator[Case]:
    for name in context.sizes.largest:
        for variant in (
            Variant("reference", torch.float32),
            Variant("reference", torch.bfloat16, autocast=True),
            Variant("triton", torch.bfloat16),
        ):
            yield Case(name, "", variant.label, partial(largest_untiled, context, name, variant))


def largest_untiled(context: Context, name: str, variant: Variant) -> Figures:
    """The longest side of a square image that one forward takes, and how often it was tried."""
    model = build(name, variant, context.device, overrides_of(context, name))
    tried: list[int] = []

    def fits(side: int) -> bool:
        tried.append(side)
        try:
            run_network(model, side, side, variant, context.device)()
            if context.on_card:
                torch.cuda.synchronize()
        except torch.OutOfMemoryError:
            return False
        finally:
            gc.collect()
            if context.on_card:
                torch.cuda.empty_cache()
        print(f"{name} {variant.label}: {side} fits", flush=True)
        return True

    first, step, last = context.sizes.largest_sides
    yield "side", float(largest_side(fits, first, step, last))
    yield "tried", float(len(tried))


def largest_side(fits: Callable[[int], bool], first: int, step: int, last: int) -> int:
    """The largest multiple of `step` that fits, from `first` on and up to `last`; 0 where `first` does not.

    Doubling, then bisection: what does not fit costs a moment, what fits a forward.
    """
    low, high = 0, first
    while high <= last and fits(high):
        low, high = high, 2 * high
    if low == 0:
        return 0
    high = min(high, last + step)
    while high - low > step:
        middle = (low + high) // 2 // step * step
        if middle <= low:
            break
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


STEPS = {"pixels": pixels, "largest": largest}
