"""The calls for a card: what they do when something fails, and a rehearsal of all that they would run."""

import subprocess
import sys
import tarfile
import textwrap
import time
from importlib.metadata import version
from pathlib import Path

import pytest

from benchmarks.gpu import results, steps
from benchmarks.gpu.memory import largest_side
from benchmarks.gpu.results import Row
from benchmarks.gpu.suite import files_for_a_card, parse

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("limit", [0, 7, 8, 9, 63, 100, 1000])
def test_the_largest_side_is_found_by_bisection(limit):
    tried = []

    def fits(side):
        tried.append(side)
        return side <= limit

    found = largest_side(fits, 8, 4, 400)
    assert found == (min(limit, 400) // 4 * 4 if limit >= 8 else 0)
    assert len(tried) == len(set(tried)) <= 15


def test_outcomes_of_tests_are_read_from_the_log_with_and_without_xdist():
    log = textwrap.dedent("""
        [gw0] [ 10%] PASSED tests/ops/test_kernels.py::test_a[dtype0-case1]
        [gw1] [ 20%] FAILED tests/ops/test_kernels.py::test_b
        tests/ops/test_kernels.py::test_c SKIPPED (needs a CUDA card)    [ 30%]
        FAILED tests/ops/test_kernels.py::test_b - AssertionError: 3 > 2
    """)
    outcomes, messages = parse(log)
    assert {name.split("::")[1]: outcome for name, outcome in outcomes.items()} == {
        "test_a[dtype0-case1]": "PASSED",
        "test_b": "FAILED",
        "test_c": "SKIPPED",
    }
    assert messages == {"tests/ops/test_kernels.py::test_b": "AssertionError: 3 > 2"}
    assert "tests/ops/test_kernels.py" in files_for_a_card()


def run_of(tmp_path, call="tests") -> steps.Run:
    (tmp_path / "files").mkdir()
    return steps.Run(call, tmp_path, tmp_path / "files", rehearse=True, seconds=60)


WORKER = """
import json, os, sys, time
from pathlib import Path
from benchmarks.gpu import results
from benchmarks.gpu.results import Row

call, step, path, files = sys.argv[3:7]
keys = [(step, name, "", "") for name in "abcde"]
Path(files, step + ".json").write_text(json.dumps(keys))
for key in keys:
    if key in results.done(results.read(Path(path))):
        continue
    if key[1] == "b":
        os.abort()
    if key[1] == "d":
        time.sleep(60)
    results.append(Path(path), [Row(call, *key, "seconds", "1", "measured")])
    print(key, flush=True)
    if key[1] == "a":
        sys.exit(75)
"""


def test_a_case_that_ends_its_process_or_hangs_leaves_the_others_alone(tmp_path, monkeypatch):
    """A: measured, and asks for another process. B: aborts. D: hangs. C and E are measured all the same."""
    program = tmp_path / "worker.py"
    program.write_text(WORKER)
    monkeypatch.setattr(steps, "CASE_SECONDS", 1.5)
    command = steps.command
    monkeypatch.setattr(
        steps,
        "command",
        lambda arguments, *args, **options: command([arguments[0], str(program), *arguments[1:]], *args, **options),
    )
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    run = run_of(tmp_path)
    steps.run_cases(run, "step", 40)
    rows = {row.name: row for row in results.read(run.results)}
    assert {name: row.status for name, row in rows.items()} == {
        "a": "measured",
        "b": "failed",
        "c": "measured",
        "d": "failed",
        "e": "measured",
    }
    assert "status -6" in rows["b"].message
    assert "nothing came" in rows["d"].message


def test_what_is_not_reached_is_written_down_and_measured_by_the_next_call(tmp_path):
    run = run_of(tmp_path)
    run.seconds = 0
    steps.run_steps(run, {"goldens": 30.0}, [])
    assert [row.status for row in results.read(run.results)] == [results.NOT_REACHED]
    assert not results.done(results.read(run.results))
    results.append(run.results, [Row("tests", "goldens", "a", "", "", "seconds", "1", "measured")])
    assert results.done(results.read(run.results)) == {("goldens", "a", "", "")}


def ended(pid: int) -> bool:
    """Whether a process is gone, or waits to be collected; a signal takes a moment."""
    for _ in range(100):
        try:
            if Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looking at processes needs Linux")
def test_a_command_that_takes_too_long_is_stopped_with_its_children(tmp_path):
    log = tmp_path / "log"
    child = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    assert steps.command([sys.executable, "-c", program], log, 3, rehearse=True) is None
    pid = int(log.read_text())
    assert ended(pid)


@pytest.mark.slow
@pytest.mark.skipif(
    tuple(map(int, version("triton").split(".")[:2])) < (3, 7)
    and tuple(map(int, version("numpy").split(".")[:2])) >= (2, 4),
    reason="Triton's interpreter of this version cannot run with this NumPy",
)
@pytest.mark.parametrize(("call", "chosen"), [("tests", ["goldens"]), ("memory", ["pixels", "largest"])])
def test_rehearsal(tmp_path, call, chosen):
    """Nothing fails and all is reached, without a card; `--rehearse` of the other calls takes minutes."""
    command = [sys.executable, "-m", "benchmarks.gpu", call, str(tmp_path), "--rehearse", "--steps", *chosen]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = results.read(tmp_path / f"{call}.csv")
    assert {row.status for row in rows} <= {results.REHEARSED, results.NEEDS_CARD}, rows
    assert {row.step for row in rows} == {"machine", *chosen}
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{call}.csv", f"{call}.tar.gz"]
    with tarfile.open(tmp_path / f"{call}.tar.gz") as archive:
        assert f"{call}/{chosen[0]}.log" in archive.getnames()
