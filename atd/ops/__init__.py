"""The operations that make an ATD network: each in a file of its own, with a plain reference and a fast path."""

from atd.ops.backend import backend_report, can_use_triton, use
from atd.ops.category_attention import category_attention
from atd.ops.category_feedforward import category_feedforward
from atd.ops.category_partition import category_partition
from atd.ops.dictionary_attention import dictionary_attention
from atd.ops.dictionary_refinement import dictionary_refinement
from atd.ops.geometry import clear_caches
from atd.ops.native.library import can_use_native
from atd.ops.window_attention import window_attention

__all__ = [
    "backend_report",
    "can_use_native",
    "can_use_triton",
    "category_attention",
    "category_feedforward",
    "category_partition",
    "clear_caches",
    "dictionary_attention",
    "dictionary_refinement",
    "use",
    "window_attention",
]
