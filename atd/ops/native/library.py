"""The compiled kernels: built once per machine, kept in the user's cache, loaded into the process on first use.

CXX                 the compiler (default: the first of c++, g++, clang++ on the PATH)
XDG_CACHE_HOME      the cache; the library lies in `atd/native` inside it (default: ~/.cache)
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import torch

from atd.errors import BackendError, NotEnoughMemoryError

_SOURCES = Path(__file__).parent
_FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-fopenmp", "-fPIC", "-shared")
# The processor's instructions as torch names them: what torch may use, which an environment variable can lower, is
# what the kernels use.
_INSTRUCTIONS = {
    "AVX512": ("-mavx2", "-mfma", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"),
    "AVX2": ("-mavx2", "-mfma"),
}
_COMPILE_SECONDS = 120
_NO_MEMORY = 1  # as in vector.h

_POINTER, _INT64, _INT, _FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_float
_SIGNATURES = {
    "atd_grouped_attention": (*[_POINTER] * 2, *[_INT64] * 4, _FLOAT, *[_POINTER] * 2, _INT64, _INT),
    "atd_dictionary_attention": (*[_POINTER] * 5, *[_INT64] * 6, _INT),
    "atd_depthwise_convolution": (*[_POINTER] * 4, *[_INT64] * 4, _INT),
}

_lock = threading.Lock()


def can_use_native() -> tuple[bool, str]:
    """Whether the compiled kernels can run in this process, and the reason in a few words; compiles them if need be."""
    with _lock:
        library, reason = _load()
    return library is not None, reason


def call(name: str, *arguments: torch.Tensor | int | float | None) -> None:
    """Run a kernel with as many threads as torch uses. It trusts the sizes it is given: callers compare them.

    Args:
        name: of the C function.
        arguments: in its order; tensors are contiguous, on the CPU, float32 or int64.

    Raises:
        BackendError: the kernels cannot run here; see :func:`can_use_native`.
        NotEnoughMemoryError: there is no memory for the rows that the threads work on.
        TypeError: a tensor is not of the kind that they read.
    """
    for value in arguments:
        if isinstance(value, torch.Tensor) and not (
            value.device.type == "cpu" and value.dtype in (torch.float32, torch.int64) and value.is_contiguous()
        ):
            raise TypeError(
                f"{name} reads float32 or int64 in one piece on the CPU, not {value.dtype} on {value.device}"
            )
    with _lock:
        library, reason = _load()
    if library is None:
        raise BackendError(f'The compiled kernels cannot run: {reason}. Use atd.ops.use("torch").')
    values = [value.data_ptr() if isinstance(value, torch.Tensor) else value for value in arguments]
    if getattr(library, name)(*values, torch.get_num_threads()) == _NO_MEMORY:
        raise NotEnoughMemoryError(f"{name} found no memory for its working rows; restore smaller tiles")


@functools.cache
def _load() -> tuple[ctypes.CDLL | None, str]:
    instructions = torch.backends.cpu.get_cpu_capability()
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return None, "compiled kernels exist for x86-64 processors under Linux"
    if instructions not in _INSTRUCTIONS:
        return None, f"compiled kernels need AVX2 or AVX-512; torch uses {instructions}"
    try:
        library = _open(instructions)
        for name, types in _SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes, function.restype = types, _INT
    except (OSError, subprocess.SubprocessError, AttributeError) as error:
        return None, f"the kernels could not be compiled and loaded: {_last_line(error)}"
    return library, f"compiled for {instructions}"


def _last_line(error: Exception) -> str:
    said = getattr(error, "stderr", None) or str(error)
    return said.strip().splitlines()[-1] if said.strip() else type(error).__name__


def _open(instructions: str) -> ctypes.CDLL:
    """The library for these instructions; compiled unless the cache holds it for these very sources and flags.

    It uses the OpenMP threads of torch, whose runtime is in the process already.
    """
    sources = sorted(_SOURCES.glob("*.cpp"))
    flags = (*_FLAGS, *_INSTRUCTIONS[instructions])
    content = b"\0".join(path.read_bytes() for path in (*sources, _SOURCES / "vector.h"))
    digest = hashlib.sha256(content + " ".join(flags).encode()).hexdigest()[:16]
    name = f"kernels_{instructions.lower()}_{digest}.so"
    folder = _cache()
    if folder is not None and (folder / name).exists():
        with contextlib.suppress(OSError):  # damaged: compiled anew
            return ctypes.CDLL(str(folder / name))
    # Compiled beside its place and moved there whole: another process sees all of it or nothing.
    with tempfile.TemporaryDirectory(prefix="atd_", dir=folder) as work:
        built = Path(work, name)
        command = [*_compiler(), *flags, *map(str, sources), "-o", str(built)]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_COMPILE_SECONDS)
        return ctypes.CDLL(str(built if folder is None else built.replace(folder / name)))


def _compiler() -> list[str]:
    chosen = os.environ.get("CXX") or next(filter(shutil.which, ("c++", "g++", "clang++")), None)
    if chosen is None:
        raise OSError("no C++ compiler was found; install g++ or set CXX")
    return shlex.split(chosen)


def _cache() -> Path | None:
    """Where compiled libraries are kept; None where the user has no folder that can be written to."""
    base = os.environ.get("XDG_CACHE_HOME") or Path("~", ".cache")
    try:
        folder = Path(base).expanduser() / "atd" / "native"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return None
    return folder if os.access(folder, os.W_OK) else None
