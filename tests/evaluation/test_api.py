"""`atd.evaluate` from Python: what it takes, what it gives, what it leaves as it was."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from small_networks import small
from torch import nn

import atd
from atd.cli import main
from atd.errors import DataNotFoundError, InputError
from atd.evaluation import Evaluation, ImageProgress
from atd.evaluation.candidates import RunOptions, from_model
from atd.evaluation.comparison import compare_candidates
from atd.evaluation.planning import plan_evaluation
from atd.tasks import Denoising
from atd.training import recipes
from atd.training.validation import Validation


class Recorder(nn.Module):
    """Enlarges by repeating pixels, and remembers what the process allowed while it ran."""

    scale, in_channels, task, name = 2, 3, "sr", None

    def __init__(self):
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(()))
        self.seen = []

    def forward(self, x):
        self.seen.append((torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()))
        return x.repeat_interleave(2, -1).repeat_interleave(2, -2) + self.offset


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two images, 42 to 50 pixels a side."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    folder.mkdir()
    for index in range(2):
        coarse = np.random.default_rng(index).integers(0, 256, (6, 7, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((48 + index, 42), Image.Resampling.BICUBIC).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def tf32():
    """TF32 is allowed, as a training on a card may have it."""
    before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    torch.backends.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("high")
    yield True, "high"
    torch.backends.cudnn.allow_tf32 = before[0]
    torch.set_float32_matmul_precision(before[1])


def evaluate(model, photos, tmp_path):
    atd.evaluate(model, photos)


def compare(model, photos, tmp_path):
    candidate = from_model(model, RunOptions())
    plan = plan_evaluation(candidate, photos)
    compare_candidates(candidate, candidate, plan.protocol, plan.sets)


def validate(model, photos, tmp_path):
    recipe = replace(recipes.get("small_light_x2"), validation=("photos",))
    scores = Validation(recipe, model, photos.parent, tmp_path, print).run(model)
    assert list(scores) == ["photos"]


@pytest.mark.parametrize("route", [evaluate, compare, validate])
def test_every_route_scores_in_true_float32_and_restores_the_flags(route, photos, tmp_path, tf32):
    model = Recorder()
    route(model, photos, tmp_path)
    assert len(model.seen) >= 2
    assert set(model.seen) == {(False, "highest")}
    assert (torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()) == tf32


def test_flags_are_restored_after_an_error(photos, tf32):
    def fail(x):
        raise ZeroDivisionError

    model = Recorder()
    model.forward = fail
    with pytest.raises(ZeroDivisionError):
        atd.evaluate(model, photos)
    assert (torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()) == tf32


def test_training_validates_with_the_scores_of_evaluate(photos, tmp_path):
    model = small("ATD").eval()
    recipe = replace(recipes.get("small_light_x2"), validation=("photos",))
    validated = Validation(recipe, model, photos.parent, tmp_path, print).run(model)
    assert validated["photos"] == atd.evaluate(model, photos).means["photos"].psnr


@pytest.mark.slow
def test_one_call_gives_what_the_command_writes(photos, tmp_path, capsys):
    folder = small("ATD").save_pretrained(tmp_path / "model")
    result = atd.evaluate(folder, str(photos), tile=16, overlap=4, output=tmp_path / "api", report=True)
    assert isinstance(result, Evaluation)
    command = ["evaluate", str(folder), "--data", str(photos), "--tile", "16", "--overlap", "4"]
    assert main([*command, "--out", str(tmp_path / "cli"), "--report"]) == 0
    contents = [
        {
            path.relative_to(side): path.read_bytes()
            for path in side.rglob("*")
            if path.is_file() and path.name not in ("cost.json", "results.md", "report.html")  # these state times
        }
        for side in (tmp_path / "api", tmp_path / "cli")
    ]
    assert contents[0] == contents[1]
    assert {str(path) for path in contents[0]} == {
        "results.json", "results.csv", "images/photos/0.png", "images/photos/1.png",
    }  # fmt: skip
    assert (tmp_path / "api/report.html").is_file()
    written = json.loads((tmp_path / "api/results.json").read_text())
    assert result.means["photos"] == (written["sets"]["photos"]["psnr"], written["sets"]["photos"]["ssim"])
    text = str(result)
    assert text == result.markdown() == (tmp_path / "api/results.md").read_text()
    assert text.splitlines()[0] == "| model | photos (2) |"
    assert capsys.readouterr().out.splitlines()[0] == "| model | photos (2) |"


def test_a_module_stays_as_it_is(photos):
    model = small("ATD").train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with atd.ops.use("torch"):
        result = atd.evaluate(model, photos, backend="reference", dtype=torch.float32)
        assert atd.ops.backend_report("cpu")[0] == "torch"
    assert result.conditions is not None
    assert (result.conditions.backend, result.conditions.dtype) == ("reference", "float32")
    assert result.model == "ATD"
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_baseline_has_no_network(photos):
    result = atd.evaluate("identity", photos, sigma=25)
    assert result.protocol.task == Denoising(25)
    assert (result.conditions, result.network) == (None, None)
    for name, score in result.sets["photos"].images.items():
        clean = np.asarray(Image.open(photos / name)) / 255
        noisy = (clean + np.random.RandomState(0).normal(0, 25 / 255, clean.shape)).clip(0, 1)
        assert score.psnr == pytest.approx(-10 * math.log10(np.mean((noisy - clean) ** 2)), abs=1e-3)


def test_progress_covers_every_image_and_may_end_the_run(photos):
    reports = []
    atd.evaluate("bicubic", photos, scale=2, progress=reports.append)
    assert [(report.done, report.total, report.image) for report in reports] == [
        (1, 2, "photos 0.png"),
        (2, 2, "photos 1.png"),
    ]
    assert reports[0].remaining > 0 == reports[1].remaining

    def stop(report: ImageProgress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        atd.evaluate("bicubic", photos, scale=2, progress=stop)


def test_nothing_is_written_unasked(photos, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    atd.evaluate("bicubic", photos, scale=2)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_sets_that_are_missing_are_logged(tmp_path, caplog):
    (tmp_path / "Set5/HR").mkdir(parents=True)
    Image.linear_gradient("L").resize((32, 32)).save(tmp_path / "Set5/HR/a.png")
    atd.evaluate("bicubic", tmp_path, scale=2)
    (record,) = caplog.records
    assert record.name.startswith("atd.")
    assert "Set14, B100, Urban100, Manga109" in record.getMessage()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "bundled"}, "among the weights of a named model, but a module was given"),
        ({"device": "meta"}, "move it yourself"),
        ({"dtype": "int8"}, "dtype must be one of float32, bfloat16, float16, float64, got 'int8'"),
        ({"backend": "cuda"}, "backend must be one of auto, triton, native, torch, reference, got 'cuda'"),
        ({"scale": 3}, "enlarges 2 times, but scale 3 was asked for"),
        ({"quality": 10}, "cannot be measured on 'jpeg'"),
        ({"channel": "gray"}, "takes 3 channels and cannot be measured on 'gray'"),
        ({"report": True}, "give output"),
        ({"report": True, "output": "x", "images": False}, "leave one of the two out"),
        ({"crop": 40}, "cannot crop 40 pixels"),
    ],
)
def test_mistakes_are_input_errors(photos, options, message):
    with pytest.raises(InputError, match=message):
        atd.evaluate(Recorder(), photos, **options)


def test_a_missing_folder_is_told_as_such(tmp_path):
    with pytest.raises(DataNotFoundError, match="absent does not exist") as caught:
        atd.evaluate("bicubic", tmp_path / "absent", scale=2)
    assert isinstance(caught.value, FileNotFoundError)
    with pytest.raises(InputError, match="quality from 1 to 100, got 0"):
        atd.evaluate("identity", tmp_path, quality=0)


def test_images_smaller_than_the_scale_are_told(tmp_path):
    Image.new("RGB", (48, 40)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png has 48x40 pixels: nothing is left of it at 1/200"):
        atd.evaluate("bicubic", tmp_path, scale=200)
