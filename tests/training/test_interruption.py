"""Trainings that a signal ends, that two processes want at once, and that SLURM starts."""

import multiprocessing
import os
import re
import shlex
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import atd
from atd.cli import main
from atd.system import exclusive_file
from atd.training import interruption, launch, loop, recipes
from atd.training.interruption import TrainingInterrupted, watched_signals
from atd.training.state import load_latest

TINY = [
    "patch=16", "batch=4", "images=.", "validation=[]", "log_every=1", "save_minutes=60", "schedule=multistep",
    "warmup=1", "minutes=0",
    "config.embed_dim=8", "config.depths=[1]", "config.num_heads=[2]", "config.window_size=8", "held_out=0",
    "config.category_size=32", "config.num_tokens=8", "config.reducted_dim=4", "config.convffn_kernel_size=3",
]  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Four smooth random images."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(4):
        low = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
        low.resize((96, 80), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return folder


def train(folder, out, *overrides, resume=False, say=lambda line: None):
    recipe = recipes.get("small_light_x4").override([*TINY, *overrides])
    return loop.train(recipe, folder, out, resume=resume, say=say)


def state(out, iteration):
    folder = out / "checkpoints" / f"{iteration:08d}"
    return {path.stem: load_file(path) for path in sorted(folder.glob("*.safetensors"))}


def assert_same_state(first, second, **tolerance):
    assert first.keys() == second.keys()
    assert set(first) >= {"model", "optimiser", "average"}
    for part, tensors in first.items():
        assert tensors.keys() == second[part].keys()
        for name, tensor in tensors.items():
            if tolerance:
                torch.testing.assert_close(second[part][name], tensor, **tolerance, msg=f"{part} {name}")
            else:
                assert torch.equal(tensor, second[part][name]), (part, name)


@pytest.mark.slow
def test_sigterm_saves_and_the_printed_command_goes_on_bit_for_bit(photos, tmp_path):
    """A process with loader workers; no checkpoint is due by time, so the one that is there is the signal's."""
    out = tmp_path / "with a space"
    overrides = [*TINY, "iterations=500", "workers=1"]
    start = [sys.executable, "-m", "atd", "train", "small_light_x4", "--data", str(photos), "--output", str(out)]
    process = subprocess.Popen([*start, *overrides], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.strip().startswith("2/500"):
            process.send_signal(signal.SIGTERM)
            break
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, errors
    ended = re.search(
        r"ended by SIGTERM after iteration (\d+); to go on:\n(atd train .*--resume)$", errors, re.MULTILINE
    )
    assert ended, errors
    iteration = int(ended[1])
    assert 2 <= iteration < 500
    assert [path.name for path in (out / "checkpoints").iterdir()] == [f"{iteration:08d}"]
    assert not (out / "model").exists()
    assert not (out / ".lock").exists()

    whole = iteration + 2
    train(photos, tmp_path / "whole", f"iterations={whole}")
    command = shlex.split(ended[2])
    assert main([*command[1:], "--set", f"iterations={whole}", "--set", "workers=0"]) == 0
    assert_same_state(state(tmp_path / "whole", whole), state(out, whole))


@pytest.fixture
def heeded_ctrl_c():
    """SIGINT as a terminal's program has it: a shell's background job ignores it, and so does what it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.usefixtures("heeded_ctrl_c")
def test_ctrl_c_during_validation_does_not_wait_for_its_end(photos, tmp_path, monkeypatch):
    """The signal comes with the first of four images; the others are not scored, and all is saved."""
    done = []
    restore = loop.Validation.run

    def run(self, model, on_image=None):
        def interrupt(scored):
            done.append(scored.pair.name)
            signal.raise_signal(signal.SIGINT)
            on_image(scored)

        return restore(self, model, interrupt)

    monkeypatch.setattr(loop.Validation, "run", run)
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "Set5").symlink_to(photos)
    with pytest.raises(TrainingInterrupted) as interrupted:
        train(tmp_path / "data", tmp_path / "out", "images=Set5", "validation=Set5", "validate_every=1", "iterations=3")
    assert interrupted.value.iteration == 1
    assert interrupted.value.number == signal.SIGINT
    assert done == ["0.png"]
    kept, _ = load_latest(tmp_path / "out" / "checkpoints")
    assert kept.iteration == 1
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.mark.usefixtures("heeded_ctrl_c")
def test_a_second_ctrl_c_ends_at_once(caplog):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), watched_signals() as watched:  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        assert watched.requested
        assert watched.number == signal.SIGINT
        assert "SIGINT: saving after this iteration; once more ends at once" in caplog.text
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the second signal was swallowed")
    assert signal.getsignal(signal.SIGINT) is before


def test_signals_that_are_ignored_stay_so_and_threads_change_nothing():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with watched_signals() as watched:
            signal.raise_signal(signal.SIGINT)
            assert not watched.requested
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)

    seen = []

    def in_a_thread():
        with watched_signals() as watched:
            seen.append((watched.requested, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=in_a_thread)
    thread.start()
    thread.join()
    assert seen == [(False, signal.getsignal(signal.SIGTERM))]


def _load(ready):
    interruption.leave_signals_to_the_main_process(0)
    ready.set()
    time.sleep(600)


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="the system does not say who sends a signal")
def test_loader_processes_are_ended_by_the_main_process_and_nobody_else():
    """A terminal's Ctrl-C and a cluster's SIGTERM go to all processes; here another process sends them."""
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    worker = context.Process(target=_load, args=(ready,), daemon=True)
    worker.start()
    assert ready.wait(10)
    for name in ("INT", "TERM"):
        subprocess.run(["kill", f"-{name}", str(worker.pid)], check=True)
    worker.join(0.3)
    assert worker.exitcode is None
    worker.terminate()
    worker.join(10)
    assert worker.exitcode == 0


HOLDER = """
import sys, time
from pathlib import Path
from atd.system import exclusive_file
with exclusive_file(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_two_trainings_in_one_folder_exclude_each_other_and_a_killed_one_does_not(photos, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(out / ".lock")], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(atd.InputError, match=re.escape(f"another process is training in {out}: wait")):
            train(photos, out, "iterations=1")
        assert [path.name for path in out.iterdir()] == [".lock"]
    finally:
        holder.kill()
        holder.communicate()
    assert (out / ".lock").exists(), "what kill -9 leaves"
    held = []

    def look(line):
        if line.startswith("1/1"):
            with pytest.raises(BlockingIOError), exclusive_file(out / ".lock"):
                pass
            held.append(line)

    train(photos, out, "iterations=1", say=look)
    assert held
    assert not (out / ".lock").exists()


def test_a_training_that_does_not_begin_leaves_no_folder(photos, tmp_path):
    with pytest.raises(atd.RecipeError, match="no training images"):
        train(photos, tmp_path / "out", "images=nowhere", "iterations=1")
    assert not (tmp_path / "out").exists()


SLURM = {
    "SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "gpu[007-009,12]",
    "SLURM_PROCID": "1", "SLURM_LOCALID": "1",
}  # fmt: skip


def test_slurm_says_who_a_process_is():
    assert launch.from_environment(SLURM) == launch.Launch(1, 2, 1, 0, ("gpu007", 24_711))
    chosen = {**SLURM, "MASTER_ADDR": "here", "MASTER_PORT": "5"}
    assert launch.from_environment(chosen) == launch.Launch(1, 2, 1, 0, ("here", 5))
    # torchrun under srun; a batch script's own shell; one task.
    by_torchrun = {**SLURM, "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "TORCHELASTIC_RESTART_COUNT": "2"}
    assert launch.from_environment(by_torchrun) == launch.Launch(3, 4, 1, 2)
    assert launch.from_environment({"SLURM_NTASKS": "2", "SLURM_PROCID": "0", "SLURM_JOB_ID": "1"}) is None
    assert launch.from_environment({**SLURM, "SLURM_STEP_NUM_TASKS": "1"}) is None
    assert launch.from_environment({}) is None


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("a", "a"), ("a1,b2", "a1"), ("n[1-4]", "n1"), ("n[03,5-6],m", "n03"), ("r[1-2]n[10-11]", "r1n10")],
)
def test_first_host_of_slurms_lists(nodes, first):
    assert launch.first_host(nodes) == first


@pytest.mark.slow
def test_two_tasks_of_slurm_equal_one_process_and_stop_together(photos, tmp_path):
    """Both as srun would start them. SIGTERM reaches one of them only; both save the same iteration and end."""
    environment = {**os.environ, **SLURM, "SLURM_STEP_NODELIST": "localhost", "SLURM_JOB_ID": str(os.getpid())}
    environment.pop("RANK", None)
    out = tmp_path / "two"
    arguments = ["train", "small_light_x4", "--data", str(photos), "--output", str(out), *TINY]

    def start(*more):
        return [
            subprocess.Popen(
                [sys.executable, "-m", "atd", *arguments, *more],
                env={**environment, "SLURM_PROCID": rank, "SLURM_LOCALID": rank},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in "01"
        ]

    first, second = start("iterations=500")
    for line in first.stdout:
        if line.strip().startswith("2/500"):
            second.send_signal(signal.SIGTERM)
            break
    errors = [process.communicate(timeout=120)[1] for process in (first, second)]
    assert [first.returncode, second.returncode] == [128 + signal.SIGTERM] * 2, errors
    ended = re.search(r"after iteration (\d+); to go on:\n\(as before, with 2 processes\) -m atd train ", errors[0])
    assert ended, errors
    assert "to go on" not in errors[1]
    done = int(ended[1])
    train(photos, tmp_path / "one", f"iterations={done}")
    assert_same_state(state(tmp_path / "one", done), state(out, done), rtol=1e-4, atol=2e-6)


def test_wandb_gets_the_numbers_and_goes_on_with_its_run(photos, tmp_path, monkeypatch):
    """A module of that name on the path notes the calls; the package itself needs an account or its offline mode."""
    (tmp_path / "wandb.py").write_text(
        textwrap.dedent("""
            calls = []
            class Image:
                def __init__(self, pixels): self.shape = pixels.shape
            class Run:
                id = "run1"
                def log(self, values, step): calls.append(("log", step, values))
                def finish(self): calls.append(("finish",))
            def init(**options):
                calls.append(("init", options))
                return Run()
        """)
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "Set5").symlink_to(photos)
    overrides = ["images=Set5", "validation=Set5", "wandb=restoration"]
    out = tmp_path / "x4"
    train(tmp_path / "data", out, *overrides, "iterations=2")
    import wandb

    calls = list(wandb.calls)
    (name, options), *logged, (finish,) = calls
    assert (name, finish) == ("init", "finish")
    assert (options["project"], options["name"], options["dir"], options["id"]) == ("restoration", "x4", str(out), None)
    assert options["config"]["lr"] == recipes.get("small_light_x4").lr
    assert [(step, sorted(values)) for _, step, values in logged[:3]] == [
        (1, ["loss", "lr"]), (2, ["loss", "lr"]), (2, ["psnr_Set5"]),
    ]  # fmt: skip
    images = {key: image.shape for _, step, values in logged[3:] for key, image in values.items()}
    assert images == {f"Set5/{number}": (80, 96, 3) for number in range(4)}

    wandb.calls.clear()
    train(tmp_path / "data", out, *overrides, "iterations=3", resume=True)
    (_, options), *_ = wandb.calls
    assert (options["id"], options["resume"]) == ("run1", "allow")
    monkeypatch.delitem(sys.modules, "wandb")


def test_wandb_that_is_missing_is_said_with_its_extra(photos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(atd.MissingExtraError, match=re.escape("pip install 'atd-restoration[wandb]'")):
        train(photos, tmp_path / "out", "iterations=1", "wandb=restoration")
