"""Several images at once, and progress over the whole job: images, passes and tiles."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
import torch
from restoration_networks import Learned, Nearest
from small_networks import small

from atd import ops
from atd.models.layer_events import listening
from atd.restoration import memory
from atd.restoration.api import restore, restore_file
from atd.restoration.progress import ProgressBar


def rises_to_its_total_once(states):
    done = [state.done for state in states]
    return (
        done == sorted(set(done))
        and [state.done == state.total for state in states].index(True) == len(states) - 1
        and states[-1].remaining == 0
    )


def test_tiles_of_several_images_share_batches():
    network = Nearest()
    x = torch.rand(3, 3, 70, 50)
    assert torch.equal(
        restore(network, x, tile=40, overlap=8, batch_size=4), x.repeat_interleave(4, -1).repeat_interleave(4, -2)
    )
    # Two strips of 2 tiles x 3 images each: 6 = 4 + 2.
    assert [shape[0] for shape in network.seen] == [4, 2, 4, 2]


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_batch_gives_what_one_by_one_gives(channels, batch_size):
    x = torch.rand(3, channels, 50, 41)
    if channels in (2, 4):
        # Transparent somewhere, opaque everywhere, visible nowhere: what depends on alpha concerns its own image only.
        x[0, -1, 10:20], x[1, -1], x[2, -1] = 0, 1, 0
    network = Learned()
    together = restore(network, x, tile=24, overlap=8, batch_size=batch_size, outscale=3)
    for index in range(3):
        alone = restore(network, x[index], tile=24, overlap=8, outscale=3)
        assert (together[index] - alone).abs().max() < 1e-6


def test_out_of_memory_with_several_images_means_fewer_at_a_time_and_then_smaller_tiles():
    network = Nearest(size_multiple=8, most_pixels=3000)
    x = torch.rand(3, 3, 150, 120)
    states = []
    result = restore(network, x, tile=64, batch_size=3, progress=states.append)
    assert torch.equal(result, x.repeat_interleave(4, -1).repeat_interleave(4, -2))
    assert network.seen[0][0] == 3
    assert network.seen[1][0] == 1
    assert states[-1].done == states[-1].total


def test_untiled_images_go_together_only_as_far_as_memory_allows(monkeypatch):
    network, x = Nearest(), torch.rand(4, 3, 50, 40)
    two = memory.estimate(network, 50, 40, 2, device=torch.device("cpu"))
    monkeypatch.setattr(memory, "free_bytes", lambda device: int(two / memory.USABLE) + 3_000_000)
    assert torch.equal(restore(network, x, batch_size=4), x.repeat_interleave(4, -1).repeat_interleave(4, -2))
    assert network.seen == [(2, 3, 50, 40)] * 2


def test_progress_covers_all_images_of_a_batch():
    network, states = Nearest(), []
    restore(network, torch.rand(5, 3, 100, 100), tile=40, overlap=8, batch_size=2, progress=states.append)
    computed = sum(shape[0] for shape in network.seen)
    assert {state.total for state in states} == {computed}
    assert rises_to_its_total_once(states)


@pytest.mark.parametrize("tile", [16, None, "auto"])
def test_progress_covers_every_pass(tile):
    network, states = Nearest(scale=2), []
    restore(network, torch.rand(2, 3, 30, 40), tile=tile, overlap=4, outscale=7, progress=states.append)
    assert {shape[-1] for shape in network.seen} >= ({16} if tile == 16 else {40, 80, 160})
    assert {state.total for state in states} == {len(network.seen)}
    assert rises_to_its_total_once(states)


def test_progress_of_a_file_covers_every_pass(tmp_path):
    from PIL import Image

    Image.new("RGB", (40, 30)).save(tmp_path / "in.png")
    network, states = Nearest(scale=2), []
    restore_file(
        network, tmp_path / "in.png", tmp_path / "out.png", tile=16, overlap=4, outscale=4, progress=states.append
    )
    assert {state.total for state in states} == {len(network.seen)}
    assert rises_to_its_total_once(states)


def test_progress_reaches_its_total_once_although_memory_ran_out_in_the_first_pass():
    network, states = Nearest(scale=2, size_multiple=8, most_pixels=3000), []
    restore(network, torch.rand(3, 150, 120), tile=64, outscale=4, progress=states.append)
    assert rises_to_its_total_once(states)


@pytest.mark.parametrize("backend", ["native", "torch", "reference"])
def test_progress_inside_an_untiled_image_counts_its_layers(backend, monkeypatch):
    """On the blockwise route of a CPU and on the plain one, and with the work of the self-ensemble."""
    monkeypatch.setattr("sys.stderr", terminal := io.StringIO())
    network = small("ATD")  # blocks of 2 layers and 1
    image = np.zeros((12, 10, 3), np.uint8)
    bar = ProgressBar("photo.png", interval=0)
    with ops.use(backend):
        restore(network, image, progress=bar)
    bar.close()
    assert re.findall(r"photo\.png: layer (\d)/3 +(\d+)%", terminal.getvalue()) == [
        ("1", "33"),
        ("2", "67"),
        ("3", "100"),
    ]
    terminal.truncate(0)
    bar = ProgressBar("photo.png", interval=0)
    with ops.use(backend):
        restore(network, image, tile=8, overlap=0, self_ensemble=True, progress=bar)
    assert "tile 2/4, layer 12/24  38%" in terminal.getvalue()


def test_layers_of_a_batch_are_counted_once(monkeypatch):
    monkeypatch.setattr("sys.stderr", terminal := io.StringIO())
    restore(small("ATD"), torch.zeros(4, 3, 8, 8), batch_size=4, progress=ProgressBar(interval=0))
    layers = [int(layer) for layer in re.findall(r"layer (\d+)/3", terminal.getvalue())]
    assert max(layers) == 3
    assert layers == sorted(layers)


def test_nobody_listens_to_layers_after_a_run():
    heard = []

    def failing(share):
        heard.append(share)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), listening(failing):
        small("ATD")(torch.zeros(1, 3, 8, 8))
    small("ATD")(torch.zeros(1, 3, 8, 8))
    assert heard == [1]
