"""Build every Triton kernel for a card that need not be there, and list registers, spills, shared memory, instructions.

    python -m benchmarks.compiled_kernels                        # sm_90, bfloat16, the layers of all published networks
    python -m benchmarks.compiled_kernels --capability 80 --dtype float32
    python -m benchmarks.compiled_kernels --capability 80 --check --one-dtype --share 0/3   # a part of all, as CI does

``stack`` bytes are spilled registers; ``code`` counts machine instructions, each once, and ``loop`` those of the
longest loop; ``wgmma`` and ``mma`` count the matrix instructions; ``wide`` those global loads that move 16 bytes a
thread. With ``--check`` a kernel that takes more shared memory than the card has, or spills more than `MOST_STACK`,
ends the run with status 1. `nox -s kernels` builds all layers in every dtype for several cards.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from atd import list_models
from benchmarks.cases import Shape, shapes_of

SHARED_MEMORY = {75: 64 << 10, 80: 163 << 10, 86: 99 << 10, 89: 99 << 10, 90: 227 << 10}
"""Bytes that one program may have, by compute capability."""

MOST_STACK = {"forward": 192, "backward": 512}
"""Bytes of registers a kernel may spill, a thread. Most that was seen is by CVPR's ATD: with triton 3.3 (torch 2.7) 176
in forward kernels (float32, heads of 35) and 352 in the gradient of keys (bfloat16, capability 8.0), with 3.8 none and
120 there."""

_DTYPES = ("bfloat16", "float16", "float32")


@dataclass(frozen=True)
class Kernel:
    name: str
    registers: int
    stack: int
    shared: int
    code: int
    loop: int
    warps: int
    wgmma: int
    mma: int
    loads: int
    wide: int


class _Toolchain:
    """Stands for a card's driver: names the target and launches nothing."""

    def __init__(self, capability: int) -> None:
        from triton.backends.compiler import GPUTarget

        self.target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> Any:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int | None = None) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")


def build(capability: int, work: Callable[[], object]) -> list[Kernel]:
    """The kernels that ``work`` would launch, built for ``capability`` and not run. For a process that does no more."""
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    kernels: list[Kernel] = []
    driver.set_active(_Toolchain(capability))  # pyright: ignore[reportArgumentType]
    launch = JITFunction.run

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool = False, **options: Any) -> Any:
        compiled: Any = launch(self, *args, grid=grid, warmup=True, **options)
        op = self.fn.__module__.rpartition(".")[2]
        kernels.append(_describe(f"{op}.{self.fn.__name__.lstrip('_')}", compiled))
        return compiled

    JITFunction.run = compile_only  # pyright: ignore[reportAttributeAccessIssue]
    try:
        work()
    finally:
        JITFunction.run = launch
    return kernels


def _describe(name: str, compiled: Any) -> Kernel:
    import triton.backends.nvidia

    def dump(option: str) -> str:
        command = [tool, option, file.name]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    tool = Path(triton.backends.nvidia.__file__).parent / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage, listing = dump("-res-usage"), dump("-sass")
    registers, stack = (int(re.search(rf"{field}:(\d+)", usage)[1]) for field in ("REG", "STACK"))  # pyright: ignore
    code = compiled.asm["ptx"]
    loads = re.findall(r"(?:ld\.global|cp\.async\.c[ag]\.shared\.global)[^\n]*", code)
    return Kernel(
        name=name,
        registers=registers,
        stack=stack,
        shared=compiled.metadata.shared,
        code=len(re.findall(r"^\s+/\*[0-9a-f]{4,}\*/ +[^;]*;", listing, re.MULTILINE)),
        loop=_longest_loop(listing),
        warps=compiled.metadata.num_warps,
        wgmma=code.count("wgmma.mma"),
        mma=code.count("mma.sync"),
        loads=len(loads),
        wide=sum(".v4.b32" in load or ", 0x10" in load for load in loads),
    )


def _longest_loop(listing: str) -> int:
    """Instructions from the target of a jump backwards to the jump; 0 in a program without a loop."""
    jumps = re.findall(r"^\s+/\*([0-9a-f]{4,})\*/ [^;]*\bBRA\b[^;]*?0x([0-9a-f]+)", listing, re.MULTILINE)
    back = [int(place, 16) - int(target, 16) for place, target in jumps if int(place, 16) > int(target, 16)]
    return max(back, default=-16) // 16 + 1


def launch_all(shape: Shape, dtype: torch.dtype, backward: bool = True, only: str = "") -> None:
    """Kernels on tensors that :func:`build` leaves untouched: every one once, or those of the op called ``only``."""
    from atd.models.fused import padded_head
    from atd.ops.kernels.category_attention import (
        _category_attention,
        _category_attention_backward,
        category_groups,
    )
    from atd.ops.kernels.category_feedforward import _category_feedforward, _category_feedforward_backward
    from atd.ops.kernels.category_partition import _category_partition
    from atd.ops.kernels.dictionary_attention import (
        _dictionary_attention,
        _dictionary_attention_backward,
        aligned,
        look_up,
    )
    from atd.ops.kernels.grouped_attention import attend
    from atd.ops.kernels.window_attention import _window_attention, _window_attention_backward, window_groups

    side = 32
    n = side * side

    def zeros(*size: int) -> torch.Tensor:
        return torch.zeros(size, dtype=dtype)

    qkv, order = zeros(1, n, 3 * shape.channels), torch.zeros(1, n, dtype=torch.int64)
    window = (side, side, shape.window, shape.window // 2, shape.heads, 1.0)
    table = torch.zeros((2 * shape.window - 1) ** 2, shape.heads)
    tokens = zeros(1, n, shape.rank), zeros(1, shape.entries, shape.rank), zeros(1, shape.entries, shape.channels)
    width = shape.hidden + shape.extra
    features = (zeros(1, shape.entries, shape.extra), order) if shape.extra else (None, None)
    network = zeros(width, 1, shape.kernel, shape.kernel), zeros(width), *features
    options = (shape.group, shape.heads, 1.0)

    learned = torch.ones(()) if shape.learned else None
    scales = torch.ones(shape.entries if shape.learned else 1)

    def dictionary_attention() -> None:
        output, _, log_sum = _dictionary_attention(*tokens, scales)
        if backward:
            _dictionary_attention_backward(*tokens, scales, output, log_sum, output)

    def category_partition() -> None:
        _category_partition(order, shape.entries)

    def window_attention() -> None:
        output, log_sum = _window_attention(qkv, table, *window)
        if backward:
            _window_attention_backward(qkv, table, output, log_sum, output, *window)

    def category_attention() -> None:
        output, log_sum = _category_attention(qkv, order, learned, *options)
        if backward:
            _category_attention_backward(qkv, order, learned, output, log_sum, output, *options)

    def category_feedforward() -> None:
        hidden = zeros(1, n, shape.hidden)
        output = _category_feedforward(hidden, side, side, *network)
        if backward:
            _category_feedforward_backward(hidden, *network, output, side, side)

    def fused_attention() -> None:
        """As in :mod:`atd.models.fused`, where that differs."""
        x = zeros(1, n, shape.channels)
        query, key, value = (aligned(part) for part in tokens)
        look_up(query, key, value, torch.ones(1, shape.entries), x, x, 0.5)
        width = shape.heads * padded_head(shape.channels // shape.heads)
        padded, both = zeros(1, n, 3 * width), zeros(1, n, 2 * width)
        bias = zeros(shape.heads, shape.window**2, shape.window**2)
        attend(padded, None, bias, None, window_groups(padded, (side, side), *window[2:]), both[..., :width])
        attend(padded, order, None, learned, category_groups(padded, *options), both[..., width:])

    for launch in (
        dictionary_attention, category_partition, window_attention, category_attention, category_feedforward,
        fused_attention,
    ):  # fmt: skip
        if only in ("", launch.__name__):
            launch()


def published_shapes() -> dict[str, Shape]:
    """The layers of all networks of the registry, each kind once, by the first network that has it and its width."""
    shapes: dict[Shape, str] = {}
    for name in list_models():
        for shape in shapes_of(name):
            shapes.setdefault(shape, f"{name}:{shape.channels}")
    return {name: shape for shape, name in shapes.items()}


def _share(text: str) -> tuple[int, int]:
    index, count = (int(part) for part in text.split("/"))
    return index, count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capability", type=int, default=90, choices=list(SHARED_MEMORY))
    parser.add_argument("--dtype", default="bfloat16", choices=_DTYPES)
    parser.add_argument("--one-dtype", action="store_true", help="instead of --dtype, the next one for every shape")
    parser.add_argument("--shapes", nargs="+", help="layers to build, by network and width (default: all)")
    parser.add_argument("--op", default="", help="build the kernels of this op, or fused_attention, alone")
    parser.add_argument("--share", type=_share, default=(0, 1), help="I/N: every N-th of them, from the I-th on")
    parser.add_argument("--forward", action="store_true", help="leave the backward kernels out")
    parser.add_argument("--check", action="store_true", help="status 1 where a kernel does not fit the card")
    args = parser.parse_args()
    os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
    shapes = published_shapes()
    if unknown := sorted({*(args.shapes or ())} - shapes.keys()):
        parser.error(f"no layers are called {', '.join(unknown)}; there are {', '.join(shapes)}")
    index, count = args.share
    names = [name for name in shapes if not args.shapes or name in args.shapes]
    numbers = "registers  stack  shared   code   loop  warps  wgmma  mma  loads  wide"
    print(f"{'':24s} {'dtype':8s} {'kernel':40s} {numbers}")
    unfit: list[str] = []
    for place in range(index, len(names), count):
        name = names[place]
        kind = _DTYPES[(place // count + index) % len(_DTYPES)] if args.one_dtype else args.dtype
        work = partial(launch_all, shapes[name], getattr(torch, kind), not args.forward, args.op)
        for k in build(args.capability, work):
            print(
                f"{name:24s} {kind:8s} {k.name:40s} {k.registers:9d} {k.stack:6d} {k.shared:7d} "
                f"{k.code:6d} {k.loop:6d} {k.warps:6d} {k.wgmma:6d} {k.mma:4d} {k.loads:6d} {k.wide:5d}",
                flush=True,
            )
            most_stack = MOST_STACK["backward" if k.name.endswith("backward") else "forward"]
            if k.shared > SHARED_MEMORY[args.capability] or k.stack > most_stack:
                unfit.append(f"{name} {kind} {k.name}: {k.shared} bytes of shared memory, {k.stack} of stack")
    if args.check and unfit:
        raise SystemExit("\n".join(unfit))


if __name__ == "__main__":
    main()
