"""Programs for torch alone, each run back in a process that imports nothing of this library."""

import json
import zipfile

import pytest
import torch
from exports import exports_every_size, needs_onnx
from small_networks import small

from atd.errors import ExportError
from atd.export import export_program
from atd.export.api import probes_for
from atd.export.describe import describe

# Where ONNX Runtime is, the session for exports runs: the suite itself is spared the minutes.
pytestmark = [needs_onnx, exports_every_size, pytest.mark.slow]


def shallow(family):
    return small("ATDU") if family == "ATDU" else small(family, depths=[2], num_heads=[2])


@pytest.mark.parametrize("family", ["ATDReal", "ATDU"])
def test_a_program_serves_every_size_in_a_fresh_process(family, tmp_path):
    model = shallow(family)
    report = export_program(model, tmp_path / "net.pt2")
    assert report.passed
    assert {(1, 1, 1), (2, 4, 6)} <= {(row.batch, row.height, row.width) for row in report.comparisons}
    assert all(row.categories is None for row in report.comparisons)
    assert json.loads((tmp_path / "net.report.json").read_text())["format"] == "pt2"
    run = torch.export.load(tmp_path / "net.pt2").module()
    image = torch.rand(2, 3, 19, 8)
    with torch.no_grad():
        torch.testing.assert_close(run(image), model(image).clamp(0, 1), rtol=0, atol=1e-4)
    with zipfile.ZipFile(tmp_path / "net.pt2") as content:
        notes = [name for name in content.namelist() if "atd.json" in name]
        assert json.loads(content.read(notes[0]))["architecture"] == family


def test_a_program_that_does_not_run_is_not_kept(tmp_path, monkeypatch):
    """Run in a process whose torch cannot read it."""
    monkeypatch.setattr("atd.export.programs.torch.export.save", lambda program, file, **_: file.write_bytes(b"no"))
    with pytest.raises(ExportError, match="does not run in a process of its own"):
        export_program(shallow("ATD"), tmp_path / "net.pt2", size=(8, 8))
    assert list(tmp_path.iterdir()) == []


def test_probes_of_a_static_file_have_its_size():
    metadata = describe(shallow("ATD"), dtype=torch.float32, size=(9, 14), licence=None)
    assert {tuple(probe.image.shape) for probe in probes_for(metadata)} == {(1, 3, 9, 14)}
