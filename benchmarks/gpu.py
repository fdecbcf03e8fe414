"""Everything that needs a CUDA card in one command: tests, timings, a profile, a plot, written to one folder.

    python -m benchmarks.gpu gpu_results          # about 15 minutes, the first half of it tests and kernel builds

Nothing is installed or downloaded; ``python -m benchmarks.gpu "$OUT" --skip tests`` leaves a step out.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

STEPS = ("tests", "speed", "profile", "plot")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--skip", nargs="+", choices=STEPS, default=[])
    parser.add_argument("--profile-one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    if args.profile_one:
        profile(args.folder / "profile.txt")
        return
    folder = str(args.folder)
    commands = {
        "tests": ["pytest", "tests/ops/test_kernels.py", "-m", "gpu", "-q", "--durations=10", "-p", "no:cacheprovider"],
        "speed": ["benchmarks", "--device", "cuda", "--no-tests", "--output", folder],
        "profile": ["benchmarks.gpu", folder, "--profile-one"],
    }
    failed = []
    for step in STEPS:
        if step in args.skip:
            continue
        command = commands[step] if step != "plot" else ["benchmarks.plot", *map(str, args.folder.glob("speed_*.csv"))]
        start = time.monotonic()
        with (args.folder / f"{step}.log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-u", "-m", *command],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            assert process.stdout is not None
            for line in process.stdout:
                log.write(line)
                log.flush()
                print(line, end="", flush=True)
            status = process.wait()
        print(f"== {step}: exit status {status}, {time.monotonic() - start:.0f} s", flush=True)
        if status:
            failed.append(step)
        if step == "tests" and status:
            break  # a wrong result is not worth timing
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}; see {args.folder}")


def profile(path: Path) -> None:
    """Time by kernel of ATD ×4 at 256×256 in bfloat16 on the Triton backend: forward, then a training step."""
    import torch
    from torch.profiler import ProfilerActivity

    from benchmarks.cases import Variant, _make_network, _make_training

    device = torch.device("cuda")
    runs = {
        "forward, 256x256": _make_network("ATD x4", 256, Variant("triton", torch.bfloat16), device),
        "training step, 4 patches of 64x64": _make_training(
            "ATD x4", 64, 4, Variant("triton", torch.bfloat16, autocast=True), device
        ),
    }
    text = []
    for title, run in runs.items():
        for _ in range(3):
            run()
        torch.cuda.synchronize()
        with torch.profiler.profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as profiler:
            run()
            torch.cuda.synchronize()
        table = profiler.key_averages().table(sort_by="self_cuda_time_total", row_limit=40, max_name_column_width=70)
        text += [f"ATD x4, {title}", table]
    path.write_text("\n\n".join(text) + "\n")
    print(path)


if __name__ == "__main__":
    main()
