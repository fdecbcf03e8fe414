"""Misuse is warned about at the caller's line, events go to the log, and global state is left as it was."""

from __future__ import annotations

import logging
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageFile
from restoration_networks import Nearest
from small_networks import small

import atd
from atd.cli import main
from atd.errors import InputError
from atd.images import ImageData, Metadata, write_image
from atd.restoration.api import restore, restore_file

GRAY16 = np.random.default_rng(0).integers(0, 65_536, (14, 20)).astype(np.uint16)


def colour16(path):
    pyvips = pytest.importorskip("pyvips")
    pyvips.Image.new_from_array(np.stack([GRAY16] * 3, 2), interpretation="rgb16").pngsave(str(path))
    return path


def test_misuse_is_warned_about_at_the_callers_line(tmp_path):
    Image.fromarray(GRAY16).save(tmp_path / "gray.png")
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = ImageData(np.zeros((4, 4, 3), np.uint8), Metadata(icc=profile))
    deep = colour16(tmp_path / "colour.png")
    for act, message in (
        (lambda: restore_file(Nearest(), tmp_path / "gray.png", tmp_path / "a.jpg"), "JPEG holds 8 bits"),
        (lambda: write_image(tmp_path / "a.bmp", image), "cannot hold the colour profile"),
        (lambda: restore_file(Nearest(), deep, tmp_path / "a.png", eight_bit=True), "read with 8 bits"),
        (lambda: atd.restore_file(Nearest(), deep, tmp_path / "a.jpg"), "JPEG holds 8 bits"),
    ):
        with pytest.warns(UserWarning, match=message) as caught:
            act()
        assert [warning.filename for warning in caught] == [__file__]


def test_events_are_logged_and_are_no_warnings(tmp_path, caplog):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        restore(Nearest(size_multiple=8, most_pixels=3000), torch.rand(3, 100, 100), tile=None)
    assert {(record.name, record.levelno) for record in caplog.records} == {("atd.restoration", logging.WARNING)}
    assert "out of memory on cpu" in caplog.text


def test_weights_beside_a_module_are_an_input_error(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "in.png")
    for weights in ("nonsense", "official", "bundled"):
        with pytest.raises(InputError, match="weights"):
            restore(Nearest(), np.zeros((4, 4, 3), np.uint8), weights=weights)
        with pytest.raises(InputError, match="weights"):
            restore_file(Nearest(), tmp_path / "in.png", tmp_path / "out.png", weights=weights)
    with pytest.raises(atd.LoadError):
        restore("atd_light_sr_x4", np.zeros((4, 4, 3), np.uint8), weights="nonsense")
    assert restore("atd_light_sr_x4", np.zeros((4, 4, 3), np.uint8), weights="bundled").shape == (16, 16, 3)


def global_state():
    logger = logging.getLogger("atd")
    return {
        "filters": list(warnings.filters),
        "showwarning": warnings.showwarning,
        "largest image": Image.MAX_IMAGE_PIXELS,
        "truncated images": ImageFile.LOAD_TRUNCATED_IMAGES,
        "log": (logger.level, list(logger.handlers), logger.propagate),
        "gradients": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "tf32": (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32),
        "precision": torch.get_float32_matmul_precision(),
        "cudnn": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "random numbers": torch.random.get_rng_state().tolist(),
        "streams": (sys.stdout, sys.stderr),
    }


def test_global_state_is_as_it_was_whatever_becomes_of_a_run(tmp_path, monkeypatch):
    small("ATD").save_pretrained(tmp_path / "tiny")
    Image.fromarray(GRAY16).save(tmp_path / "gray.png")
    (tmp_path / "bad.png").write_bytes(b"nothing")
    command = ["restore", "--model", str(tmp_path / "tiny"), "--overwrite", "-o", str(tmp_path / "out"), "-i"]
    before = global_state()
    restore_file(Nearest(), tmp_path / "gray.png", tmp_path / "a.png")
    assert global_state() == before
    for inputs, status in ((["gray.png"], 0), (["gray.png", "bad.png"], 1), (["none.png"], 2)):
        assert main([*command, *(str(tmp_path / name) for name in inputs)]) == status
        assert global_state() == before

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(atd.ATD, "forward", interrupted)
    assert main([*command, str(tmp_path / "gray.png")]) == 130
    assert global_state() == before
