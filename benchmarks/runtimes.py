"""Time one network in its own backends and, exported, in other runtimes: ``python -m benchmarks.runtimes``.

    python -m benchmarks.runtimes --file net.onnx --model atd_light_sr_x4 --weights bundled --sizes 32 64 128 256

Every implementation of one size is timed in turns in one process, on as many threads as torch takes; p20, p50 and p80
are of single calls. ``--file`` is made by ``atd export`` from the same weights. Results go to ``results/runtimes.csv``.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from pathlib import Path

import torch

import atd
from atd import ops
from atd.runtime import RUNTIMES, load_exported
from atd.system.backends import Backend
from benchmarks import measure

RESULTS = Path(__file__).parent / "results" / "runtimes.csv"
COLUMNS = ("model", "size", "implementation", "p20_ms", "p50_ms", "p80_ms", "device", "versions")


def implementations(args: argparse.Namespace) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    """What can run here, by name."""
    model = atd.load(args.model, weights=args.weights)

    def in_backend(backend: Backend) -> Callable[[torch.Tensor], torch.Tensor]:
        def run(image: torch.Tensor) -> torch.Tensor:
            with ops.use(backend), torch.no_grad():
                return model(image)

        return run

    found = {backend: in_backend(backend) for backend in ("reference", "torch")}
    if ops.can_use_native()[0]:
        found["native"] = in_backend("native")
    for runtime in RUNTIMES:
        try:
            network = load_exported(args.file, runtime)
        except atd.MissingExtraError as error:
            print(f"left out: {error}")
            continue
        found[network.runtime] = network
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.runtimes", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--file", type=Path, required=True, help="what `atd export` wrote")
    parser.add_argument("--model", default="atd_light_sr_x4")
    parser.add_argument("--weights", default="bundled")
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64, 128, 256], help="sides of square images")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=60.0, help="for the samples of one implementation and size")
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    device = torch.device("cpu")
    runs = implementations(args)
    channels = atd.load(args.model, weights=args.weights).in_channels
    rows = []
    for size in args.sizes:
        image = torch.rand(1, channels, size, size)
        calls = {name: lambda run=run, image=image: run(image) for name, run in runs.items()}
        for name, samples in measure.time_samples(calls, device, args.repeats, args.seconds).items():
            times = [f"{1e3 * value:.1f}" for value in measure.percentiles(samples)]
            rows.append((args.model, size, name, *times, measure.device_name(device), measure.versions()))
            print(f"{size:5d}  {name:24s}  p20 {times[0]:>9s}  p50 {times[1]:>9s}  p80 {times[2]:>9s} ms", flush=True)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with args.output.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(rows)
    print(f"wrote {args.output}")


if __name__ == "__main__":
    main()
