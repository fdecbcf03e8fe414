import csv
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from small_networks import small

import atd
from atd.cli import main
from atd.evaluation import cost
from atd.evaluation.candidates import RunOptions, from_model, open_candidate
from atd.evaluation.planning import plan_evaluation
from atd.evaluation.protocol import Protocol
from atd.evaluation.scoring import score_sets
from atd.tasks import make_task


def run(*arguments):
    return main(["evaluate", *(str(argument) for argument in arguments)])


def results(folder):
    return json.loads((folder / "results.json").read_text())


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A plain folder of three images, 30 to 50 pixels a side."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(3):
        coarse = rng.integers(0, 256, (6, 5 + index, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((42 + index, 36 - index), Image.Resampling.BICUBIC).save(folder / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A folder with a small network of scale 2."""
    return small("ATD").save_pretrained(tmp_path_factory.mktemp("models") / "small")


@pytest.mark.slow
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_reproduces_the_bicubic_rows(data, golden, tmp_path, scale):
    reference = json.loads((golden / "metrics.json").read_text())["results"]
    sets = ("Set5", "Set14", "B100")
    assert run("bicubic", "--scale", scale, "--data", data, "--sets", "set5,SET14,bsd100", "--out", tmp_path) == 0
    found = results(tmp_path)["sets"]
    assert [entry["count"] for entry in found.values()] == [5, 14, 100]
    for name in sets:
        assert found[name]["psnr"] == pytest.approx(reference[f"{name}/x{scale}"]["mean_psnr_y"], abs=0.005)
        assert found[name]["ssim"] == pytest.approx(reference[f"{name}/x{scale}"]["mean_ssim_y"], abs=0.0002)
    # The published row for B100, ×2 ×3 ×4.
    assert round(found["B100"]["psnr"], 2) == {2: 29.56, 3: 27.21, 4: 25.96}[scale]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sigma", "sets"),
    [
        *((sigma, sets) for sigma in (15, 25, 50) for sets in ("Set12,BSD68", "McMaster")),
        (25, "CBSD68,Kodak24"),
    ],
)
def test_reproduces_the_noisy_rows(data, golden, tmp_path, sets, sigma):
    reference = json.loads((golden / "metrics.json").read_text())["noise"]["results"]
    arguments = ("--sigma", sigma, "--data", data, "--sets", sets, "--out", tmp_path, "--no-images")
    assert run("identity", *arguments) == 0
    for name, entry in results(tmp_path)["sets"].items():
        assert entry["psnr"] == pytest.approx(reference[f"{name}/sigma{sigma}"], abs=0.005)


@pytest.mark.parametrize("quality", [10, 20, 30, 40])
def test_reproduces_the_compressed_rows(data, golden, tmp_path, quality):
    reference = json.loads((golden / "metrics.json").read_text())["jpeg"]["results"]
    arguments = ("--quality", quality, "--data", data, "--sets", "Classic5,Live1", "--out", tmp_path, "--no-images")
    assert run("identity", *arguments) == 0
    for name, entry in results(tmp_path)["sets"].items():
        assert entry["psnr"] == pytest.approx(reference[f"{name}/gray/q{quality}"], abs=0.005)


@pytest.mark.slow
def test_outputs_of_a_network(network, photos, tmp_path, capsys):
    """Every number and image against the network called by hand, with scikit-image's metrics."""
    reference = pytest.importorskip("skimage.metrics")
    assert run(network, "--data", photos, "--out", tmp_path) == 0
    found = results(tmp_path)
    assert list(found) == ["model", "weights", "task", "scale", "sigma", "quality", "options", "sets"]
    assert (found["model"], found["weights"]) == (str(network), None)
    assert (found["task"], found["scale"], found["sigma"], found["quality"]) == ("sr", 2, None, None)
    assert found["options"]["crop"] == 2
    assert found["options"]["channel"] == "y"
    assert found["options"]["degraded"] == {"photos": "made"}
    ((name, entry),) = found["sets"].items()
    assert (name, entry["count"], list(entry["images"])) == ("photos", 3, ["0.png", "1.png", "2.png"])

    model = atd.load(network)
    weights = np.array([65.481, 128.553, 24.966]) / 255
    expected = []
    for path in sorted(photos.iterdir()):
        hr = np.asarray(Image.open(path))
        hr = hr[: hr.shape[0] // 2 * 2, : hr.shape[1] // 2 * 2]
        lr = atd.degrade.bicubic_downscale(hr, 2)
        with torch.no_grad():
            output = model(torch.from_numpy(lr).float().div(255).movedim(-1, 0)[None])
        sr = (output[0].movedim(0, -1).clamp(0, 1) * 255).round().byte().numpy()
        assert np.array_equal(np.asarray(Image.open(tmp_path / "images/photos" / path.name)), sr)
        y, target = (16 + image[2:-2, 2:-2] @ weights for image in (sr, hr))
        ssim = reference.structural_similarity(
            y, target, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
        )[1][5:-5, 5:-5].mean()
        expected.append((reference.peak_signal_noise_ratio(target, y, data_range=255), ssim))
    assert [(score["psnr"], score["ssim"]) for score in entry["images"].values()] == pytest.approx(
        [pytest.approx(pair, abs=1e-9) for pair in expected]
    )
    assert (entry["psnr"], entry["ssim"]) == pytest.approx(tuple(np.mean(expected, 0)), abs=1e-9)

    with (tmp_path / "results.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["set", "image", "psnr", "ssim"]
    assert [(row[0], row[1], float(row[2])) for row in rows[1:]] == [
        ("photos", file, score["psnr"]) for file, score in entry["images"].items()
    ]
    text = capsys.readouterr().out
    assert text == (tmp_path / "results.md").read_text()
    assert f"| {entry['psnr']:.2f} / {entry['ssim']:.4f} |" in text
    assert f"{sum(p.numel() for p in model.parameters()):,} parameters" in text
    assert "multiply-adds for an input of 640x360 px" in text
    assert "LR images made by MATLAB's bicubic reduction" in text
    spent = json.loads((tmp_path / "cost.json").read_text())
    assert 0 < spent["network_seconds"] < spent["total_seconds"]
    assert spent["network_share"] == pytest.approx(spent["network_seconds"] / spent["total_seconds"])


def test_settings_are_used_and_stated(network, tmp_path, capsys):
    (tmp_path / "data").mkdir()
    Image.linear_gradient("L").resize((48, 32)).save(tmp_path / "data/a.png")
    options = ("--data", tmp_path / "data", "--self-ensemble", "--tile", 16, "--overlap", 4, "--dtype", "bfloat16")
    options = (*options, "--backend", "reference", "--crop", 5, "--channel", "rgb")
    assert run(network, *options, "--out", tmp_path) == 0
    stated = results(tmp_path)["options"]
    expected = {"tile": 16, "overlap": 4, "self_ensemble": True, "dtype": "bfloat16", "backend": "reference"}
    assert stated == stated | expected | {"crop": 5, "channel": "rgb", "device": "cpu"}
    text = capsys.readouterr().out
    assert "tiles of 16 px, overlap 4, self-ensemble of 8, bfloat16 on cpu, backend reference" in text
    assert "compared on RGB, output rounded to 8 bits, 5 px left out" in text
    assert "1 of 1 images were cut into tiles." in text
    assert atd.ops.backend_report("cpu")[0] != "reference", "the backend of the process is left as it was"


@pytest.mark.parametrize(
    ("task", "level", "channels"),
    [
        ("denoise", {"sigma": 25}, 3),
        ("denoise", {"sigma": 15}, 1),
        ("jpeg", {"quality": 20}, 1),
        ("jpeg", {"quality": 20}, 3),
    ],
)
def test_restoration_networks(photos, task, level, channels):
    """Noise stays unclipped; outputs stay unrounded for denoising and gray JPEG, but not for SSIM of the latter."""
    reference = pytest.importorskip("skimage.metrics")
    model = small("ATDU", in_chans=channels)
    model.task = task
    candidate = from_model(model, RunOptions())
    protocol, sets, _ = plan_evaluation(candidate, photos, **level)
    found = score_sets(candidate, protocol, sets)["photos"].images
    assert protocol == Protocol(make_task(task, **level), channel="gray" if channels == 1 else "rgb")
    for path in sorted(photos.iterdir()):
        clean = np.asarray(Image.open(path))
        if channels == 1:
            clean = atd.degrade.studio_y(clean) if task == "jpeg" else np.asarray(Image.open(path).convert("L"))
            clean = clean[..., None]
        if task == "denoise":
            noise = np.random.RandomState(0).normal(0, level["sigma"] / 255, clean.shape)
            degraded = (clean / 255 + noise).astype(np.float32)
        else:
            degraded = np.float32(atd.degrade.jpeg(clean, level["quality"]) / 255)
        with torch.no_grad():
            output = model(torch.from_numpy(degraded).movedim(-1, 0)[None])[0]
        output = output.movedim(0, -1).clamp(0, 1).double().numpy()
        rounded = np.rint(output * 255) / 255
        compared = rounded if task == "jpeg" and channels == 3 else output
        psnr = -10 * np.log10(np.mean((compared - clean / 255) ** 2))
        assert found[path.name].psnr == pytest.approx(psnr, abs=1e-6 if task == "jpeg" else 1e-4)
        compared = rounded if task == "jpeg" else output
        ssim = np.mean(
            [
                reference.structural_similarity(
                    compared[..., c], clean[..., c] / 255, data_range=1, gaussian_weights=True, sigma=1.5,
                    use_sample_covariance=False, full=True,
                )[1][5:-5, 5:-5].mean()
                for c in range(channels)
            ]
        )  # fmt: skip
        assert found[path.name].ssim == pytest.approx(ssim, abs=1e-6)


SR_SETS = {f"TestDataSR/HR/{name}/x{{scale}}": name for name in ("Set5", "Set14", "B100", "Urban100", "Manga109")}
COLOUR_SETS = {f"ColorDN/{name}HQ": name for name in ("CBSD68", "Kodak24", "McMaster", "Urban100")}
GRAY_SETS = {"GrayDN/Set12": "Set12", "GrayDN/BSD68": "BSD68", "ColorDN/Urban100HQ": "Urban100"}
JPEG_SETS = {"CAR/classic5/Classic5_HQ": "classic5", "CAR/LIVE1/LIVE1_HQ": "LIVE1", "ColorDN/Urban100HQ": "Urban100"}
AUTHORS_COMMANDS = {
    **{f"atd_{kind}sr_x{s}": ("y", s, None, None, SR_SETS) for kind in ("", "light_") for s in (2, 3, 4)},
    **{f"atd_u_color_dn{sigma}": ("rgb", 1, sigma, None, COLOUR_SETS) for sigma in (15, 25, 50)},
    **{f"atd_u_gray_dn{sigma}": ("gray", 1, sigma, None, GRAY_SETS) for sigma in (15, 25, 50)},
    **{f"atd_u_gray_jpeg{quality}": ("gray", 1, None, quality, JPEG_SETS) for quality in (10, 20, 30, 40)},
}


@pytest.mark.parametrize("name", AUTHORS_COMMANDS)
def test_the_authors_test_commands_need_a_name_and_a_folder(name, tmp_path):
    """Protocol and sets of all 16, from the registry row alone, in the authors' folders."""
    channel, scale, sigma, quality, sets = AUTHORS_COMMANDS[name]
    row = atd.registry.get(name)
    upscale = {"upscale": scale} if scale > 1 else {}
    model = small(row.architecture, in_chans=row.in_channels, **upscale)
    model.task, model.name = row.task.key, name
    for folder in sets:
        path = tmp_path / "datasets" / folder.format(scale=scale) / "a.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (24, 24)).save(path)
    protocol, found, missing = plan_evaluation(from_model(model, RunOptions()), tmp_path / "datasets")
    task = make_task(model.task, scale=scale, sigma=sigma, quality=quality)
    assert protocol == Protocol(task, channel, crop=scale if scale > 1 else 0, border="edge")
    assert [benchmark.name for benchmark in found] == list(sets.values())
    assert not missing


def test_the_level_of_the_registry_can_be_replaced(photos):
    model = small("ATDU", in_chans=1)
    model.task, model.name = "jpeg", "atd_u_gray_jpeg30"
    assert plan_evaluation(from_model(model, RunOptions()), photos, quality=10)[0].quality == 10


def test_identical_images(photos, tmp_path):
    assert run("identity", "--sigma", 0, "--data", photos, "--out", tmp_path) == 0
    entry = results(tmp_path)["sets"]["photos"]
    assert entry["psnr"] is None
    assert entry["ssim"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("bicubic",), "bicubic enlarges images and cannot restore them: give a scale"),
        (("identity",), "the task of identity is not known"),
        (("identity", "--scale", "2"), "identity changes no size"),
        (("identity", "--sigma", "25", "--quality", "10"), "not both"),
        (("atd_sr_x5",), "There is no model named 'atd_sr_x5'"),
        (("NETWORK", "--scale", "4"), "enlarges 2 times, but scale 4 was asked for"),
        (("NETWORK", "--sigma", "15"), "is a network for task 'sr' and cannot be measured on 'denoise'"),
        (("NETWORK", "--channel", "gray"), "takes 3 channels and cannot be measured on 'gray'"),
        (("NETWORK", "--sets", "Set5"), "no set 'Set5'"),
        (("NETWORK", "--report"), "give output"),
        (("bicubic", "--scale", "2", "--crop", "40"), "cannot crop 40 pixels"),
    ],
)
def test_errors_are_one_sentence(network, photos, capsys, arguments, message):
    arguments = [str(network) if argument == "NETWORK" else argument for argument in arguments]
    assert run(*arguments, "--data", photos) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("atd: error: ")


def test_noise_compared_on_luminance(photos, tmp_path):
    assert run("identity", "--sigma", 25, "--channel", "y", "--data", photos, "--out", tmp_path, "--no-images") == 0
    for name, score in results(tmp_path)["sets"]["photos"]["images"].items():
        clean = np.asarray(Image.open(photos / name))
        noisy = (clean / 255 + np.random.RandomState(0).normal(0, 25 / 255, clean.shape)).clip(0, 1)
        difference = (noisy - clean / 255) @ np.array([65.481, 128.553, 24.966]) / 255
        assert score["psnr"] == pytest.approx(-10 * np.log10(np.mean(difference**2)), abs=1e-3)


def test_gray_and_colour_sets_are_not_mixed(tmp_path, capsys):
    for name, mode in (("gray", "L"), ("colour", "RGB")):
        (tmp_path / name).mkdir()
        Image.new(mode, (16, 16)).save(tmp_path / name / "a.png")
    assert run("identity", "--sigma", 5, "--data", tmp_path, "--sets", "gray,colour") == 2
    assert "gray is gray, colour is colour: evaluate them apart" in capsys.readouterr().err
    assert run("identity", "--sigma", 5, "--data", tmp_path, "--sets", "gray,colour", "--channel", "gray") == 0


def test_lanczos_is_pillows(photos, tmp_path):
    found = open_candidate("lanczos", RunOptions(), 3)
    pixels = np.array(Image.open(photos / "0.png"))
    output = found.run(torch.from_numpy(pixels).float().div(255).movedim(-1, 0)).movedim(0, -1).clamp(0, 1) * 255
    size = (pixels.shape[1] * 3, pixels.shape[0] * 3)
    by_pillow = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))
    assert np.abs(output.numpy() - by_pillow).max() < 1.5  # Pillow rounds 8-bit images after each pass


def test_two_images_of_one_stem_are_both_saved(tmp_path):
    for suffix in ("png", "bmp"):
        Image.new("RGB", (16, 16), "red" if suffix == "png" else "blue").save(tmp_path / f"a.{suffix}")
    assert run("bicubic", "--scale", 2, "--data", tmp_path, "--out", tmp_path / "out") == 0
    saved = (tmp_path / "out/images").rglob("*.png")
    assert {path.name: Image.open(path).getpixel((4, 4)) for path in saved} == {
        "a.png.png": (255, 0, 0),
        "a.bmp.png": (0, 0, 255),
    }


def layer_multiply_adds(n, c, *, entries, rank, group, window, kernel, category_channels, mlp_ratio):
    """Every product and convolution of one layer over n tokens of c channels (specification of the networks)."""
    hidden = int(c * mlp_ratio)
    total = n * c * 3 * c  # qkv
    total += n * c * rank + entries * c * rank + entries * c * c + n * entries * (rank + c)  # dictionary attention
    total += 2 * math.ceil(n / group) * group**2 * c + n * c * c  # category attention, its last group filled
    total += 2 * n * window**2 * c + n * c * c  # window attention
    total += n * c * hidden + entries * c * category_channels  # feed-forward network
    return total + n * (hidden + category_channels) * (kernel**2 + c)


@pytest.mark.parametrize(
    ("name", "size", "group"),
    [
        ("atd_light_sr_x4", (32, 48), 128),
        ("atd_light_sr_x2", (19, 45), 100),  # neither whole windows nor whole groups
        ("atd_sr_x2", (32, 48), 256),
        ("atd_cvpr_light_sr_x3", (19, 45), 128),
    ],
)
def test_multiply_adds_equal_the_formulas(name, size, group):
    """Every product and convolution counted by hand."""
    model = atd.create(name, depths=[2, 1], num_heads=[3, 4], category_size=group)
    config, window = model.config, model.config["window_size"]
    height, width = (math.ceil(side / window) * window for side in size)
    n, c = height * width, config["embed_dim"]
    layer = layer_multiply_adds(
        n,
        c,
        entries=config["num_tokens"],
        rank=config["reducted_dim"],
        group=group,
        window=window,
        kernel=config["convffn_kernel_size"],
        category_channels=config.get("dim_ffn_td", 0),
        mlp_ratio=config["mlp_ratio"],
    )
    total = sum(config["depths"]) * layer + len(config["depths"]) * 9 * n * c * c
    if "cvpr" in name:  # the dictionary is refined between the layers of a group
        total += n * config["num_tokens"] * (config["reducted_dim"] + c)
    total += 9 * n * 3 * c + 9 * n * c * c  # conv_first, conv_after_body
    scale = config["upscale"]
    if config["upsampler"] == "pixelshuffledirect":
        total += 9 * n * c * 3 * scale**2
    else:  # ×2: one doubling
        total += 9 * n * (c * 64 + 64 * 256 + scale**2 * 64 * 3)
    assert cost.multiply_adds(model, *size) == total


def test_multiply_adds_of_a_u_network_equal_the_formulas():
    model = small("ATDU", mlp_ratio=2)  # levels of 4 and 8 channels; the outermost decoder and the refinement have 8
    c, config = model.config["embed_dim"], model.config
    total = 0
    for level, channels in ((0, c), (1, 2 * c), (0, 2 * c), (0, 2 * c)):  # encoder, middle, decoder, refinement
        total += layer_multiply_adds(
            12 * 16 // 4**level,
            channels,
            entries=config["num_tokens"][level],
            rank=config["reducted_dim"][level],
            group=config["category_size"][level],
            window=config["window_size"][level],
            kernel=config["convffn_kernel_size"],
            category_channels=config["dim_ffn_td"][level],
            mlp_ratio=2,
        )
    n = 12 * 16
    total += 9 * n * (3 * c + c * c // 2 + 2 * c * 4 * c // 4 + 2 * c * c + c * 3)  # first, down, up, after body, last
    assert cost.multiply_adds(model, 10, 13) == total


@pytest.mark.slow
@pytest.mark.parametrize("family", ["ATDCVPR", "ATDU"])
def test_counting_leaves_the_network_alone(family):
    model = small(family)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    count = cost.multiply_adds(model, 16, 16)
    assert count > 0
    assert cost.multiply_adds(model, 32, 16) > 1.5 * count
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
