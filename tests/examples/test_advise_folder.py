"""The example writes a script of the commands that the photos of a folder need."""

import runpy
import shlex
import sys
from pathlib import Path

from advice_pictures import KODAK, crop_of, jpeg_file

EXAMPLE = Path(__file__).parents[2] / "examples" / "advise_folder.py"


def test_the_script_restores_what_has_a_fault(tmp_path, monkeypatch, capsys):
    crop_of(KODAK[0]).save(tmp_path / "clean.png")
    (tmp_path / "broken.png").write_bytes(b"")
    jpeg_file(crop_of(KODAK[1]), 30).convert("RGB").save(tmp_path / "was jpeg.png")
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), str(tmp_path)])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    out, err = capsys.readouterr()
    shell, comment, command = out.splitlines()
    assert shell == "#!/bin/sh"
    assert comment.startswith("# One fault: JPEG")
    assert shlex.split(command)[:4] == ["atd", "restore", "-i", str(tmp_path / "was jpeg.png")]
    assert "broken.png" in err
