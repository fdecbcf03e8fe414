"""Where the time of a forward pass and of a training step goes, kernel by kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity

from benchmarks.cases import Variant, build, make_training, run_network
from benchmarks.gpu.case import Case, Context, Figures
from benchmarks.gpu.timing import overrides_of
from benchmarks.measure import Run

_MOST_KERNELS = 15


def profile_cases(context: Context) -> Iterator[Case]:
    device = context.device
    inference, trained = Variant("triton", torch.bfloat16), Variant("triton", torch.bfloat16, autocast=True)
    patches = {name: (batch, patch) for name, batch, patch in context.sizes.training}
    for name, side in context.sizes.profiles:
        overrides = overrides_of(context, name)

        def forward(name=name, side=side, overrides=overrides) -> Run:
            return run_network(build(name, inference, device, overrides), side, side, inference, device)

        yield Case(name, f"{side}x{side}", "forward", partial(profile, context, name, "forward", forward))
        if name in patches:
            batch, patch = patches[name]
            make = partial(make_training, name, patch, batch, trained, device, overrides)
            size = f"{batch}x{patch}x{patch}"
            yield Case(name, size, "training step", partial(profile, context, name, "training_step", make))


def profile(context: Context, name: str, what: str, make: Callable[[], Run]) -> Figures:
    """Launches and time on the device, the kernels that take most of it; the whole table goes into a file."""
    run = make()
    for _ in range(3 if context.on_card else 1):
        run()
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * context.on_card
    if context.on_card:
        torch.cuda.synchronize()
    with torch.profiler.profile(activities=activities) as profiler:
        run()
        if context.on_card:
            torch.cuda.synchronize()
    averages = profiler.key_averages()
    order = "self_device_time_total" if context.on_card else "self_cpu_time_total"
    table = averages.table(sort_by=order, row_limit=60, max_name_column_width=90)
    path = context.files / f"profile_{name.replace(' ', '_')}_{what}.txt"
    path.write_text(f"{name}, {what}\n{table}\n")
    wanted = DeviceType.CUDA if context.on_card else DeviceType.CPU
    events = sorted(
        (event for event in averages if event.device_type == wanted), key=lambda event: -getattr(event, order)
    )
    yield "launches", float(sum(event.count for event in events))
    yield "device_ms", sum(getattr(event, order) for event in events) / 1e3
    for event in events[:_MOST_KERNELS]:
        yield f"ms of {event.count} {event.key[:80]}", getattr(event, order) / 1e3
