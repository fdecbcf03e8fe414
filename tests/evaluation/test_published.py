"""All published test configurations in one table: every number computed apart, every gap with its reason."""

import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from small_networks import small

import atd
from atd import registry
from atd.cli import main
from atd.evaluation.published import choose_networks

# fmt: off
SR = {"embed_dim": 12, "depths": [2, 1], "num_heads": [2, 3], "window_size": 4, "category_size": 16, "num_tokens": 6,
      "reducted_dim": 3, "dim_ffn_td": 2, "convffn_kernel_size": 3, "mlp_ratio": 1, "upsampler": "pixelshuffledirect"}
GRAY = {"embed_dim": 4, "depths": [1, 1], "num_heads": [1, 2], "window_size": [4, 2], "category_size": [8, 16],
        "num_tokens": [5, 6], "reducted_dim": [2, 2], "dim_ffn_td": [1, 2], "convffn_kernel_size": 3, "in_chans": 1}
# fmt: on


@pytest.fixture
def table(monkeypatch):
    """The registry with small networks under the published names and scores."""
    rows = {name: registry.get(name) for name in registry.list_models()}
    rows["atd_light_sr_x2"] = replace(rows["atd_light_sr_x2"], config={**SR, "upscale": 2})
    for name in ("atd_u_gray_dn25", "atd_u_gray_jpeg10", "atd_u_gray_jpeg20"):
        rows[name] = replace(rows[name], config=GRAY)
    monkeypatch.setattr(registry, "_table", lambda: rows)
    return rows


@pytest.fixture
def folder(tmp_path, table):
    """Weights under the authors' file names; Set5 of five images, classic5 of one, Urban100 of one colour PNG."""
    rng = np.random.default_rng(0)

    def save(name, shape):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (5, 6, *shape[2:]), dtype=np.uint8))
        coarse.resize(shape[1::-1], Image.Resampling.BICUBIC).save(path)

    for number in range(5):
        save(f"Set5/HR/{number}.png", (40, 48, 3))
        save(f"Set5/LR_bicubic/X2/{number}.png", (20, 24, 3))
    save("CAR/classic5/Classic5_HQ/a.png", (40, 32))
    save("Urban100/HR/a.png", (32, 40, 3))
    (tmp_path / "weights").mkdir()
    for name, file in (
        ("atd_light_sr_x2", "101_ATD_light_SRx2_scratch.pth"),
        ("atd_u_gray_dn25", "302_ATD_U_denoising_gray_sigma25.pth"),
        ("atd_u_gray_jpeg10", "401_ATD_U_jpegcar_gray_q10.pth"),
    ):
        network = small("ATD" if "sr" in name else "ATDU", **table[name].config)
        torch.save({"params_ema": network.state_dict()}, tmp_path / "weights" / file)
    return tmp_path


def psnr(a, b, peak):
    return 10 * np.log10(peak**2 / np.mean((np.asarray(a, np.float64) - b) ** 2))


def restored(name, folder, file, x):
    """The network called by hand on (h, w, c) of range 0..1."""
    model = atd.load(name, weights=folder / "weights" / file)
    tensor = torch.from_numpy(np.ascontiguousarray(x, np.float32)).movedim(-1, 0)[None]
    with torch.no_grad():
        return model(tensor)[0].clamp(0, 1).movedim(0, -1).numpy()


def luma(rgb, order=(0, 1, 2)):
    weights = np.array([65.481, 128.553, 24.966])[list(order)]
    return 16 + np.asarray(rgb, np.float64) @ weights / 255


def compressed(gray):
    buffer = io.BytesIO()
    Image.fromarray(gray).save(buffer, "JPEG", quality=10)
    return np.asarray(Image.open(buffer))


def test_numbers_beside_the_published_ones_and_reasons_for_what_is_missing(folder, capsys):
    data = folder / "data"
    arguments = ["evaluate", "--published", "--data", str(data), "--weights", str(folder / "weights")]
    assert main([*arguments, "--output", str(folder / "out"), "--backend", "reference"]) == 0
    printed = capsys.readouterr().out
    content = json.loads((folder / "out" / "published.json").read_text())
    rows = {(row["network"], row["set"]): row for row in content["rows"]}
    assert len({network for network, _ in rows}) == 16
    assert len(rows) == 6 * 5 + 3 * 4 + 3 * 3 + 4 * 3
    measured = {key for key, row in rows.items() if row["ours"]}
    assert measured == {
        ("atd_light_sr_x2", "Set5"), ("atd_light_sr_x2", "Urban100"), ("atd_u_gray_dn25", "Urban100"),
        ("atd_u_gray_jpeg10", "classic5"), ("atd_u_gray_jpeg10", "Urban100"),
    }  # fmt: skip

    # Super-resolution, by hand.
    expected = []
    for number in range(5):
        hr = np.asarray(Image.open(data / f"Set5/HR/{number}.png"))
        lr = np.asarray(Image.open(data / f"Set5/LR_bicubic/X2/{number}.png")) / 255
        sr = np.rint(restored("atd_light_sr_x2", folder, "101_ATD_light_SRx2_scratch.pth", lr) * 255)
        expected.append(psnr(luma(sr)[2:-2, 2:-2], luma(hr)[2:-2, 2:-2], 255))
    row = rows["atd_light_sr_x2", "Set5"]
    assert row["ours"]["psnr"] == pytest.approx(np.mean(expected), abs=0.01)
    assert row["published"] == {"psnr": 38.33, "ssim": 0.9618}
    assert row["difference"] == pytest.approx(np.mean(expected) - 38.33, abs=0.01)
    assert (row["option"], row["images"], row["reason"]) == ("101_ATD_light_SRx2_scratch", 5, None)

    # Urban100 with JPEG: the weights of R, G and B on B, G and R; PSNR of the output as it is.
    rgb = np.asarray(Image.open(data / "Urban100/HR/a.png"))
    gray = np.floor(luma(rgb, (2, 1, 0)) + 0.5).astype(np.uint8)
    output = restored("atd_u_gray_jpeg10", folder, "401_ATD_U_jpegcar_gray_q10.pth", compressed(gray)[..., None] / 255)
    row = rows["atd_u_gray_jpeg10", "Urban100"]
    assert row["ours"]["psnr"] == pytest.approx(psnr(output[..., 0], gray / 255, 1), abs=0.01)
    assert row["difference"] is None
    assert row["reason"] == "1 of 100 images, not comparable"

    # Urban100 with noise: gray as OpenCV decodes a PNG.
    red, green, blue = np.moveaxis(rgb.astype(int), -1, 0)
    gray = ((9797 * red + 19234 * green + 3737 * blue) >> 15) / 255
    noisy = gray[..., None] + np.random.RandomState(0).normal(0, 25 / 255, (*gray.shape, 1))
    output = restored("atd_u_gray_dn25", folder, "302_ATD_U_denoising_gray_sigma25.pth", noisy)
    assert rows["atd_u_gray_dn25", "Urban100"]["ours"]["psnr"] == pytest.approx(psnr(output[..., 0], gray, 1), abs=0.01)

    # What is missing says why: the set, or the weights.
    assert "there is no set 'Manga109'" in rows["atd_light_sr_x2", "Manga109"]["reason"]
    assert "holds none of 003_ATD_SRx4_finetune.pth, atd_sr_x4" in rows["atd_sr_x4", "Set5"]["reason"]
    assert "there is no set 'LIVE1'" in rows["atd_u_gray_jpeg20", "LIVE1"]["reason"]

    # One table: printed, in Markdown and in HTML.
    assert printed == (folder / "out" / "published.md").read_text()
    lines = printed.splitlines()
    assert sum(line.startswith("| ") for line in lines) == len(rows) + 2
    score = f"{np.mean(expected):.2f} / "
    assert any(re.match(r"\| 101_\S+ \| atd_light_sr_x2 \| Set5 \| 5 \| 38.33 / 0.9618 \| " + score, x) for x in lines)
    page = (folder / "out" / "published.html").read_text()
    assert page.count("<tr>") == len(rows) + 1
    assert f"<td>{score}" in page
    assert "holds none of 003_ATD_SRx4_finetune.pth" in page


def test_networks_and_sets_can_be_chosen(folder, capsys):
    arguments = ["evaluate", "atd_u_gray_jpeg?0", "--published", "--data", str(folder / "data"), "--sets", "CLASSIC5"]
    assert main([*arguments, "--weights", str(folder / "weights")]) == 0
    table = capsys.readouterr().out
    assert [line.split(" | ")[1:3] for line in table.splitlines() if line.startswith("| 40")] == [
        [f"atd_u_gray_jpeg{quality}", "classic5"] for quality in (10, 20, 30, 40)
    ]
    assert {info.name for info in choose_networks("atd_cvpr*")} == {
        f"atd_cvpr_{kind}sr_x{scale}" for kind in ("", "light_") for scale in (2, 3, 4)
    }


def test_what_cannot_be_measured_is_said(folder, capsys, cache):
    assert main(["evaluate", "--published", "--data", str(folder / "nowhere")]) == 2
    assert "is not a folder" in capsys.readouterr().err
    data = ["--data", str(folder / "data")]
    assert main(["evaluate", *data]) == 2
    assert "needs a MODEL, or --published" in capsys.readouterr().err
    assert main(["evaluate", "--published", *data, "--sigma", "25"]) == 2
    assert "measures as the papers do: leave out --sigma" in capsys.readouterr().err
    assert main(["evaluate", "swinir*", "--published", *data]) == 2
    assert "no network with published scores matches 'swinir*'" in capsys.readouterr().err
    # Official weights that cannot be had: no number, the reason below the table, and a status that says so.
    assert main(["evaluate", "atd_light_sr_x2", "--published", *data, "--sets", "Set5"]) == 1
    output = capsys.readouterr().out
    assert "| 101_ATD_light_SRx2_scratch | atd_light_sr_x2 | Set5 | – | 38.33 / 0.9618 | – |  |" in output
    assert re.search(r"^- atd_light_sr_x2 on Set5: .*weights", output, re.MULTILINE)
