"""Exported files as networks: ONNX Runtime and OpenVINO behind the interface of a module."""

from atd.runtime.exported import ExportedNetwork
from atd.runtime.load import RUNTIMES, load_exported

__all__ = ["RUNTIMES", "ExportedNetwork", "load_exported"]
