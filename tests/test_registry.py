"""The table of networks against the full-size state dicts and the published figures."""

import json
import math
import re

import pytest
import torch

import atd
from atd import registry

PUBLISHED = [
    "atd_sr_x2", "atd_sr_x3", "atd_sr_x4",
    "atd_light_sr_x2", "atd_light_sr_x3", "atd_light_sr_x4",
    "atd_u_color_dn15", "atd_u_color_dn25", "atd_u_color_dn50",
    "atd_u_gray_dn15", "atd_u_gray_dn25", "atd_u_gray_dn50",
    "atd_u_gray_jpeg10", "atd_u_gray_jpeg20", "atd_u_gray_jpeg30", "atd_u_gray_jpeg40",
    "atd_cvpr_sr_x2", "atd_cvpr_sr_x3", "atd_cvpr_sr_x4",
    "atd_cvpr_light_sr_x2", "atd_cvpr_light_sr_x3", "atd_cvpr_light_sr_x4", "atd_real_sr_x4",
]  # fmt: skip


@pytest.fixture(scope="module")
def shapes(golden):
    table = json.loads((golden / "state_dict_shapes.json").read_text())
    by_channels = {3: table["atd_u_color"], 1: table["atd_u_gray"]}
    return {name: table.get(name) or by_channels[registry.get(name).in_channels] for name in PUBLISHED}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_config_are_those_of_the_published_network(name, shapes):
    info = registry.get(name)
    expected = {key: tuple(shape) for key, shape in shapes[name].items()}
    weights = [shape for key, shape in expected.items() if not key.endswith("relative_position_index_SA")]
    assert info.parameters == sum(map(math.prod, weights))
    with torch.device("meta"):
        model = atd.create(name)
    assert {key: tuple(value.shape) for key, value in model.state_dict().items()} == expected
    assert (model.name, model.task, model.scale, model.in_channels) == (
        name,
        info.task.key,
        info.scale,
        info.in_channels,
    )


def test_names_tell_task_level_and_scale():
    for name in PUBLISHED:
        info = registry.get(name)
        key = info.task.key
        ending = {"sr": "_x", "real": "_x", "denoise": "_dn", "jpeg": "_jpeg"}[key]
        assert name.endswith(f"{ending}{info.task.level or info.scale}")
        assert info.in_channels == (1 if "_gray_" in name else 3)


def test_scores_are_the_papers():
    assert registry.get("atd_cvpr_sr_x2").scores["Manga109"] == (40.35, 0.9810)
    assert registry.get("atd_cvpr_sr_x4").scores["Set5"] == (33.14, 0.9061)
    assert registry.get("atd_cvpr_light_sr_x3").scores == {
        "Set5": (34.74, 0.9300),
        "Set14": (30.68, 0.8485),
        "B100": (29.32, 0.8109),
        "Urban100": (29.17, 0.8709),
        "Manga109": (34.60, 0.9506),
    }


def test_every_drive_file_belongs_to_one_name():
    files = [registry.get(name).sources.drive for name in PUBLISHED]
    assert len({(file.folder, file.name) for file in files}) == len(PUBLISHED)
    ids = [file.id for file in files if file.id]
    assert len(ids) == len(set(ids)) == 4


def test_every_source_that_is_no_drive_file_is_pinned_and_known():
    """A commit, a SHA-256 and a size, so that nothing floats; an address is https."""
    for name in atd.list_models():
        for source in registry.get(name).sources.in_order.values():
            if isinstance(source, registry.DriveFile):
                continue
            assert source.size, name
            assert re.fullmatch("[0-9a-f]{64}", source.sha256)
            if isinstance(source, registry.HubFile):
                assert re.fullmatch("[0-9a-f]{40}", source.revision)
            else:
                assert source.url.startswith("https://")


def test_sources_come_in_one_order():
    """The architecture's: hub, https, Drive."""
    three = registry.Sources(
        drive=registry.DriveFile(folder="f", name="n"),
        https=registry.HttpsFile(url="https://a/n"),
        hub=registry.HubFile(revision="r"),
    )
    assert list(three.in_order) == ["hub", "https", "drive"]


def test_networks_of_one_configuration_are_met_by_their_own_names_alone():
    config = registry.get("atd_cvpr_sr_x4").config
    names = registry.names_of("ATDCVPR", config)
    assert names[0] == "atd_cvpr_sr_x4"
    assert len(names) == 5
    for name in names:
        assert registry.match(name, "ATDCVPR", config) == name
    assert registry.match(None, "ATDCVPR", config) is None
    known = registry.get("4xNomos2_hq_atd").sources.hub.sha256
    assert registry.name_of_content(known) == "4xNomos2_hq_atd"
    assert registry.name_of_content("0" * 64) is None


def test_list_models_matches_shell_patterns():
    assert set(PUBLISHED) <= set(atd.list_models())
    assert atd.list_models("atd_light_sr_x?") == ["atd_light_sr_x2", "atd_light_sr_x3", "atd_light_sr_x4"]
    assert atd.list_models("nothing*") == []


def test_an_unknown_name_gets_the_nearest_ones():
    with pytest.raises(atd.LoadError, match="atd_light_sr_x4"):
        atd.create("atd_lite_sr_x4")
    with pytest.raises(atd.LoadError, match=r"list_models"):
        registry.get("swinir")


def test_an_override_that_changes_the_network_takes_its_name_away():
    assert atd.create("atd_light_sr_x4", use_checkpoint=True).name == "atd_light_sr_x4"
    assert atd.create("atd_light_sr_x4", depths=[1], num_heads=[3]).name is None


def test_a_created_network_does_not_share_its_settings_with_the_table():
    atd.create("atd_light_sr_x4").config["depths"].append(1)
    assert registry.get("atd_light_sr_x4").config["depths"] == [6, 6, 6, 6]


def test_scores_of_the_second_paper_are_there():
    """TPAMI 2026, tables 1, 2, 7, 8 and 9: one cell of each."""
    assert registry.get("atd_sr_x4").scores["Urban100"] == (28.24, 0.8420)
    assert registry.get("atd_light_sr_x2").scores["Set5"] == (38.33, 0.9618)
    assert registry.get("atd_u_color_dn25").scores["Kodak24"] == (33.12, None)
    assert registry.get("atd_u_gray_dn50").scores["Set12"] == (28.10, None)
    assert registry.get("atd_u_gray_jpeg40").scores["classic5"] == (34.59, 0.9088)
    assert [name for name in PUBLISHED if not registry.get(name).scores] == ["atd_real_sr_x4"]  # none are published


def test_an_override_that_changes_nothing_keeps_the_name_in_either_spelling():
    with torch.device("meta"):
        assert atd.create("atd_light_sr_x4", depths=(6, 6, 6, 6)).name == "atd_light_sr_x4"
        assert atd.create("atd_light_sr_x4", depths=[6, 6, 6, 6]).name == "atd_light_sr_x4"
        assert atd.create("atd_light_sr_x4", depths=(6, 6, 6, 2)).name is None


def test_a_network_of_another_class_is_not_the_registered_one():
    info = registry.get("atd_light_sr_x4")
    assert registry.match(info.name, "ATD", info.config) == info.name
    assert registry.match(info.name, "ATDCVPR", info.config) is None
    assert registry.match("atd_light_sr_x3", "ATD", info.config) is None
    assert registry.match(None, "ATD", info.config) is None
