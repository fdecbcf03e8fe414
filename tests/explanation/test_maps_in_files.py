"""The images, and the page in a real browser."""

import numpy as np
import pytest
from browser import inspect
from PIL import Image
from small_networks import photo, small

import atd
from atd.cli import main
from atd.explanation import drawing
from atd.explanation.files import write_explanation

# Points at a pixel, then clicks it, and collects what the page says.
_POINTING = """<script>
const wait = setInterval(() => {
  if (!document.body.dataset.ready) return;
  clearInterval(wait);
  const canvas = document.getElementById("canvas"), box = canvas.getBoundingClientRect();
  const at = ([x, y]) => ({clientX: box.left + (x + .5) * box.width / canvas.width,
                           clientY: box.top + (y + .5) * box.height / canvas.height});
  const send = (name, pixel) => canvas.dispatchEvent(new PointerEvent(name, at(pixel)));
  const lit = () => {
    const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    return [...Array(canvas.width * canvas.height).keys()].filter(i =>
      Math.max(...pixels.slice(4 * i, 4 * i + 3)) > 60).length;
  };
  const slider = document.getElementById("layer");
  const result = {};
  for (const layer of [1, 3]) {
    slider.value = layer;
    slider.dispatchEvent(new Event("input"));
    send("pointermove", [5, 6]);
    const pointed = document.getElementById("about").textContent, members = lit();
    send("click", [5, 6]);
    result[layer] = {name: document.getElementById("name").value, pointed, members,
      clicked: document.getElementById("about").textContent, attended: lit()};
    send("click", [5, 6]);
  }
  result.requests = performance.getEntriesByType("resource").map(entry => entry.name)
    .filter(name => !name.startsWith("data:"));
  document.title = JSON.stringify(result);
}, 20);
</script></body>"""


@pytest.fixture(scope="module")
def explanation():
    # Bright everywhere, so that what is darkened is known from what is not.
    return atd.explain(small("ATD"), photo().clip(120, None))


def test_the_page_answers_what_the_arrays_say(browser, explanation, tmp_path):
    write_explanation(explanation, tmp_path)
    shown = inspect(browser, tmp_path / "index.html", _POINTING)
    assert shown.pop("requests") == []
    for number, layer in ((1, explanation.layers[0]), (3, explanation.layers[2])):
        entry = int(layer.category[6, 5])
        members = int(layer.members(entry).sum())
        said = shown[str(number)]
        assert said["name"] == f"{number} of 3: {layer.name}"
        assert f"category {entry} of 6, which {members} of 126 tokens share" in said["pointed"]
        assert f"cosine to its entry {layer.similarity()[6, 5]:.2f}" in said["pointed"]
        assert said["members"] == members
        assert said["attended"] == layer.group(6, 5).sum()
        assert "It attends to 16 tokens" in said["clicked"]


def test_the_page_fits_a_phone(browser, explanation, tmp_path):
    write_explanation(explanation, tmp_path)
    # A frame, since the window of a headless browser is never as narrow as a phone.
    frame = """<iframe src="index.html" width="360" height="700"></iframe><script>addEventListener("load", () => {
      const page = document.querySelector("iframe").contentDocument.documentElement;
      document.title = JSON.stringify([page.clientWidth, page.scrollWidth]) })</script></body>"""
    (tmp_path / "frame.html").write_text("<title></title><body></body>", encoding="utf-8")
    window, content = inspect(browser, tmp_path / "frame.html", frame, "--allow-file-access-from-files")
    assert 300 < window <= 360
    assert content <= window


def test_members_are_bright_and_the_rest_is_dark(explanation):
    layer = explanation.layers[0]
    entry = layer.largest(1)[0]
    shown = drawing.highlighted(explanation.image, layer.members(entry), layer)
    np.testing.assert_array_equal(shown[layer.members(entry)], explanation.image[layer.members(entry)])
    assert shown[~layer.members(entry)].max() < 80


def test_a_colour_is_one_category():
    colours = drawing.palette(512)
    assert len(np.unique(colours, axis=0)) == 512


@pytest.mark.slow
def test_the_command_writes_images_arrays_and_the_page(tmp_path, capsys):
    Image.fromarray(photo(20, 24)).save(tmp_path / "photo.png")
    model = small("ATDU")
    model.save_pretrained(tmp_path / "net")
    arguments = ["explain", str(tmp_path / "photo.png"), "-o", str(tmp_path / "maps"), "-n", str(tmp_path / "net")]
    assert main([*arguments, "--crop", "2,3,20,16", "--at", "4,5", "--at", "19,15"]) == 0
    assert "open" in capsys.readouterr().out
    names = sorted(path.name for path in (tmp_path / "maps").iterdir())
    assert names == ["at_19_15.png", "at_4_5.png", "index.html", *(f"layer_{i}.png" for i in range(1, 5)),
                     "layers.png", "maps.npz"]  # fmt: skip
    arrays = np.load(tmp_path / "maps" / "maps.npz")
    expected = atd.explain(model, photo(20, 24)[3:19, 2:22])
    np.testing.assert_array_equal(arrays["image"], expected.image)
    for layer in expected.layers:
        np.testing.assert_array_equal(arrays[f"{layer.name}.category"], layer.category)
    assert main([*arguments, "--crop", "2,3,20,16", "--at", "20,5"]) == 2
    assert "--at 20,5 does not lie in the 20×16 pixels" in capsys.readouterr().err


def test_the_command_leaves_the_backend_that_was_chosen_before(tmp_path, capsys):
    Image.fromarray(photo()).save(tmp_path / "photo.png")
    small("ATD").save_pretrained(tmp_path / "net")
    with atd.ops.use("triton"):  # which needs a card
        assert main(["explain", str(tmp_path / "photo.png"), "-o", str(tmp_path), "-n", str(tmp_path / "net")]) == 2
    assert "triton" in capsys.readouterr().err
