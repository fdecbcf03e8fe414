import json
import re
from dataclasses import replace

import numpy as np
import pytest

import atd
from atd import registry
from atd.cli import build_parser
from atd.errors import InputError
from atd.evaluation.candidates import BASELINES, RunOptions, open_candidate
from atd.evaluation.datasets import default_sets
from atd.evaluation.planning import plan_evaluation
from atd.evaluation.scoring import score_sets
from atd.training import recipes
from tools import score_tables

INFOS = [registry.get(name) for name in atd.list_models()]


@pytest.mark.parametrize(
    ("page", "table"),
    [(score_tables.NETWORKS_PAGE, score_tables.full_tables), (score_tables.README, score_tables.short_table)],
    ids=["docs", "readme"],
)
def test_pages_hold_the_registrys_table(page, table):
    _, between, _ = score_tables.between_markers(page)
    assert between.strip() == table(), "run `python -m tools.score_tables`"


def test_the_readmes_table_is_short_and_names_every_family():
    lines = score_tables.short_table().splitlines()
    assert len(lines) <= 15
    for info in INFOS:
        family = re.sub(r"\d+$", "", info.name)
        start = f"| `{family}" if info.author is None else "| `4x"
        assert any(line.startswith(start) and (info.author is None or info.name in line) for line in lines), info.name
    assert any("| bundled |" in line for line in lines)


def rows(text, name):
    return [line for line in text.splitlines() if line.startswith(f"| `{name}` ")]


def test_table_holds_every_network_and_every_published_score():
    text = score_tables.full_tables()
    for info in INFOS:
        whose = "official" if info.author is None else "community"
        lines = [line for line in rows(text, info.name) if f"| {whose} |" in line]
        assert len(lines) == bool(info.sources.in_order), info.name
        assert info.author is None or (info.good_for in text and info.author in text)
        for psnr, ssim in info.scores.values():
            cell = f"{psnr:.2f}" if ssim is None else f"{psnr:.2f} / {ssim:.4f}"
            assert f" {cell} |" in lines[0], info.name
            assert "| published [" in lines[0]


def test_published_scores_are_of_the_papers_sets():
    """A set whose name the protocol does not know would have no column, and its score would vanish."""
    for info in INFOS:
        if info.sources.drive:
            assert tuple(info.scores) == default_sets(info.task, gray=info.in_channels == 1), info.name


def test_a_few_published_scores_as_the_papers_print_them():
    """Read off the tables of arXiv 2603.02581 by hand."""
    text = score_tables.full_tables()
    for name, cells in {
        "atd_sr_x4": "33.19 / 0.9068 | 29.30 / 0.7986 | 28.04 / 0.7530 | 28.24 / 0.8420 | 32.71 / 0.9311",
        "atd_light_sr_x2": "38.33 / 0.9618 | 34.11 / 0.9224 | 32.40 / 0.9025 | 33.36 / 0.9387 | 39.54 / 0.9788",
        "atd_u_color_dn25": "31.85 | 33.12 | 33.47 | 33.28",
        "atd_u_gray_dn50": "28.10 | 26.65 | 28.80",
        "atd_u_gray_jpeg10": "30.34 / 0.8264 | 29.91 / 0.8304 | 30.88 / 0.8882",
    }.items():
        assert rows(text, name)[0].endswith(f"| {cells} |")


def test_measured_scores_name_a_command_that_can_be_run():
    """Every cited command parses, and names the sets and the level of what it measured."""
    text = score_tables.full_tables()
    runs = [(info, run) for info in INFOS for run in score_tables.measured_runs(info)]
    assert text.count("| measured |") == len(runs)
    for info, run in runs:
        assert info.bundled, "scores are measured of weights in the package"
        command = score_tables.command(info, run)
        assert f"- `{command}`" in text
        args = build_parser().parse_args(command.split()[1:])
        assert (args.model, args.weights, args.sets) == (info.name, "bundled", list(run["sets"]))
        assert (args.sigma or info.sigma, args.quality or info.quality) == (run["sigma"], run["quality"])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in atd.list_models() if registry.get(name).bundled])
def test_measured_scores_are_those_of_the_weights(name, data):
    """For every run, one image measured again; and the means are those of the images."""
    candidate = open_candidate(name, RunOptions(weights="bundled"))
    runs = score_tables.measured_runs(registry.get(name))
    assert runs, f"measure {name} and keep it with `python -m tools.score_tables --record`"
    for run in runs:
        for entry in run["sets"].values():
            assert len(entry["images"]) == entry["count"]
            means = [np.mean([image[key] for image in entry["images"].values()]) for key in ("psnr", "ssim")]
            assert means == pytest.approx([entry["psnr"], entry["ssim"]])
        set_name = next(iter(run["sets"]))
        levels = {level: run[level] for level in ("sigma", "quality")}
        protocol, (benchmark,), _ = plan_evaluation(candidate, data, [set_name], **levels)
        pair = min(benchmark.pairs, key=lambda pair: pair.reference.stat().st_size)
        scores = score_sets(candidate, protocol, [replace(benchmark, pairs=(pair,))])
        found = scores[set_name].mean
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
    row = '| `atd_light_sr_x4` | ×4 | 0.777 M | `weights="bundled"` | measured | 30.00 / 0.9000 | – | – | – | – |'
    text = score_tables.full_tables()
    assert row in text
    assert "- `atd evaluate atd_light_sr_x4 --weights bundled --data DATA --sets Set5`" in text


def test_recording_keeps_a_run_for_every_level(tmp_path, elsewhere):
    options = results()["options"] | {"channel": "rgb", "crop": 0}
    for sigma, psnr in ((50, 20.0), (25, 25.0), (50, 21.0)):
        sets = {"McMaster": {"count": 18, "psnr": psnr, "ssim": 0.5}}
        written = results(model="atd_u_tiny_color_dn", sigma=sigma, options=options, sets=sets)
        score_tables.record(write(tmp_path, written))
    runs = score_tables.measured_runs(registry.get("atd_u_tiny_color_dn"))
    assert [(run["sigma"], run["sets"]["McMaster"]["psnr"]) for run in runs] == [(25, 25.0), (50, 21.0)]
    text = score_tables.full_tables()
    assert '| σ 50 | 1.015 M | `weights="bundled"` | measured | – | – | 21.00 / 0.5000 | – |' in text
    assert "--sets McMaster --sigma 50`" in text


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


def test_a_page_without_markers(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# atd\n<!-- /networks --><!-- networks -->")
    with pytest.raises(InputError, match=r"page\.md has no place .* put <!-- networks --> and <!-- /networks -->"):
        score_tables.rewrite(page, "| a |")


def test_only_the_table_of_a_page_is_rewritten(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- networks -->\nold\n<!-- /networks -->\nafter\n")
    score_tables.rewrite(page, "| new |")
    assert page.read_text() == "before\n<!-- networks -->\n| new |\n<!-- /networks -->\nafter\n"


def test_commands_in_the_documentation_name_what_exists():
    """The 16 test commands and 24 trainings of the authors have their counterparts, and no command names a ghost."""
    pages = [score_tables.README, *sorted(score_tables.NETWORKS_PAGE.parent.rglob("*.md"))]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)

    def named(command):
        words = re.findall(rf"atd {command} ([\w.-]+)", text)
        return {word for word in words if not word.isupper() and "." not in word and word[0] != "-"}

    evaluated, trained = named("evaluate"), named("train")
    assert evaluated <= {*atd.list_models(), *BASELINES}
    assert trained <= set(recipes.names())
    infos = [registry.get(name) for name in atd.list_models()]
    tpami = {info.name for info in infos if info.sources.drive and "TPAMI" in info.paper}
    assert len(tpami) == 16
    assert tpami <= evaluated
    published = {name for name in recipes.names() if re.fullmatch(r"(cvpr_)?\d{3}", name)}
    assert len(published) == 24
    assert published <= trained
