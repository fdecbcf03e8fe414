"""Peak memory per input pixel of every published network, the figures behind ``tile="auto"``.

    python -m benchmarks.memory                    # measure, write results/memory.csv, compare with the estimate
    python -m benchmarks.memory --models 'atd_light*' --sides 64 160
    python -m benchmarks.memory --layerwise        # on a CPU, but as on other devices

On the CPU every measurement is a process of its own: the rise of the resident set's high-water mark during one forward,
beyond what was resident after a small one. On a GPU it is torch.cuda.max_memory_allocated beyond the weights.
"""

from __future__ import annotations

import argparse
import csv
import platform
import subprocess
import sys
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "memory.csv"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="*", help="pattern of registry names")
    parser.add_argument("--sides", type=int, nargs="+", default=[128], help="of the square input, in pixels")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--layerwise", action="store_true", help="on the CPU, run layer by layer as other devices do")
    parser.add_argument("--one", nargs=2, metavar=("MODEL", "SIDE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(measure(args.one[0], int(args.one[1]), args.device, args.dtype, args.layerwise))
        return
    import torch

    import atd

    rows = earlier_rows()
    print(f"{'model':22s} {'side':>5s} {'MB':>9s} {'bytes/pixel':>12s} {'estimate':>12s} {'error':>7s}")
    for name in atd.list_models(args.models):
        if is_twin(name):
            continue
        for side in args.sides:
            command = [sys.executable, "-m", "benchmarks.memory", "--device", args.device, "--dtype", args.dtype]
            command += ["--layerwise"] * args.layerwise
            output = subprocess.run([*command, "--one", name, str(side)], check=True, capture_output=True, text=True)
            peak, estimate = (int(value) for value in output.stdout.split()[-2:])
            per_pixel = peak / side**2
            print(
                f"{name:22s} {side:5d} {peak / 1e6:9.1f} {per_pixel:12.0f} {estimate / side**2:12.0f} "
                f"{estimate / peak - 1:+7.0%}",
                flush=True,
            )
            form = "layerwise" if args.layerwise or args.device != "cpu" else "blockwise"
            rows[name, str(side), args.device, args.dtype, form] = [str(peak), str(round(per_pixel)), str(estimate)]
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["model", "side", "device", "dtype", "form", "peak_bytes", "bytes_per_pixel", "estimate_bytes"])
        writer.writerows([*key, *values] for key, values in rows.items())
    print(f"torch {torch.__version__}, {platform.machine()}, {torch.get_num_threads()} threads; wrote {RESULTS}")


def earlier_rows() -> dict[tuple[str, ...], list[str]]:
    """Measurements of earlier runs, by model, side, device, dtype and form."""
    if not RESULTS.exists():
        return {}
    with RESULTS.open(newline="") as file:
        return {tuple(row[:5]): row[5:] for row in list(csv.reader(file))[1:]}


def is_twin(name: str) -> bool:
    """Whether an earlier name has the same network, trained for another noise level."""
    import atd
    from atd import registry

    names = atd.list_models()
    info = registry.get(name)
    earlier = names[: names.index(name)]
    return any(registry.get(other).config == info.config for other in earlier)


def measure(name: str, side: int, device: str, dtype: str, layerwise: bool) -> str:
    """Peak bytes of one forward beyond the weights, and what `atd.restoration.memory` estimates."""
    import torch

    import atd
    from atd.models.layers import DictionaryLayer
    from atd.restoration import memory

    model = atd.create(name).eval().to(device)
    image = torch.rand(1, model.in_channels, side, side, device=device)
    half = dtype != "float32"
    if layerwise:
        for layer in model.modules():
            if isinstance(layer, DictionaryLayer):
                layer.register_forward_hook(lambda *_: None)  # a layer with a hook is called as a module
    with torch.no_grad(), torch.autocast(device, getattr(torch, dtype) if half else torch.bfloat16, enabled=half):
        model(image[..., :16, :16])
        if device == "cpu":
            before = resident("VmRSS")
            # Linux: sets the high-water mark back to what is resident now.
            Path("/proc/self/clear_refs").write_text("5")
            model(image)
            peak = resident("VmHWM") - before
        else:
            torch.cuda.synchronize()
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            model(image)
            torch.cuda.synchronize()
            peak = torch.cuda.max_memory_allocated() - before
    kind = torch.device("meta" if layerwise else device)  # any device but the CPU works layer by layer
    return f"{peak} {memory.estimate(model, side, side, device=kind)}"


def resident(field: str) -> int:
    """Bytes of VmRSS or VmHWM."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {field} in /proc/self/status: this measurement needs Linux")


if __name__ == "__main__":
    main()
