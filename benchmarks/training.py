"""What a training step costs with each backend of the ops, whether they learn alike, and how fast samples come.

    python -m benchmarks.training steps --model atd_light_sr_x4 --patch 32 --batch 4
    python -m benchmarks.training curves --data DIR        # loss of the fast and of the plain path over 200 steps
    python -m benchmarks.training loader --data DIR        # samples a second for each worker process

`steps` times all backends in turn in one process, in core seconds on a CPU and wall-clock seconds on a card, and
measures the memory of each in a process of its own: the rise of the resident set's high-water mark during a step on the
CPU (Linux), torch.cuda.max_memory_allocated on a card. Results go to results/training_*.csv.
"""

from __future__ import annotations

import argparse
import csv
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch

import atd
from atd import ops
from atd.tasks import Denoising, JpegArtefacts, SuperResolution
from atd.training import data, losses, optim, recipes
from atd.training.data import Degradation, ImageSource, Patches

RESULTS = Path(__file__).parent / "results"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    steps = commands.add_parser("steps")
    steps.add_argument("--model", default="atd_light_sr_x4")
    steps.add_argument("--patch", type=int, default=32)
    steps.add_argument("--batch", type=int, default=4)
    steps.add_argument("--repeats", type=int, default=5)
    steps.add_argument("--dtype", choices=DTYPES, default="float32")
    steps.add_argument("--memory-of", choices=ops.backend.BACKENDS, help=argparse.SUPPRESS)
    curves = commands.add_parser("curves")
    curves.add_argument("--steps", type=int, default=200)
    loader = commands.add_parser("loader")
    loader.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    for command in (curves, loader):
        command.add_argument("--data", type=Path, required=True, help="folder of training images")
    args = parser.parse_args()
    if args.command == "steps" and args.memory_of:
        print(peak_memory(args))
    else:
        {"steps": measure_steps, "curves": compare_curves, "loader": measure_loader}[args.command](args)


def machine() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def backends() -> list[str]:
    """The plain formulation first, then what can run here."""
    usable, _ = ops.can_use_triton(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    return ["reference", "torch", *(["triton"] if usable else [])]


def make_step(args: argparse.Namespace) -> Callable[[], None]:
    """One iteration of training on random images."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    model = atd.create(args.model).to(device).train()
    recipe = recipes.get("101" if model.scale > 1 else "201")
    optimiser = optim.build(model, recipe)
    inputs = torch.rand(args.batch, model.in_channels, args.patch, args.patch, device=device)
    targets = inputs.repeat_interleave(model.scale, 2).repeat_interleave(model.scale, 3)
    dtype = DTYPES[args.dtype]

    def step() -> None:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            output = model(inputs)
        losses.pixel_loss(recipe, output.float(), targets).backward()
        optimiser.step()
        optimiser.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return step


def measure_steps(args: argparse.Namespace) -> None:
    step = make_step(args)
    names = backends()
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for repeat in range(args.repeats + 1):
        for name in names:
            with ops.use(name):
                start = clock()
                step()
                if repeat:  # the first of each warms up
                    seconds[name].append(clock() - start)
    plain = statistics.median(seconds["reference"])
    rows = []
    for name in names:
        command = [sys.executable, "-m", "benchmarks.training", *sys.argv[1:], "--memory-of", name]
        memory = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        median = statistics.median(seconds[name])
        print(
            f"{args.model} {name:10s} batch {args.batch} patch {args.patch} {args.dtype}: {median:.3f} s a step "
            f"(from {min(seconds[name]):.3f} to {max(seconds[name]):.3f}), {plain / median:.2f} times the reference, "
            f"{memory / 2**20:.0f} MiB"
        )
        rows.append([args.model, name, args.batch, args.patch, args.dtype, f"{median:.4f}", memory])
    write("steps", ["model", "backend", "batch", "patch", "dtype", "seconds", "peak_bytes"], rows)


def peak_memory(args: argparse.Namespace) -> int:
    """Bytes of one step beyond what the model, the optimiser's state and a step on tiny images hold."""
    small = argparse.Namespace(**{**vars(args), "patch": 16, "batch": 1})
    with ops.use(args.memory_of):
        make_step(small)()
        step = make_step(args)
        if torch.cuda.is_available():
            held = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            step()
            return torch.cuda.max_memory_allocated() - held
        Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the highest resident size so far
        before = resident("VmHWM")
        step()
        return resident("VmHWM") - before


def resident(kind: str) -> int:
    """Bytes resident now (VmRSS) or at most (VmHWM)."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[kind].split()[0]) * 1024


def compare_curves(args: argparse.Namespace) -> None:
    """Train a small network with the plain and with the fast path, and with other data as a measure of the noise."""
    overrides = ["patch=16", "batch=4", "warmup=20", "minutes=0", f"iterations={args.steps}"]
    recipe = recipes.get("laptop_x4").override([*overrides, "config.depths=[2, 2]"])
    source = ImageSource(data.find_images(args.data), Degradation(SuperResolution(4)), 3, 64)
    runs = {"reference": (0, "reference"), "fast": (0, "auto"), "reference, other data": (1, "reference")}
    losses = {label: curve(recipe, source, seed, backend) for label, (seed, backend) in runs.items()}
    rows = [[step, *(f"{losses[label][step]:.6f}" for label in runs)] for step in range(args.steps)]
    tail = args.steps // 2
    means = {label: statistics.mean(values[-tail:]) for label, values in losses.items()}
    for label, mean in means.items():
        print(f"{label:22s} first step {losses[label][0]:.6f}, mean of the last {tail} steps {mean:.6f}")
    noise = statistics.stdev(losses["reference"][-tail:]) / tail**0.5
    print(
        f"fast − reference {means['fast'] - means['reference']:+.6f}, other data − reference "
        f"{means['reference, other data'] - means['reference']:+.6f}, standard error of such a mean {noise:.6f}"
    )
    write("curves", ["step", *runs], rows, append=False)


def curve(recipe: recipes.Recipe, source: ImageSource, seed: int, backend: str) -> list[float]:
    """The loss of every step."""
    torch.manual_seed(recipe.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = atd.create(recipe.model, **recipe.config).to(device).train()
    optimiser = optim.build(model, recipe)
    losses = []
    batches = data.loader(Patches(source, recipe.patch[0], seed), 0, recipe.batch[0], recipe.total_iterations)
    with ops.use(backend):
        for iteration, (inputs, targets) in enumerate(batches):
            optim.set_rate(optimiser, optim.rate_factor(recipe, iteration))
            loss = losses.pixel_loss(recipe, model(inputs.to(device)), targets.to(device))
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
            losses.append(loss.item())
    return losses


def measure_loader(args: argparse.Namespace) -> None:
    """Samples a second from files on disk, nothing kept in memory, at the sizes of the published recipes."""
    rows = []
    cases = {
        "sr x4, LR on the fly": (Degradation(SuperResolution(4)), 64),
        "sr x4, LR from memory": (Degradation(SuperResolution(4)), 64),
        "denoise, sigma 25": (Degradation(Denoising(), (25, 25)), 256),
        "jpeg, quality 10": (Degradation(JpegArtefacts(), (10, 10)), 256),
    }
    files = data.find_images(args.data)
    for label, (degradation, patch) in cases.items():
        source = ImageSource(
            files, degradation, 3, patch * degradation.task.scale, cache_gb=8 if "memory" in label else 0
        )
        samples = Patches(source, patch, 0)
        for number in range(4):
            samples[number]
        start = time.process_time()
        for number in range(4, 44):
            samples[number]
        milliseconds = (time.process_time() - start) / 40 * 1000
        for workers in args.workers:
            batches = iter(data.loader(samples, 0, 8, 40, workers=workers))
            for _ in range(8):
                next(batches)
            begin, count = time.perf_counter(), sum(len(inputs) for inputs, _ in batches)
            rate = count / (time.perf_counter() - begin)
            print(
                f"{label:22s} patch {patch:3d}: {milliseconds:.1f} ms of a core a sample; "
                f"{workers} workers: {rate:.0f} samples a second"
            )
            rows.append([label, patch, f"{milliseconds:.2f}", workers, f"{rate:.1f}"])
    write("loader", ["case", "patch", "core_milliseconds", "workers", "samples_per_second"], rows)


def write(name: str, header: list[str], rows: list[list], append: bool = True) -> None:
    path = RESULTS / f"training_{name}.csv"
    path.parent.mkdir(exist_ok=True)
    new = not (append and path.exists())
    with path.open("w" if new else "a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow([*header, "machine", "torch", "date"])
        writer.writerows([*row, machine(), torch.__version__, date.today().isoformat()] for row in rows)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
