"""The tables of docs/backends.md from results. The figures here are invented."""

import argparse
import json
import shutil
from pathlib import Path

import pytest

from benchmarks.gpu import report, results
from benchmarks.gpu.results import Row

HERE = Path(__file__).parent / "synthetic_gpu_results"
PAGE = Path(__file__).parents[2] / "docs" / "backends.md"


def reported(tmp_path, folder=HERE, table=None) -> str:
    page = tmp_path / "backends.md"
    shutil.copy(PAGE, page)
    report.run(argparse.Namespace(output=[folder], page=page, memory_table=table))
    return page.read_text()


def block(text: str, name: str) -> list[str]:
    return text.split(f"<!-- gpu: {name} -->\n")[1].split(f"<!-- /gpu: {name} -->")[0].splitlines()


def test_the_page_has_a_place_for_every_table():
    text = PAGE.read_text()
    for name in report.TABLES:
        assert block(text, name)


def test_each_route_has_a_line_with_its_gain_or_the_reason_why_it_has_none(tmp_path):
    lines = block(reported(tmp_path), "networks")
    assert lines[0] == "On one invented card, torch 0.0, triton 0.1, CUDA 0.2:"
    assert lines[4:] == [
        "| ATD x4, 256×256 | authors' formulas, float32 | 200 ms | 1.00 | 0.50 | 8000 MB | 0.0e+00 |",
        "| ATD x4, 256×256 | authors' formulas, bfloat16 autocast | 100 ms | 2.00 | 1.00 | 4000 MB | 2.0e-03 |",
        "| ATD x4, 256×256 | `triton`, bfloat16 | 40 ms | 5.00 | 2.50 | 500 MB | 4.0e-03 |",
        "| ATD x4, 256×256 | `triton`, float16 | failed | failed | failed | failed | failed |",
        "| ATD x4, 256×256 | `triton`, bfloat16, CUDA graph | not reached | not reached | not reached | not reached "
        "| not reached |",
    ]


def test_the_other_tables(tmp_path):
    text = reported(tmp_path)
    assert block(text, "training")[-1].startswith(
        "| ATD x4, 4×64×64 | `triton`, float32 weights, autocast | 500 ms | 4.00"
    )
    assert block(text, "largest")[-2:] == [
        "| ATD x4 | `triton`, bfloat16 | 3200×3200 |",
        "| ATD x4 | authors' formulas, float32 | 1024×1024 |",
    ]
    memory = block(text, "memory")
    assert "| atd_sr_x4 | 60,000 | 7,000 | 15,000 | 3.96 |" in memory
    assert "| atd_sr_x2 | – | 6,500 | – | 4.26 |" in memory
    assert block(text, "kernels")[-1] == (
        "| ATD x4 window_attention, 256×256 | forward | 0.5 ms | grouped_attention._forward num_warps=8 num_stages=2 | "
        "0.4 ms |"
    )
    tests = block(text, "tests")
    assert "`pytest -m gpu`: 1 failed, 57 passed." in tests
    assert tests[-1] == "| triton float32 | 2 | 2.0e-06 |"


def test_a_report_made_again_is_the_same(tmp_path):
    page = tmp_path / "backends.md"
    first = reported(tmp_path)
    report.run(argparse.Namespace(output=[HERE], page=page, memory_table=None))
    assert page.read_text() == first
    outside = first
    for name in report.TABLES:
        outside = report.replaced(outside, name, block(PAGE.read_text(), name))
    assert outside == PAGE.read_text()


def test_a_rehearsal_is_no_measurement(tmp_path):
    results.append(
        tmp_path / "networks.csv", [Row("networks", "goals", "a", "b", "c", "p50_ms", "1", results.REHEARSED)]
    )
    with pytest.raises(SystemExit, match="rehearsal"):
        reported(tmp_path, tmp_path)


def test_the_memory_table_has_the_largest_figure_of_every_dtype(tmp_path):
    reported(tmp_path, table=tmp_path / "memory.json")
    table = json.loads((tmp_path / "memory.json").read_text())
    assert table["bytes_per_pixel"] == {"ATD 216": {"bfloat16": 9000, "float32": 15000}}
    assert table["backend"] == "triton"
