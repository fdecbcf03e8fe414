"""A measured table takes the place of the built-in figures on a card: of the width, dtype and backend that it has."""

import json

import pytest
import torch

import atd
from atd.errors import InputError
from atd.restoration import memory

CARD, CPU = torch.device("cuda", 0), torch.device("cpu")
TABLE = {"backend": "triton", "bytes_per_pixel": {"ATD 48": {"bfloat16": 1300, "float32": 2600}}}


@pytest.fixture
def light():
    with torch.device("meta"):
        return atd.create("atd_light_sr_x4")


@pytest.fixture
def table(tmp_path, monkeypatch):
    """A table in use on a machine that takes the Triton kernels."""
    path = tmp_path / "table.json"
    path.write_text(json.dumps(TABLE))
    monkeypatch.setenv("ATD_MEMORY_TABLE", str(path))
    monkeypatch.setattr(memory, "backend_report", lambda device, dtype: ("triton", "a card is said to be there"))
    return path


@pytest.mark.usefixtures("table")
def test_the_table_decides_on_a_card(light, monkeypatch):
    assert memory.bytes_per_pixel(light, CARD, torch.bfloat16) == 1300
    assert memory.estimate(light, 100, 128, device=CARD, dtype=torch.float32) == 2600 * 112 * 128
    monkeypatch.setattr(memory, "free_bytes", lambda device: int(1300 * 512 * 512 / memory.USABLE) + 1)
    assert memory.largest_tile(light, 2000, 2000, device=CARD, dtype=torch.bfloat16) == 512
    assert memory.largest_tile(light, 2000, 2000, device=CARD, dtype=torch.float32) == 352


@pytest.mark.usefixtures("table")
def test_what_the_table_does_not_have_is_planned_as_before(light, monkeypatch):
    built_in = memory.BYTES_PER_PIXEL["ATD", 48]
    assert memory.bytes_per_pixel(light, CARD, torch.float16) == built_in[1]
    assert memory.bytes_per_pixel(light, CARD) == built_in[1]
    assert memory.bytes_per_pixel(light, CPU, torch.bfloat16) == built_in[0]
    monkeypatch.setattr(memory, "backend_report", lambda device, dtype: ("torch", "chosen"))
    assert memory.bytes_per_pixel(light, CARD, torch.bfloat16) == built_in[1]


def test_a_table_that_was_written_anew_is_read_anew(light, table):
    assert memory.bytes_per_pixel(light, CARD, torch.bfloat16) == 1300
    table.write_text(json.dumps({**TABLE, "bytes_per_pixel": {"ATD 48": {"bfloat16": 999.5}}}))
    assert memory.bytes_per_pixel(light, CARD, torch.bfloat16) == 999.5


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"backend": "triton"}', json.dumps({**TABLE, "bytes_per_pixel": {"ATD 48": {"bfloat16": -1}}}),
     json.dumps({**TABLE, "bytes_per_pixel": {"ATD 48": {"int8": 5}}}), json.dumps({**TABLE, "bytes_per_pixel": {}})],
)  # fmt: skip
def test_a_table_that_is_none_is_refused_by_name(light, table, text):
    table.write_text(text)
    with pytest.raises(InputError, match=r"table\.json is no table of memory"):
        memory.bytes_per_pixel(light, CARD, torch.bfloat16)


def test_a_table_that_is_not_there_is_refused_by_name(light, table):
    table.unlink()
    with pytest.raises(InputError, match=r"ATD_MEMORY_TABLE names .*table\.json"):
        memory.bytes_per_pixel(light, CARD, torch.bfloat16)
