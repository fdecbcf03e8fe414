"""Two ways to order tokens by category without a stable sort, in ONNX Runtime: ``python -m benchmarks.category_order``.

One sorts keys without equals, ``category·n + position``, by TopK, as `atd.ops.category_partition` is exported. The
other counts: a running sum over one-hot categories gives every token's rank in its own. Both give order and inverse.
"""

from __future__ import annotations

import time

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

NODES = {
    "TopK": """
        Squeeze size -> n; Range zero n one -> position
        Mul category n -> base; Add base position -> key; TopK key size largest=0 -> sorted order
        Unsqueeze position first -> row; Expand row shape -> places
        ScatterElements order order places axis=1 -> inverse
    """,
    "counting": """
        Squeeze size -> n; Range zero n one -> position
        Unsqueeze category last -> column; Equal column kinds -> equal; Cast equal to=6 -> hot
        CumSum hot axis -> running; GatherElements running column axis=2 -> ranks; Squeeze ranks last -> rank
        ReduceSum hot second keepdims=0 -> counts; CumSum counts axis exclusive=1 -> starts
        GatherElements starts category axis=1 -> start; Add start rank -> next; Cast next to=7 -> place
        Sub place one -> inverse
        Unsqueeze position first -> row; Expand row shape -> places
        ScatterElements inverse inverse places axis=1 -> order
    """,
}


def session(text: str, kinds: int) -> onnxruntime.InferenceSession:
    nodes = [
        helper.make_node("Shape", ["category"], ["shape"]),
        helper.make_node("Shape", ["category"], ["size"], start=1, end=2),
    ]
    for line in text.replace("\n", ";").split(";"):
        if line.strip():
            left, right = line.split("->")
            kind, *words = left.split()
            options = {key: int(value) for key, value in (word.split("=") for word in words if "=" in word)}
            inputs = [word for word in words if "=" not in word]
            nodes.append(helper.make_node(kind, inputs, right.split(), **options))
    values = {"zero": 0, "one": 1, "axis": 1, "first": [0], "second": [1], "last": [2], "kinds": range(kinds)}
    used = {name for node in nodes for name in node.input}
    constants = [
        numpy_helper.from_array(np.array(value, np.int64), name) for name, value in values.items() if name in used
    ]
    given, *results = (
        helper.make_tensor_value_info(name, TensorProto.INT64, [1, None]) for name in ("category", "order", "inverse")
    )
    graph = helper.make_graph(nodes, "order", [given], results, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def main() -> None:
    print("categories  tokens  " + "  ".join(f"{name:>12}" for name in NODES))
    for kinds in (64, 128, 512):
        sessions = {name: session(text, kinds) for name, text in NODES.items()}
        for side in (32, 64, 128, 256):
            category = np.random.default_rng(0).integers(0, kinds, (1, side * side))
            times = []
            for run in sessions.values():
                order, inverse = run.run(["order", "inverse"], {"category": category})
                assert (order[0] == np.argsort(category[0], kind="stable")).all()
                assert (np.take_along_axis(inverse, order, 1) == np.arange(side * side)).all()
                samples = []
                for _ in range(9):
                    start = time.perf_counter()
                    run.run(["order", "inverse"], {"category": category})
                    samples.append(time.perf_counter() - start)
                times.append(f"{1e3 * sorted(samples)[4]:9.2f} ms")
            print(f"{kinds:10d}  {side * side:6d}  " + "  ".join(times), flush=True)


if __name__ == "__main__":
    main()
