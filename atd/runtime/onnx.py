"""ONNX files by ONNX Runtime, on the CPU."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atd.errors import LoadError
from atd.runtime.exported import ExportedNetwork
from atd.runtime.metadata import Metadata
from atd.system import import_extra


class OnnxNetwork(ExportedNetwork):
    """A file of ``atd export`` in ONNX Runtime.

    Args:
        content: of the file.
        source: its path, for messages.

    Raises:
        LoadError: ONNX Runtime cannot read it, or it was not written by this library.
        MissingExtraError: ONNX Runtime is not installed.
    """

    def __init__(self, content: bytes, source: str | Path) -> None:
        onnxruntime = import_extra("onnxruntime", purpose="running an ONNX file", extra="onnx")
        session = open_session(onnxruntime, content, source)
        metadata = Metadata.from_text(session.get_modelmeta().custom_metadata_map, str(source))
        super().__init__(metadata, hashlib.sha256(content).hexdigest())
        self.runtime = f"onnxruntime {onnxruntime.__version__}"
        self._session = session

    def run(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """One call of ONNX Runtime."""
        (restored,) = self._session.run(["restored"], {"image": image})
        return restored


def open_session(onnxruntime: Any, content: bytes, source: str | Path) -> Any:
    """An inference session on the CPU.

    Raises:
        LoadError: the file cannot be read.
    """
    try:
        return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common base
        if type(error).__module__.startswith("onnxruntime"):
            raise LoadError(f"ONNX Runtime cannot read {source}: {str(error).splitlines()[0]}") from error
        raise
