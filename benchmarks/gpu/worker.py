"""The process that measures the cases of one step. `benchmarks.gpu.steps` starts it, and starts it anew where it ends.

A case that fails is a row with its message, and the next one follows. Once a kernel has read beyond its memory, nothing
runs on a card any more in the same process: it then ends, for another one to go on.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
import traceback
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import torch

from benchmarks.gpu import results
from benchmarks.gpu.case import Case, Context, NeedsCardError
from benchmarks.gpu.results import Row
from benchmarks.gpu.sizes import CARD, REHEARSAL
from benchmarks.gpu.steps import CALL_AGAIN


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("call")
    parser.add_argument("step")
    parser.add_argument("results", type=Path)
    parser.add_argument("files", type=Path, help="folder for what is no figure")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--rehearse", action="store_true")
    args = parser.parse_args()
    deadline = time.monotonic() + args.seconds
    torch.manual_seed(0)
    context = Context(
        torch.device("cpu" if args.rehearse else "cuda"), REHEARSAL if args.rehearse else CARD, args.files
    )
    rows = results.read(args.results)
    if not any(row.step == "machine" for row in rows):
        status = results.REHEARSED if args.rehearse else results.MEASURED
        machine = [
            Row(args.call, "machine", "", "", "", name, value, status) for name, value in machine_of(context.device)
        ]
        results.append(args.results, machine)
    cases = list(import_module(f"benchmarks.gpu.{args.call}").STEPS[args.step](context))
    (args.files / f"{args.step}.json").write_text(json.dumps([(args.step, *case.key) for case in cases]))
    done = results.done(rows)
    for case in cases:
        if (args.step, *case.key) in done:
            continue
        if time.monotonic() > deadline:
            return
        if not measure(case, args):
            raise SystemExit(CALL_AGAIN)


def measure(case: Case, args: argparse.Namespace) -> bool:
    """Write the rows of one case; whether this process can go on."""

    def write(quantity: str, value: float | str, status: str, message: str = "") -> None:
        text = f"{value:.6g}" if isinstance(value, float) else str(value)
        row = Row(args.call, args.step, *case.key, quantity, text, status, message)
        results.append(args.results, [row])
        print(
            *case.key, quantity, text, "" if status in (measured, results.NEEDS_CARD) else status, message, flush=True
        )

    measured = results.REHEARSED if args.rehearse else results.MEASURED
    start = time.monotonic()
    try:
        for quantity, value in case.measure():
            if isinstance(value, Exception):
                write(quantity, "", results.FAILED, results.reason(value))
            else:
                write(quantity, value, measured)
        write("seconds", time.monotonic() - start, measured)
    except NeedsCardError as error:
        write("", "", results.NEEDS_CARD, str(error))
    except Exception as error:  # whatever stops one case must not stop the others
        traceback.print_exc()
        write("", "", results.FAILED, results.reason(error))
    if args.rehearse:
        return True
    try:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
    except RuntimeError as error:
        print(f"the card cannot be used by this process any more: {error}", flush=True)
        return False
    return True


def machine_of(device: torch.device) -> list[tuple[str, str]]:
    """Card and versions, for the rows that belong to all others."""
    found = [("python", platform.python_version()), ("cores", str(os.cpu_count()))]
    found += [(name, version(name)) for name in ("torch", "triton", "numpy", "timm", "einops", "safetensors")]
    if device.type != "cuda":
        return [*found, ("device", platform.machine())]
    card = torch.cuda.get_device_properties(device)
    return [
        *found,
        ("device", card.name),
        ("capability", f"{card.major}.{card.minor}"),
        ("multiprocessors", str(card.multi_processor_count)),
        ("memory_bytes", str(card.total_memory)),
        ("cuda", str(torch.version.cuda)),
        ("cudnn", str(torch.backends.cudnn.version())),
    ]


if __name__ == "__main__":
    main()
