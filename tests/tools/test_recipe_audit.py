"""The comparison of the published recipes with the authors' option files."""

from pathlib import Path

import pytest

from atd.training import recipes
from tools import recipe_audit

PAGE = Path(__file__).parents[2] / "docs" / "differences.md"
TRAININGS = recipe_audit.authors_trainings()


def test_the_page_holds_what_the_command_prints():
    text = PAGE.read_text(encoding="utf-8")
    shown = text[text.index(recipe_audit.BEGIN) + len(recipe_audit.BEGIN) : text.index(recipe_audit.END)]
    assert shown.strip() == recipe_audit.table(), "run `python -m tools.recipe_audit docs/differences.md`"


def test_all_24_are_compared_on_what_decides_a_training():
    assert set(TRAININGS) == {name for name in recipes.names() if name[-3:].isdigit()}
    assert len(TRAININGS) == 24
    decisive = {"model", "patch", "batch", "iterations", "lr", "betas", "milestones", "warmup", "ema", "loss", "images"}
    for id, training in TRAININGS.items():
        assert decisive <= training.keys(), id
        assert ("sigma" in training) == (id[0] in "23"), id
        assert ("quality" in training) == (id[0] == "4"), id


@pytest.mark.parametrize("id", TRAININGS)
def test_the_named_key_gives_theirs(id):
    """Precision is the one difference: its type is not in the option files."""
    recipe, training = recipes.get(id), TRAININGS[id]
    different = recipe_audit.differences(recipe, training)
    assert [item.key for item in different] == ([] if id.startswith("cvpr") else ["amp"])
    for item in different:
        assert recipe.override([item.override]).amp == "fp16"


def test_a_recipe_that_departs_is_reported_and_led_back():
    departed = recipes.get("103").override(
        ["lr=1e-4", "milestones=[5]", "validation=Set5", "activation_checkpointing=false", "finetune_from="]
    )
    different = recipe_audit.differences(departed, TRAININGS["103"])
    assert {item.key: (item.theirs, item.ours) for item in different if item.key != "amp"} == {
        "lr": (2e-4, 1e-4),
        "milestones": ((125_000, 200_000, 225_000, 240_000), (5,)),
        "validation": (("Set5", "Set14", "B100", "Urban100", "Manga109"), ("Set5",)),
        "activation_checkpointing": (True, False),
        "finetune_from": ("101", ""),
    }
    restored = departed.override([item.override for item in different if item.key != "amp"])
    assert [item.key for item in recipe_audit.differences(restored, TRAININGS["103"])] == ["amp"]
