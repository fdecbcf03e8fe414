"""The HTML pages, in a real browser that has no network."""

import json

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
    assert [heading.split(":")[0] for heading in shown["headings"][1:]] == [
        *("3.png", "2.png", "1.png"),
        *("3.png", "2.png", "1.png", "0.png"),  # behind sliders
    ]
    assert [alt for _, alt in shown["images"]][:5] == [
        "the part shown, framed",
        "input",
        "bicubic",
        "reference",
        "|bicubic - reference|",
    ]
    assert len(shown["images"]) == 15 + 2 * 4  # crops of the worst three, and every image before and after
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


# Sorts the table of all images by each column, moves a slider by its handle and by dragging, and tells how wide the
# page is in a frame.
_USING = """<script>addEventListener("load", () => {
  const page = document.querySelector("iframe").contentDocument, view = page.defaultView;
  for (const details of page.querySelectorAll("details")) details.open = true;
  const table = page.querySelector("table.sortable"), heads = [...table.querySelectorAll("th button")];
  const column = index => [...table.rows].slice(1).map(row => row.cells[index].textContent);
  const sorted = {};
  heads.forEach((head, index) => {
    head.click();
    const first = column(index);
    head.click();
    sorted[head.textContent] = [first, column(index)];
  });
  const slider = page.querySelector(".slider"), handle = slider.querySelector("input");
  const pair = slider.querySelector(".pair"), box = pair.getBoundingClientRect();
  const cut = () => view.getComputedStyle(pair.lastChild).clipPath;
  const before = cut();
  handle.value = 80;
  handle.dispatchEvent(new Event("input"));
  const moved = cut();
  pair.setPointerCapture = () => {};
  pair.dispatchEvent(new view.PointerEvent("pointerdown", {clientX: box.left + box.width / 4, buttons: 1}));
  const sizes = [...pair.children].map(image => [image.clientWidth, image.clientHeight]);
  document.title = JSON.stringify({sorted, before, moved, dragged: cut(), handle: handle.value, sizes,
    widths: [page.documentElement.clientWidth, page.documentElement.scrollWidth]});
})</script></body>"""


@pytest.mark.parametrize("width", [360, 1200])
def test_a_page_is_sorted_and_slid_on_phones_and_desks(browser, photos, tmp_path, width):
    arguments = ["evaluate", "bicubic", "--scale", "4", "--data", str(photos), "--out", str(tmp_path), "--report"]
    assert main(arguments) == 0
    scores = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    frame = f'<title></title><body><iframe src="report.html" width="{width}" height="800"></iframe></body>'
    (tmp_path / "frame.html").write_text(frame, encoding="utf-8")
    shown = inspect(browser, tmp_path / "frame.html", _USING, "--allow-file-access-from-files")
    (images,) = [scored["images"] for scored in scores["sets"].values()]
    psnr = sorted("∞" if image["psnr"] is None else f"{image['psnr']:.2f}" for image in images.values())
    assert len(set(psnr)) > 2
    assert shown["sorted"]["PSNR (dB)"] == [psnr[::-1], psnr]
    assert shown["sorted"]["image"] == [sorted(images, reverse=True), sorted(images)]
    assert shown["before"] == "inset(0px 0px 0px 50%)"
    assert shown["moved"] == "inset(0px 0px 0px 80%)"
    assert shown["dragged"] == "inset(0px 0px 0px 25%)"
    assert shown["handle"] == "25"
    (first, second) = shown["sizes"]
    assert first == second
    window, content = shown["widths"]
    assert content <= window <= width


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
