"""What is refused before any work."""

import pytest
import torch
from restoration_networks import Nearest
from small_networks import small

import atd
from atd import registry
from atd.cli import main
from atd.errors import ExportError, InputError, LoadError
from atd.export import export_program
from atd.export.describe import describe
from atd.export.program import require_exporting_torch
from atd.runtime import load_exported


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("net.pth", {}, r"net.pth does not end in .onnx"),
        ("net.onnx", {"dtype": torch.bfloat16}, "dtype is torch.bfloat16; expected torch.float32 or torch.float16"),
        ("net.onnx", {"opset": 17}, "opset is 17; expected 18 or a newer one"),
        ("net.onnx", {"size": (0, 8)}, r"size is \(0, 8\); expected a height and a width"),
    ],
)
def test_impossible_arguments_are_named(name, options, words, tmp_path):
    with pytest.raises(InputError, match=words):
        atd.export_onnx(small("ATD"), tmp_path / name, **options)
    assert list(tmp_path.iterdir()) == []


def test_only_networks_of_this_library_are_exported(tmp_path):
    with pytest.raises(InputError, match="Nearest is no network of this library"):
        export_program(Nearest(), tmp_path / "net.pt2", size=(8, 8))
    with pytest.raises(InputError, match="weights choose among those of a named model"):
        export_program(small("ATD"), tmp_path / "net.pt2", weights="bundled", size=(8, 8))


def test_an_older_torch_is_told_which_one_exports(monkeypatch, tmp_path):
    monkeypatch.setattr(torch, "__version__", "2.9.1")
    with pytest.raises(ExportError, match=r"exported by torch 2\.11 and newer, and this is torch 2\.9\.1"):
        require_exporting_torch()
    monkeypatch.setattr(torch, "__version__", "2.11.0+cu130")
    require_exporting_torch()


def test_runtime_and_file_go_together(tmp_path, capsys):
    for flags, words in (
        (["--runtime", "onnx"], "go together"),
        (["--file", "net.onnx"], "go together"),
        (["--runtime", "onnx", "--file", "net.onnx", "--model", "atd_sr_x4"], "--model is for networks in torch"),
        (["--runtime", "onnx", "--file", "net.onnx", "--dtype", "float16"], "--dtype is for networks in torch"),
        (["--runtime", "onnx", "--file", str(tmp_path / "none.onnx")], "none.onnx cannot be read"),
    ):
        assert main(["restore", "-i", "in.png", "-o", str(tmp_path / "out.png"), *flags]) == 2
        assert words in capsys.readouterr().err


def test_there_is_no_other_runtime():
    with pytest.raises(InputError, match="runtime is 'tensorrt'; expected one of onnx, openvino"):
        load_exported("net.onnx", "tensorrt")
    with pytest.raises(LoadError):
        load_exported("none.onnx")


def test_sizes_on_the_command_line(capsys):
    with pytest.raises(SystemExit):
        main(["export", "atd_sr_x4", "-o", "net.onnx", "--static", "256"])
    assert "expected a height and a width such as 256x320" in capsys.readouterr().err


def test_bundled_weights_carry_their_notice_and_others_none():
    bundled = describe(atd.load("atd_light_sr_x4", weights="bundled"), dtype=torch.float32, size=None, licence=None)
    assert bundled.licence == registry.BUNDLED_LICENCE
    changed = atd.load("atd_light_sr_x4", weights="bundled")
    with torch.no_grad():
        changed.conv_first.bias.add_(1)
    others = describe(changed, dtype=torch.float32, size=None, licence=None)
    assert others.licence == ""
    assert others.weights_sha256 != bundled.weights_sha256
    assert describe(changed, dtype=torch.float32, size=None, licence="Apache-2.0").licence == "Apache-2.0"
