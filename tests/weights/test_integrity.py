"""Files in the cache that are no longer what was put there."""

import json
import os

import pytest
import torch

import atd
from atd import loading
from atd.errors import LoadError
from atd.weights import hub

NAME = "atd_light_sr_x2"


@pytest.fixture
def placed(cache, tmp_path):
    """Converted weights in the cache."""
    model = atd.create(NAME)
    torch.save({"params_ema": model.state_dict()}, tmp_path / "weights.pth")
    loading.convert(tmp_path / "weights.pth", NAME)
    return hub.placed_file(NAME)


def tampered(path):
    """The same size, one weight changed."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    return bytes(data)


def test_an_edited_file_is_refused(placed):
    placed.write_bytes(tampered(placed))
    with pytest.raises(LoadError, match="has changed since it was put into the cache"):
        atd.load(NAME)


def test_a_replaced_file_with_the_old_time_is_refused(placed):
    stat = placed.stat()
    other = placed.with_name("other")
    other.write_bytes(tampered(placed))
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.replace(placed)
    assert placed.stat().st_mtime_ns == stat.st_mtime_ns
    with pytest.raises(LoadError, match="has changed"):
        atd.load(NAME)


def test_a_touched_or_copied_file_of_the_same_content_is_taken(placed):
    os.utime(placed, (1, 1))
    assert atd.load(NAME).name == NAME
    content = placed.read_bytes()
    placed.unlink()
    placed.write_bytes(content)
    assert atd.load(NAME).name == NAME
    placed.write_bytes(tampered(placed))
    with pytest.raises(LoadError, match="has changed"):
        atd.load(NAME)


def test_a_cache_from_before_is_recorded_when_it_is_first_used(placed):
    (placed.parent / "integrity.json").unlink()
    assert atd.load(NAME).name == NAME
    placed.write_bytes(tampered(placed))
    with pytest.raises(LoadError, match="has changed"):
        atd.load(NAME)


def test_an_unreadable_record_is_no_leave(placed):
    (placed.parent / "integrity.json").write_text("[]")
    with pytest.raises(LoadError, match=r"integrity\.json.*cannot be read"):
        atd.load(NAME)


def test_an_unchanged_file_is_not_read_again_for_its_hash(placed):
    """The recorded hash is trusted while size, time and inode are the same: a wrong one goes unnoticed."""
    record = placed.parent / "integrity.json"
    state = json.loads(record.read_text())
    state[placed.name]["sha256"] = "0" * 64
    record.write_text(json.dumps(state))
    assert atd.load(NAME).name == NAME
