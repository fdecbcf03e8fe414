"""Folders of files: which network and which name each gets, and what becomes of the rest when one fails."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from file_opens import recorded_opens
from PIL import Image
from restoration_networks import Nearest
from small_networks import small

import atd
from atd.cli import main
from atd.errors import InputError
from atd.restoration import api
from atd.restoration.batch import Job, plan_jobs


def photo(path, mode="RGB", size=(20, 14)):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def networks(monkeypatch):
    """The two networks of --denoise 25, in place of the authors' weights, which need a download."""
    loaded = {"atd_u_color_dn25": Nearest(1, in_channels=3), "atd_u_gray_dn25": Nearest(1, in_channels=1)}
    monkeypatch.setattr(api, "load_network", lambda name, *_: loaded[name])
    return loaded


@pytest.mark.parametrize("stream", ["auto", "on"])
def test_gray_files_are_named_after_the_gray_network_that_restores_them(networks, tmp_path, capsys, stream):
    if stream == "on":
        pytest.importorskip("pyvips")
    modes = {"a.png": "RGB", "b.png": "L", "c.png": "LA", "d.png": "RGBA", "e.png": "1"}
    sources = [photo(tmp_path / "in" / name, mode) for name, mode in modes.items()]
    command = ["restore", "-i", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--denoise", "25"]
    with recorded_opens() as opens:
        assert main([*command, "--stream", stream]) == 0
    if stream == "auto":
        assert [opens[source] for source in sources] == [1] * 5
    color, gray = "atd_u_color_dn25.png", "atd_u_gray_dn25.png"
    assert names(tmp_path / "out") == [f"a_{color}", f"b_{gray}", f"c_{gray}", f"d_{color}", f"e_{gray}"]
    assert len(networks["atd_u_color_dn25"].seen) == 2
    assert len(networks["atd_u_gray_dn25"].seen) == 3
    assert main(command) == 0
    assert "5 skipped" in capsys.readouterr().err


def test_results_of_either_network_in_the_same_folder_are_not_restored_again(networks, tmp_path, capsys):
    for name, mode in (("a.png", "RGB"), ("b.png", "L")):
        photo(tmp_path / name, mode)
    command = ["restore", "-i", str(tmp_path), "-o", str(tmp_path), "--denoise", "25"]
    for _ in range(2):
        assert main(command) == 0
    assert "2 skipped" in capsys.readouterr().err
    assert len(names(tmp_path)) == 4


def test_a_single_output_file_keeps_the_name_it_was_given(networks, tmp_path):
    photo(tmp_path / "a.png", "L")
    assert main(["restore", "-i", str(tmp_path / "a.png"), "-o", str(tmp_path / "b.png"), "--denoise", "25"]) == 0
    assert names(tmp_path) == ["a.png", "b.png"]
    assert networks["atd_u_gray_dn25"].seen


def test_jobs_know_both_places_of_a_result(tmp_path):
    source = photo(tmp_path / "a.png")
    (job,) = plan_jobs([source], tmp_path / "out", label="color", gray_label="gray")
    assert job == Job(source, tmp_path / "out" / "a_color.png", tmp_path / "out" / "a_gray.png")
    photo(tmp_path / "a.jpg")
    with pytest.raises(InputError, match="would both be written to"):
        plan_jobs([source, tmp_path / "a.jpg"], tmp_path / "out", label="color", gray_label="gray", format="png")


@pytest.mark.parametrize("workers", ["1", "3"])
def test_a_defect_keeps_its_traceback_a_bad_file_is_one_sentence_and_the_rest_go_on(
    tmp_path, monkeypatch, capsys, workers
):
    small("ATD").save_pretrained(tmp_path / "tiny")
    for name, size in (("a.png", (20, 14)), ("b.png", (13, 13)), ("c.png", (20, 14))):
        photo(tmp_path / "in" / name, size=size)
    (tmp_path / "in" / "bad.png").write_bytes(b"nothing")
    forward = atd.ATD.forward

    def broken(self, x):
        if x.shape[-1] == 13:
            raise RuntimeError("The size of tensor a (13) must match the size of tensor b (16)")
        return forward(self, x)

    monkeypatch.setattr(atd.ATD, "forward", broken)
    arguments = ["-i", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--model", str(tmp_path / "tiny")]
    assert main(["restore", *arguments, "--jobs", workers]) == 1
    errors = capsys.readouterr().err
    assert names(tmp_path / "out") == ["a_tiny.png", "c_tiny.png"]
    assert "2 restored, 2 failed" in errors
    assert errors.count("Traceback (most recent call last)") == 1
    assert "b.png met a defect" in errors
    assert "in broken" in errors
    assert "RuntimeError: The size of tensor a (13)" in errors
    (sentence,) = [line for line in errors.splitlines() if "bad.png" in line]
    assert sentence.startswith("atd: ")
    assert "is not an image" in sentence


def test_a_result_that_cannot_be_written_is_one_sentence_that_names_it(tmp_path, capsys):
    small("ATD").save_pretrained(tmp_path / "tiny")
    photo(tmp_path / "in" / "a.png")
    photo(tmp_path / "in" / "x" / "b.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x").write_text("a file where a folder should be")
    arguments = ["-i", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--model", str(tmp_path / "tiny")]
    assert main(["restore", *arguments, "--recursive"]) == 1
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    assert "b.png" in errors
    assert "1 restored, 1 failed" in errors


def test_out_of_memory_is_told_as_it_happens_and_is_one_sentence_in_the_end(tmp_path, monkeypatch, capsys):
    small("ATD").save_pretrained(tmp_path / "tiny")
    photo(tmp_path / "a.png")

    def full(self, x):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    monkeypatch.setattr(atd.ATD, "forward", full)
    arguments = ["-i", str(tmp_path / "a.png"), "-o", str(tmp_path / "b.png"), "--model", str(tmp_path / "tiny")]
    assert main(["restore", *arguments]) == 1
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    assert "smaller ones are not possible" in errors
    assert "\natd: warning: out of memory on cpu: going on with tiles of" in f"\n{errors}"
