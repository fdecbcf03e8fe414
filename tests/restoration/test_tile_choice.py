"""The automatic tile over image sizes, free RAM and ways to restore: as large as memory allows, or a refusal."""

from __future__ import annotations

import pytest
import torch

import atd
from atd.errors import NotEnoughMemoryError
from atd.restoration import memory
from atd.restoration.options import RestoreOptions
from atd.restoration.runner import SMALLEST_TILE, TileRunner, choose_tile
from atd.restoration.streaming import tile_for_strips

CPU = torch.device("cpu")
GB = 1_000_000_000
SIDES = [500, 2000, 9000, 10_000, 20_000, 60_000]


@pytest.fixture(scope="module")
def light():
    return atd.create("atd_light_sr_x4").eval()


def chosen(model, side, stream, **arguments):
    """The tile, or None where it is refused."""
    runner = TileRunner(model, torch.float32, False)
    try:
        if stream:
            return tile_for_strips(model, side, side, 3, RestoreOptions(dtype=torch.float32))
        return choose_tile(runner, side, side, "auto", **arguments)
    except NotEnoughMemoryError:
        return None


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("side", SIDES)
def test_tiles_fit_grow_with_free_ram_and_never_collapse(light, monkeypatch, side, stream):
    before = 0
    for free in (GB // 4, GB, 2 * GB, 8 * GB, 21 * GB, 64 * GB, 2000 * GB):
        monkeypatch.setattr(memory, "free_ram", lambda free=free: free)
        tile = chosen(light, side, stream)
        if tile is None:
            assert not before, "more RAM must not be worse"
            continue
        assert min(SMALLEST_TILE, side) <= tile
        assert tile >= before
        rows = min(tile, side) if stream else side
        held = memory.estimate(light, min(tile, side), min(tile, side), device=CPU) + rows * side * 16 * 3 * 4
        assert held <= free
        before = tile
    assert before, "2 TB are enough for everything here"


@pytest.mark.parametrize(("side", "least"), [(9000, 1024), (10_000, 1024), (20_000, 512), (60_000, 192)])
def test_streaming_reserves_no_ram_for_a_result_it_never_assembles(light, monkeypatch, side, least):
    """21 GB free had given tiles of 144 for 9000 pixels a side, and of 16 from 10,000 on."""
    monkeypatch.setattr(memory, "free_ram", lambda: 21 * GB)
    assert (chosen(light, side, stream=True) or 0) >= least


def test_too_little_memory_is_refused_with_advice(light, monkeypatch):
    monkeypatch.setattr(memory, "free_ram", lambda: 30_000_000)
    with pytest.raises(NotEnoughMemoryError, match=r"close other programs.*set the tile size yourself"):
        choose_tile(TileRunner(light, torch.float32, False), 2000, 2000, "auto")


@pytest.mark.parametrize("tile", [None, 0, 30_000])
def test_an_untiled_run_that_ram_cannot_hold_is_refused_before_any_work(light, monkeypatch, tile):
    monkeypatch.setattr(memory, "free_ram", lambda: 21 * GB)
    runner = TileRunner(light, torch.float32, False)
    with pytest.raises(NotEnoughMemoryError, match=r"30000x30000 pixels at once need about .* GB of RAM"):
        choose_tile(runner, 30_000, 30_000, tile)
    assert choose_tile(runner, 256, 256, tile) == 256
