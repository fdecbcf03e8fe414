"""The floor plan: the counter itself on small houses, then the house that we live in."""

import pytest

from tools import rooms


def house(**modules: str) -> rooms.House:
    """Modules of a package `atd`, named by their paths with ``__`` for the slash."""
    return rooms.read_house(
        {f"atd/{name.replace('__', '/')}.py": source for name, source in {"__init__": "", **modules}.items()}
    )


HIDDEN = {
    "in_a_function": "def f():\n    from atd.top import value",
    "for_types": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import atd.top",
    "by_name": "import importlib\nimportlib.import_module('atd.top')",
}


@pytest.mark.parametrize("hidden", HIDDEN.values(), ids=HIDDEN)
def test_a_hidden_import_is_an_arrow_and_closes_a_circle(hidden):
    plan = house(top="from atd import bottom", bottom=hidden)
    assert plan.circles == [["atd.bottom", "atd.top"]]
    assert plan.floors["atd.top"] == plan.floors["atd.bottom"] == 1


def test_floors_are_the_longest_chain():
    plan = house(
        a="",
        b="from atd.a import x",
        c="import atd.a",
        room__d="from atd import b, c",
        room__e="from atd.room import d",
    )
    assert {name: plan.floors[f"atd.{name}"] for name in ("a", "b", "c", "room")} == {"a": 1, "b": 2, "c": 2, "room": 3}
    assert plan.circles == plan.room_circles == []


def test_rooms_can_form_a_circle_although_no_module_does():
    plan = house(one__a="from atd.two import b", one__c="", two__b="", two__d="from atd.one import c")
    assert plan.circles == []
    assert plan.room_circles == [["atd.one", "atd.two"]]


def test_the_house_has_no_circle_and_few_floors():
    plan = rooms.read_house(rooms.sources_of_tree())
    assert plan.circles == []
    assert plan.room_circles == []
    assert max(plan.floors.values()) <= 10
    assert len(plan.in_the_root) <= 10


def test_drawn_page_is_the_house():
    """docs/architecture.md shows what `python -m tools.rooms docs/architecture.md` writes."""
    page = rooms.ROOT / "docs" / "architecture.md"
    text = page.read_text(encoding="utf-8")
    shown = text[text.index(rooms.BEGIN) + len(rooms.BEGIN) : text.index(rooms.END)].strip()
    assert shown == rooms.markdown(rooms.read_house(rooms.sources_of_tree()))
