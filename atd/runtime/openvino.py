"""ONNX files by OpenVINO, on the CPU."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atd.errors import LoadError
from atd.runtime.exported import ExportedNetwork
from atd.runtime.metadata import Metadata
from atd.system import import_extra


class OpenVinoNetwork(ExportedNetwork):
    """A file of ``atd export`` in OpenVINO, computed in float32.

    Args:
        content: of the file.
        source: its path, for messages.

    Raises:
        LoadError: OpenVINO cannot read it, or it was not written by this library.
        MissingExtraError: OpenVINO is not installed.
    """

    def __init__(self, content: bytes, source: str | Path) -> None:
        openvino = import_extra("openvino", purpose="running a file in OpenVINO", extra="openvino")
        onnx = import_extra("onnx", purpose="reading what an ONNX file says of itself", extra="openvino")
        core = openvino.Core()
        try:
            entries = {entry.key: entry.value for entry in onnx.load_from_string(content).metadata_props}
            # Processors with bfloat16 or float16 would be used in these otherwise.
            compiled = core.compile_model(core.read_model(content), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        except Exception as error:  # protobuf's and OpenVINO's own have no common base
            raise LoadError(f"OpenVINO cannot read {source}: {str(error).strip().splitlines()[-1]}") from error
        super().__init__(Metadata.from_text(entries, str(source)), hashlib.sha256(content).hexdigest())
        self.runtime = f"openvino {openvino.__version__}"
        self._compiled = compiled

    def run(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """One call of OpenVINO."""
        return self._compiled({"image": image})["restored"].copy()
