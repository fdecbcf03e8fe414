import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import atd
from atd import registry
from atd.cli import build_parser
from atd.evaluation import scoring
from atd.evaluation.candidates import BASELINES, Settings, open_candidate
from atd.training import recipes
from tools import score_tables

README = Path(__file__).parents[2] / "README.md"


def test_readme_table_is_the_registrys():
    text = README.read_text(encoding="utf-8")
    begin, end = score_tables.between_markers(text)
    assert text[begin:end].strip() == score_tables.markdown(), "run `python -m tools.score_tables README.md`"


def test_table_holds_every_network_and_every_published_score():
    text = score_tables.markdown()
    for name in atd.list_models():
        info = registry.get(name)
        lines = [line for line in text.splitlines() if line.startswith(f"| `{name}` ") and "official" in line]
        assert len(lines) == bool(info.sources.drive or info.sources.hub), name
        for psnr, ssim in info.scores.values() if info.scale > 1 else ():
            assert f" {psnr:.2f} / {ssim:.4f} |" in lines[0]
            assert "published" in lines[0]


def test_measured_scores_name_a_command_that_can_be_run():
    """Every cited command parses, and names the sets and the level of what it measured."""
    text = score_tables.markdown()
    infos = [registry.get(name) for name in atd.list_models()]
    runs = [(info, run) for info in infos for run in score_tables.measured_runs(info)]
    assert text.count("measured at ") + text.count("| measured |") == len(runs)
    for info, run in runs:
        assert info.bundled, "scores are measured of weights in the package"
        command = score_tables.command(info, run)
        assert f"- `{command}`" in text
        args = build_parser().parse_args(command.split()[1:])
        assert (args.model, args.weights, args.sets) == (info.name, "bundled", list(run["sets"]))
        assert (args.sigma or info.sigma, args.quality or info.quality) == (run["sigma"], run["quality"])


@pytest.mark.parametrize("name", [name for name in atd.list_models() if registry.get(name).bundled])
def test_measured_scores_are_those_of_the_weights(name, data):
    """For every run, one image measured again; and the means are those of the images."""
    candidate = open_candidate(name, Settings(weights="bundled"))
    runs = score_tables.measured_runs(registry.get(name))
    assert runs, f"measure {name} and keep it with `python -m tools.score_tables --record`"
    for run in runs:
        for entry in run["sets"].values():
            assert len(entry["images"]) == entry["count"]
            means = [np.mean([image[key] for image in entry["images"].values()]) for key in ("psnr", "ssim")]
            assert means == pytest.approx([entry["psnr"], entry["ssim"]])
        set_name = next(iter(run["sets"]))
        levels = {level: run[level] for level in ("sigma", "quality")}
        protocol, (benchmark,), _ = scoring.prepare(candidate, data, [set_name], **levels)
        pair = min(benchmark.pairs, key=lambda pair: pair.reference.stat().st_size)
        # Without its model attribute a candidate runs as before, and its multiply-adds are not counted.
        scored = scoring.evaluate(replace(candidate, model=None), protocol, [replace(benchmark, pairs=(pair,))])
        found = scored.sets[set_name].mean
        stored = run["sets"][set_name]["images"][pair.name]
        assert found.psnr == pytest.approx(stored["psnr"], abs=0.01)
        assert found.ssim == pytest.approx(stored["ssim"], abs=0.0005)


def results(**changes):
    options = {"tile": "auto", "self_ensemble": False, "dtype": "float32", "border": "edge", "channel": "y", "crop": 4}
    sets = {"Set5": {"count": 5, "psnr": 30.0, "ssim": 0.9, "images": {}}, "Urban100": {"count": 10}}
    usual = {"model": "atd_light_sr_x4", "weights": "bundled", "sigma": None, "quality": None}
    return usual | {"options": options, "sets": sets} | changes


def write(folder, results, tiled=0):
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "cost.json").write_text(json.dumps({"tiled_images": tiled}))
    return folder


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Bundled files are looked for in a temporary folder."""
    path = property(lambda info: tmp_path / f"{info.name}.safetensors")
    monkeypatch.setattr(registry.ModelInfo, "bundled_path", path)


def test_recording_keeps_whole_sets_only(tmp_path, elsewhere):
    assert score_tables.record(write(tmp_path, results())) == tmp_path / "atd_light_sr_x4.json"
    (run,) = score_tables.measured_runs(registry.get("atd_light_sr_x4"))
    assert list(run["sets"]) == ["Set5"]
    row = '| `atd_light_sr_x4` | 0.777 M | `weights="bundled"` | measured | 30.00 / 0.9000 | – | – | – | – |'
    assert row in score_tables.markdown()
    assert "- `atd evaluate atd_light_sr_x4 --weights bundled --data DATA --sets Set5`" in score_tables.markdown()


def test_recording_keeps_a_run_for_every_level(tmp_path, elsewhere):
    options = results()["options"] | {"channel": "rgb", "crop": 0}
    for sigma, psnr in ((50, 20.0), (25, 25.0), (50, 21.0)):
        sets = {"McMaster": {"count": 18, "psnr": psnr, "ssim": 0.5}}
        written = results(model="atd_u_tiny_color_dn", sigma=sigma, options=options, sets=sets)
        score_tables.record(write(tmp_path, written))
    runs = score_tables.measured_runs(registry.get("atd_u_tiny_color_dn"))
    assert [(run["sigma"], run["sets"]["McMaster"]["psnr"]) for run in runs] == [(25, 25.0), (50, 21.0)]
    assert "measured at σ 50: McMaster 21.00 / 0.5000 |" in score_tables.markdown()
    assert "--sets McMaster --sigma 50`" in score_tables.markdown()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": "official"}, "see weights 'official'"),
        ({"options": results()["options"] | {"tile": 64}}, "see tile"),
    ],
)
def test_recording_refuses_other_settings(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        score_tables.record(write(tmp_path, results(**changes)))


def test_recording_refuses_tiled_images(tmp_path):
    with pytest.raises(ValueError, match="see tiled_images"):
        score_tables.record(write(tmp_path, results(), tiled=1))


def test_readme_without_markers():
    with pytest.raises(ValueError, match="put <!-- zoo --> and <!-- /zoo -->"):
        score_tables.between_markers("# atd\n<!-- /zoo --><!-- zoo -->")


def test_commands_in_the_readme_name_what_exists():
    """The 16 test commands and 17 trainings of the authors have their counterparts, and no command names a ghost."""
    text = README.read_text(encoding="utf-8")

    def named(command):
        words = re.findall(rf"atd {command} ([\w.-]+)", text)
        return {word for word in words if not word.isupper() and "." not in word and word[0] != "-"}

    evaluated, trained = named("evaluate"), named("train")
    assert evaluated <= {*atd.list_models(), *BASELINES}
    assert trained <= set(recipes.names())
    tpami = {name for name in atd.list_models() if registry.get(name).sources.drive and "cvpr" not in name}
    assert len(tpami) == 16
    assert tpami <= evaluated
    published = {name for name in recipes.names() if re.fullmatch(r"\d{3}", name)}
    assert len(published) == 17
    assert published <= trained
