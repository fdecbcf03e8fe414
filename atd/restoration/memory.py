"""How much memory a device has free, and how large a tile a network can take in it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch
from torch import nn

from atd.errors import NotEnoughDiskError, NotEnoughMemoryError
from atd.ops.backend import backend_report
from atd.restoration.measured_memory import memory_table
from atd.restoration.network import size_multiple_of
from atd.system import free_in_cgroups, install_hint

BYTES_PER_PIXEL = {
    ("ATD", 216): (16_000, 27_700),
    ("ATD", 48): (2_300, 5_200),
    ("ATDCVPR", 210): (16_000, 24_000),
    ("ATDCVPR", 48): (2_200, 5_700),
    ("ATDReal", 96): (4_600, 8_000),
    ("ATDU", 48): (3_750, 5_900),
    ("ATDU", 24): (1_900, 5_950),
}
"""Peak bytes per input pixel beyond the weights, by architecture and embed_dim: on a CPU, where blocks run piece by
piece, and elsewhere. Both are measured by ``python -m benchmarks.memory`` in float32 on a CPU, the second with
``--layerwise`` on the torch path; half precision and the Triton kernels take less, how much less on a card a table of
`measured_memory` may say.

With `CPU_OVERHEAD` the first is an upper bound of the rise of the resident set: with torch 2.14.1, for 1, 2 and 4
threads of the native kernels and of the torch path, for ATD, ATD-light, CVPR ATD-light, ATD-U and its tiny form (two
layers a block) at sides of 96 to 384, it was 1.07 to 1.9 times the rise measured from 256² on, and more below. CVPR
ATD at full width was not measured so, and has the figure of ATD; ATD-Real was measured at 128² and 256², one thread."""
# On a CPU, what is taken whatever the size of the image: the pieces in work, some megabytes for each thread, and freed
# memory that the C library keeps. Its malloc holds back up to 64 MB, which depends on the order of allocations and,
# with more than one thread, differs by 50 MB between runs of one program.
CPU_OVERHEAD = 56_000_000
# For a network that is none of ours, where nothing is known: twice the largest.
UNKNOWN_BYTES_PER_PIXEL = 60_000
# Part of the free memory that a plan may count on; the rest is for allocator slack and other programs.
USABLE = 0.8


def free_bytes(device: torch.device) -> int | None:
    """Memory that new tensors on `device` can take now: free device memory, or available RAM; None when unknown."""
    if device.type in ("cuda", "xpu"):
        card = torch.get_device_module(device)
        free, _ = card.mem_get_info(device)
        # What torch has reserved and not allocated is free for new tensors too.
        return free + card.memory_reserved(device) - card.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    if device.type == "cpu":
        return free_ram()
    return None


def free_ram() -> int | None:
    """RAM available to this process: what the system has left, or less where a control group sets a limit."""
    limits: list[int] = []
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                limits.append(int(line.split()[1]) * 1024)
    elif hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
        limits.append(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    if (left := free_in_cgroups()) is not None:
        limits.append(left)
    return min(limits) if limits else None


def free_disk(folder: Path) -> int:
    """Bytes that a file written to `folder` may take; `folder` need not exist yet."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _in_words(size: float) -> str:
    """GB in words; small sizes in MB or kB, so that none reads as zero."""
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if size >= unit / 10:
            return f"{size / unit:.1f} {name}"
    return f"{size / 1e3:.1f} kB" if size >= 100 else f"{size:.0f} bytes"


def require_disk(size: int, target: Path) -> None:
    """Refuse, before any work, what the free disk cannot hold, with a `NotEnoughDiskError`."""
    free = free_disk(target.absolute().parent)
    if size > free:
        raise NotEnoughDiskError(
            f"{target} needs up to {_in_words(size)} of disk, but {_in_words(free)} are free there"
        )


def require_ram(size: int, work: str) -> None:
    """Refuse, before any work, what the free RAM cannot hold, with a `NotEnoughMemoryError`.

    Args:
        work: a noun phrase for the message.
    """
    free = free_ram()
    if free is not None and size > free:
        raise NotEnoughMemoryError(
            f"{work} needs about {_in_words(size)} of RAM, but {_in_words(free)} are free: restore a part of the "
            f"image, or stream from file to file with extra io ({install_hint('io')})"
        )


def require_ram_for_tiles(model: nn.Module, height: int, width: int, batch_size: int) -> None:
    """Refuse, before any work, tiles that the free RAM cannot hold, with a `NotEnoughMemoryError`."""
    needed, free = estimate(model, height, width, batch_size, device=torch.device("cpu")), free_ram()
    if free is not None and needed > free:
        number = f"{batch_size} tiles" if batch_size > 1 else "a tile"
        raise NotEnoughMemoryError(
            f"{number} of {width}x{height} pixels at once need about {_in_words(needed)} of RAM, but "
            f"{_in_words(free)} are free: let tiles be chosen automatically, or set a smaller size"
        )


def is_measured(model: nn.Module) -> bool:
    """Whether what this network takes is known, and not a cautious guess."""
    return any(name == getattr(model, "architecture", None) for name, _ in BYTES_PER_PIXEL)


def bytes_per_pixel(model: nn.Module, device: torch.device, dtype: torch.dtype | None = None) -> float:
    """The measured figure for this width; else that of the nearest width of the same architecture, in proportion.

    On a card, that of the table named by ATD_MEMORY_TABLE, where it has one for this width, `dtype` and backend.
    """
    config: dict[str, object] = getattr(model, "config", None) or {}
    architecture, width = getattr(model, "architecture", None), config.get("embed_dim")
    if device.type == "cuda" and dtype is not None and isinstance(architecture, str) and isinstance(width, int):
        table = memory_table()
        if table is not None and table.backend == backend_report(device, dtype)[0]:
            own = table.bytes_per_pixel(architecture, width, str(dtype).removeprefix("torch."))
            if own is not None:
                return own
    measured = {dim: figures for (name, dim), figures in BYTES_PER_PIXEL.items() if name == architecture}
    if not measured or not isinstance(width, int):
        return UNKNOWN_BYTES_PER_PIXEL
    nearest = min(measured, key=lambda dim: abs(dim - width))
    on_cpu, elsewhere = measured[nearest]
    return (on_cpu if device.type == "cpu" else elsewhere) * width / nearest


def estimate(
    model: nn.Module,
    height: int,
    width: int,
    batch_size: int = 1,
    *,
    device: torch.device,
    dtype: torch.dtype | None = None,
) -> int:
    """Peak bytes that one call on a (batch_size, c, height, width) tile takes beyond the weights.

    Args:
        dtype: the precision of the network, for `bytes_per_pixel`.
    """
    multiple = size_multiple_of(model)
    padded = -(-height // multiple) * multiple * -(-width // multiple) * multiple
    return int(batch_size * padded * bytes_per_pixel(model, device, dtype)) + (
        CPU_OVERHEAD if device.type == "cpu" else 0
    )


def largest_tile(
    model: nn.Module,
    height: int,
    width: int,
    *,
    device: torch.device,
    dtype: torch.dtype | None = None,
    batch_size: int = 1,
    reserve: int = 0,
) -> int | None:
    """The longest side of a tile that fits into free memory; None when the whole image fits, untiled.

    Args:
        dtype: the precision of the network.
        reserve: bytes of `device` that will be needed for something else.
    """
    free = free_bytes(device)
    if free is None:
        return None
    budget = int(free * USABLE) - reserve
    if estimate(model, height, width, device=device, dtype=dtype) <= budget:
        return None
    multiple = size_multiple_of(model)
    low, high = 1, -(-max(height, width) // multiple)
    while low < high:
        middle = (low + high + 1) // 2
        tile = middle * multiple
        needed = estimate(model, min(tile, height), min(tile, width), batch_size, device=device, dtype=dtype)
        fits = needed <= budget
        low, high = (middle, high) if fits else (low, middle - 1)
    return low * multiple


def largest_batch(
    model: nn.Module,
    height: int,
    width: int,
    batch_size: int,
    *,
    device: torch.device,
    dtype: torch.dtype | None = None,
) -> int:
    """How many tiles of this size fit into free memory at once: at most `batch_size`, at least one."""
    free = free_bytes(device)
    if free is None:
        return batch_size
    while batch_size > 1 and estimate(model, height, width, batch_size, device=device, dtype=dtype) > free * USABLE:
        batch_size -= 1
    return batch_size
