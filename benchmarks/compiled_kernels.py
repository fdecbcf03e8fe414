"""Build every Triton kernel for a card that need not be there, and list registers, spills and shared memory.

    python -m benchmarks.compiled_kernels                        # sm_90, bfloat16, all shapes
    python -m benchmarks.compiled_kernels --capability 80 --dtype float32

``stack`` bytes are spilled registers; ``shared`` must stay under 99 KB for consumer cards; ``wgmma`` and ``mma`` count
the matrix instructions; ``wide`` those global loads that move 16 bytes a thread.
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

from benchmarks.cases import SHAPES, Shape

# Beside the layers that are timed, those with the widest heads of all published networks.
_SHAPES = SHAPES | {"ATD-U": Shape(96, 1, 16, 128, 128, 6, 255, 6, 5)}


@dataclass(frozen=True)
class Kernel:
    name: str
    registers: int
    stack: int
    shared: int
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

    tool = Path(triton.backends.nvidia.__file__).parent / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = subprocess.run([tool, "-res-usage", file.name], check=True, capture_output=True, text=True).stdout
    registers, stack = (int(re.search(rf"{field}:(\d+)", usage)[1]) for field in ("REG", "STACK"))  # pyright: ignore
    code = compiled.asm["ptx"]
    loads = re.findall(r"(?:ld\.global|cp\.async\.c[ag]\.shared\.global)[^\n]*", code)
    return Kernel(
        name=name,
        registers=registers,
        stack=stack,
        shared=compiled.metadata.shared,
        warps=compiled.metadata.num_warps,
        wgmma=code.count("wgmma.mma"),
        mma=code.count("mma.sync"),
        loads=len(loads),
        wide=sum(".v4.b32" in load or ", 0x10" in load for load in loads),
    )


def launch_all(shape: Shape, dtype: torch.dtype, backward: bool = True) -> None:
    """Every kernel once, forward and backward, on tensors that :func:`build` leaves untouched."""
    from atd.ops.kernels.category_attention import _category_attention, _category_attention_backward
    from atd.ops.kernels.category_feedforward import _category_feedforward, _category_feedforward_backward
    from atd.ops.kernels.category_partition import _category_partition
    from atd.ops.kernels.dictionary_attention import _dictionary_attention, _dictionary_attention_backward
    from atd.ops.kernels.window_attention import _window_attention, _window_attention_backward

    side = 32
    n = side * side

    def zeros(*size: int) -> torch.Tensor:
        return torch.zeros(size, dtype=dtype)

    qkv, order = zeros(1, n, 3 * shape.channels), torch.zeros(1, n, dtype=torch.int64)
    window = (side, side, shape.window, shape.window // 2, shape.heads)
    table = torch.zeros((2 * shape.window - 1) ** 2, shape.heads)
    tokens = zeros(1, n, shape.rank), zeros(1, shape.entries, shape.rank), zeros(1, shape.entries, shape.channels)
    width = shape.hidden + shape.extra
    network = zeros(width, 1, shape.kernel, shape.kernel), zeros(width), zeros(1, shape.entries, shape.extra), order
    options = (shape.group, shape.heads, 1.0)

    looked_up = _dictionary_attention(*tokens, torch.ones(1))
    _category_partition(order, shape.entries)
    in_windows = _window_attention(qkv, table, *window)
    in_groups = _category_attention(qkv, order, None, *options)
    hidden = zeros(1, n, shape.hidden)
    forward = _category_feedforward(hidden, side, side, *network)
    if backward:
        _dictionary_attention_backward(*tokens, torch.ones(1), looked_up[0], looked_up[2], looked_up[0])
        _window_attention_backward(qkv, table, *in_windows, in_windows[0], *window)
        _category_attention_backward(qkv, order, None, *in_groups, in_groups[0], *options)
        _category_feedforward_backward(hidden, *network, forward, side, side)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capability", type=int, default=90)
    parser.add_argument("--dtype", default="bfloat16", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--shapes", nargs="+", default=list(_SHAPES), choices=list(_SHAPES))
    parser.add_argument("--forward", action="store_true", help="leave the backward kernels out")
    args = parser.parse_args()
    os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
    print(f"{'':10s} {'kernel':40s} registers  stack  shared  warps  wgmma  mma  loads  wide")
    for name in args.shapes:
        dtype = getattr(torch, args.dtype)
        for k in build(args.capability, partial(launch_all, _SHAPES[name], dtype, not args.forward)):
            print(
                f"{name:10s} {k.name:40s} {k.registers:9d} {k.stack:6d} {k.shared:7d} {k.warps:6d} {k.wgmma:6d} "
                f"{k.mma:4d} {k.loads:6d} {k.wide:5d}"
            )


if __name__ == "__main__":
    main()
