"""Where networks run unless somebody says otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atd.errors import InputError

if TYPE_CHECKING:
    import torch


def named_device(device: torch.device | str) -> torch.device:
    """The device of a name such as ``"cpu"`` or ``"cuda:1"``; whether it is in this machine is not looked at.

    Raises:
        InputError: no device is called so.
    """
    import torch

    try:
        return torch.device(device)
    except RuntimeError:
        raise InputError(
            f"there is no device {str(device)!r}: expected cpu, cuda (the GPU) or, of several GPUs, cuda:0, cuda:1, …"
        ) from None


def default_device() -> torch.device:
    """The GPU when there is one, else the CPU."""
    import torch  # the command line asks this room for other things without it

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def release_cached_memory(device: torch.device) -> None:
    """Give back to the device what torch keeps of freed tensors, on any kind of device that has such a cache."""
    import torch

    if device.type != "cpu" and (release := getattr(torch.get_device_module(device), "empty_cache", None)):
        release()
