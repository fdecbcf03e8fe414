"""Peak memory of restoring a large file in strips (extra ``io``).

    python -m benchmarks.gigapixel                                   # nearest x4, 5000x5000 -> 20000x20000
    python -m benchmarks.gigapixel --model atd_light_sr_x4 --side 1500
    python -m benchmarks.gigapixel --side 300 --tile 128             # a quick look

The restoration runs in a process of its own; what is printed is its resident set's high-water mark, in all and beyond
what was resident when the network was ready. Without bundled weights a network is run with random ones, which take as
much.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "gigapixel.csv"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nearest", help="a registry name, or nearest")
    parser.add_argument("--side", type=int, default=5000, help="of the generated input, in pixels")
    parser.add_argument("--ending", default=".tif", choices=(".tif", ".png"))
    parser.add_argument("--tile", default="auto")
    parser.add_argument("--one", nargs=2, metavar=("INPUT", "OUTPUT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    tile = args.tile if args.tile == "auto" else int(args.tile)
    if args.one:
        restore(args.model, *args.one, tile)
        return
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.png", Path(folder) / f"out{args.ending}"
        generate(source, args.side)
        start = time.monotonic()
        own = [sys.executable, "-m", "benchmarks.gigapixel", "--model", args.model, "--tile", args.tile]
        done = subprocess.run([*own, "--one", source, target], check=True, stdout=subprocess.PIPE, text=True)
        seconds = time.monotonic() - start
        ready, peak = (int(value) for value in done.stdout.split()[-2:])
        width, height = check(source, target, exact=args.model == "nearest")
        print(
            f"{args.model}: {args.side}x{args.side} -> {width}x{height} {args.ending[1:]}, {seconds:.0f} s, "
            f"file {target.stat().st_size / 1e9:.2f} GB, peak {peak / 1e9:.2f} GB resident, "
            f"{(peak - ready) / 1e9:.2f} GB beyond the network"
        )
    new = not RESULTS.exists()
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(["model", "side", "output", "tile", "seconds", "ready_bytes", "peak_bytes"])
        writer.writerow([args.model, args.side, args.ending[1:], args.tile, round(seconds), ready, peak])


def generate(path: Path, side: int) -> None:
    """Waves with noise: neither constant nor incompressible, so that decoding and encoding do real work."""
    import pyvips

    waves = pyvips.Image.zone(side, side).linear(60, 128)
    bands = [waves + pyvips.Image.gaussnoise(side, side, sigma=6, mean=shift) for shift in (0, 20, -20)]
    bands[0].bandjoin(bands[1:]).cast("uchar").copy(interpretation="srgb").pngsave(str(path))


def restore(model: str, source: str, target: str, tile: int | str) -> None:
    import torch
    from torch import nn

    import atd
    from atd import registry
    from atd.restoration.api import restore_file
    from benchmarks.memory import resident

    class Nearest(nn.Module):
        scale, in_channels, size_multiple = 4, 3, 1

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.repeat_interleave(4, -1).repeat_interleave(4, -2)

    if model == "nearest":
        network: nn.Module = Nearest()
    elif registry.get(model).bundled:
        network = atd.load(model, weights="bundled")
    else:
        network = atd.create(model).eval()
    ready = resident("VmRSS")
    restore_file(network, source, target, tile=tile, stream=True, progress=True, max_pixels=None)  # type: ignore[arg-type]
    print(ready, resident("VmHWM"))


def check(source: Path, target: Path, exact: bool) -> tuple[int, int]:
    """Size of the result; for the nearest network every pixel is compared with libvips' own enlargement."""
    import pyvips

    result = pyvips.Image.new_from_file(str(target), access="sequential")
    if exact:
        expected = pyvips.Image.new_from_file(str(source), access="sequential").zoom(4, 4)
        difference = (result.cast("short") - expected.cast("short")).abs().max()
        if difference:
            raise SystemExit(f"the result differs by up to {difference}")
    return result.width, result.height


if __name__ == "__main__":
    main()
