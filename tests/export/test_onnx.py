"""ONNX files in ONNX Runtime, against golden outputs, NumPy and the networks, at sizes other than the traced one."""

import copy
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from exports import GOLDEN, exports_every_size, golden_network, needs_onnx, network
from numpy_networks import u_network
from small_networks import FAMILIES, small

import atd
from atd.errors import ExportError, InputError, LoadError
from atd.export import compare_onnx
from atd.export.api import place
from atd.runtime import load_exported
from atd.runtime.metadata import Metadata

pytestmark = [needs_onnx, exports_every_size, pytest.mark.slow]


@pytest.fixture(scope="module", params=FAMILIES)
def exported(request, golden, tmp_path_factory):
    """A network of every family, its file and its report."""
    model = network(golden, request.param)
    path = tmp_path_factory.mktemp(request.param) / "net.onnx"
    report = atd.export_onnx(model, path)
    return SimpleNamespace(family=request.param, model=model, path=path, report=report)


def run(path, image):
    return load_exported(path)(image)


def psnr(a, b):
    return float(-10 * torch.log10((a.double() - b.double()).square().mean()))


def test_the_report_covers_the_sizes_that_go_wrong_elsewhere(exported):
    report = exported.report
    assert report.passed
    multiple = exported.model.size_multiple
    noise = [(row.batch, row.height, row.width) for row in report.comparisons if row.kind == "noise"]
    assert len(noise) >= 12
    assert {(1, 1, 1), (1, multiple, multiple), (1, 2 * multiple, 2 * multiple)} <= set(noise)
    assert any(height < multiple and width > multiple for _, height, width in noise)
    assert any(batch > 1 for batch, *_ in noise)
    assert [row.kind for row in report.comparisons].count("photo") == 1
    assert all(row.categories for row in report.comparisons)
    assert sum(row.flipped for row in report.comparisons) <= 1e-4 * sum(row.categories for row in report.comparisons)
    assert all(row.largest_difference <= 1e-4 for row in report.comparisons if row.flipped == 0)
    written = json.loads(exported.path.with_suffix(".report.json").read_text())
    assert written["passed"] is True
    assert len(written["comparisons"]) == len(report.comparisons)
    assert written["metadata"]["architecture"] == exported.family


def test_it_gives_what_the_authors_code_gave_in_float64(exported, golden):
    if exported.family in GOLDEN:
        _, image, expected = golden_network(golden, exported.family)
    else:
        image = torch.rand(2, 3, 13, 22, generator=torch.Generator().manual_seed(0))
        tensors = {key: value.double().numpy() for key, value in exported.model.state_dict().items()}
        images = image.double().numpy()
        expected = torch.from_numpy(np.stack([u_network(tensors, exported.model.config, one) for one in images]))
    expected = expected.clamp(0, 1)
    assert expected.std() > 0.01
    assert psnr(run(exported.path, image), expected) > 100


@pytest.mark.parametrize(
    "size", [(1, 1, 9), (1, 16, 16), (1, 16, 8), (1, 33, 16), (2, 17, 40), (3, 24, 24), (1, 64, 7)]
)
def test_every_size_gives_what_restore_gives(exported, size):
    batch, height, width = size
    image = torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = exported.model(image).clamp(0, 1)
    restored = run(exported.path, image)
    assert restored.shape == expected.shape
    torch.testing.assert_close(restored, expected, rtol=0, atol=1e-4)


def test_it_holds_standard_operators_and_says_what_it_is(exported):
    import onnx

    model = onnx.load(exported.path)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 18)]
    assert not model.functions
    scale = exported.model.scale
    axes = [[axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim] for value in
            (*model.graph.input, *model.graph.output)]  # fmt: skip
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == ["image", "restored"]
    assert axes[0] == ["batch", 3, "height", "width"]
    assert axes[1] == (axes[0] if scale == 1 else ["batch", 3, f"{scale}*height", f"{scale}*width"])
    entries = Metadata.from_text({entry.key: entry.value for entry in model.metadata_props}, "test")
    assert (entries.architecture, entries.scale, entries.channels) == (exported.family, scale, 3)
    assert entries.size_multiple == exported.model.size_multiple
    assert len(entries.weights_sha256) == 64
    assert b"/atd/" not in exported.path.read_bytes()  # no path of the machine that made it


def test_a_file_of_other_weights_fails_the_comparison(exported):
    other = copy.deepcopy(exported.model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    report = compare_onnx(other, exported.path)
    assert not report.passed
    assert sum(row.flipped for row in report.comparisons) > 0
    target = exported.path.with_name("other.onnx")
    with pytest.raises(ExportError, match="was not written: it differs from the network") as caught:
        place(report, target, b"")
    assert caught.value.report.failures
    assert not target.exists()
    assert json.loads(target.with_suffix(".report.json").read_text())["passed"] is False


def test_restore_runs_it_through_the_tiler(exported, tmp_path):
    """On the command line, beside the same network in torch."""
    from PIL import Image

    from atd.cli import main

    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (40, 52, 3), dtype=np.uint8)).save(tmp_path / "in.png")
    folder = exported.model.save_pretrained(tmp_path / "net")
    images = {}
    for name, flags in {
        "onnx": ["--runtime", "onnx", "--file", str(exported.path)],
        "torch": ["--model", str(folder)],
    }.items():
        target = tmp_path / f"{name}.png"
        # Without overlap: tiles of a file are clamped before they are cross-faded, those of a network afterwards.
        words = ["restore", "-i", str(tmp_path / "in.png"), "-o", str(target), "--tile", "32", "--overlap", "0"]
        assert main([*words, *flags]) == 0
        images[name] = np.asarray(Image.open(target)).astype(int)
    assert images["onnx"].shape == images["torch"].shape
    assert np.abs(images["onnx"] - images["torch"]).max() <= 1


def test_half_precision_keeps_its_own_limit(tmp_path):
    model = small("ATD", depths=[2], num_heads=[2])
    report = atd.export_onnx(model, tmp_path / "half.onnx", dtype=torch.float16)
    assert report.passed
    assert load_exported(tmp_path / "half.onnx").metadata.dtype == "float16"
    assert min(row.psnr or 200 for row in report.comparisons) < 100  # it is half precision indeed


def test_a_static_file_takes_its_size_alone(tmp_path):
    model = small("ATDReal", depths=[2], num_heads=[2])
    report = atd.export_onnx(model, tmp_path / "net.onnx", size=(10, 13))
    assert {(row.batch, row.height, row.width) for row in report.comparisons} == {(1, 10, 13)}
    network = load_exported(tmp_path / "net.onnx")
    assert network(torch.rand(1, 3, 10, 13)).shape == (1, 3, 20, 26)
    with pytest.raises(InputError, match="one image of 13x10 pixels at a time and was given 1 of 10x13"):
        network(torch.rand(1, 3, 13, 10))


def test_files_of_others_are_refused(exported, tmp_path):
    import onnx

    model = onnx.load(exported.path)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "foreign.onnx")
    with pytest.raises(LoadError, match=r"foreign.onnx was not written by `atd export`"):
        load_exported(tmp_path / "foreign.onnx")
    (tmp_path / "broken.onnx").write_bytes(exported.path.read_bytes()[:1000])
    with pytest.raises(LoadError, match=r"ONNX Runtime cannot read .*broken.onnx"):
        load_exported(tmp_path / "broken.onnx")
    with pytest.raises(LoadError, match=r"none.onnx cannot be read"):
        load_exported(tmp_path / "none.onnx")


def test_openvino_gives_the_same(exported):
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    network = load_exported(exported.path, "openvino")
    for size in ((1, 3, 1, 1), (1, 3, 16, 16), (2, 3, 17, 40)):
        image = torch.rand(size, generator=torch.Generator().manual_seed(5))
        torch.testing.assert_close(network(image), run(exported.path, image), rtol=0, atol=1e-4)
