"""Export a network, and prove the file before it is put in its place."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from atd import loading, registry
from atd.errors import ExportError, InputError
from atd.export.describe import describe
from atd.export.onnx import OLDEST_OPSET, to_onnx, with_categories
from atd.export.parity import Comparison, ParityReport, Run, compare
from atd.export.probes import Probe, probes
from atd.export.program import Size, on_cpu, require_exporting_torch, trace
from atd.models import RestorationModel
from atd.runtime.metadata import Metadata
from atd.runtime.onnx import OnnxNetwork, open_session
from atd.system import atomic_write, import_extra

logger = logging.getLogger("atd.export")

_DTYPES = (torch.float32, torch.float16)


def export_onnx(
    model: nn.Module | str | Path,
    path: str | Path,
    *,
    weights: str | Path | None = None,
    dtype: torch.dtype = torch.float32,
    opset: int = OLDEST_OPSET,
    size: Size | None = None,
) -> ParityReport:
    """Write a network as an ONNX file that takes every size, and compare it with the network in ONNX Runtime.

    The file has one input ``image``, (batch, c, height, width), and one output ``restored``, s times as high and wide,
    both float32 in [0, 1]. Padding and cropping are part of it, and so is the clamping to [0, 1]. It holds standard
    operators alone. What it says of itself lies in its metadata under ``atd.``: name, architecture, task, scale,
    channels, size multiple, precision, licence and SHA-256 of the weights.

    Beside it, ``<name>.report.json`` has the comparison on a photo and on noise of thirteen sizes, among them 1×1, odd
    ones and batches.

    Args:
        model: a network of this library, or a name, file or folder for `atd.load`.
        path: the file to write, ``.onnx``.
        weights: which weights of a named model (see `atd.load`); None means "official". Only beside a name.
        dtype: in which the network computes, ``torch.float32`` or ``torch.float16``.
        opset: version of ONNX's operators, 18 or newer.
        size: bind the file to one image of this height and width.

    Returns:
        The report.

    Raises:
        InputError: an argument is not one of those above.
        ExportError: this torch cannot export the network, or the file is further from the network than 10⁻⁴ of the
            range or 60 dB (float16: 45 dB). No file is left then, but the report is.
        MissingExtraError: extra `onnx` is not installed.
    """
    path = Path(path)
    check_ending(path, ".onnx")
    if dtype not in _DTYPES:
        raise InputError(f"dtype is {dtype}; expected torch.float32 or torch.float16.")
    if opset < OLDEST_OPSET:
        raise InputError(f"opset is {opset}; expected {OLDEST_OPSET} or a newer one.")
    check_size(size)
    for package in ("onnx", "onnxscript", "onnxruntime"):  # before minutes of work
        import_extra(package, purpose="exporting to ONNX", extra="onnx")
    if size is None:
        require_exporting_torch()
    network, licence = load_network(model, weights)
    metadata = describe(network, dtype=dtype, size=size, licence=licence)
    logger.info("tracing %s; this takes seconds for each layer", metadata.name)
    content = to_onnx(trace(on_cpu(network, dtype), size), metadata, opset)
    logger.info("comparing it with the network")
    exported = OnnxNetwork(content, path)
    comparisons = compare(on_cpu(network, torch.float32), _with_categories(content, path), probes_for(metadata))
    return place(make_report(path, content, "onnx", exported.runtime, metadata, comparisons), path, content)


def compare_onnx(model: nn.Module | str | Path, file: str | Path, *, weights: str | Path | None = None) -> ParityReport:
    """Compare an ONNX file that lies there with the network that it was made of, as `export_onnx` does.

    Raises:
        LoadError: the file cannot be read, or the model not be loaded.
        MissingExtraError: extra `onnx` is not installed.
    """
    network, _ = load_network(model, weights)
    content = Path(file).read_bytes()
    exported = OnnxNetwork(content, file)
    probed = probes_for(exported.metadata)
    comparisons = compare(on_cpu(network, torch.float32), _with_categories(content, Path(file)), probed)
    return make_report(Path(file), content, "onnx", exported.runtime, exported.metadata, comparisons)


def load_network(model: nn.Module | str | Path, weights: str | Path | None) -> tuple[RestorationModel, str | None]:
    """The network, and the licence of its weights where it is known.

    Raises:
        InputError: it is none of this library, or `weights` were given beside a module.
    """
    if isinstance(model, RestorationModel):
        if weights is not None:
            raise InputError("weights choose among those of a named model, but a module was given: leave them out")
        return model, None
    if isinstance(model, nn.Module):
        raise InputError(f"{type(model).__name__} is no network of this library; only these are exported")
    network = loading.load(model, weights="official" if weights is None else weights)
    row = registry.find(str(model))
    return network, row.licence if row and weights in (None, "official") else None


def report_path(path: Path) -> Path:
    """Where the report of a file lies."""
    return path.with_suffix(".report.json")


def place(report: ParityReport, path: Path, content: bytes) -> ParityReport:
    """Write the report, and the file if it keeps the limits; gives the report.

    Raises:
        ExportError: it does not; `report` has the comparisons.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(report_path(path)) as temporary:
        report.write(temporary)
    if not report.passed:
        more = f" and {len(report.failures) - 1} more" if len(report.failures) > 1 else ""
        raise ExportError(
            f"{path} was not written: it differs from the network, {report.failures[0]}{more} ({report_path(path)})",
            report,
        )
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)
    return report


def make_report(
    path: Path,
    content: bytes,
    format: str,
    runtime: str,
    metadata: Metadata,
    comparisons: list[Comparison],
) -> ParityReport:
    """The report of a file, with the limits that it misses."""
    failures = [failure for row in comparisons if (failure := row.failure(metadata.dtype))]
    return ParityReport(
        file=path.name,
        sha256=hashlib.sha256(content).hexdigest(),
        format=format,
        runtime=runtime,
        torch=torch.__version__,
        metadata=metadata,
        comparisons=comparisons,
        failures=failures,
    )


def probes_for(metadata: Metadata) -> list[Probe]:
    """The images on which a file is compared."""
    return probes(metadata.channels, metadata.size_multiple, metadata.size)


def check_ending(path: Path, ending: str) -> None:
    """Refuse another ending, with an InputError."""
    if path.suffix != ending:
        raise InputError(f"{path} does not end in {ending}")


def check_size(size: Size | None) -> None:
    """Refuse what is no height and width, with an InputError."""
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise InputError(f"size is {size!r}; expected a height and a width in pixels.")


def _with_categories(content: bytes, path: Path) -> Run:
    """Runs an ONNX file with the categories of its layers beside the result."""
    onnxruntime = import_extra("onnxruntime", purpose="exporting to ONNX", extra="onnx")
    session = open_session(onnxruntime, with_categories(content), path)

    def run(image: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        restored, *categories = (torch.as_tensor(value) for value in session.run(None, {"image": image.numpy()}))
        return restored, categories

    return run
