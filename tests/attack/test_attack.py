"""The first cases of every attack, the same ones each time; ``python tests/attack`` goes on from there."""

from __future__ import annotations

import time
from random import Random

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("cv2", reason="OpenCV is not installed")
pytest.importorskip("pyvips", reason="libvips is not installed")

from attacks import images, structure
from attacks.areas import AREAS
from attacks.image_seeds import seeds
from attacks.report import Report, Verdict
from attacks.runner import Case, Wrong, attack, judged

import atd


@pytest.mark.slow
@pytest.mark.parametrize("area", AREAS)
def test_nothing_is_wrong_and_nothing_hangs(area, tmp_path):
    report = Report(atd.__version__, seed=0)
    attack(report, area, AREAS[area].cases, tmp_path, cases=AREAS[area].quick)
    assert not report.findings, report.as_text()
    assert sum(report.counts[area].values()) == AREAS[area].quick


# ---- the attack itself: it must be able to find something


def test_a_result_that_differs_in_one_level_is_found(tmp_path):
    (seed,) = (seed for seed in seeds() if seed.name == "png RGB")
    source, target = tmp_path / "in.png", tmp_path / "out.png"
    source.write_bytes(seed.data)
    target.write_bytes(seed.data)
    images.judge(source, target, seed, None, tmp_path)
    pixels = np.asarray(Image.open(source)).copy()
    pixels[5, 7, 1] += 1
    Image.fromarray(pixels).save(target)
    with pytest.raises(Wrong, match="1 of 255"):
        images.judge(source, target, seed, None, tmp_path)


def test_what_is_restored_of_a_file_that_lost_its_end_is_found(tmp_path):
    (seed,) = (seed for seed in seeds() if seed.name == "bmp RGB")
    source, target = tmp_path / "in.bmp", tmp_path / "out.png"
    source.write_bytes(seed.data[:-200])
    Image.new("RGB", (43, 37)).save(target)
    with pytest.raises(Wrong, match="before the loss"):
        images.judge(source, target, seed, seed, tmp_path)


def test_hanging_defects_and_leftovers_are_told_apart():
    def defect():
        raise KeyError("x")

    def wrong():
        raise Wrong("black")

    def refusal():
        raise atd.AtdError("no")

    assert judged(Case("", lambda: time.sleep(5), seconds=0.05))[0] == Verdict.HUNG
    assert judged(Case("", defect))[0] == Verdict.TRACEBACK
    assert judged(Case("", wrong)) == (Verdict.WRONG, "black")
    assert judged(Case("", refusal))[0] == Verdict.REFUSED
    assert judged(Case("", lambda: None))[0] == Verdict.RESTORED


def test_every_seed_has_a_layout_and_lies_are_other_files():
    for seed in seeds():
        assert structure.structure_of(seed.data).numbers, seed.name
        lies = {structure.lie(seed.data, Random(number)) for number in range(20)}
        assert len(lies) > 5, seed.name
        assert all(len(lie) == len(seed.data) for lie in lies)


def test_a_report_counts_and_tells_the_first_of_each_kind_first():
    report = Report("0", 0)
    for number in range(50):
        report.add("images", number, "tif", Verdict.WRONG, f"{number} of 255")
    report.add("images", 50, "png", Verdict.HUNG, "not done")
    report.add("images", 51, "png", Verdict.REFUSED, "no")
    text = report.as_text(most=3)
    assert text.index("hung: images 50") < text.index("wrong: images 1, ")
    assert "and 48 more" in text
    assert '"refused": 1' in report.as_json()
