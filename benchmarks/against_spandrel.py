"""Time the CVPR 2024 networks beside spandrel's, which run the authors' code (extra ``test``).

    python -m benchmarks.against_spandrel                 # on the CPU; writes results/against_spandrel.csv
    python -m benchmarks.against_spandrel --device cuda

Both hold the same random weights, in float32, and are called in turns. ``auto`` is what this package takes by itself.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path

import torch
from spandrel import ModelLoader

import atd
from atd import ops
from benchmarks import measure

RESULTS = Path(__file__).parent / "results" / "against_spandrel.csv"
SIDES = {"atd_cvpr_light_sr_x4": 128, "atd_cvpr_sr_x4": 64}


def compare(name: str, side: int, device: torch.device, repeats: int) -> dict[str, float]:
    """Median seconds of a call with a (1, 3, side, side) image."""
    torch.manual_seed(0)
    ours = atd.create(name).eval()
    with tempfile.TemporaryDirectory() as folder:
        theirs = ModelLoader().load_from_file(ours.save_pretrained(folder) / "model.safetensors").model.eval()
    ours, theirs, image = ours.to(device), theirs.to(device), torch.rand(1, 3, side, side, device=device)

    def with_backend(backend: str) -> object:
        with ops.use(backend):  # pyright: ignore[reportArgumentType]
            return ours(image)

    runs: dict[str, measure.Run] = {"spandrel": lambda: theirs(image)}
    runs |= {backend: lambda backend=backend: with_backend(backend) for backend in ("reference", "auto")}
    samples = measure.time_samples(runs, device, repeats, 120.0)
    return {label: measure.percentiles(seconds)[1] for label, seconds in samples.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    device = torch.device(args.device)
    rows = []
    with torch.no_grad():
        for name, side in SIDES.items():
            seconds = compare(name, side, device, args.repeats)
            for label, value in seconds.items():
                ratio = seconds["spandrel"] / value
                rows.append((name, side, label, f"{value:.3f}", f"{ratio:.2f}", measure.device_name(device)))
                print(f"{name:22s} {side:4d}  {label:10s} {value:8.3f} s  x{ratio:.2f}", flush=True)
    with RESULTS.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("model", "side", "implementation", "seconds", "speedup", "device"))
        writer.writerows(rows)


if __name__ == "__main__":
    main()
