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
import threading
from collections.abc import Callable
from typing import Self, TypeVar, TypeVarTuple, cast

import torch

from atd.errors import BackendError, InputError
from atd.ops.native.library import can_use_native
from atd.ops.tracing import is_exporting, is_traced
from atd.system.backends import BACKENDS, Backend

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")

# The triton of torch 2.7, the oldest that is supported and for which the kernels are compiled in the tests.
_MIN_TRITON = (3, 3)


def _checked(name: str, source: str) -> str:
    if name not in BACKENDS:
        raise InputError(f"{source} is {name!r}; expected one of {', '.join(BACKENDS)}.")
    return name


_default = _checked(os.environ.get("ATD_BACKEND", "auto").lower() or "auto", "The environment variable ATD_BACKEND")


# What a `with` block chose for its own thread, as `backend`; no attribute, or None, outside of one. Not a ContextVar:
# torch.compile traces the choice and guards it, and before torch 2.14 it knows no ContextVar (nor, in a class derived
# from threading.local, which of two attributes of one name counts).
_scope = threading.local()


def _scoped() -> str | None:
    return getattr(_scope, "backend", None)


def _chosen() -> str:
    return _scoped() or _default


class use(contextlib.AbstractContextManager["use"]):
    """Select the backend of every op, for the process or for a ``with`` block.

    ``atd.ops.use("reference")`` as a statement sets the default of the process, for all threads at once and for good.
    ``with atd.ops.use("reference"): ...`` holds for the block, in the thread that runs it: other threads keep what they
    use, and threads that the block starts begin with the default of the process. Blocks win over the default. Until its
    block begins, an object of this class holds for the thread that made it; one that is dropped without a block was a
    statement, so keep no reference to it where the default is meant.

    Args:
        backend: ``"auto"``, ``"triton"``, ``"native"``, ``"torch"`` or ``"reference"``.

    Raises:
        InputError: ``backend`` is none of the five.
    """

    _maker: int | None = None  # the thread that made it, until it is a block or dropped

    def __init__(self, backend: Backend) -> None:
        self._backend = _checked(backend, "The argument of atd.ops.use")
        self._outer: list[str | None] = [_scoped()]
        # Whether a block follows is not known yet. Were the process's default set here, a block would for a moment
        # hold for other threads too.
        _scope.backend = self._backend
        self._maker = threading.get_ident()

    def __del__(self) -> None:
        global _default
        if self._maker is None:
            return
        if self._maker == threading.get_ident():
            _scope.backend = self._outer.pop()
        _default = self._backend

    def __enter__(self) -> Self:
        if self._maker is None:  # another block of the same object
            self._outer.append(_scoped())
        elif self._maker != threading.get_ident():
            self._outer[-1] = _scoped()
        self._maker = None
        _scope.backend = self._backend
        return self

    def __exit__(self, *exc_info: object) -> None:
        _scope.backend = self._outer.pop()


def keep_choice(function: Callable[..., Result]) -> Callable[..., Result]:
    """``function`` with the backend of the block that is active now, in whatever thread it runs.

    Autograd recomputes checkpointed layers in threads of its own for a card, where no block holds.
    """
    choice = _scoped()
    if choice is None:
        return function

    def run(*args: object) -> Result:
        with use(cast(Backend, choice)):
            return function(*args)

    return run


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
    device, choice = torch.device(device), _chosen()
    if choice in ("torch", "reference"):
        return choice, "chosen by ATD_BACKEND or atd.ops.use"
    if choice == "native" or (choice == "auto" and device.type == "cpu"):
        if device.type != "cpu":
            return "torch", f"the compiled kernels need a CPU; the tensors are on {device.type}"
        if dtype != torch.float32:
            return "torch", f"the compiled kernels need float32, not {str(dtype).removeprefix('torch.')}"
        able, reason = can_use_native()
        return ("native" if able else "torch"), reason
    able, reason = can_use_triton(device)
    if able and choice == "auto" and torch.version.hip is not None:
        return "torch", "the kernels have not been tried on AMD's cards; triton runs them there when it is asked for"
    # Exported programs must run where triton is absent, so they are traced through the torch path.
    if able and choice == "auto" and (is_exporting() or device.type != "cuda"):
        return "torch", "exports and interpreted runs use the torch path unless triton is asked for"
    return ("triton" if able else "torch"), reason


def resolve(tensor: torch.Tensor) -> str:
    """Backend for an op on ``tensor``: ``"triton"``, ``"native"``, ``"torch"`` or ``"reference"``.

    Raises:
        BackendError: ``triton`` or ``native`` was asked for by name and cannot run on the tensor's device.
    """
    choice = _chosen()
    if choice in ("torch", "reference"):
        return choice
    if choice != "triton" and tensor.device.type == "cpu" and not _is_native_work(tensor):
        return "torch"
    if choice == "auto" and tensor.device.type not in ("cuda", "cpu"):
        return "torch"
    name, reason = backend_report(tensor.device)
    if choice not in ("auto", name):
        raise BackendError(f'The backend "{choice}" was asked for but cannot run: {reason}. Use atd.ops.use("auto").')
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
        and not is_traced()
        and type(tensor) in (torch.Tensor, torch.nn.Parameter)
    )


def pick(
    tensor: torch.Tensor,
    *,
    reference: Callable[[*Arguments], Result],
    fast: Callable[[*Arguments], Result],
    triton: Callable[[], Callable[[*Arguments], Result]],
    native: Callable[[*Arguments], Result] | None = None,
    triton_refuses: str | None = None,
) -> Callable[[*Arguments], Result]:
    """The implementation of an op for ``tensor``; ``triton`` is called, and triton imported, only when chosen.

    An op without a ``native`` implementation runs its ``fast`` one in its place, and so does one whose Triton kernel
    cannot take the call: ``triton_refuses`` is the reason that :func:`atd.ops.kernels.limits.refuses` gave.
    """
    name = resolve(tensor)
    if name == "triton" and triton_refuses is None:
        return triton()
    if name == "native" and native is not None:
        return native
    return reference if name == "reference" else fast
