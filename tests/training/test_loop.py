"""Whole trainings of tiny networks: the same after a kill, the same in two processes, and usable afterwards."""

import csv
import gc
import json
import shutil
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import atd
from atd import metrics, registry
from atd.cli import main
from atd.training import data as data_module
from atd.training import loop, losses, recipes, validation
from atd.training.log import TrainingLog
from atd.training.state import TrainingState, load_latest

TINY = [
    "patch=16", "batch=4", "images=images", "validation=[]", "log_every=1", "save_minutes=0", "warmup=1", "minutes=0",
    "config.embed_dim=8", "config.depths=[1, 2]", "config.num_heads=[2, 1]", "config.window_size=8",
    "config.category_size=32", "config.num_tokens=8", "config.reducted_dim=4", "config.convffn_kernel_size=3",
]  # fmt: skip
TINY_U = [
    "patch=[16, 24]", "batch=[4, 2]", "micro_batch=[3, 1]", "iterations=[3, 2]", "images=images", "validation=[]",
    "log_every=1", "save_minutes=0", "milestones=[2]", "amp=none", "workers=0", "tensorboard=false",
    "config.embed_dim=8", "config.depths=[1, 1]", "config.num_heads=[1, 2]", "config.window_size=[8, 8]",
    "config.dim_ffn_td=[2, 2]", "config.category_size=[32, 32]", "config.num_tokens=[8, 8]",
    "config.reducted_dim=[4, 4]",
]  # fmt: skip


ADVERSARIAL = ["real=true", "context=8", "sharpen=true", "adversarial=0.1", "discriminator_channels=4"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Nine smooth random images with training and test folders."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for number in range(9):
        name = f"sr/Set5/HR/{number}.png" if number < 2 else f"images/{number}.png"
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        low = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
        low.resize((120, 96), Image.Resampling.BICUBIC).save(root / name)
    return root


def train(recipe, folder, out, *overrides, resume=False, say=lambda line: None):
    return loop.train(recipes.get(recipe).override(list(overrides)), folder, out, resume=resume, say=say)


def state(out, iteration):
    folder = out / "checkpoints" / f"{iteration:08d}"
    return {path.stem: load_file(path) for path in sorted(folder.glob("*.safetensors"))}


def command(recipe, folder, out, *overrides):
    return ["-m", "atd", "train", recipe, "--data", str(folder), "--out", str(out), *overrides]


def assert_same_state(first, second):
    assert first.keys() == second.keys()
    assert set(first) >= {"model", "optimiser"}
    for part, tensors in first.items():
        assert tensors.keys() == second[part].keys()
        for name, tensor in tensors.items():
            assert torch.equal(tensor, second[part][name]), (part, name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "overrides"),
    [
        ("small_light_x4", [*TINY, "iterations=5"]),
        ("401", TINY_U),
        ("small_light_x4", [*TINY, *ADVERSARIAL, "iterations=5"]),
    ],
)
def test_resuming_after_a_kill_is_bit_identical(folder, tmp_path, recipe, overrides):
    """AdamW with an average; Muon with two stages, mixup, clipping and gradient accumulation; photos and a
    discriminator."""
    train(recipe, folder, tmp_path / "whole", *overrides)
    out = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, *command(recipe, folder, out, *overrides)], stdout=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if line.startswith("2/5"):
            process.kill()
            break
    process.communicate()
    assert not (out / "model").exists()
    lines = []
    train(recipe, folder, out, *overrides, resume=True, say=lines.append)
    assert any(line.startswith("continuing after iteration ") for line in lines)
    assert not any(line.startswith("1/5") for line in lines)
    assert_same_state(state(tmp_path / "whole", 5), state(out, 5))
    logs = [[row["loss"] for row in csv.DictReader((run / "log.csv").open())] for run in (tmp_path / "whole", out)]
    assert len(logs[0]) == 5
    assert logs[0] == logs[1]


OLD_TORCH = tuple(map(int, torch.__version__.split(".")[:2])) < (2, 8)


def torchrun(*arguments):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if OLD_TORCH and "parallel=fsdp" in arguments:
        # Never a wrong training: where gloo adds up gradients that FSDP wants averaged, it is refused.
        assert "parallel=fsdp cannot be used on cpu" in result.stderr
        pytest.skip("gloo of this torch cannot average for FSDP")
    assert result.returncode == 0, [line for line in result.stderr.splitlines() if "atd: error" in line]
    return result.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("parallel", "more"), [("ddp", []), ("fsdp", []), ("ddp", ADVERSARIAL)])
def test_two_processes_equal_one_with_the_whole_batch(folder, tmp_path, parallel, more):
    """Gloo on the CPU. Under DDP one process is killed after the first checkpoint, and torchrun restarts both.

    The processes have the same warning filters afterwards as before.
    """
    overrides = [*TINY, "iterations=3", f"parallel={parallel}", *more]
    train("small_light_x4", folder, tmp_path / "one", *overrides)
    out = tmp_path / "two"
    arguments = command("small_light_x4", folder, out, *overrides)
    script = tmp_path / "process.py"
    script.write_text(PROCESS)
    killed_after = str(out / "checkpoints") if parallel == "ddp" else "never"
    printed = torchrun("--max-restarts", "3", str(script), killed_after, *arguments[2:])
    assert "filters are the same" in printed
    assert ("continuing after iteration" in printed) == (parallel == "ddp")
    first, second = state(tmp_path / "one", 3), state(out, 3)
    assert first.keys() == second.keys()
    for part, tensors in first.items():
        assert tensors.keys() == second[part].keys()
        for name, tensor in tensors.items():
            torch.testing.assert_close(second[part][name], tensor, rtol=1e-4, atol=2e-6, msg=f"{part} {name}")


PROCESS = """
import os, signal, sys, threading, time, warnings
from pathlib import Path
from atd.cli import main
import torch.distributed.fsdp  # has filters of its own

def end_after_the_first_checkpoint(folder):
    while not any(path.name.isdigit() for path in folder.glob("*")):
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGKILL)

killed_after, *arguments = sys.argv[1:]
if killed_after != "never" and os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
    threading.Thread(target=end_after_the_first_checkpoint, args=[Path(killed_after)], daemon=True).start()
before = list(warnings.filters)
status = main(arguments)
print("filters are the same" if warnings.filters == before else set(warnings.filters) - set(before), flush=True)
sys.exit(status)
"""


@pytest.mark.slow
def test_accumulation_is_the_whole_batch(folder, tmp_path):
    overrides = [*TINY, "iterations=2"]
    train("small_light_x4", folder, tmp_path / "whole", *overrides)
    train("small_light_x4", folder, tmp_path / "parts", *overrides, "micro_batch=3")
    first, second = state(tmp_path / "whole", 2)["model"], state(tmp_path / "parts", 2)["model"]
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=1e-4, atol=2e-6, msg=name)


@pytest.mark.parametrize(
    "option",
    [
        "activation_checkpointing=true",
        pytest.param("compile=true", marks=pytest.mark.slow),
        "amp=bf16",
        "amp=fp16",
    ],
)
def test_options_that_do_not_change_the_mathematics(folder, tmp_path, option):
    overrides = [*TINY, "iterations=2"]
    if option == "compile=true":
        if not shutil.which("g++"):
            pytest.skip("torch.compile needs g++")
        overrides.append("config.depths=[1]")
        overrides.append("config.num_heads=[2]")
    train("small_light_x4", folder, tmp_path / "plain", *overrides)
    train("small_light_x4", folder, tmp_path / "option", *overrides, option)
    rows = [list(csv.DictReader((tmp_path / run / "log.csv").open())) for run in ("plain", "option")]
    tolerance = 1e-2 if option.startswith("amp") else 1e-4
    for plain, other in zip(*rows, strict=True):
        assert float(other["loss"]) == pytest.approx(float(plain["loss"]), rel=tolerance)


def test_result_is_validated_logged_and_loads(folder, tmp_path, capsys):
    pytest.importorskip("tensorboard")
    arguments = command("small_light_x2", folder, tmp_path / "run", *TINY, "iterations=6", "validate_every=3")[2:]
    arguments += ["validation=[Set5, Set14]", "finetune_from=", "tensorboard=true"]
    arguments = [argument for argument in arguments if argument != "validation=[]"]
    arguments[arguments.index("validation=[Set5, Set14]")] = 'validation=["Set5", "Set14"]'
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "no validation on Set14" in printed
    assert "7 training images, in memory" in printed
    assert "to go" in printed
    rows = list(csv.DictReader((tmp_path / "run" / "log.csv").open()))
    scored = {int(row["iteration"]): float(row["psnr_Set5"]) for row in rows if row["psnr_Set5"]}
    assert set(scored) == {3, 6}
    assert [int(row["iteration"]) for row in rows if row["loss"]] == [1, 2, 3, 4, 5, 6]
    assert sorted(path.name for path in (tmp_path / "run" / "samples" / "Set5").iterdir()) == ["0.png", "1.png"]
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))

    # The saved model is the average.
    model = atd.load(tmp_path / "run" / "model")
    for name, tensor in state(tmp_path / "run", 6)["average"].items():
        assert torch.equal(model.state_dict()[name], tensor)
    assert model.scale == 2
    # The scores are those of the published protocol, computed apart on the images that were saved.
    psnr = [
        metrics.psnr(np.asarray(Image.open(restored)), np.asarray(Image.open(reference)), crop=2, channel="y")
        for restored, reference in zip(
            sorted((tmp_path / "run" / "samples" / "Set5").iterdir()),
            sorted((folder / "sr" / "Set5" / "HR").iterdir()),
            strict=True,
        )
    ]
    assert scored[6] == pytest.approx(np.mean(psnr), abs=1e-4)


@pytest.fixture
def photos(tmp_path):
    """Sixteen smooth random images and no test set."""
    rng = np.random.default_rng(1)
    (tmp_path / "photos").mkdir()
    for number in range(16):
        low = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
        low.resize((96, 72), Image.Resampling.BICUBIC).save(tmp_path / "photos" / f"{number:02d}.png")
    return tmp_path / "photos"


def scores_of(out, name):
    rows = csv.DictReader((out / "log.csv").open())
    return {int(row["iteration"]): float(row[f"psnr_{name}"]) for row in rows if row.get(f"psnr_{name}")}


@pytest.mark.slow
def test_photos_are_held_out_where_no_test_set_is_there(photos, tmp_path, monkeypatch):
    """Two of sixteen: not trained on, scored with what the noisy input has, and the same when the training goes on."""
    monkeypatch.setattr(validation, "HELD_OUT_SIDE", 32)  # quicker than 480
    out = tmp_path / "out"
    overrides = [*TINY_U, "images=.", 'validation=["CBSD68"]', "validate_every=1", "iterations=[1, 1]", "minutes=0"]
    overrides += ["patch=[8, 8]", "batch=[2, 2]"]
    lines = []
    train("tiny_color_dn", photos, out, *overrides, say=lines.append)
    assert "2 of 16 training images are held out, to validate" in lines
    assert "14 training images, in memory" in lines
    held_out = sorted((out / "held_out").iterdir())
    assert [path.name for path in held_out] == ["00_04.png", "01_12.png"]
    noisy = []
    for path in held_out:
        middle = np.asarray(Image.open(photos / path.name[3:]))[20:52, 32:64]
        assert np.array_equal(np.asarray(Image.open(path)), middle)
        noise = np.random.RandomState(0).normal(0, 25 / 255, middle.shape)
        error = np.clip(middle / 255 + noise, 0, 1) - middle / 255
        noisy.append(-10 * np.log10(np.mean(error**2)))
    (validated,) = [line for line in lines if line.startswith("1/2  held_out")]
    assert validated.endswith(f" dB (noisy {np.mean(noisy):.3f})")
    assert set(scores_of(out, "held_out")) == {1, 2}

    # A test set that comes later changes nothing in a training that goes on.
    shutil.copytree(photos, photos / "CBSD68")
    shutil.rmtree(out / "checkpoints" / "00000002")
    lines.clear()
    overrides.remove("images=.")
    for number in range(16):
        (photos / "images").mkdir(exist_ok=True)
        (photos / f"{number:02d}.png").rename(photos / "images" / f"{number:02d}.png")
    train("tiny_color_dn", photos, out, *overrides, "iterations=[1, 1]", resume=True, say=lines.append)
    assert "2 of 16 training images are held out, to validate" in lines
    assert sorted((out / "held_out").iterdir()) == held_out


@pytest.mark.slow
def test_models_on_the_way_are_kept_and_the_best_is_never_the_result(folder, tmp_path):
    """At a rate as high as this one, scores go up and down; which training ends below its best differs by processor."""
    overrides = [*TINY, "iterations=6", "validate_every=2", "keep_every=1", "keep=2", "lr=0.1", "ema=0"]
    overrides[overrides.index("validation=[]")] = "validation=Set5"
    for seed in range(8):
        out = tmp_path / str(seed)
        lines = []
        train("small_light_x4", folder, out, *overrides, f"seed={seed}", say=lines.append)
        scores = scores_of(out, "Set5")
        assert set(scores) == {2, 4, 6}
        best = max(scores, key=lambda iteration: scores[iteration])
        if best != 6:
            break
    else:
        pytest.fail("every training ended with its best")
    note = json.loads((out / "best.json").read_text())
    assert (note["iteration"], note["chosen_by"]) == (best, ["Set5"])
    assert note["psnr"] == pytest.approx(scores[best], abs=1e-3)
    assert any(line.startswith(f"best on Set5: iteration {best}, ") for line in lines)
    measured = atd.evaluate(out / "best", folder, sets=["Set5"]).means["Set5"].psnr
    assert measured == pytest.approx(scores[best], abs=1e-3)
    result = atd.load(out / "model").state_dict()
    for name, tensor in state(out, 6)["model"].items():
        assert torch.equal(result[name], tensor), name
    assert sorted(path.name for path in (out / "models").iterdir()) == ["00000004", "00000005"]
    kept = atd.load(out / "models" / "00000005").state_dict()
    for name, tensor in state(out, 5)["model"].items():
        assert torch.equal(kept[name], tensor), name


def test_progress_is_told_in_minutes_where_they_end_the_training(tmp_path):
    lines = []
    log = TrainingLog(tmp_path, [], 0, 10_000, 5.0, lines.append)
    log.progress(100, 0.01, 1e-3, 0.5)
    log.progress(113, 1.25, 1e-3, 0.5)
    assert lines[0].startswith("  100/10000  loss 0.50000")
    assert lines[1].startswith("  113,  25% of 5:00  loss 0.50000")
    assert lines[1].endswith("1:15 gone, 3:45 to go")


def test_finetuning_from_another_scale(folder, tmp_path):
    light = [*TINY, "iterations=1"]
    train("small_light_x4", folder, tmp_path / "small_light_x4", *light)
    trained = atd.load(tmp_path / "small_light_x4" / "model").state_dict()
    lines = []
    train("small_light_x2", folder, tmp_path / "two", *light, "lr=0", "resample_upsampler=false", say=lines.append)
    (said,) = [line for line in lines if line.startswith("weights from")]
    assert said == "weights from small_light_x4; new, because they do not fit: upsample.0.bias, upsample.0.weight"
    result = atd.load(tmp_path / "two" / "model").state_dict()
    for name, tensor in trained.items():
        if not name.startswith("upsample"):
            assert torch.equal(result[name], tensor), name

    with pytest.raises(ValueError, match=r"there is no .*elsewhere/small_light_x4/model: train it with --output"):
        train("small_light_x2", folder, tmp_path / "elsewhere" / "two", *light)
    with pytest.raises(ValueError, match=r"conv_after_body\.bias is \(8,\) there and \(12,\) here, and only the"):
        train("small_light_x2", folder, tmp_path / "three", *light, "config.embed_dim=12")
    with pytest.raises(atd.LoadError, match="no_such_thing"):
        train("small_light_x2", folder, tmp_path / "four", *light, "finetune_from=no_such_thing")


def test_finetuning_goes_on_from_the_raw_weights_and_from_their_average(folder, tmp_path):
    """With lr=0 and one update: the network is `params` as it was, the average (1 − d)·params + d·params_ema."""
    light = [*TINY, "iterations=1", "lr=0", "ema=0.75", "ema_warmup=false", "bicubic_start=false"]
    train("small_light_x4", folder, tmp_path / "first", *light)
    trained = atd.load(tmp_path / "first" / "model").state_dict()
    averaged = {name: tensor + 0.5 if tensor.is_floating_point() else tensor for name, tensor in trained.items()}
    torch.save({"params": trained, "params_ema": averaged}, tmp_path / "both.pth")
    start = f"finetune_from={tmp_path / 'both.pth'}"
    lines = []
    train("small_light_x4", folder, tmp_path / "second", *light, start, say=lines.append)
    assert any(line.endswith("both.pth; the average starts from that of the file") for line in lines)
    result = state(tmp_path / "second", 1)
    for name, tensor in result["model"].items():
        assert torch.equal(tensor, trained[name]), name
        expected = 0.25 * trained[name].double() + 0.75 * averaged[name].double()
        torch.testing.assert_close(result["average"][name].double(), expected, rtol=1e-6, atol=1e-6)

    # A file of one kind gives both their start.
    torch.save({"params_ema": averaged}, tmp_path / "average.pth")
    train("small_light_x4", folder, tmp_path / "third", *light, f"finetune_from={tmp_path / 'average.pth'}")
    for part in ("model", "average"):
        for name, tensor in state(tmp_path / "third", 1)[part].items():
            torch.testing.assert_close(tensor, averaged[name], rtol=1e-6, atol=1e-6)


def test_losses():
    output = torch.tensor([0.0, 3.0])
    target = torch.tensor([0.0, -1.0])
    recipe = recipes.get("201")
    expected = ((1e-3) ** 0.5 + (16 + 1e-3) ** 0.5) / 2
    assert losses.pixel_loss(recipe, output, target).item() == pytest.approx(expected)
    assert losses.pixel_loss(recipe.override(["loss=l1"]), output, target).item() == 2
    assert losses.pixel_loss(recipe.override(["loss=mse"]), output, target).item() == 8


def test_mixup_mixes_half_of_the_batches_with_themselves():
    recipe = recipes.get("201")
    inputs = torch.eye(6)
    shares = []
    for iteration in range(400):
        mixed, targets = data_module.mix(inputs, 2 * inputs, recipe, iteration, 0)
        torch.testing.assert_close(targets, 2 * mixed)
        torch.testing.assert_close(mixed.sum(1), torch.ones(6))
        if not torch.equal(mixed, inputs):
            shares.append(mixed.diagonal().min().item())
    assert 160 < len(shares) < 240
    # Beta(1.2, 1.2): mean 1/2, standard deviation sqrt(1 / (4 · 3.4)) = 0.271.
    assert abs(np.mean(shares) - 0.5) < 0.06
    assert abs(np.std(shares) - 0.271) < 0.04


def test_divergence_stops_the_training_and_keeps_the_last_checkpoint(folder, tmp_path):
    overrides = [*TINY, "iterations=4"]
    train("small_light_x4", folder, tmp_path, *overrides, "iterations=1")
    with pytest.raises(ValueError, match="--resume and a smaller rate"):
        train("small_light_x4", folder, tmp_path, *overrides, "lr=inf", resume=True)
    with pytest.raises(ValueError, match=r"the loss is .* in iteration 3: continue with --resume"):
        train("small_light_x4", folder, tmp_path, *overrides, "lr=inf", "save_minutes=60", resume=True)
    kept, _ = load_latest(tmp_path / "checkpoints")
    assert all(tensor.isfinite().all() for tensor in kept.model.values())
    train("small_light_x4", folder, tmp_path, *overrides, resume=True)


def test_what_does_not_fit_is_explained(folder, tmp_path):
    light = [*TINY, "iterations=1"]
    with pytest.raises(ValueError, match=r"no training images in .*nowhere: recipe small_light_x4 looks for nowhere"):
        train("small_light_x4", folder, tmp_path / "a", *light, "images=nowhere")
    with pytest.raises(ValueError, match="trains sr, but atd_u_tiny_color_dn is a network for denoise"):
        train("small_light_x4", folder, tmp_path / "a", "model=atd_u_tiny_color_dn", "images=images")
    with pytest.raises(ValueError, match="has 128 pixels on both sides"):
        train("small_light_x4", folder, tmp_path / "a", *light, "patch=32")
    assert not (tmp_path / "a" / "checkpoints").exists()
    train("small_light_x4", folder, tmp_path / "a", *light)
    with pytest.raises(ValueError, match="holds a training already: continue it with --resume"):
        train("small_light_x4", folder, tmp_path / "a", *light)
    with pytest.raises(ValueError, match="trained with another config than"):
        train("small_light_x4", folder, tmp_path / "a", *light, "config.embed_dim=12", resume=True)


def test_lr_folder_is_used_or_its_absence_said(folder, tmp_path):
    light = [*TINY, "iterations=1", "lr_images=LR/X{scale}"]
    lines = []
    train("small_light_x4", folder, tmp_path / "a", *light, say=lines.append)
    assert any(line.startswith("no folder ") and line.endswith("MATLAB's bicubic reduction") for line in lines)
    for path in (folder / "images").iterdir():
        target = folder / "LR" / "X4" / f"{path.stem}x4.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 24)).save(target)
    lines.clear()
    train("small_light_x4", folder, tmp_path / "braces", *light, "lr_images=LR/{X}", say=lines.append)
    assert any(line.startswith(f"no folder {folder / 'LR' / '{X}'}:") for line in lines)
    lines.clear()
    train("small_light_x4", folder, tmp_path / "b", *light, say=lines.append)
    assert not any(line.startswith("no folder ") for line in lines)
    losses = [next(csv.DictReader((tmp_path / run / "log.csv").open()))["loss"] for run in "ab"]
    assert losses[0] != losses[1]


def test_bundled_networks_can_be_trained():
    for name in ("atd_u_tiny_color_dn", "atd_u_tiny_color_jpeg"):
        assert registry.get(name).parameters <= 1_200_000


@pytest.mark.slow
def test_a_short_training_beats_bicubic(data, tmp_path):
    """The documentation's five minutes on a laptop, shortened to 70 iterations; bicubic has 28.43 dB on Set5 ×4."""
    overrides = ["images=train/T91", "minutes=0", "iterations=70", "warmup=10", "ema=0.9"]
    lines = []
    train("laptop_x4", data, tmp_path, *overrides, say=lines.append)
    assert any(" dB (bicubic 28.43" in line for line in lines)
    *_, last = csv.DictReader((tmp_path / "log.csv").open())
    assert float(last["psnr_Set5"]) > 28.43 + 0.1


def test_a_resumed_training_lets_go_of_the_checkpoint_it_came_from(folder, tmp_path):
    """The file that was read is mapped into memory for as long as one of its tensors is held anywhere."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("needs Linux's /proc")
    train("small_light_x4", folder, tmp_path, *TINY, "iterations=2")
    checkpoint = tmp_path / "checkpoints" / "00000002"
    held = load_file(checkpoint / "model.safetensors")
    assert str(checkpoint) in maps.read_text()
    del held
    seen = []

    def look(line):
        if line.startswith("3/3"):
            states = [value for value in gc.get_objects() if type(value) is TrainingState]
            seen.append((states, str(checkpoint) in maps.read_text()))

    train("small_light_x4", folder, tmp_path, *TINY, "iterations=3", resume=True, say=look)
    assert seen == [([], False)]


def test_random_numbers_and_warning_filters_of_the_caller_stay(folder, tmp_path):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    filters = list(warnings.filters)
    train("small_light_x4", folder, tmp_path / "a", *TINY, "iterations=1")
    assert torch.equal(torch.rand(3), expected)
    assert warnings.filters == filters
    # And the caller's numbers do not change the training.
    train("small_light_x4", folder, tmp_path / "b", *TINY, "iterations=1")
    assert_same_state(state(tmp_path / "a", 1), state(tmp_path / "b", 1))


def test_mixed_precision_can_be_turned_on_when_a_training_goes_on(folder, tmp_path):
    train("small_light_x4", folder, tmp_path, *TINY, "iterations=1")
    train("small_light_x4", folder, tmp_path, *TINY, "iterations=2", "amp=fp16", resume=True)
    kept, _ = load_latest(tmp_path / "checkpoints")
    assert kept.iteration == 2
    assert kept.scaler["scale"] > 0


def test_mistakes_of_the_user_are_errors_that_the_command_prints(folder, tmp_path):
    light = [*TINY, "iterations=1"]
    with pytest.raises(atd.RecipeError, match=r"no training images in .*nowhere"):
        train("small_light_x4", folder, tmp_path, *light, "images=nowhere")
    with pytest.raises(atd.RecipeError, match="has 128 pixels on both sides"):
        train("small_light_x4", folder, tmp_path, *light, "patch=32")
    with pytest.raises(atd.RecipeError, match=r"atd_light_sr_x4 cannot be built with its config: .*embed_dimension"):
        train("small_light_x4", folder, tmp_path, *light, "config.embed_dimension=8")
    with pytest.raises(atd.RecipeError, match="is a network for denoise"):
        train("small_light_x4", folder, tmp_path, "model=atd_u_tiny_color_dn", "images=images")
    train("small_light_x4", folder, tmp_path, *light)
    with pytest.raises(atd.InputError, match="continue it with --resume, or choose another --output"):
        train("small_light_x4", folder, tmp_path, *light)
    with pytest.raises(atd.TrainingError, match="is no longer finite after iteration 2"):
        train("small_light_x4", folder, tmp_path, *TINY, "iterations=2", "lr=inf", resume=True)


@pytest.mark.slow
def test_tensorboard_that_is_missing_is_said_with_its_extra(folder, tmp_path):
    """In a process where the import of TensorBoard fails, as it does where it is not installed."""
    script = textwrap.dedent("""
        import sys
        from atd.cli import main
        class Absent:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] == "tensorboard":
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        sys.meta_path.insert(0, Absent())
        sys.exit(main(sys.argv[1:]))
    """)
    arguments = command("small_light_x4", folder, tmp_path, *TINY, "iterations=1", "tensorboard=true")[2:]
    result = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    last = result.stderr.splitlines()[-1]
    assert "TensorBoard" in last
    assert "pip install 'atd-restoration[train]'" in last
