"""Time the ops, whole networks and a training step with every implementation that can run here.

    python -m benchmarks                                    # tests of the ops first, then everything for this device
    python -m benchmarks --rows 'network/ATD-light*' --repeats 9
    python -m benchmarks --rows 'op/*' --variants 'triton*' 'torch*'

Implementations of one row are timed in turns. p20, p50 and p80 are of single calls; the peak is memory beyond what was
allocated before (on a CPU: growth of the resident set, in a process of its own). The share is the time that the
device's own bandwidth and product rate, measured at the start, would need at best, over the p50. Random weights: they
take as long as trained ones. Results go to ``results/speed_<device>.csv`` and ``.md``.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import torch

from benchmarks import measure
from benchmarks.cases import NETWORKS, Case, Variant, network_cases, op_cases, training_case

RESULTS = Path(__file__).parent / "results"
COLUMNS = ("kind", "name", "size", "variant", "p20_ms", "p50_ms", "p80_ms", "peak_mb", "floor_ms", "share", "speedup")
SINGLE, HALF, FP16 = torch.float32, torch.bfloat16, torch.float16

CPU_NETWORKS = {
    "ATD-light x4": [128, 256, 512],
    "ATD x4": [64],
    "ATD-U colour": [128],
    "CVPR ATD-light x4": [128],
}
CUDA_NETWORKS = {
    "ATD x4": [128, 256, 512],
    "ATD-light x4": [256, 512, 1024],
    "ATD-U colour": [256, 512],
    "CVPR ATD x4": [256],
}


def cpu_cases() -> Iterator[Case]:
    both = Variant("reference", SINGLE), Variant("torch", SINGLE)
    inference = (*both, Variant("native", SINGLE))

    def variants(name: str, side: int) -> tuple[Variant, ...]:
        if side == 512:  # asks whether time is linear in pixels; the reference takes minutes
            return inference[1:]
        # A whole network in bfloat16 where the processor multiplies it in hardware.
        return (*inference, Variant("torch", HALF)) if _has_fast_bfloat16() else inference

    yield from network_cases(CPU_NETWORKS, variants)
    yield from op_cases([64], inference)
    yield training_case("ATD-light x4", 32, 2, both)


def _has_fast_bfloat16() -> bool:
    return bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())


def cuda_cases() -> Iterator[Case]:
    reference, autocast = Variant("reference", SINGLE), Variant("reference", HALF, autocast=True)
    torch_path, triton = Variant("torch", HALF), Variant("triton", HALF)
    compiled = Variant("triton", HALF, compiled=True)

    def variants(name: str, side: int) -> tuple[Variant, ...]:
        if side > 512:
            return torch_path, triton
        # Compiling takes tens of seconds: at the size that the goals name.
        goal = (compiled, Variant("triton", FP16), Variant("triton", SINGLE)) if side == 256 else ()
        return reference, autocast, torch_path, triton, *goal

    yield from network_cases(CUDA_NETWORKS, variants)
    yield from op_cases([256, 512], (Variant("reference", HALF), torch_path, triton))
    yield training_case(
        "ATD x4",
        64,
        4,
        (
            Variant("reference", HALF, autocast=True, checkpointed=True),
            Variant("torch", HALF, autocast=True),
            Variant("triton", HALF, autocast=True),
            Variant("triton", HALF, autocast=True, compiled=True),
        ),
    )


def run_tests(device: torch.device) -> None:
    """The ops' tests, on this device; a failure ends the run: a wrong result is not worth timing."""
    tests = (
        ["tests/ops/test_ops.py", "tests/ops/test_native.py"]
        if device.type == "cpu"
        else ["tests/ops/test_kernels.py", "-m", "gpu"]
    )
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", *tests], cwd=RESULTS.parent.parent)
    if done.returncode:
        raise SystemExit("The tests of the ops fail; nothing was timed.")


def measure_case(case: Case, variants: list[Variant], args: argparse.Namespace, device: torch.device, ceiling) -> list:
    """One row per variant; a variant that cannot run (memory, missing compiler) is named and left out."""
    runs, peaks = {}, {}
    for variant in variants:
        try:
            run = case.make(variant, device)
            run()
            if device.type == "cuda":
                peaks[variant] = measure.peak_bytes_cuda(run)
            elif case.kind == "network" and variant.dtype == SINGLE:
                peaks[variant] = measure.peak_bytes_cpu(NETWORKS[case.name], case.size, variant.backend)
            runs[variant] = run
        except Exception as error:  # whatever stops one variant must not stop the others
            print(f"  {case.path} {variant.label}: left out, {type(error).__name__}: {str(error)[:200]}", flush=True)
            if device.type == "cuda":
                torch.cuda.empty_cache()
    if not runs:
        return []
    labels = {variant.label: run for variant, run in runs.items()}
    samples = measure.time_samples(labels, device, args.repeats, args.seconds)
    base = None
    rows = []
    for variant in runs:
        p20, p50, p80 = (1e3 * value for value in measure.percentiles(samples[variant.label]))
        base = base or p50
        floor = 1e3 * ceiling.floor(*case.cost(variant.dtype.itemsize), variant.dtype)
        peak = f"{peaks[variant] / 1e6:.0f}" if variant in peaks else ""
        values = (
            f"{p20:.3f}",
            f"{p50:.3f}",
            f"{p80:.3f}",
            peak,
            f"{floor:.3f}",
            f"{floor / p50:.2f}",
            f"{base / p50:.2f}",
        )
        rows.append((case.kind, case.name, case.size, variant.label, *values))
        print(
            f"  {case.path:46s} {variant.label:34s} p50 {p50:10.3f} ms  x{base / p50:5.2f}  "
            f"floor {floor:9.3f} ms ({floor / p50:4.0%})  peak {peak or '-':>6s} MB",
            flush=True,
        )
    return rows


def summary(rows: list) -> list[str]:
    """The figures that the goals are about."""
    lines = []
    timed = {(row[1], row[2], row[3]): dict(zip(COLUMNS, row, strict=True)) for row in rows if row[0] == "network"}
    for name, backend in itertools.product(NETWORKS, ("torch", "native")):
        small, large = (timed.get((name, side, f"{backend} float32")) for side in (128, 512))
        if small and large:
            growth = float(large["p50_ms"]) / float(small["p50_ms"]) / 16
            lines.append(f"{name}, {backend}: time per pixel at 512x512 is {growth:.2f} of that at 128x128")
        plain, tuned = (timed.get((name, 256, f"{choice} float32")) for choice in ("reference", backend))
        if plain and tuned and plain["peak_mb"] and tuned["peak_mb"]:
            share = float(tuned["peak_mb"]) / float(plain["peak_mb"])
            lines.append(f"{name}, {backend}: extra memory at 256x256 is {share:.2f} of the reference's")
    return lines


def write(rows: list, device: torch.device, ceiling, notes: list[str], folder: Path) -> Path:
    name = measure.device_name(device)
    slug = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"speed_{slug}.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow((*COLUMNS, "device", "versions"))
        writer.writerows((*row, name, measure.versions()) for row in rows)
    rates = ", ".join(f"{str(d).removeprefix('torch.')} {rate / 1e12:.2f} TFLOP/s" for d, rate in ceiling.flops.items())
    text = [
        f"# {name}",
        "",
        f"`{' '.join(['python -m benchmarks', *sys.argv[1:]])}`, {time.strftime('%Y-%m-%d')}, {measure.versions()}; "
        f"measured ceilings: copy {ceiling.bandwidth / 1e9:.0f} GB/s, products {rates}.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + " --- |" * len(COLUMNS),
        *("| " + " | ".join(str(value) for value in row) + " |" for row in rows),
        "",
        *(f"- {note}" for note in notes),
    ]
    path = folder / f"speed_{slug}.md"
    path.write_text("\n".join(text).rstrip() + "\n")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rows", nargs="+", default=["*"], help="patterns of kind/name/size")
    parser.add_argument("--variants", nargs="+", default=["*"], help="patterns of implementations")
    parser.add_argument("--repeats", type=int, default=None, help="most samples of a row: 30 on a card, 5 on a CPU")
    parser.add_argument("--seconds", type=float, default=None, help="time for the samples of one implementation")
    parser.add_argument("--no-tests", action="store_true", help="time without testing the ops first")
    parser.add_argument("--list", action="store_true", help="name the rows and stop")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    args = parser.parse_args()
    device = torch.device(args.device)
    cuda = device.type == "cuda"
    args.repeats = args.repeats or (30 if cuda else 5)
    args.seconds = args.seconds or (1.0 if cuda else 60.0)
    cases = [
        (case, [v for v in case.variants if any(fnmatch(v.label, pattern) for pattern in args.variants)])
        for case in (cuda_cases() if cuda else cpu_cases())
        if any(fnmatch(case.path, pattern) for pattern in args.rows)
    ]
    if args.list:
        print("\n".join(f"{case.path:50s} {', '.join(v.label for v in variants)}" for case, variants in cases))
        return
    if not args.no_tests:
        run_tests(device)
    start = time.monotonic()
    ceiling = measure.measure_ceiling(device)
    print(f"{measure.device_name(device)}; {measure.versions()}; copy {ceiling.bandwidth / 1e9:.0f} GB/s")
    rows: list = []
    for case, variants in cases:
        rows += measure_case(case, variants, args, device, ceiling)
        if cuda:
            torch._dynamo.reset()
            torch.cuda.empty_cache()
        notes = summary(rows)
        path = write(rows, device, ceiling, notes, args.output)  # after every row: a run cut short keeps what it has
    for note in summary(rows):
        print(note)
    print(f"{time.monotonic() - start:.0f} s; wrote {path}" if cases else "no row matches")


if __name__ == "__main__":
    main()
