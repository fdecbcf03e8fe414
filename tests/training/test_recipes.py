"""Recipes: the published table, keys, overrides and their errors."""

import dataclasses
import subprocess
import sys

import pytest

from atd import registry
from atd.cli import main
from atd.errors import RecipeError
from atd.tasks import JpegArtefacts, SuperResolution
from atd.training import recipes
from atd.training.recipes import Recipe

# The table of the published trainings, written down from the papers and the authors' option files:
# id: (model, patch, batch, iterations, optimiser, lr, betas, weight decay, milestones, warm-up, start)
PUBLISHED = {
    "000": ("atd_sr_x2", [64], [48], [300_000], "adamw", 2e-4, (0.9, 0.9), 0, [250_000], 5000, ""),
    "001": ("atd_sr_x2", [96], [48], [120_000], "adamw", 1e-4, (0.9, 0.9), 0, [80_000, 100_000], 5000, "000"),
    "002": ("atd_sr_x3", [96], [48], [120_000], "adamw", 1e-4, (0.9, 0.9), 0, [80_000, 100_000], 5000, "000"),
    "003": ("atd_sr_x4", [96], [48], [120_000], "adamw", 1e-4, (0.9, 0.9), 0, [80_000, 100_000], 5000, "000"),
    "101": ("atd_light_sr_x2", [64], [64], [500_000], "adamw", 5e-4, (0.9, 0.9), 0,
            [250_000, 400_000, 450_000, 480_000], 20_000, ""),
    "102": ("atd_light_sr_x3", [64], [64], [250_000], "adamw", 2e-4, (0.9, 0.9), 0,
            [125_000, 200_000, 225_000, 240_000], 10_000, "101"),
    "103": ("atd_light_sr_x4", [64], [64], [250_000], "adamw", 2e-4, (0.9, 0.9), 0,
            [125_000, 200_000, 225_000, 240_000], 10_000, "101"),
    **{
        id: (model, [256, 384], [24, 12], [60_000, 40_000], "muon", lr, (0.9, 0.95), 0.01,
             [50_000, 70_000, 90_000], 0, "")
        for id, model, lr in [
            ("201", "atd_u_color_dn15", 1e-3), ("202", "atd_u_color_dn25", 1e-3), ("203", "atd_u_color_dn50", 1e-3),
            ("301", "atd_u_gray_dn15", 1e-3), ("302", "atd_u_gray_dn25", 1e-3), ("303", "atd_u_gray_dn50", 1e-3),
            ("401", "atd_u_gray_jpeg10", 8e-4), ("402", "atd_u_gray_jpeg20", 8e-4),
            ("403", "atd_u_gray_jpeg30", 8e-4), ("404", "atd_u_gray_jpeg40", 8e-4),
        ]
    },
}  # fmt: skip

# The trainings of CVPR 2024: id: (model, patch, iterations, lr, milestones, warm-up, start, data)
FOUR_HALVINGS = [150_000, 200_000, 225_000, 240_000]
CVPR = {
    "cvpr_000": ("atd_cvpr_sr_x2", 64, 300_000, 2e-4, [250_000], 10_000, "", "DF2K"),
    "cvpr_001": ("atd_cvpr_sr_x2", 96, 250_000, 2e-4, FOUR_HALVINGS, 10_000, "cvpr_000", "DF2K"),
    "cvpr_002": ("atd_cvpr_sr_x3", 96, 250_000, 2e-4, FOUR_HALVINGS, 10_000, "cvpr_001", "DF2K"),
    "cvpr_003": ("atd_cvpr_sr_x4", 96, 250_000, 2e-4, FOUR_HALVINGS, 10_000, "cvpr_001", "DF2K"),
    "cvpr_101": ("atd_cvpr_light_sr_x2", 64, 500_000, 5e-4, [250_000, 400_000, 450_000, 475_000, 490_000], 20_000, "",
                 "DIV2K"),
    "cvpr_102": ("atd_cvpr_light_sr_x3", 64, 250_000, 2e-4, FOUR_HALVINGS, 10_000, "cvpr_101", "DIV2K"),
    "cvpr_103": ("atd_cvpr_light_sr_x4", 64, 250_000, 2e-4, FOUR_HALVINGS, 10_000, "cvpr_101", "DIV2K"),
}  # fmt: skip


OF_REAL_ESRGAN = {"real_x4_mse", "real_x4_gan", "real_light_x4_mse", "real_light_x4_gan", "atd_real_x4"}


def test_the_24_published_trainings_are_recipes():
    assert {name for name in recipes.names() if name[-3:].isdigit()} == {*PUBLISHED, *CVPR}
    assert len({*PUBLISHED, *CVPR}) == 24


@pytest.mark.parametrize("id", CVPR)
def test_recipes_of_cvpr_2024_are_the_authors(id):
    recipe = recipes.get(id)
    model, patch, iterations, lr, milestones, warmup, start, images = CVPR[id]
    expected = {
        "model": model, "patch": (patch,), "batch": (32,), "iterations": (iterations,), "lr": lr,
        "milestones": tuple(milestones), "warmup": warmup, "finetune_from": start, "optimiser": "adamw",
        "betas": (0.9, 0.9), "weight_decay": 0, "schedule": "multistep", "loss": "l1", "ema": 0.999, "seed": 0,
        "mixup": 0, "clip": 0, "ema_warmup": False, "validate_every": 20_000, "amp": "none",
        "keep_every": 10_000, "keep": 0, "held_out": 0,
        "images": (f"{images}/{images}_train_HR",), "lr_images": (f"{images}/{images}_train_LR_bicubic/X{{scale}}",),
        "validation": ("Set5", "Set14", "B100", "Urban100", "Manga109"), "small_images": "pad",
        "activation_checkpointing": images == "DF2K",
    }  # fmt: skip
    assert {key: getattr(recipe, key) for key in expected} == expected
    assert recipe.task is SuperResolution


@pytest.mark.parametrize("id", PUBLISHED)
def test_published_recipes_are_the_papers(id):
    recipe = recipes.get(id)
    given = (
        recipe.model, list(recipe.patch), list(recipe.batch), list(recipe.iterations), recipe.optimiser, recipe.lr,
        recipe.betas, recipe.weight_decay, list(recipe.milestones), recipe.warmup, recipe.finetune_from,
    )  # fmt: skip
    assert given == PUBLISHED[id]
    info = registry.get(recipe.model)
    assert recipe.task is type(info.task)
    assert list(recipe.sigma) == ([info.sigma] if info.sigma else [])
    assert list(recipe.quality) == ([info.quality] if info.quality else [])
    assert not recipe.ema_warmup
    assert recipe.small_images == "pad"
    assert (recipe.held_out, recipe.keep) == (0, 0)
    assert (recipe.validate_every, recipe.validation) == {
        "0": (10_000, ("Set5", "Set14", "B100", "Urban100", "Manga109")),
        "1": (10_000, ("Set5", "Set14", "B100", "Urban100", "Manga109")),
        "2": (5_000, ("CBSD68", "Kodak24", "McMaster")),
        "3": (5_000, ("Set12", "BSD68")),
        "4": (5_000, ("classic5", "LIVE1")),
    }[id[0]]
    if recipe.task is SuperResolution:
        assert (recipe.loss, recipe.ema, recipe.mixup, recipe.clip, recipe.seed) == ("l1", 0.999, 0, 0, 0)
    else:
        assert (recipe.loss, recipe.mixup, recipe.clip, recipe.adam_lr) == ("charbonnier", 0.5, 0.01, 2e-4)
        assert recipe.ema == (0.999 if recipe.task is JpegArtefacts else 0)


def test_recipes_of_this_package_average_and_choose_images_as_when_their_weights_were_trained():
    for name in set(recipes.names()) - {*PUBLISHED, *CVPR, *OF_REAL_ESRGAN}:
        assert recipes.get(name).ema_warmup, name
        assert recipes.get(name).small_images == "skip", name


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_names_a_model_and_prints_itself(name, tmp_path):
    recipe = recipes.get(name)
    # Networks for bicubic super-resolution learn real photos too.
    trained_for = {recipe.task, SuperResolution} if recipe.real else {recipe.task}
    assert type(registry.get(recipe.model).task) in trained_for
    path = tmp_path / f"{name}.toml"
    path.write_text(recipe.to_toml(), encoding="utf-8")
    assert recipes.get(str(path)) == recipe


def test_overrides():
    recipe = recipes.get("201").override(
        ["lr=3", "patch=8", "batch=[4]", "iterations=5", "config.depths=[1, 1]", "finetune_from=101", "compile=true"]
    )
    assert recipe.lr == 3.0
    assert isinstance(recipe.lr, float)
    assert (recipe.patch, recipe.batch, recipe.iterations) == ((8,), (4,), (5,))
    assert recipe.config == {"depths": [1, 1]}
    assert recipe.finetune_from == "101"
    assert recipe.compile is True
    assert recipe.adam_lr == recipes.get("201").adam_lr


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("warm_up=3", "unknown key 'warm_up', the nearest one is 'warmup'"),
        ("lr=fast", "lr must be float, got 'fast'"),
        ("seed=1.5", "seed must be int, got 1.5"),
        ("seed=true", "seed must be int, got True"),
        ('milestones=[1, "a"]', "milestones must be int"),
        ("optimiser=sgd", "optimiser must be one of adamw, muon, got 'sgd'"),
        ("patch=[1, 2, 3]", "one entry per stage, got 3, 2 and 2"),
        ("batch=[0, 4]", "batch must be positive"),
        ("betas=0.9", "betas must be two numbers"),
        ("quality=10", "sigma means denoising and quality JPEG"),
        ("lr", "an override looks like key=value"),
        ("images=[a, b]", "words in it need quotes"),
        ("learning_rate=1e-3", "unknown key 'learning_rate', the nearest one is 'lr'"),
        ("log_every=0", "log_every must be positive, got 0"),
        ("validate_every=0", "validate_every must be positive, got 0"),
        ("micro_batch=[]", "micro_batch needs a number"),
        ("micro_batch=-1", "micro_batch must not be negative, got [-1]"),
        ("seed=-1", "seed must not be negative, got -1"),
        ("sigma=[10, 20, 30]", "the two ends of a range in order, got [10.0, 20.0, 30.0] (levels=choice makes it a"),
        ("levels=any", "levels must be one of range, choice, got 'any'"),
        ("schedule=cosine_restarts", "schedule=cosine_restarts needs periods"),
        ("periods=0", "periods must be positive, got [0]"),
        ("restart_weights=1", "restart_weights needs one factor for each of periods"),
        ("lr_min=1", "lr_min must not exceed lr, got 1.0 and 0.001"),
        ("sigma=[50, 10]", "the two ends of a range in order, got [50.0, 10.0]"),
        ("ema=1", "ema must be at least 0 and below 1"),
    ],
)
def test_wrong_overrides_are_explained(override, message):
    with pytest.raises(RecipeError, match=r"recipe 201|override") as error:
        recipes.get("201").override([override])
    assert message in str(error.value)


@pytest.mark.parametrize("quality", ["[0, 10]", "[90, 101]", "0"])
def test_impossible_qualities_are_explained(quality):
    with pytest.raises(RecipeError, match="quality must be from 1 to 100"):
        recipes.get("401").override([f"quality={quality}"])


def test_torch_users_spelling_of_the_optimiser_is_accepted(tmp_path):
    assert recipes.get("101").override(["optimizer=muon"]).optimiser == "muon"
    path = tmp_path / "mine.toml"
    path.write_text('summary = ""\nmodel = "atd_sr_x2"\noptimizer = "muon"')
    recipe = recipes.get(str(path))
    assert recipe.optimiser == "muon"
    assert 'optimiser = "muon"' in recipe.to_toml()
    path.write_text('summary = ""\nmodel = "atd_sr_x2"\noptimizer = "muon"\noptimiser = "adamw"')
    with pytest.raises(RecipeError, match="optimiser is given twice, once as optimizer"):
        recipes.get(str(path))


def test_text_of_any_kind_survives_being_written_as_toml(tmp_path):
    note = 'two\nlines, a "quote", a back\\slash, a tab\t and σ'
    recipe = dataclasses.replace(recipes.get("101"), note=note, config={"upsampler": "a\nb"})
    path = tmp_path / "101.toml"
    path.write_text(recipe.to_toml(), encoding="utf-8")
    assert recipes.get(str(path)) == recipe


def test_stages_count_iterations_and_samples_on():
    recipe = recipes.get("201").override(["micro_batch=[6, 3]"])
    assert [tuple(stage) for stage in recipe.stages] == [
        (0, 60_000, 0, 256, 24, 6),
        (60_000, 40_000, 60_000 * 24, 384, 12, 3),
    ]


def test_reading_recipes_costs_no_torch():
    script = "import sys; from atd.training import get_recipe; get_recipe('103'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_wrong_files_are_explained(tmp_path):
    path = tmp_path / "mine.toml"
    with pytest.raises(ValueError, match=r"no recipe file .*mine\.toml"):
        recipes.get(str(path))
    path.write_text("lr = ")
    with pytest.raises(ValueError, match=r"mine\.toml: not valid TOML"):
        recipes.get(str(path))
    path.write_bytes("summary = 'größer'".encode("latin-1"))
    with pytest.raises(RecipeError, match=r"mine\.toml: not a text file in UTF-8"):
        recipes.get(str(path))
    path.write_text("lr = 1")
    with pytest.raises(ValueError, match=r"mine\.toml: model and summary must be given"):
        recipes.get(str(path))
    path.write_text('summary = ""\nmodel = ""\nbacth = 3')
    with pytest.raises(ValueError, match=r"mine\.toml: unknown key 'bacth', the nearest one is 'batch'"):
        recipes.get(str(path))
    with pytest.raises(ValueError, match="did you mean laptop_x4"):
        recipes.get("laptop")


def test_level_of_the_validation():
    assert recipes.get("402").level == 20
    assert recipes.get("tiny_color_dn").level == 25
    assert recipes.get("101").level == 0
    assert Recipe(id="a", summary="", model="", sigma=(5.0, 50.0)).level == 5


def test_command_line_lists_and_shows(capsys):
    assert main(["train", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines} >= {*PUBLISHED, *CVPR}
    assert main(["train", "--show", "103", "batch=8"]) == 0
    shown = capsys.readouterr().out
    assert 'model = "atd_light_sr_x4"' in shown
    assert "batch = [8]" in shown
    assert main(["train", "--show", "130"]) == 2
    assert "did you mean" in capsys.readouterr().err
    assert main(["train", "103"]) == 2
    assert "--data DIR and --output DIR" in capsys.readouterr().err
