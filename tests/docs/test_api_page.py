"""The API page and the package agree, and every example is in the gallery and in a test."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

import atd

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
ENTRIES = re.findall(r"^::: (\S+)\n    options:\n      heading: (\S+)\n", PAGE, re.MULTILINE)


def resolve(path):
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def test_the_page_holds_every_public_name_and_no_other():
    shown = {heading.split(".")[1] for _, heading in ENTRIES if heading.startswith("atd.")}
    shown |= set(re.findall(r"^`atd\.(\w+)`", PAGE, re.MULTILINE))
    assert shown == set(atd.__all__)


def test_the_page_holds_every_operation():
    assert {heading for _, heading in ENTRIES if heading.startswith("atd.ops.")} == {
        f"atd.ops.{name}" for name in atd.ops.__all__
    }


@pytest.mark.parametrize(("path", "heading"), ENTRIES)
def test_an_entry_shows_what_its_heading_says(path, heading):
    shown = resolve(path)
    assert inspect.getdoc(shown)
    if heading.startswith("atd."):
        value = atd
        for name in heading.split(".")[1:]:
            value = getattr(value, name)
        assert value is shown


def test_every_example_is_in_the_gallery_and_in_a_test():
    gallery = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
    tests = "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py") if path != Path(__file__)
    )
    for example in (ROOT / "examples").glob("*.py"):
        assert f'--8<-- "{example.name}"' in gallery
        assert example.stem in tests
