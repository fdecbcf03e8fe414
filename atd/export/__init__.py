"""Networks for other runtimes, each file with a report that compares it with the network."""

from atd.export.api import compare_onnx, export_onnx, report_path
from atd.export.parity import Comparison, ParityReport
from atd.export.programs import export_program

__all__ = ["Comparison", "ParityReport", "compare_onnx", "export_onnx", "export_program", "report_path"]
