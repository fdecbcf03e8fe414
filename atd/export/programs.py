"""Networks as files for torch alone: programs of torch.export."""

from __future__ import annotations

import logging
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from atd.errors import ExportError
from atd.export.api import check_ending, check_size, load_network, make_report, place, probes_for
from atd.export.describe import describe
from atd.export.parity import ParityReport, compare
from atd.export.program import Size, on_cpu, require_exporting_torch, trace

logger = logging.getLogger("atd.export")

_METADATA_FILE = "atd.json"


def export_program(
    model: nn.Module | str | Path,
    path: str | Path,
    *,
    weights: str | Path | None = None,
    size: Size | None = None,
) -> ParityReport:
    """Write a network as a program that torch runs without this library, and compare it in a process of its own.

    The program takes images (batch, c, height, width) and gives them restored, both float32 in [0, 1]; padding,
    cropping and clamping are part of it. The report lies beside it as ``<name>.report.json``.

    Args:
        model, weights, size: as in :func:`atd.export_onnx`.
        path: the file to write, ``.pt2``, for ``torch.export.load(path).module()``.

    Returns:
        The report. Categories are not compared; the difference must keep its limit without them.

    Raises:
        InputError: an argument is not one of those above.
        ExportError: this torch cannot export the network, or the file is not as exact as it should be.
    """
    path = Path(path)
    check_ending(path, ".pt2")
    check_size(size)
    if size is None:
        require_exporting_torch()
    network, licence = load_network(model, weights)
    metadata = describe(network, dtype=torch.float32, size=size, licence=licence)
    single = on_cpu(network, torch.float32)
    logger.info("tracing %s; this takes seconds for each layer", metadata.name)
    program = trace(single, size)
    probes = probes_for(metadata)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "network.pt2")
        torch.export.save(program, file, extra_files={_METADATA_FILE: metadata.as_json()})
        logger.info("comparing it with the network")
        results = iter(_run_elsewhere(file, [probe.image for probe in probes]))
        comparisons = compare(single, lambda image: (next(results), None), probes)
        content = file.read_bytes()
    return place(make_report(path, content, "pt2", f"torch {torch.__version__}", metadata, comparisons), path, content)


def _run_elsewhere(file: Path, images: Sequence[Tensor]) -> list[Tensor]:
    """The results of a program in a fresh process, which imports torch and nothing of this library."""
    script = Path(__file__).with_name("run_program.py")
    given, results = file.with_name("images.pt"), file.with_name("results.pt")
    torch.save(list(images), given)
    # Isolated: neither the working folder nor PYTHONPATH, in which this library may lie.
    command = [sys.executable, "-I", str(script), str(file), str(given), str(results)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ExportError(f"the program does not run in a process of its own: {done.stderr.strip().splitlines()[-1]}")
    return torch.load(results)
