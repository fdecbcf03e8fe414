"""restore, restore_file and restore_tensor, against untiled results, float64 arithmetic and Pillow."""

from __future__ import annotations

import copy
import io
import itertools
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from restoration_networks import Convolution, Learned, Nearest
from torch import nn

from atd.errors import InputError, NotEnoughMemoryError
from atd.restoration import memory
from atd.restoration.api import restore, restore_file, restore_tensor


def rgb(height=37, width=53, seed=0, channels=3, dtype=np.uint8):
    high = 256 if dtype == np.uint8 else 65_536
    return np.random.default_rng(seed).integers(0, high, (height, width, channels)).astype(dtype)


def enlarged(pixels, scale=4):
    return pixels.repeat(scale, 0).repeat(scale, 1)


# ---- the tensor core


def test_nearest_is_exact_at_any_tile_overlap_batch_and_size():
    for (height, width), tile, overlap, batch in itertools.product(
        ((1, 1), (9, 70), (61, 40)), ("auto", None, 16, 33), (0, 5, 32), (1, 3)
    ):
        x = torch.rand(3, height, width)
        result = restore_tensor(Nearest(size_multiple=8), x, tile=tile, overlap=overlap, batch_size=batch)
        assert torch.equal(result, x.repeat_interleave(4, -1).repeat_interleave(4, -2))


@pytest.mark.parametrize("radius", [1, 3])
def test_convolution_is_exact_with_enough_overlap_and_not_without(radius):
    x = torch.rand(3, 90, 61)
    whole = Convolution(radius)(x[None])[0]
    assert torch.allclose(restore_tensor(Convolution(radius), x, tile=32, overlap=4 * radius), whole, atol=1e-6)
    assert (restore_tensor(Convolution(radius), x, tile=32, overlap=0) - whole).abs().max() > 0.05


def test_tiles_are_even_multiples_and_go_in_batches():
    network = Nearest(size_multiple=16)
    restore_tensor(network, torch.rand(3, 100, 200), tile=70, overlap=16, batch_size=4)
    assert {shape[2:] for shape in network.seen} == {(64, 64)}
    assert {shape[0] for shape in network.seen} == {4}


def test_only_tiles_go_to_the_network_never_the_whole_image():
    class Watching(Nearest):
        def forward(self, x):
            # A view of the whole image would take the whole image along to the device.
            assert x.untyped_storage().nbytes() == x.numel() * 4
            return super().forward(x)

    network = Watching()
    restore_tensor(network, torch.rand(3, 100, 200), tile=64, overlap=16)
    assert len(network.seen) > 4


def test_untiled_is_one_call_with_the_whole_image():
    network = Nearest(size_multiple=16)
    restore_tensor(network, torch.rand(3, 50, 33), tile=None)
    assert network.seen == [(1, 3, 50, 33)]


def test_out_of_memory_means_smaller_tiles_and_the_same_result(caplog):
    x = torch.rand(3, 150, 120)
    network = Nearest(size_multiple=8, most_pixels=3000)
    result = restore_tensor(network, x, tile=None)
    assert "out of memory on cpu: going on with tiles of" in caplog.text
    assert torch.equal(result, x.repeat_interleave(4, -1).repeat_interleave(4, -2))


def test_out_of_memory_with_a_batch_means_single_tiles_first():
    x = torch.rand(3, 150, 120)
    network = Nearest(size_multiple=8, most_pixels=3000)
    result = restore_tensor(network, x, tile=48, batch_size=4)
    assert torch.equal(result, x.repeat_interleave(4, -1).repeat_interleave(4, -2))
    assert network.seen[-1] == (1, 3, 48, 48)


def test_out_of_memory_in_the_middle_keeps_finished_rows(caplog):
    class Shrinking(Convolution):
        """Has room for large tiles at first; memory runs low after the first strip."""

        calls = 0

        def forward(self, x):
            self.calls += 1
            if self.calls > 4 and x.shape[-1] > 44:
                raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
            return super().forward(x)

    x = torch.rand(1, 200, 200)
    network = Shrinking(2, in_channels=1)
    result = restore_tensor(network, x, tile=64, overlap=16)
    assert "out of memory" in caplog.text
    assert torch.allclose(result, Convolution(2, 1)(x[None])[0], atol=1e-6)
    # A strip of four tiles was done; one call failed; beginning anew with tiles of 44 would need another 7 x 7.
    assert network.calls < 4 + 1 + 7 * 7


@pytest.mark.slow
def test_out_of_memory_with_the_smallest_tile_is_an_error_in_one_sentence():
    with pytest.raises(NotEnoughMemoryError, match="smaller ones are not possible"):
        restore_tensor(Nearest(most_pixels=0), torch.rand(3, 64, 64))


def test_other_errors_of_a_network_are_not_swallowed():
    class Broken(Nearest):
        def forward(self, x):
            raise RuntimeError("CUDA error: device-side assert triggered")

    with pytest.raises(RuntimeError, match="device-side assert"):
        restore_tensor(Broken(), torch.rand(3, 8, 8))


def test_auto_tiles_when_the_image_does_not_fit_and_says_so(monkeypatch, caplog):
    monkeypatch.setattr(memory, "free_bytes", lambda device: 40_000_000)
    x = torch.rand(3, 100, 90)
    network = Nearest(size_multiple=8)
    result = restore_tensor(network, x)
    assert "the 90x100 image does not fit into memory at once and is restored in tiles of" in caplog.text
    assert len(network.seen) > 1
    assert torch.equal(result, x.repeat_interleave(4, -1).repeat_interleave(4, -2))


def test_self_ensemble_is_the_mean_of_the_eight_symmetries():
    network, x = Learned(), torch.rand(3, 20, 31)
    expected = torch.zeros(3, 40, 62, dtype=torch.float64)
    reference = copy.deepcopy(network).double()
    for turns, mirrored in itertools.product(range(4), (False, True)):
        view = torch.rot90(x.double(), turns, (-2, -1))
        view = view.flip(-1) if mirrored else view
        with torch.no_grad():
            output = reference(view[None])[0]
        output = output.flip(-1) if mirrored else output
        expected += torch.rot90(output, -turns, (-2, -1)) / 8
    result = restore_tensor(network, x, self_ensemble=True)
    assert (result.double() - expected).abs().max() < 1e-6
    assert (result - network(x[None])[0]).abs().max() > 0.01


@pytest.mark.parametrize("where", ["weights", "autocast"])
def test_non_finite_half_precision_is_computed_again_in_float32_and_said_once(where, caplog):
    class Overflowing(Learned):
        def forward(self, x):
            # Beyond 65504, float16 is infinite; only bright tiles get there.
            huge = (x * 3e5).sum(dim=1, keepdim=True) if x.dtype == torch.float16 else self._autocast_sum(x)
            return super().forward(x) + (huge * 1e-5).repeat_interleave(2, -1).repeat_interleave(2, -2)

        def _autocast_sum(self, x):
            ones = torch.full((1, x.shape[1], 1, 1), 3e5, device=x.device)
            return nn.functional.conv2d(x, ones)

    network = Overflowing().half() if where == "weights" else Overflowing()
    x = torch.rand(3, 60, 60) * 0.01
    x[:, 40:, 40:] += 0.9
    result = restore_tensor(network, x, tile=20, overlap=4, dtype=torch.float16)
    assert caplog.text.count("computed again in float32") == 1
    reference = restore_tensor(copy.deepcopy(network).float(), x, tile=20, overlap=4)
    assert result.isfinite().all()
    assert (result - reference).abs().max() < 0.05
    assert next(network.parameters()).dtype == (torch.float16 if where == "weights" else torch.float32)


def test_non_finite_values_in_float32_are_an_error():
    x = torch.rand(3, 8, 8)
    x[0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="non-finite"):
        restore_tensor(Nearest(), x)


def test_callback_counts_tiles_and_cancels():
    states = []
    restore_tensor(Nearest(), torch.rand(3, 100, 100), tile=40, overlap=8, callback=states.append)
    assert [state.done for state in states] == list(range(1, states[-1].total + 1))
    assert states[-1].remaining == 0

    class Enough(Exception):
        pass

    def stop(state):
        if state.done == 2:
            raise Enough

    network = Nearest()
    with pytest.raises(Enough):
        restore_tensor(network, torch.rand(3, 100, 100), tile=40, callback=stop)
    assert len(network.seen) == 2


def test_a_module_is_never_moved():
    network = Learned()
    with pytest.raises(ValueError, match="the model is on cpu"):
        restore(network, rgb(), device="cuda")
    with pytest.raises(ValueError, match="the model is on cpu"):
        restore_tensor(network, torch.rand(3, 8, 8), device="meta")
    restore(network, rgb(), device="cpu")


def test_half_precision_weights_cannot_be_asked_for_float32():
    with pytest.raises(ValueError, match=r"weights are torch\.bfloat16"):
        restore_tensor(Learned().bfloat16(), torch.rand(3, 8, 8), dtype=torch.float32)


def test_bfloat16_is_close_to_float32():
    x = torch.rand(3, 40, 40)
    difference = restore_tensor(Learned(), x, dtype=torch.bfloat16) - restore_tensor(Learned(), x)
    assert 0 < difference.abs().max() < 0.03


def test_a_network_that_lies_about_its_scale_is_refused():
    network = Nearest(scale=2)
    network.scale = 3
    network.forward = lambda x: x
    with pytest.raises(ValueError, match=r"set model\.scale"):
        restore_tensor(network, torch.rand(3, 8, 8))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tile": 0.5}, "tile"),
        ({"tile": -3}, "tile"),
        ({"tile": "big"}, "tile"),
        ({"overlap": -1}, "overlap"),
        ({"batch_size": 0}, "batch_size"),
        ({"outscale": 0}, "outscale"),
        ({"outscale": -2.0}, "outscale"),
        ({"dtype": torch.int8}, "dtype"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        restore(Learned(), rgb(), **arguments)


# ---- kinds of image


@pytest.mark.parametrize(
    ("name", "dtype"), [("float32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_a_dtype_by_its_name(name, dtype):
    array = rgb(8, 8)
    assert np.array_equal(restore(Learned(), array, dtype=name), restore(Learned(), array, dtype=dtype))


@pytest.mark.parametrize("name", ["int8", "flaot32", "float8"])
def test_a_dtype_that_is_none_is_told_without_contradiction(name):
    with pytest.raises(InputError, match=f"there is no dtype '{name}'.*float32") as caught:
        restore(Learned(), rgb(8, 8), dtype=name)
    assert str(caught.value).count(name) == 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("channels", [None, 1, 2, 3, 4])
def test_arrays_keep_dtype_and_layout(dtype, channels):
    kind = np.uint16 if dtype == np.uint16 else np.uint8
    array = rgb(channels=channels or 1, dtype=kind)
    array = array if dtype in (np.uint8, np.uint16) else (array / 255).astype(dtype)
    array = array[:, :, 0] if channels is None else array
    if channels in (2, 4):
        array[..., -1] = array.max()
    before = array.copy()
    result = restore(Nearest(), array, tile=20)
    assert result.dtype == array.dtype
    assert result.shape == (37 * 4, 53 * 4, *array.shape[2:])
    tolerance = {"f": 2e-3 if dtype == np.float16 else 1e-6}.get(array.dtype.kind, 0)
    difference = result.astype(np.float64) - enlarged(array).astype(np.float64)
    assert np.abs(difference).max() <= tolerance
    assert np.array_equal(array, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("shape", [(3, 9, 11), (2, 3, 9, 11), (1, 1, 9, 11), (4, 9, 11)])
def test_tensors_keep_dtype_and_layout(shape, dtype):
    x = torch.rand(shape).to(dtype)
    if shape[-3] == 4:
        x[-1] = 1
    result = restore(Nearest(), x)
    assert result.dtype == dtype
    expected = x.repeat_interleave(4, -1).repeat_interleave(4, -2)
    assert torch.allclose(result, expected, atol=1e-6 if dtype != torch.float16 else 1e-3)


def test_results_are_clamped_and_tensor_core_is_not():
    class Brighter(Nearest):
        def forward(self, x):
            return super().forward(x) + 0.7

    assert restore(Brighter(), torch.rand(3, 4, 4)).max() == 1
    assert restore_tensor(Brighter(), torch.full((3, 4, 4), 0.9)).max() > 1.5
    assert restore(Brighter(), rgb()).min() >= 178


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "F"])
def test_pillow_images_of_every_mode(mode):
    base = Image.fromarray(rgb())
    if mode == "I;16":
        image = Image.fromarray(rgb(channels=1, dtype=np.uint16)[:, :, 0])
    elif mode == "F":
        image = Image.fromarray((rgb(channels=1)[:, :, 0] / 255).astype(np.float32))
    elif mode == "P":
        image = base.quantize(16)
    else:
        image = base.convert(mode)
    wanted = {"1": "L", "P": "RGB"}.get(mode, mode)
    result = restore(Nearest(), image)
    assert result.mode == wanted
    reference = np.asarray(image.convert(wanted) if mode in ("1", "P") else image)
    assert np.allclose(np.asarray(result), enlarged(reference), atol=1e-6)


def test_paths_give_pillow_images(tmp_path):
    Image.fromarray(rgb()).save(tmp_path / "photo.png")
    result = restore(Nearest(), tmp_path / "photo.png")
    assert isinstance(result, Image.Image)
    assert np.array_equal(np.asarray(result), enlarged(rgb()))
    assert restore(Nearest(), str(tmp_path / "photo.png")).size == result.size


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (object(), TypeError, "expected a path, a PIL image, an array or a tensor"),
        (np.zeros((4, 4, 5), np.uint8), ValueError, "shape"),
        (np.zeros((0, 4, 3), np.uint8), ValueError, "shape"),
        (np.zeros((4, 4, 3), np.int32), ValueError, "int32"),
        (np.full((4, 4, 3), 200.0), ValueError, "divide by the largest value"),
        (np.full((4, 4, 3), np.nan), ValueError, "expected float values"),
        (torch.zeros(4, 4), ValueError, "shape"),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), ValueError, "uint8"),
        (torch.zeros(0, 3, 4, 4), ValueError, "shape"),
    ],
)
def test_images_that_are_none(image, error, message):
    with pytest.raises(error, match=message):
        restore(Nearest(), image)


# ---- channels


def test_gray_network_on_colour_restores_luma_and_keeps_chroma():
    class Darker(Nearest):
        def forward(self, x):
            return super().forward(x) * 0.5

    # Moderate colours, so that nothing is clamped: what is left of a channel is x - luma / 2 >= 0.4 - 0.35.
    x = 0.4 + 0.3 * torch.rand(3, 12, 17, dtype=torch.float64)
    result = restore(Darker(scale=1, in_channels=1), x)
    matrix = torch.tensor(
        [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], dtype=torch.float64
    )
    before = torch.einsum("yc,chw->yhw", matrix, x)
    after = torch.einsum("yc,chw->yhw", matrix, result)
    assert torch.allclose(after[0], before[0] * 0.5, atol=1e-5)
    assert torch.allclose(after[1:], before[1:], atol=1e-5)


def test_gray_network_of_scale_two_enlarges_chroma():
    colour = np.zeros((16, 16, 3), np.uint8)
    colour[:] = (150, 90, 60)
    assert np.array_equal(restore(Nearest(scale=2, in_channels=1), colour), enlarged(colour, 2))


def test_colour_under_transparent_pixels_does_not_shine_through():
    """Red disc, black under the transparent surroundings: filtered without bleeding, its rim would turn dark."""
    y, x = np.mgrid[:48, :48]
    inside = (y - 24) ** 2 + (x - 24) ** 2 < 200
    image = np.zeros((48, 48, 4), np.uint8)
    image[inside] = (220, 40, 30, 255)
    result = restore(Convolution(2), image)
    visible = result[..., 3] > 0
    assert np.abs(result[visible][:, :3].astype(int) - (220, 40, 30)).max() <= 1
    naive = restore(Convolution(2), image[..., :3].copy())
    assert np.abs(naive[visible].astype(int) - (220, 40, 30)).max() > 60


def test_alpha_is_kept_by_a_denoiser_and_enlarged_smoothly_by_an_upscaler():
    image = rgb(40, 40, channels=4)
    assert np.array_equal(restore(Convolution(1), image)[..., 3], image[..., 3])
    image[..., 3] = 0
    image[10:30, 10:30, 3] = 255

    class Smooth(nn.Module):
        scale, in_channels, size_multiple = 4, 3, 1

        def forward(self, x):
            return nn.functional.interpolate(x, scale_factor=4, mode="bicubic")

    alpha = restore(Smooth(), image)[..., 3]
    assert set(np.unique(alpha[60:100, 60:100])) == {255}
    assert set(np.unique(alpha[:30])) == {0}
    assert len(np.unique(alpha[80])) > 4


def test_networks_of_four_channels_take_rgba_as_it_is():
    image = rgb(channels=4)
    assert np.array_equal(restore(Nearest(in_channels=4), image), enlarged(image))
    with pytest.raises(ValueError, match="the network takes 4 channels"):
        restore(Nearest(in_channels=4), rgb())


def test_palette_transparency_is_kept():
    image = Image.fromarray(rgb()).quantize(16)
    image.info["transparency"] = 3
    result = restore(Nearest(), image)
    assert result.mode == "RGBA"
    assert np.array_equal(np.asarray(result)[..., 3], enlarged(np.asarray(image.convert("RGBA"))[..., 3]))


# ---- size


@pytest.mark.parametrize("outscale", [0.5, 1, 1.5, 2, 3, 4, 7.3])
def test_outscale_gives_the_size_asked_for(outscale):
    result = restore(Nearest(scale=2), rgb(), outscale=outscale)
    assert result.shape == (round(37 * outscale), round(53 * outscale), 3)


def test_outscale_chains_the_network_and_resizes_as_pillow_does():
    chained = restore(Nearest(scale=2), rgb(), outscale=4)
    assert np.array_equal(chained, enlarged(rgb()))
    # Mild contrast: Pillow clips between its two 8-bit passes.
    mild = rgb() // 4 + 96
    reference = np.asarray(Image.fromarray(enlarged(mild)).resize((53 * 3, 37 * 3), Image.Resampling.LANCZOS))
    assert np.abs(restore(Nearest(scale=2), mild, outscale=3).astype(int) - reference).max() <= 1


def test_a_result_beyond_the_memory_is_refused_before_any_work(monkeypatch):
    monkeypatch.setattr(memory, "free_ram", lambda: 10_000)
    network = Nearest()
    with pytest.raises(MemoryError, match=r"needs about .* [GMk]B of RAM"):
        restore(network, rgb())
    assert not network.seen


# ---- files and threads


def test_restore_file_writes_and_replaces(tmp_path):
    Image.fromarray(rgb()).save(tmp_path / "in.png")
    target = tmp_path / "out.png"
    target.write_text("old")
    assert restore_file(Nearest(), tmp_path / "in.png", target, tile=16) == target
    assert np.array_equal(np.asarray(Image.open(target)), enlarged(rgb()))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.png", "out.png"]


def test_restore_file_refuses_an_impossible_target_before_any_work(tmp_path):
    Image.fromarray(rgb(channels=4)).save(tmp_path / "in.png")
    network = Nearest()
    with pytest.raises(ValueError, match="JPEG cannot hold transparency"):
        restore_file(network, tmp_path / "in.png", tmp_path / "out.jpg")
    with pytest.raises(ValueError, match="unknown ending"):
        restore_file(network, tmp_path / "in.png", tmp_path / "out.xyz")
    assert not network.seen
    assert [path.name for path in tmp_path.iterdir()] == ["in.png"]


def test_a_cancelled_file_leaves_nothing(tmp_path):
    Image.fromarray(rgb()).save(tmp_path / "in.png")

    def stop(state):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore_file(Nearest(), tmp_path / "in.png", tmp_path / "out.png", progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["in.png"]


def test_threads_may_share_a_network():
    network = Learned()
    images = [rgb(30 + index, 40, seed=index) for index in range(6)]
    expected = [restore(network, image, tile=16) for image in images]
    results: dict[int, np.ndarray] = {}

    def work(index):
        for _ in range(3):
            results[index] = restore(network, images[index], tile=16)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(results[index], expected[index]) for index in range(len(images)))


def test_progress_bar_goes_to_stderr_where_that_is_a_terminal(capfd, monkeypatch):
    restore(Nearest(), rgb(), tile=16, progress=True)
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr("sys.stderr", terminal := io.StringIO())
    terminal.isatty = lambda: True
    restore(Nearest(), rgb(), tile=16, progress=True)
    assert capfd.readouterr().out == ""
    assert "tiles" in terminal.getvalue()
