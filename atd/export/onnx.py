"""Programs as ONNX files: standard operators alone, one input `image`, one output `restored`."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch.export import ExportedProgram

from atd.errors import ExportError
from atd.runtime.metadata import Metadata
from atd.system import import_extra

OLDEST_OPSET = 18
_INPUT, _OUTPUT = "image", "restored"


def to_onnx(program: ExportedProgram, metadata: Metadata, opset: int = OLDEST_OPSET) -> bytes:
    """The content of an ONNX file.

    Args:
        program: from :func:`atd.export.program.trace`.
        metadata: written into the file.
        opset: version of the standard operators.

    Raises:
        ExportError: the exporter of this torch cannot write the program.
        MissingExtraError: onnx or onnxscript is not installed.
    """
    onnx = import_extra("onnx", purpose="writing ONNX files", extra="onnx")
    import_extra("onnxscript", purpose="writing ONNX files", extra="onnx")
    try:
        converted = torch.onnx.export(  # pyright: ignore[reportUnknownMemberType]  (some of its options are untyped)
            program,
            dynamo=True,
            opset_version=opset,
            input_names=[_INPUT],
            output_names=[_OUTPUT],
            optimize=True,
            verbose=False,
        )
        assert converted is not None
        # Unknown where onnx is not installed, and untyped where it is.
        model = cast(Any, converted.model_proto)  # pyright: ignore[reportUnknownMemberType]
    except Exception as error:  # the exporter's errors have no common base
        raise ExportError(
            f"torch {torch.__version__} cannot write this network as ONNX of opset {opset} ({type(error).__name__}: "
            f"{str(error).strip().splitlines()[0]})"
        ) from error
    _tidy(onnx, model, metadata)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _tidy(onnx: Any, model: Any, metadata: Metadata) -> None:
    """Name the axes, say what it is, and drop what the exporter left: its notes name files of this machine."""
    graph = model.graph
    graph.name = metadata.name
    model.producer_name, model.producer_version = "atd", metadata.atd_version
    model.doc_string = (
        f"{metadata.name} ({metadata.architecture}), scale {metadata.scale}. {_INPUT}: (batch, {metadata.channels}, "
        f"height, width), float32 in [0, 1]; {_OUTPUT}: the same, {metadata.scale} times as high and wide."
    )
    del graph.value_info[:]
    for node in graph.node:
        del node.metadata_props[:]
        node.ClearField("doc_string")
    del graph.metadata_props[:]
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, metadata.as_text())
    if metadata.size is None:
        scale = metadata.scale
        names = ("height", "width") if scale == 1 else (f"{scale}*height", f"{scale}*width")
        _name_axes(graph.input[0], ("batch", None, "height", "width"))
        _name_axes(graph.output[0], ("batch", None, *names))


def _name_axes(value: Any, names: tuple[str | None, ...]) -> None:
    for axis, name in zip(value.type.tensor_type.shape.dim, names, strict=True):
        if name is not None:
            axis.dim_param = name


def with_categories(content: bytes) -> bytes:
    """The same file with the categories of every layer as further outputs, in the order of the layers."""
    onnx: Any = import_extra("onnx", purpose="reading an ONNX file", extra="onnx")
    model = onnx.load_from_string(content)
    for node in model.graph.node:
        if node.op_type == "ArgMax":
            model.graph.output.append(onnx.helper.make_tensor_value_info(node.output[0], onnx.TensorProto.INT64, None))
    return model.SerializeToString()
