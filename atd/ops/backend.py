"""Which implementation of an op runs: the choice, and the reason for it.

Five backends exist. ``triton`` runs the fused kernels of :mod:`atd.ops.kernels` on a CUDA card, ``native`` the C++
kernels of :mod:`atd.ops.native` on a CPU, ``torch`` the tuned pure-torch path, ``reference`` the papers' formulas as
plainly as they can be written. ``auto`` (the default) takes ``triton`` or ``native`` where they can run and ``torch``
everywhere else. The native kernels serve inference in float32; under ``native`` as under ``auto`` the torch path takes
what they do not do.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Callable

import torch

from atd.errors import BackendError, InputError
from atd.ops.native.library import can_use_native
from atd.system.backends import BACKENDS, Backend

# Minor versions before 3.2 miscompile masked dots of the sizes used here.
_MIN_TRITON = (3, 2)


def _checked(name: str, source: str) -> str:
    if name not in BACKENDS:
        raise InputError(f"{source} is {name!r}; expected one of {', '.join(BACKENDS)}.")
    return name


_choice = _checked(os.environ.get("ATD_BACKEND", "auto").lower() or "auto", "The environment variable ATD_BACKEND")


class use(contextlib.AbstractContextManager["use"]):
    """Select the backend of every op, for the process or for a ``with`` block.

    ``atd.ops.use("reference")`` switches at once and for good; ``with atd.ops.use("reference"): ...`` switches back
    at the end of the block. The choice belongs to the process, not to a thread.

    Args:
        backend: ``"auto"``, ``"triton"``, ``"native"``, ``"torch"`` or ``"reference"``.

    Raises:
        InputError: ``backend`` is none of the five.
    """

    def __init__(self, backend: Backend) -> None:
        global _choice
        self._previous = _choice
        _choice = _checked(backend, "The argument of atd.ops.use")

    def __exit__(self, *exc_info: object) -> None:
        global _choice
        _choice = self._previous


def _triton_version() -> tuple[int, int] | None:
    """Version of the installed triton, read without importing it; None where it is absent."""
    if importlib.util.find_spec("triton") is None:
        return None
    from importlib.metadata import PackageNotFoundError, version

    for distribution in ("triton", "pytorch-triton", "triton-windows"):
        with contextlib.suppress(PackageNotFoundError):
            major, minor = version(distribution).split(".")[:2]
            return int(major), int(minor)
    return None


_TRITON_VERSION = _triton_version()


def can_use_triton(device: torch.device) -> tuple[bool, str]:
    """Whether the Triton kernels can run for tensors on ``device``, and the reason in a few words."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if device.type != "cuda" and not interpreted:
        return False, f"Triton kernels need a CUDA card; the tensors are on {device.type}"
    version = _TRITON_VERSION
    if version is None:
        return False, "triton is not installed"
    if version < _MIN_TRITON:
        return False, f"triton {version[0]}.{version[1]} is older than {_MIN_TRITON[0]}.{_MIN_TRITON[1]}"
    if interpreted:
        return True, "TRITON_INTERPRET=1: kernels run in Triton's interpreter"
    if torch.version.hip is None and torch.cuda.get_device_capability(device) < (7, 5):
        return False, "the card's compute capability is below 7.5"
    return True, f"triton {version[0]}.{version[1]} on a CUDA card"


def backend_report(device: torch.device | str, dtype: torch.dtype = torch.float32) -> tuple[str, str]:
    """The backend that ops take in inference on ``device``, and why: ``("torch", "triton is not installed")``."""
    device = torch.device(device)
    if _choice in ("torch", "reference"):
        return _choice, "chosen by ATD_BACKEND or atd.ops.use"
    if _choice == "native" or (_choice == "auto" and device.type == "cpu"):
        if device.type != "cpu":
            return "torch", f"the compiled kernels need a CPU; the tensors are on {device.type}"
        if dtype != torch.float32:
            return "torch", f"the compiled kernels need float32, not {str(dtype).removeprefix('torch.')}"
        able, reason = can_use_native()
        return ("native" if able else "torch"), reason
    able, reason = can_use_triton(device)
    # Exported programs must run where triton is absent, so they are traced through the torch path.
    if able and _choice == "auto" and (torch.compiler.is_exporting() or device.type != "cuda"):
        return "torch", "exports and interpreted runs use the torch path unless triton is asked for"
    return ("triton" if able else "torch"), reason


def resolve(tensor: torch.Tensor) -> str:
    """Backend for an op on ``tensor``: ``"triton"``, ``"native"``, ``"torch"`` or ``"reference"``.

    Raises:
        BackendError: ``triton`` or ``native`` was asked for by name and cannot run on the tensor's device.
    """
    if _choice in ("torch", "reference"):
        return _choice
    if _choice != "triton" and tensor.device.type == "cpu" and not _is_native_work(tensor):
        return "torch"
    if _choice == "auto" and tensor.device.type not in ("cuda", "cpu"):
        return "torch"
    name, reason = backend_report(tensor.device)
    if _choice not in ("auto", name):
        raise BackendError(f'The backend "{_choice}" was asked for but cannot run: {reason}. Use atd.ops.use("auto").')
    return name


def _is_native_work(tensor: torch.Tensor) -> bool:
    """Whether an op on ``tensor``, which is on the CPU, is of the kind that the native kernels do.

    They read memory directly: what only records or stands for a computation has to pass them by.
    """
    return tensor.dtype == torch.float32 and is_plain_inference(tensor)


def is_plain_inference(tensor: torch.Tensor) -> bool:
    """Whether work on ``tensor`` is done at once, on the CPU, without gradients, autocast, tracing or compilation."""
    return (
        tensor.device.type == "cpu"
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
        and type(tensor) in (torch.Tensor, torch.nn.Parameter)
    )


def pick(
    tensor: torch.Tensor,
    *,
    reference: Callable,
    fast: Callable,
    triton: Callable[[], Callable],
    native: Callable | None = None,
) -> Callable:
    """The implementation of an op for ``tensor``; ``triton`` is called, and triton imported, only when chosen.

    An op without a ``native`` implementation runs its ``fast`` one in its place.
    """
    name = resolve(tensor)
    if name == "triton" and tensor.dtype != torch.float64:  # kernels add in float32
        return triton()
    if name == "native" and native is not None:
        return native
    return reference if name == "reference" else fast
