"""`atd restore` on real files, with a tiny ATD network saved as a folder."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from small_networks import small

import atd
from atd.cli import build_parser, main
from atd.cli.networks import Networks
from atd.tasks import RealWorld
from atd.weights.hub import placed_file
from atd.weights.photos import network_for_photos
from atd.weights.saving import write_bundled


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A folder with a tiny network of scale 2, called "tiny"."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    torch.manual_seed(0)
    model = atd.ATD(
        upscale=2,
        embed_dim=12,
        depths=[1],
        num_heads=[2],
        window_size=8,
        category_size=16,
        num_tokens=8,
        reducted_dim=4,
        dim_ffn_td=4,
        convffn_kernel_size=3,
        mlp_ratio=1,
        upsampler="pixelshuffledirect",
    )
    model.save_pretrained(folder)
    return folder


def photo(path, seed=0, size=(20, 14), mode="RGB"):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def run(*arguments):
    return main(["restore", *(str(argument) for argument in arguments)])


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_one_file_into_a_folder_and_into_a_file(network, tmp_path, capsys):
    photo(tmp_path / "a.png")
    assert run("-i", tmp_path / "a.png", "-o", tmp_path / "out", "--model", network) == 0
    assert names(tmp_path / "out") == ["a_tiny.png"]
    assert run("-i", tmp_path / "a.png", "-o", tmp_path / "big.png", "--model", network) == 0
    assert Image.open(tmp_path / "big.png").size == (40, 28)
    result = np.asarray(Image.open(tmp_path / "out" / "a_tiny.png"))
    assert np.array_equal(result, np.asarray(Image.open(tmp_path / "big.png")))
    assert np.array_equal(result, np.asarray(atd.restore(atd.load(network), tmp_path / "a.png")))
    assert "1 restored" in capsys.readouterr().err


def test_a_bad_file_is_reported_and_the_rest_go_on(network, tmp_path, capsys):
    photo(tmp_path / "in" / "a.png")
    photo(tmp_path / "in" / "c.png", seed=1)
    (tmp_path / "in" / "b.png").write_bytes(b"not an image")
    (tmp_path / "in" / "d.png").write_bytes(b"")
    (tmp_path / "in" / "notes.txt").write_text("not taken from a folder")
    for workers in (1, 3):
        out = tmp_path / f"out{workers}"
        assert run("-i", tmp_path / "in", "-o", out, "--model", network, "--workers", workers) == 1
        assert names(out) == ["a_tiny.png", "c_tiny.png"]
        errors = capsys.readouterr().err
        assert "b.png is not an image" in errors
        assert "d.png is empty" in errors
        assert "2 restored, 2 failed" in errors
        assert "notes" not in errors


def test_existing_results_are_skipped_and_counted_unless_overwritten(network, tmp_path, capsys):
    photo(tmp_path / "in" / "a.png")
    photo(tmp_path / "in" / "b.png")
    out = tmp_path / "out"
    out.mkdir()
    (out / "a_tiny.png").write_text("mine")
    assert run("-i", tmp_path / "in", "-o", out, "--model", network) == 0
    assert (out / "a_tiny.png").read_text() == "mine"
    assert "1 restored, 1 skipped" in capsys.readouterr().err
    assert run("-i", tmp_path / "in", "-o", out, "--model", network, "--overwrite") == 0
    assert Image.open(out / "a_tiny.png").size == (40, 28)
    assert "2 restored" in capsys.readouterr().err


def test_recursive_mirrors_the_tree_with_patterns(network, tmp_path):
    for name in ("a.png", "x/b.png", "x/y/c.jpg", "x/y/thumb.png", "z/d.png"):
        photo(tmp_path / "in" / name)
    out = tmp_path / "out"
    arguments = ("-i", tmp_path / "in", "-o", out, "--model", network)
    assert run(*arguments) == 0
    assert names(out) == ["a_tiny.png"]
    assert run(*arguments, "--recursive", "--exclude", "thumb*", "z/*") == 0
    assert names(out) == ["a_tiny.png", "x/b_tiny.png", "x/y/c_tiny.jpg"]
    assert run(*arguments, "--recursive", "--include", "z/*") == 0
    assert "z/d_tiny.png" in names(out)


def test_output_inside_the_input_is_not_restored_again(network, tmp_path, capsys):
    for name, out in (("x", tmp_path / "x" / "out"), ("y", tmp_path / "y")):
        photo(tmp_path / name / "a.png")
        for _ in range(2):
            assert run("-i", tmp_path / name, "-o", out, "--model", network, "--recursive") == 0
        assert "1 skipped" in capsys.readouterr().err
    assert names(tmp_path) == ["x/a.png", "x/out/a_tiny.png", "y/a.png", "y/a_tiny.png"]


@pytest.mark.parametrize(
    ("format", "ending", "name"), [("same", ".jpg", "JPEG"), ("png", ".png", "PNG"), ("webp", ".webp", "WEBP")]
)
def test_format(network, tmp_path, format, ending, name):
    photo(tmp_path / "a.jpg")
    assert run("-i", tmp_path / "a.jpg", "-o", tmp_path / "out", "--model", network, "--format", format) == 0
    assert names(tmp_path / "out") == [f"a_tiny{ending}"]
    assert Image.open(tmp_path / "out" / f"a_tiny{ending}").format == name


def test_a_file_given_twice_is_restored_once_and_names_keep_their_dots(network, tmp_path, capsys):
    photo(tmp_path / "in" / "a.v2.png")
    arguments = ("-o", tmp_path / "out", "--model", network, "--format", "jpg", "--overwrite")
    assert run("-i", tmp_path / "in", tmp_path / "in" / "a.v2.png", *arguments) == 0
    assert names(tmp_path / "out") == ["a.v2_tiny.jpg"]
    assert "1 restored" in capsys.readouterr().err


def test_two_inputs_never_share_an_output(network, tmp_path, capsys):
    photo(tmp_path / "in" / "a.png")
    photo(tmp_path / "in" / "a.jpg")
    assert run("-i", tmp_path / "in", "-o", tmp_path / "out", "--model", network, "--format", "png") == 2
    assert "would both be written to" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_tile_device_dtype_and_outscale(network, tmp_path):
    photo(tmp_path / "a.png", size=(40, 33))
    arguments = ("--tile", 16, "--overlap", 8, "--device", "cpu", "--dtype", "bfloat16", "--outscale", 3, "--quiet")
    assert run("-i", tmp_path / "a.png", "-o", tmp_path / "b.png", "--model", network, *arguments) == 0
    assert Image.open(tmp_path / "b.png").size == (120, 99)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "x", "--scale", "2"), "--scale and --model both pick a network"),
        (("--scale", "2", "--denoise", "25"), "--outscale"),
        (("--denoise", "30"), "--weights bundled takes a small network for any level from 0 to 55"),
        (("--denoise", "56", "--weights", "bundled"), "0 to 55"),
        (("--jpeg", "4", "--weights", "bundled"), "5 to 95"),
        (("--suffix", "a/b"), "part of a file's name"),
        (("--model", "x", "--denoise", "25"), "both pick a network"),
        (("--model", "atd_sr_x5"), "atd_sr_x"),
        (("--save-quality", "0"), "quality from 1 to 100"),
    ],
)
def test_bad_arguments_end_with_status_2_and_one_sentence(network, tmp_path, capsys, arguments, message):
    photo(tmp_path / "a.png")
    named = {"--model", "--scale", "--denoise", "--jpeg"} & {*arguments}
    extra = () if named else ("--model", network)
    assert run("-i", tmp_path / "a.png", "-o", tmp_path / "out", *extra, *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_a_missing_input_is_named(network, tmp_path, capsys):
    for path, message in [
        (tmp_path / "none.png", "none.png does not exist\n"),
        (tmp_path / "no" / "way" / "none.png", f"none.png does not exist: there is no folder {tmp_path / 'no'}\n"),
        ("https://example.org/a.png", "https://example.org/a.png is a web address: download the file"),
        ("/proc", "no image files in /proc"),
        ("/proc/cpuinfo", "/proc/cpuinfo is empty"),
    ]:
        status = run("-i", path, "-o", tmp_path / "out", "--model", network)
        assert (status, message in capsys.readouterr().err) == (1 if "empty" in message else 2, True), path
    photo(tmp_path / "a.png")
    assert run("-i", tmp_path / "a.png", "-o", "/proc/out/b.png", "--model", network) == 1
    assert "/proc/out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "color", "gray"),
    [
        (("--task", "classical", "--scale", "3"), "atd_sr_x3", "atd_sr_x3"),
        (("--task", "lightweight", "--scale", "2"), "atd_light_sr_x2", "atd_light_sr_x2"),
        (("--scale", "2"), "atd_sr_x2", "atd_sr_x2"),
        (("--task", "lightweight"), "atd_light_sr_x4", "atd_light_sr_x4"),
        (("--denoise", "25"), "atd_u_color_dn25", "atd_u_gray_dn25"),
        (("--jpeg", "10"), "atd_u_gray_jpeg10", "atd_u_gray_jpeg10"),
    ],
)
def test_flags_name_the_authors_networks(cache, tmp_path, capsys, arguments, color, gray):
    """Without any source of weights, the error names the network that was looked for."""
    photo(tmp_path / "a.png")
    assert run("-i", tmp_path / "a.png", "-o", tmp_path / "out", *arguments) == 2
    assert color in capsys.readouterr().err
    networks = Networks(build_parser().parse_args(["restore", "-i", "a", "-o", "b", *arguments]), "cpu")
    with pytest.raises(atd.LoadError, match=gray):
        networks.get(gray=True)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((), "atd_light_sr_x4"),
        (("--denoise", "25", "--weights", "bundled"), "atd_u_tiny_color_dn"),
        (("--jpeg", "10", "--weights", "bundled"), "atd_u_tiny_color_jpeg"),
        (("--denoise", "30", "--weights", "bundled"), "atd_u_tiny_color_dn"),
        (("--denoise", "12.5", "--weights", "bundled"), "atd_u_tiny_color_dn"),
        (("--jpeg", "35", "--weights", "bundled"), "atd_u_tiny_color_jpeg"),
        (("--task", "lightweight", "--weights", "bundled"), "atd_light_sr_x4"),
    ],
)
def test_the_bundled_networks_are_named_when_the_user_did_not(tmp_path, capsys, arguments, name):
    photo(tmp_path / "a.png", size=(8, 8))
    assert run("-i", tmp_path / "a.png", "-o", tmp_path / "out", *arguments) == 0
    assert f"using {name} with bundled weights" in capsys.readouterr().err
    assert names(tmp_path / "out") == [f"a_{name}.png"]


@pytest.mark.parametrize(
    ("arguments", "works"),
    [
        (("--scale", "2"), "atd_light_sr_x2"),
        (("--task", "lightweight"), "atd_light_sr_x4"),
        (("--model", "atd_cvpr_sr_x3"), "atd_light_sr_x3"),
        (("--model", "atd_sr_x3", "--weights", "bundled"), "atd_light_sr_x3"),
        (("--denoise", "25"), "atd_u_tiny_color_dn"),
        (("--jpeg", "20"), "atd_u_tiny_color_jpeg"),
        (("--model", "atd_real_sr_x4"), None),
        (("--model", "atd_u_gray_dn15"), None),
    ],
)
def test_without_official_weights_the_command_that_works_now_is_named(cache, tmp_path, capsys, arguments, works):
    source = photo(tmp_path / "a.png", size=(8, 8))
    assert run("-i", source, "-o", tmp_path / "b.png", *arguments) == 2
    named = re.findall(r"`atd (restore -i INPUT .* --weights bundled)`", capsys.readouterr().err)
    assert [words.split()[-3] for words in named] == ([works] if works else [])
    for words in named:
        assert main(words.replace("INPUT", str(source)).replace("OUTPUT", str(tmp_path / "b.png")).split()) == 0
        assert (tmp_path / "b.png").exists()


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_the_blind_bundled_denoiser_warns_of_a_gray_image_once(tmp_path, capsys, mode):
    """Gray by its channels, or by three equal ones; until its weights have been trained on gray noise."""
    for name in ("a", "b"):
        gray = Image.effect_noise((16, 16), 25)
        gray.convert(mode).save(photo(tmp_path / "in" / f"{name}.png"))
    arguments = ("--denoise", 30, "--weights", "bundled")
    assert run("-i", tmp_path / "in", "-o", tmp_path / "out", *arguments) == 0
    error = capsys.readouterr().err
    assert error.count("atd: warning: the image is gray, and atd_u_tiny_color_dn was trained on colour noise only") == 1
    photo(tmp_path / "c.png")
    assert run("-i", tmp_path / "c.png", "-o", tmp_path / "c2.png", *arguments) == 0
    assert run("-i", tmp_path / "in", "-o", tmp_path / "jpeg", "--jpeg", 35, "--weights", "bundled") == 0
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize("overwrite", [False, True])
def test_existing_results_need_no_network(cache, tmp_path, capsys, overwrite):
    """Without any source of weights: what is there is skipped, and only what is not asks for a network."""
    for name, mode in (("a", "RGB"), ("b", "L")):
        photo(tmp_path / "in" / f"{name}.png", mode=mode)
    out = tmp_path / "out"
    out.mkdir()
    (out / "a_atd_u_color_dn25.png").touch()
    (out / "b_atd_u_gray_dn25.png").touch()
    arguments = ("-i", tmp_path / "in", "-o", out, "--denoise", 25)
    if overwrite:
        assert run(*arguments, "--overwrite") == 2
        assert "official weights of atd_u_color_dn25" in capsys.readouterr().err
        return
    for _ in range(2):
        assert run(*arguments) == 0
        assert capsys.readouterr().err == "atd: 2 skipped (existing results are kept; --overwrite replaces them)\n"
    (out / "b_atd_u_gray_dn25.png").rename(out / "b_atd_u_color_dn25.png")  # of the other network
    assert run(*arguments) == 2


def test_flags_as_users_of_real_esrgan_type_them(network, tmp_path, capsys):
    """Short and long, with hyphens or underscores: the same as ours."""
    photo(tmp_path / "in" / "a.png", size=(40, 33), mode="RGBA")
    ours = ("--model", network, "--outscale", 3, "--tile", 32, "--dtype", "float32", "--overlap", 8)
    theirs = ("-n", network, "-s", 3, "-t", 32, "--fp32", "--overlap", 8)
    assert run("-i", tmp_path / "in", "-o", tmp_path / "ours", *ours) == 0
    assert run("-i", tmp_path / "in", "-o", tmp_path / "theirs", *theirs, "--suffix", "out") == 0
    assert names(tmp_path / "theirs") == ["a_out.png"]
    first, second = (np.asarray(Image.open(path)) for path in tmp_path.rglob("a_*.png"))
    assert np.array_equal(first, second)
    old = ["--model_name", str(network), "--alpha_upsampler", "realesrgan", "--self_ensemble", "--gpu-id", "1"]
    new = ["--model", str(network), "--alpha-upsampler", "network", "--self-ensemble", "--device", "cuda:1"]
    parse = build_parser().parse_args
    assert parse(["restore", "-i", "a", "-o", "b", *old]) == parse(["restore", "-i", "a", "-o", "b", *new])
    assert run("-i", tmp_path / "in", "-o", tmp_path / "plain", *ours, "--suffix", "") == 0
    assert names(tmp_path / "plain") == ["a.png"]


def test_a_folder_into_itself_without_a_suffix_is_told(network, tmp_path, capsys):
    photo(tmp_path / "in" / "a.png")
    before = (tmp_path / "in" / "a.png").read_bytes()
    assert run("-i", tmp_path / "in", "-o", tmp_path / "in", "--suffix", "", "--model", network, "--overwrite") == 2
    assert "name another output" in capsys.readouterr().err
    assert (tmp_path / "in" / "a.png").read_bytes() == before


def test_names_that_differ_in_case_alone_are_one_where_the_disk_says_so(network, tmp_path, capsys):
    """A link under the swapped name stands for such a disk: it is how one looks to those that ask."""
    for folder, name in (("x", "a"), ("y", "A")):
        photo(tmp_path / folder / f"{name}.png")
    arguments = ("-i", tmp_path / "x", tmp_path / "y", "-o", tmp_path / "out", "--model", network)
    assert run(*arguments) == 0
    assert names(tmp_path / "out") == ["A_tiny.png", "a_tiny.png"]
    for path in (tmp_path / "out").iterdir():
        path.unlink()
    (tmp_path / "out" / "n").touch()
    (tmp_path / "out" / "N").hardlink_to(tmp_path / "out" / "n")
    assert run(*arguments) == 2
    assert "would both be written to" in capsys.readouterr().err
    assert run("-i", tmp_path / "x" / "a.png", tmp_path / "y", "-o", tmp_path / "out", "--model", network) == 2
    assert names(tmp_path / "out") == ["N", "n"]


def test_alpha_by_a_bicubic_filter(network, tmp_path):
    """The colour is the network's, the alpha Pillow's bicubic filter's, within rounding and its edges."""
    pixels = np.random.default_rng(0).integers(0, 256, (14, 20, 3)).astype(np.uint8)
    alpha = np.asarray(Image.linear_gradient("L").resize((20, 14)).rotate(40))
    Image.fromarray(np.dstack([pixels, np.maximum(alpha, 1)])).save(tmp_path / "a.png")
    for how in ("network", "bicubic"):
        file = tmp_path / f"{how}.png"
        assert run("-i", tmp_path / "a.png", "-o", file, "--model", network, "--alpha-upsampler", how) == 0
    by_network, by_filter = (np.asarray(Image.open(tmp_path / f"{how}.png")) for how in ("network", "bicubic"))
    assert np.array_equal(by_network[..., :3], by_filter[..., :3])
    expected = np.asarray(Image.fromarray(np.maximum(alpha, 1)).resize((40, 28), Image.Resampling.BICUBIC))
    difference = np.abs(by_filter[4:-4, 4:-4, 3].astype(int) - expected[4:-4, 4:-4])
    assert difference.mean() < 3
    assert np.abs(by_network[4:-4, 4:-4, 3].astype(int) - expected[4:-4, 4:-4]).mean() > 10


def test_a_tile_that_the_network_cannot_take_is_told(network, tmp_path, capsys):
    photo(tmp_path / "a.png", size=(40, 33))
    arguments = ("-i", tmp_path / "a.png", "-o", tmp_path / "b.png", "--model", network, "--overwrite")
    assert run(*arguments, "--tile", 4) == 0
    told = capsys.readouterr().err
    assert "tiles of 4 pixels become 8, as the network takes multiples of 8" in told
    assert "the overlap of 32 becomes 4, half a tile" in told
    assert run(*arguments, "--tile", 32, "--overlap", 8) == 0
    assert "become" not in capsys.readouterr().err


def test_ctrl_c_ends_with_130_and_leaves_nothing(network, tmp_path, monkeypatch, capsys):
    photo(tmp_path / "a.png")

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(atd.ATD, "forward", interrupted)
    assert run("-i", tmp_path / "a.png", "-o", tmp_path / "out", "--model", network) == 130
    assert not (tmp_path / "out").exists()


def test_large_files_are_streamed_and_resumed(network, tmp_path, capsys, monkeypatch):
    pytest.importorskip("pyvips")
    photo(tmp_path / "a.png", size=(60, 70))
    arguments = ("-i", tmp_path / "a.png", "-o", tmp_path / "b.png", "--model", network, "--tile", 32, "--overlap", 8)
    assert run(*arguments, "--stream", "off") == 0
    expected = np.asarray(Image.open(tmp_path / "b.png"))
    (tmp_path / "b.png").unlink()
    forward, calls = atd.ATD.forward, []

    def interrupted(self, x):
        calls.append(x.shape)
        if len(calls) > 7:
            raise KeyboardInterrupt
        return forward(self, x)

    with monkeypatch.context() as patch:
        patch.setattr(atd.ATD, "forward", interrupted)
        assert run(*arguments, "--stream", "on") == 130
    assert names(tmp_path) == ["a.png", "b.png.part", "b.png.part.json"]
    assert run(*arguments) == 1
    assert "--resume goes on with it" in capsys.readouterr().err
    assert run(*arguments[:-1], 16, "--resume") == 1
    assert "was made from other settings" in capsys.readouterr().err
    assert run(*arguments, "--resume") == 0
    assert names(tmp_path) == ["a.png", "b.png"]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "b.png")), expected)


@pytest.mark.slow
def test_torchrun_shares_a_folder_between_processes(network, tmp_path):
    """Two processes on gloo: every file restored by exactly one of them, one bad file reported, status 1."""
    for index in range(5):
        photo(tmp_path / "in" / f"{index}.png", seed=index)
    (tmp_path / "in" / "bad.png").write_bytes(b"nothing")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    arguments = ["-m", "atd", "restore", "-i", "in", "-o", "out", "--model", str(network), "--device", "cpu"]
    done = subprocess.run([*command, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert names(tmp_path / "out") == [f"{index}_tiny.png" for index in range(5)]
    written = [line for line in done.stdout.splitlines() if line.endswith("_tiny.png")]
    assert sorted(written) == [f"out/{index}_tiny.png" for index in range(5)]
    assert done.returncode == 1
    assert done.stderr.count("bad.png is not an image") == 1
    assert done.stderr.count("5 restored, 1 failed") == 1


def test_without_a_network_for_photos_real_names_those_that_there_are_and_fetches_nothing(
    cache, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(atd.registry.ModelInfo, "bundled", False)
    photo(tmp_path / "a.png", size=(8, 8))
    assert run("-i", tmp_path / "a.png", "-o", tmp_path / "b.png", "--real") == 2
    message = capsys.readouterr().err
    assert "-n 4xNomosWebPhoto_atd" in message
    assert "82 MB" in message
    assert "4xNomos2_hq_atd" not in message  # for clean photos
    assert not (tmp_path / "b.png").exists()
    assert not (tmp_path / "hf").exists()


@pytest.mark.parametrize(
    ("cached", "chosen"),
    [
        (["4xNomosWebPhoto_atd"], "4xNomosWebPhoto_atd"),
        (["4xRealWebPhoto_v3_atd", "4xNomosWebPhoto_atd", "4xNomos2_hq_atd"], "4xNomosWebPhoto_atd"),
        (["4xNomos8k_atd_jpg"], "4xNomos8k_atd_jpg"),
        (["4xNomos2_hq_atd", "atd_light_sr_x4"], None),
    ],
)
def test_real_takes_a_network_for_photos_that_is_on_this_machine(cache, monkeypatch, cached, chosen):
    monkeypatch.setattr(atd.registry.ModelInfo, "bundled", False)
    for name in cached:
        file = placed_file(name)
        file.parent.mkdir(parents=True)
        file.touch()
    if chosen is None:
        with pytest.raises(atd.LoadError, match="fetched only when you name one"):
            network_for_photos()
    else:
        assert network_for_photos()[:2] == (chosen, "official")


def test_real_takes_the_bundled_network_for_photos_first(cache, tmp_path, monkeypatch, capsys):
    """A row and weights as they will be in the package: here of a small network, in a package folder of the test."""
    model = small("ATD", upscale=4)
    row = replace(
        atd.registry.get("atd_light_sr_x4"),
        name="atd_light_real_sr_x4",
        task=RealWorld(4),
        config=model.config,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
    )
    table = {**atd.registry._table(), row.name: row}
    monkeypatch.setattr(atd.registry, "_table", lambda: table)
    monkeypatch.setattr(atd.registry, "_FOLDER", tmp_path / "package")
    (tmp_path / "package/bundled").mkdir(parents=True)
    write_bundled(model, row.bundled_path)
    community = placed_file("4xNomosWebPhoto_atd")
    community.parent.mkdir(parents=True)
    community.touch()
    source = photo(tmp_path / "a.png", size=(12, 8))
    assert run("-i", source, "-o", tmp_path / "out", "--real") == 0
    assert "using atd_light_real_sr_x4 with bundled weights: it is in this package" in capsys.readouterr().err
    assert names(tmp_path / "out") == ["a_atd_light_real_sr_x4.png"]
    assert Image.open(tmp_path / "out/a_atd_light_real_sr_x4.png").size == (48, 32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--real", "--denoise", "25"), "--real and --denoise both pick a network"),
        (("--real", "--model", "atd_sr_x4"), "--model and --real both pick a network"),
        (("--real", "--scale", "2"), "--scale and --real both pick a network"),
        (("--real", "--weights", "bundled"), "--real picks network and weights"),
    ],
)
def test_real_beside_other_choices_is_refused(tmp_path, capsys, arguments, message):
    photo(tmp_path / "a.png")
    assert run("-i", tmp_path / "a.png", "-o", tmp_path / "out", *arguments) == 2
    assert message in capsys.readouterr().err
