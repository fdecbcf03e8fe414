"""Checkpoints survive kills, full disks and torn writes."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest
import torch

from atd.training import state as training_state
from atd.training.state import TrainingState


def state_after(iteration: int, value: float | None = None, size: int = 3) -> TrainingState:
    tensor = torch.full((size,), float(iteration if value is None else value))
    return TrainingState(
        iteration=iteration,
        minutes=iteration / 4,
        identity={"model": "x", "config": {"depths": [1, 2]}, "optimiser": "muon", "ema": False},
        scaler={"scale": 2.0},
        model={"a": tensor},
        optimiser={},
        average=None,
    )


def value(folder) -> float | None:
    state, _ = training_state.load_latest(folder)
    return state and state.model["a"][0].item()


def test_round_trip_keeps_the_newest_two(tmp_path):
    assert training_state.load_latest(tmp_path) == (None, [])
    for iteration in (5, 10, 100):
        training_state.save(tmp_path, state_after(iteration))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000010", "00000100"]
    state, problems = training_state.load_latest(tmp_path)
    assert problems == []
    expected = state_after(100)
    assert torch.equal(state.model.pop("a"), expected.model.pop("a"))
    assert state == expected


def test_the_same_iteration_can_be_saved_again(tmp_path):
    training_state.save(tmp_path, state_after(7, value=1))
    training_state.save(tmp_path, state_after(7, value=2))
    assert value(tmp_path) == 2


@pytest.mark.parametrize("file", ["model.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["cut", "flip", "remove"])
def test_a_damaged_checkpoint_is_passed_over_aloud(tmp_path, file, damage):
    training_state.save(tmp_path, state_after(1))
    path = training_state.save(tmp_path, state_after(2)) / file
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        path.write_bytes(content[:-3] + bytes([content[-3] ^ 4]) + content[-2:])
    else:
        path.unlink()
    assert value(tmp_path) == 1
    _, (problem,) = training_state.load_latest(tmp_path)
    assert "00000002 is damaged and was passed over" in problem


@pytest.mark.slow
def test_a_full_disk_leaves_the_last_checkpoint(tmp_path):
    """A limit on file sizes stands for the full disk: both make the system refuse a write half-way."""
    training_state.save(tmp_path, state_after(1))
    script = textwrap.dedent(f"""
        import resource, signal
        from pathlib import Path
        from test_state import state_after
        from atd.training import state as training_state
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        try:
            training_state.save(Path({str(tmp_path)!r}), state_after(2, size=100_000))
        except OSError:
            print("refused")
    """)
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(__file__)}
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert result.stdout == "refused\n", result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["00000001"]
    assert value(tmp_path) == 1


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(tmp_path):
    """A process that saves without pause is killed at two moments; what is found afterwards is always whole."""
    script = textwrap.dedent(f"""
        from pathlib import Path
        from test_state import state_after
        from atd.training import state as training_state
        print("ready", flush=True)
        for iteration in range(1, 10**6):
            training_state.save(Path({str(tmp_path)!r}), state_after(iteration, size=100_000))
            print(iteration, flush=True)
    """)
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(__file__)}
    for milliseconds in (0, 10):
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment)
        for line in process.stdout:
            if line == "3\n":
                break
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(milliseconds / 1000)
        process.send_signal(signal.SIGKILL)
        last = [int(line) for line in process.communicate()[0].split()]
        state, problems = training_state.load_latest(tmp_path)
        assert problems == []
        assert state.iteration >= max(last, default=3)
        assert state.model["a"].unique().tolist() == [state.iteration]


def test_what_is_left_of_a_killed_write_is_removed(tmp_path):
    (tmp_path / "00000009.partial").mkdir()
    (tmp_path / "00000009.partial" / "model.safetensors").write_bytes(b"half")
    assert training_state.load_latest(tmp_path) == (None, [])
    training_state.save(tmp_path, state_after(10))
    assert [path.name for path in tmp_path.iterdir()] == ["00000010"]
    state = json.loads((tmp_path / "00000010" / "state.json").read_text())
    assert set(state["checksums"]) == {"model.safetensors", "optimiser.safetensors"}
