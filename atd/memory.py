"""How much memory a device has free, and how large a tile a network can take in it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch
from torch import nn

# Fallback for networks without a measured figure: peak bytes per input pixel beyond the weights.
BYTES_PER_PIXEL = 24_000
# Part of the free memory that a plan may count on; the rest is for allocator slack and other programs.
USABLE = 0.8


def free_bytes(device: torch.device) -> int | None:
    """Memory that new tensors on `device` can take now: free device memory, or available RAM; None when unknown."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # What torch has reserved and not allocated is free for new tensors too.
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "cpu":
        return free_ram()
    return None


def free_ram() -> int | None:
    """RAM available to this process: what the system has left, or less where a control group sets a limit."""
    limits = []
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                limits.append(int(line.split()[1]) * 1024)
    elif hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
        limits.append(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and limit.read_text().strip() != "max":
        limits.append(max(int(limit.read_text()) - int(used.read_text()), 0))
    return min(limits) if limits else None


def free_disk(folder: Path) -> int:
    """Bytes that a file written to `folder` may take; `folder` need not exist yet."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def require_disk(size: int, target: Path) -> None:
    """Refuse, before any work, what the free disk cannot hold."""
    free = free_disk(target.absolute().parent)
    if size > free:
        raise OSError(f"{target} needs up to {size / 1e9:.2f} GB of disk, but {free / 1e9:.2f} GB are free there")


def require_ram(size: int, what: str) -> None:
    """Refuse, before any work, what the free RAM cannot hold."""
    free = free_ram()
    if free is not None and size > free:
        raise MemoryError(
            f"{what} needs about {size / 1e9:.1f} GB of RAM, but {free / 1e9:.1f} GB are free: restore a part of the "
            f"image, or stream from file to file with extra io (pip install 'atd-restoration[io]')"
        )


def estimate(model: nn.Module, height: int, width: int, dtype: torch.dtype, batch_size: int = 1) -> int:
    """Peak bytes that one call on a (batch_size, c, height, width) tile takes beyond the weights."""
    return batch_size * height * width * BYTES_PER_PIXEL


def largest_tile(
    model: nn.Module,
    height: int,
    width: int,
    *,
    device: torch.device,
    dtype: torch.dtype,
    batch_size: int = 1,
    multiple: int = 1,
) -> int | None:
    """The longest side of a tile that fits into free memory; None when the whole image fits, untiled."""
    free = free_bytes(device)
    if free is None:
        return None
    budget = int(free * USABLE)

    def fits(tile: int) -> bool:
        return estimate(model, min(tile, height), min(tile, width), dtype, batch_size) <= budget

    if estimate(model, height, width, dtype) <= budget:
        return None
    low, high = 1, -(-max(height, width) // multiple)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle * multiple) else (low, middle - 1)
    return low * multiple
