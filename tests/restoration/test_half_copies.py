"""One copy in half precision of a float32 network: shared, renewed when the network changes, gone when it goes."""

from __future__ import annotations

import copy
import gc
import threading
import weakref

import pytest
import torch
from small_networks import FAMILIES, image, small
from torch import nn

import atd
from atd.restoration import half_copies, runner
from atd.restoration.half_copies import half_copy

BF16 = torch.bfloat16


def restored(model, dtype=BF16, x=None):
    return atd.restore(model, image(model, 16, 12) if x is None else x, dtype=dtype, tile=None)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_network_itself_is_never_changed(family):
    model = small(family)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    restored(model)
    after = model.state_dict()
    assert all(after[key].dtype == value.dtype and torch.equal(after[key], value) for key, value in before.items())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert half_copy(model, BF16) is not model


def test_a_network_made_in_inference_mode_has_a_copy_too():
    with torch.inference_mode():
        model = small("ATD")
    assert half_copy(model, BF16) is not None
    assert torch.equal(restored(model), restored(small("ATD")))


def test_threads_share_one_copy(monkeypatch):
    model, made, cast = small("ATD"), [], half_copies._cast
    monkeypatch.setattr(half_copies, "_cast", lambda *args: made.append(cast(*args)) or made[-1])
    ready, results = threading.Barrier(4), []

    def work():
        ready.wait()
        results.append(restored(model))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert len(results) == 4
    assert all(torch.equal(result, results[0]) for result in results)


def in_place(model):
    with torch.no_grad():
        model.conv_first.weight.mul_(1.5)


def through_data(model):
    model.conv_first.weight.data.mul_(1.5)


def by_loading(model):
    model.load_state_dict({**model.state_dict(), "conv_first.weight": model.conv_first.weight.detach() * 1.5})


def by_replacing(model):
    model.conv_first.weight = nn.Parameter(model.conv_first.weight.detach() * 1.5)


@pytest.mark.parametrize("change", [in_place, through_data, by_loading, by_replacing])
def test_a_changed_network_gets_another_copy(change):
    """The result is that of a network that had the new weights from the start, and no more than one copy is kept."""
    model, fresh = small("ATD"), small("ATD")
    before = restored(model)
    first = weakref.ref(half_copy(model, BF16))
    change(model)
    in_place(fresh)
    after = restored(model)
    assert not torch.equal(after, before)
    assert torch.equal(after, restored(fresh))
    gc.collect()
    assert first() is None


def test_the_copy_dies_with_the_network():
    model = small("ATD")
    restored(model)
    own, kept = weakref.ref(half_copy(model, BF16)), weakref.ref(model)
    del model
    gc.collect()
    assert kept() is None
    assert own() is None


def test_half_of_the_memory_and_what_stays_float32():
    model = small("ATDCVPR", embed_dim=48)
    half = half_copy(model, BF16)
    kinds = {name: parameter.dtype for name, parameter in half.named_parameters()}
    wide = {name for name, kind in kinds.items() if kind == torch.float32}
    ends = ("relative_position_bias_table", "attn_atd.scale", "logit_scale")
    assert wide == {name for name in kinds if name.endswith(ends)}
    narrow = sum(p.nbytes for name, p in half.named_parameters() if name not in wide)
    assert narrow == sum(p.nbytes for name, p in model.named_parameters() if name not in wide) / 2
    addresses = {parameter.data_ptr() for parameter in model.parameters()}
    assert not addresses & {parameter.data_ptr() for parameter in half.parameters()}


class OfAUser(atd.ATD):
    pass


def hooked(model):
    model.norm.register_forward_hook(lambda *_: None)
    return model


def adapted(model):
    torch.nn.utils.parametrizations.weight_norm(model.conv_first)
    return model


def compiled(model):
    model.layers[0].compile(backend="eager")
    return model


@pytest.mark.parametrize("change", [hooked, adapted, pytest.param(compiled, marks=pytest.mark.slow)])
def test_what_is_not_plainly_ours_runs_under_autocast(change):
    """Hooks belong to the module that they were put on, and are called there."""
    model = change(small("ATD"))
    assert half_copy(model, BF16) is None
    plain = restored(small("ATD"), dtype=torch.float32)
    assert torch.dist(restored(model), plain) < 0.05 * plain.norm()


def test_hooks_are_called_in_half_precision():
    model, seen = small("ATD"), []
    restored(model)
    model.norm.register_forward_hook(lambda module, *_: seen.append(module))
    restored(model)
    assert seen == [model.norm]


def test_a_subclass_and_a_stranger_have_no_copy():
    model = small("ATD")
    other = OfAUser(**model.config)
    assert half_copy(other.eval(), BF16) is None
    assert half_copy(nn.Conv2d(3, 3, 1), BF16) is None


def test_tiles_that_overflow_are_computed_by_the_network_itself_in_float32():
    model = small("ATD")
    with torch.no_grad():
        model.conv_after_body.weight.mul_(1e7)  # beyond 65504
    result = restored(model, torch.float16)
    assert torch.equal(result, restored(model, torch.float32))


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(-10 * torch.log10((a.double() - b.double()).square().mean()))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "numbers"), [("atd_light_sr_x4", (3, 7)), ("atd_u_tiny_color_dn", (3,))])
def test_bfloat16_loses_no_more_than_a_hundredth_of_a_decibel(name, numbers, data, monkeypatch):
    """Bundled weights on crops of Kodak: the copy beside float64, and beside float32 weights under autocast.

    Where a denoiser is given 48×48 pixels, either way moves its PSNR by some hundredths up and down; there the distance
    from float64 is compared alone.
    """
    from PIL import Image
    from torchvision.transforms.functional import pil_to_tensor

    model = atd.load(name, weights="bundled", device="cpu")
    side = 128 if model.scale > 1 else 48
    crops = []
    for number in numbers:
        with Image.open(data / "denoise" / "Kodak24" / f"kodim{number:02d}.png") as file:
            crops.append(pil_to_tensor(file.convert("RGB"))[:, 160 : 160 + side, 200 : 200 + side] / 255)
    photos = torch.stack(crops)
    if model.scale > 1:
        x = torch.nn.functional.interpolate(photos, scale_factor=1 / model.scale, mode="bicubic", antialias=True)
        x = x.clamp(0, 1)
    else:
        x = photos + torch.randn(photos.shape, generator=torch.Generator().manual_seed(0)) * 25 / 255
    with torch.no_grad():
        exact = copy.deepcopy(model).double()(x.double()).clamp(0, 1)
    by_copy = restored(model, BF16, x)
    monkeypatch.setattr(runner, "half_copy", lambda *_: None)
    by_autocast = restored(model, BF16, x)
    assert not torch.equal(by_copy, by_autocast)
    assert psnr(by_copy, exact) > max(50, psnr(by_autocast, exact) - 1.5)
    if model.scale > 1:
        assert psnr(by_copy, photos) >= psnr(exact, photos) - 0.01
        assert psnr(by_copy, photos) >= psnr(by_autocast, photos) - 0.01
