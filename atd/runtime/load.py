"""Which runtime reads a file."""

from __future__ import annotations

from pathlib import Path

from atd.errors import InputError, LoadError
from atd.runtime.exported import ExportedNetwork
from atd.runtime.onnx import OnnxNetwork
from atd.runtime.openvino import OpenVinoNetwork

_CLASSES = {"onnx": OnnxNetwork, "openvino": OpenVinoNetwork}
RUNTIMES = tuple(_CLASSES)
"""Names of the runtimes."""


def load_exported(file: str | Path, runtime: str = "onnx") -> ExportedNetwork:
    """The network of an ONNX file that ``atd export`` wrote.

    Args:
        file: the file.
        runtime: "onnx" for ONNX Runtime, "openvino" for OpenVINO.

    Raises:
        InputError: there is no such runtime.
        LoadError: there is no such file, or it cannot be read.
        MissingExtraError: the runtime is not installed.
    """
    if runtime not in _CLASSES:
        raise InputError(f"runtime is {runtime!r}; expected one of {', '.join(RUNTIMES)}.")
    path = Path(file)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise LoadError(f"{path} cannot be read: {error.strerror}") from error
    return _CLASSES[runtime](content, path)
