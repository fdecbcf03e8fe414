"""What is written: whole or not at all, equal bytes for equal weights, and files for the authors' programs."""

import errno
import json
import os
import resource
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_networks import FAMILIES, output, small

import atd
from atd import loading
from atd.errors import InputError, LoadError
from atd.weights import hub

NAME = "atd_light_sr_x2"
FULL_SIZE = {
    "atd_light_sr_x2": "atd_light_sr_x2",
    "atd_cvpr_light_sr_x3": "atd_cvpr_light_sr_x3",
    "atd_u_color": "atd_u_color_dn25",
    "atd_u_gray": "atd_u_gray_jpeg10",
}


@pytest.mark.slow
def test_equal_weights_give_equal_bytes(tmp_path, monkeypatch, capsys):
    """In this process and in another: safetensors orders its metadata by a hash that differs between them."""
    for family in FAMILIES:
        small(family).save_pretrained(tmp_path / "nets" / family)
    script = tmp_path / "write.py"
    script.write_text("""
import sys, hashlib, atd, pathlib
from atd import loading
sources, out = map(pathlib.Path, sys.argv[1:])
for source in sorted(sources.iterdir()):
    model = atd.load(source)
    folder = model.save_pretrained(out / source.name)
    pth = loading.convert_for_authors(source, out / f"{out.name}_{source.name}.pth")
    for path in (folder / "model.safetensors", folder / "config.json", pth):
        print(hashlib.sha256(path.read_bytes()).hexdigest())
""")
    words = [str(script), str(tmp_path / "nets"), str(tmp_path / "a")]
    monkeypatch.setattr(sys, "argv", words)
    runpy.run_path(words[0])
    first = capsys.readouterr().out
    words = [sys.executable, *words[:-1], str(tmp_path / "another_name")]
    second = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    assert len(first.split()) == 3 * len(FAMILIES)
    assert first == second


@pytest.mark.parametrize("shapes_of", FULL_SIZE)
@pytest.mark.slow
def test_a_file_for_the_authors_has_exactly_their_keys_shapes_and_types(golden, tmp_path, shapes_of):
    expected = json.loads((golden / "state_dict_shapes.json").read_text())[shapes_of]
    with torch.device("meta"):
        model = atd.create(FULL_SIZE[shapes_of])
    model.to_empty(device="cpu").requires_grad_(False)
    for parameter in model.parameters():
        parameter.zero_()
    model.half().save_pretrained(tmp_path / "net")
    path = loading.convert_for_authors(tmp_path / "net", tmp_path / "net.pth")
    content = torch.load(path, weights_only=True)
    assert list(content) == ["params_ema"]
    assert {key: list(value.shape) for key, value in content["params_ema"].items()} == expected
    types = {key: value.dtype for key, value in content["params_ema"].items()}
    index = {key for key in expected if key.endswith("relative_position_index_SA")}
    assert index
    assert {types[key] for key in index} == {torch.int64}
    assert {types[key] for key in types.keys() - index} == {torch.float32}


def test_the_authors_file_comes_back_as_the_same_network(tmp_path):
    model = small("ATDU")
    model.save_pretrained(tmp_path / "net")
    path = loading.convert_for_authors(tmp_path / "net", tmp_path / "net.pth")
    assert torch.equal(output(atd.load(path, category_size=model.config["category_size"])), output(model))
    with pytest.raises(InputError, match=r"\.pth"):
        loading.convert_for_authors(tmp_path / "net", tmp_path / "net.safetensors")


def test_both_weights_of_a_checkpoint_can_be_had(tmp_path):
    average, raw = small("ATD", seed=1), small("ATD", seed=2)
    torch.save({"params": raw.state_dict(), "params_ema": average.state_dict()}, tmp_path / "both.pth")
    torch.save({"params": raw.state_dict()}, tmp_path / "raw.pth")
    torch.save({"params_ema": average.state_dict()}, tmp_path / "average.pth")

    def load(file, **arguments):
        return output(atd.load(tmp_path / file, category_size=16, **arguments))

    assert torch.equal(load("both.pth"), output(average))
    assert torch.equal(load("both.pth", params="ema"), output(average))
    assert torch.equal(load("both.pth", params="raw"), output(raw))
    assert torch.equal(load("raw.pth", params="raw"), output(raw))
    for file, params in (("raw.pth", "ema"), ("average.pth", "raw")):
        with pytest.raises(LoadError, match="averaged weights"):
            load(file, params=params)
    with pytest.raises(LoadError, match="params is 'best'"):
        load("both.pth", params="best")
    folder = loading.convert(tmp_path / "both.pth", directory=tmp_path / "converted", params="raw", category_size=16)
    assert torch.equal(output(atd.load(folder)), output(raw))


def loads_as(folder):
    return atd.load(folder).config["category_size"]


class StoppedAt:
    """Stands before the calls that change a folder's files and raises KeyboardInterrupt at one of them."""

    def __init__(self, moment, folder, patch):
        self.left, self.folder = moment, folder
        patch.setattr("os.replace", self.before(os.replace, position=1))
        patch.setattr("pathlib.Path.unlink", self.before(Path.unlink, position=0))

    def before(self, call, position):
        def run(*arguments, **keywords):
            path = Path(arguments[position])
            if path.parent == self.folder and ".tmp" not in path.name:
                if self.left == 0:
                    raise KeyboardInterrupt
                self.left -= 1
            return call(*arguments, **keywords)

        return run


@pytest.mark.parametrize("moment", range(5))
def test_an_interrupted_write_never_mixes_two_networks(tmp_path, monkeypatch, moment):
    """Old weights with the new category_size would load and give other pixels: every moment is tried."""
    old, new = small("ATD", category_size=16), small("ATD", category_size=64)
    folder = old.save_pretrained(tmp_path / "net")
    with monkeypatch.context() as patch:
        StoppedAt(moment, folder, patch)
        if moment < 4:
            with pytest.raises(KeyboardInterrupt):
                new.save_pretrained(folder)
        else:
            new.save_pretrained(folder)
    loaded = atd.load(folder)
    assert torch.equal(output(loaded), output({16: old, 64: new}[loaded.config["category_size"]]))
    assert not [path for path in folder.iterdir() if ".tmp" in path.name]


def test_a_full_disk_leaves_the_old_network(tmp_path):
    """A limit on file sizes stands for the full disk."""
    folder = small("ATD", category_size=16).save_pretrained(tmp_path / "net")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    model = small("ATD", category_size=64)
    limit, action = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, limit[1]))
        with pytest.raises(OSError, match="File too large") as caught:
            model.save_pretrained(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, action)
    assert caught.value.errno == errno.EFBIG
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert loads_as(folder) == 16


def test_files_of_others_are_not_overwritten(tmp_path):
    model = small("ATD")
    model.save_pretrained(tmp_path / "net")
    project = tmp_path / "project"
    project.mkdir()
    (project / "README.md").write_text("# My project\n")
    loading.convert(tmp_path / "net", directory=project)
    assert (project / "README.md").read_text() == "# My project\n"
    assert torch.equal(output(atd.load(project)), output(model))
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(InputError, match=r"config\.json belongs to another program"):
        loading.convert(tmp_path / "net", directory=other)
    assert [path.name for path in other.iterdir()] == ["config.json"]
    model.save_pretrained(tmp_path / "net")  # our own card is brought up to date
    assert "library_name: atd-restoration" in (tmp_path / "net" / "README.md").read_text()


@pytest.mark.slow
def test_other_weights_in_the_cache_are_not_replaced_unasked(cache, tmp_path):
    first, second = (atd.create(NAME).eval() for _ in range(2))
    for name, model in (("first", first), ("second", second)):
        torch.save({"params_ema": model.state_dict()}, tmp_path / f"{name}.pth")
    loading.convert(tmp_path / "first.pth", NAME)
    loading.convert(tmp_path / "first.pth", NAME)  # the same again changes nothing
    with pytest.raises(LoadError, match=r"cache holds other weights of atd_light_sr_x2.*overwrite"):
        loading.convert(tmp_path / "second.pth", NAME)
    assert torch.equal(atd.load(NAME).conv_first.weight, first.conv_first.weight)
    loading.convert(tmp_path / "second.pth", NAME, overwrite=True)
    assert torch.equal(atd.load(NAME).conv_first.weight, second.conv_first.weight)
    assert hub.placed_file(NAME).is_file()
