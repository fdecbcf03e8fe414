"""The HTML pages, in a real browser that has no network."""

import numpy as np
import pytest
from browser import inspect, visit
from PIL import Image

from atd.cli import main
from atd.evaluation import report


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Four images; in the last one a sharp square sits in the lower right, which enlarging blurs."""
    folder = tmp_path_factory.mktemp("data") / "photos <&>"
    folder.mkdir()
    for index in range(4):
        pixels = np.full((240, 320, 3), 40 + 40 * index, np.uint8)
        pixels[:, ::16] += 8 * index
        if index == 3:
            pixels[180:220:4, 250:300] = (255, 0, 0)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


@pytest.mark.slow
def test_evaluation_page(browser, photos, tmp_path):
    arguments = ["evaluate", "bicubic", "--scale", "4", "--data", str(photos), "--out", str(tmp_path), "--report"]
    assert main(arguments) == 0
    shown = inspect(browser, tmp_path / "report.html")
    assert shown["requests"] == []
    assert shown["headings"][0] == "photos <&>: lowest PSNR"
    assert [heading.split(":")[0] for heading in shown["headings"][1:]] == ["3.png", "2.png", "1.png"]
    assert [alt for _, alt in shown["images"]][:5] == [
        "the part shown, framed",
        "input",
        "bicubic",
        "reference",
        "|bicubic - reference|",
    ]
    assert len(shown["images"]) == 15
    assert all(width and width > 0 for width, _ in shown["images"])
    assert shown["rows"] == 2 + 5  # the means, and every image

    visit(browser, tmp_path / "report.html", f"--screenshot={tmp_path / 'page.png'}")
    pixels = np.asarray(Image.open(tmp_path / "page.png").convert("RGB")).astype(int)
    # The red square of the worst image is on the screen, in the crop of the reference.
    assert ((pixels[..., 0] > 240) & (pixels[..., 1:].max(-1) < 15)).sum() > 500


def test_comparison_page(browser, photos, tmp_path):
    arguments = ["compare", "bicubic", "lanczos", "--scale", "4", "--data", str(photos), "--out", str(tmp_path)]
    assert main([*arguments, "--report"]) == 0
    shown = inspect(browser, tmp_path / "report.html")
    assert shown["requests"] == []
    assert all(width and width > 0 for width, _ in shown["images"])
    labels = ["input", "A", "B", "reference", "|A - reference|", "|B - reference|", "|A - B|"]
    assert [alt for _, alt in shown["images"]][:8] == ["the part shown, framed", *labels]


def test_worst_window_holds_the_error():
    error = np.zeros((300, 250))
    error[200:210, 30:40] = 5
    top, left = report.worst_window(error, 96)
    assert 0 < top <= 200 < 210 <= top + 96
    assert left <= 30 < 40 <= left + 96
    assert report.worst_window(np.ones((40, 50)), 96) == (0, 0)


def test_heat_runs_from_black_to_white():
    levels = np.array([[0, report.FULL_SCALE / 3, report.FULL_SCALE * 2 / 3, report.FULL_SCALE, 255]])
    assert report.heat(levels)[0].tolist() == [[0, 0, 0], [255, 0, 0], [255, 255, 0], [255, 255, 255], [255, 255, 255]]
