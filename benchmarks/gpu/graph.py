"""A call as a CUDA graph: one launch for all its kernels."""

from __future__ import annotations

import torch

from benchmarks.measure import Run


def captured(run: Run) -> Run:
    """The same call replayed. Its inputs are those that lie on the card now; its result is overwritten by the next."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):  # builds kernels and tables, which cannot be done while a graph is captured
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = run()

    def replay() -> object:
        graph.replay()
        return result

    return replay
