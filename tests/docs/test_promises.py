"""Every test that docs/promises.md names exists, and every one that stands for a defect."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PROMISES = (TESTS.parent / "docs" / "promises.md").read_text(encoding="utf-8")
DEFECTS = (TESTS / "attack" / "README.md").read_text(encoding="utf-8")
NAMED = re.findall(r"`(\S+\.py)::(\w+)`", PROMISES + DEFECTS)


def test_every_promise_names_tests_that_exist():
    for file, name in NAMED:
        tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
        names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert name in names, f"{file} has no {name}"


def test_every_promise_is_kept_by_a_test():
    promises = re.split(r"^- ", PROMISES, flags=re.MULTILINE)[1:]
    assert len(promises) > 15
    assert [promise for promise in promises if "::test_" not in promise] == []


def test_every_defect_of_the_first_edition_has_a_test():
    rows = [
        line for line in DEFECTS.splitlines() if line.startswith("| ") and not line.startswith(("| ---", "| defect"))
    ]
    assert [row for row in rows if "::test_" not in row] == []
    assert {f"D{number}" for number in range(1, 16)} <= {row.split()[1] for row in rows}
