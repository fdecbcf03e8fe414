"""The networks against the golden data, against NumPy, and against what they promise of every input."""

import contextlib
import json
import weakref
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy_networks import super_resolution, u_network
from safetensors import safe_open
from small_networks import image, small
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.utils import parametrize

import atd
from atd import ops
from atd.models import blockwise, reconstruction
from atd.models.layers import DictionaryLayer
from atd.models.super_resolution import DictionaryBlock

ARCHITECTURES = {"v1": atd.ATDCVPR, "v2": atd.ATD, "u": atd.ATDU, "real": atd.ATDReal}

TINY_SR = {
    "embed_dim": 12,
    "depths": [2, 2],
    "num_heads": [2, 3],
    "window_size": 4,
    "category_size": 7,
    "num_tokens": 6,
    "reducted_dim": 3,
    "convffn_kernel_size": 5,
    "mlp_ratio": 1.5,
    "upscale": 2,
    "upsampler": "pixelshuffledirect",
}
TINY = {
    atd.ATD: TINY_SR | {"dim_ffn_td": 3},
    atd.ATDCVPR: TINY_SR,
    atd.ATDReal: TINY_SR,
    atd.ATDU: {
        "embed_dim": 8,
        "depths": [2, 1, 3],
        "num_heads": [1, 2, 4],
        "window_size": [8, 4, 4],
        "dim_ffn_td": [2, 3, 4],
        "category_size": [9, 12, 7],
        "num_tokens": [6, 5, 4],
        "reducted_dim": [2, 3, 4],
        "convffn_kernel_size": 3,
        "mlp_ratio": 1.7,
    },
}
FAMILIES = pytest.mark.parametrize("family", list(TINY), ids=lambda family: family.__name__)


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """Weights far from their initial values, so that every term of the formulas counts."""
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if name.endswith(("norm.weight", "norm1.weight", "norm2.weight", "norm3.weight", "scale")):
            nn.init.uniform_(parameter, 0.5, 1.5)
        elif parameter.dim() > 1 and not name.endswith("td"):
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
        else:
            nn.init.normal_(parameter, std=0.5)
    return model.eval()


def numpy_output(model, image: torch.Tensor) -> np.ndarray:
    tensors = {key: value.double().numpy() for key, value in model.state_dict().items()}
    images = image.double().numpy()
    if isinstance(model, atd.ATDU):
        return np.stack([u_network(tensors, model.config, one) for one in images])
    real = isinstance(model, atd.ATDReal)
    cvpr = real or isinstance(model, atd.ATDCVPR)
    return np.stack([super_resolution(tensors, model.config, one, cvpr=cvpr, real=real) for one in images])


class ToZero(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 0 * x


FORMS = ("reference", "torch", "blockwise", "blockwise in small pieces", "native", "native in small pieces")


@contextlib.contextmanager
def computed_as(form: str, piece_bytes: int = 1000) -> Iterator[None]:
    """A way to compute a network on a CPU; small pieces are of `piece_bytes`, by default a row or two of most tensors.

    Where gradients are recorded, blocks run layer by layer; what is not float32 passes the native kernels by.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(ops.use(form.split()[0].replace("blockwise", "torch")))
        if form.startswith(("blockwise", "native")):
            stack.enter_context(torch.no_grad())
        if form.endswith("small pieces"):
            stack.enter_context(pytest.MonkeyPatch.context()).setattr(blockwise, "_PIECE_BYTES_PER_THREAD", piece_bytes)
        yield


def assert_equals_numpy(model, image: torch.Tensor) -> None:
    randomised(model).double()
    expected = numpy_output(model, image)
    for form in FORMS:
        with computed_as(form):
            output = model(image.double()).detach().numpy()
        np.testing.assert_allclose(output, expected, rtol=0, atol=1e-9 * np.ptp(expected), err_msg=form)


@pytest.mark.parametrize(
    "form", [pytest.param(form, marks=pytest.mark.slow) if form.endswith("small pieces") else form for form in FORMS]
)
@pytest.mark.parametrize(
    "name",
    [
        "atd_sr_x2",
        "atd_sr_x3",
        "atd_sr_x4_3conv_nobias",
        "atd_sr_x4_window16",
        "atd_light_sr_x4",
        "atd_cvpr_sr_x2",
        "atd_cvpr_light_sr_x3",
        "atd_u_color",
        "atd_u_gray",
        "atd_real_x4",
    ],
)
def test_golden(golden, name, form):
    with safe_open(golden / f"{name}.safetensors", "pt") as file:
        architecture, config = file.metadata()["arch"], json.loads(file.metadata()["config"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (safe_open is not iterable)
    expected = tensors.pop("output_float64")
    image = tensors.pop("input")
    model = ARCHITECTURES[architecture](**config).eval()
    model.load_state_dict({key.removeprefix("state_dict."): value for key, value in tensors.items()}, strict=True)
    span = expected.max() - expected.min()
    # Dozens of pieces of each layer, the last one shorter; pieces of a row are the tiny networks' (test_equals_numpy).
    with computed_as(form, piece_bytes=16_000):
        single = model(image).detach()
        double = model.double()(image.double()).detach()
    assert (double - expected).abs().max() <= 1e-9 * span
    psnr = 20 * torch.log10(span / (single - expected).square().mean().sqrt())
    assert psnr > (100 if architecture in ("v1", "real") else 130)


@pytest.mark.slow
def test_state_dict_shapes(golden):
    expected = json.loads((golden / "state_dict_shapes.json").read_text())
    assert len(expected) == 15
    for name, shapes in expected.items():
        registered = {"atd_u_color": "atd_u_color_dn25", "atd_u_gray": "atd_u_gray_dn25"}.get(name, name)
        with torch.device("meta"):
            model = atd.create(registered)
        assert {key: list(value.shape) for key, value in model.state_dict().items()} == shapes, name


# What the golden files do not pin: each row is one deviation from the tiny networks, at a size that pads.
VARIANTS = [
    (atd.ATD, {}, (5, 7)),
    (atd.ATD, {"category_size": 1000}, (6, 5)),
    (atd.ATD, {"img_range": 255.0}, (4, 6)),
    (atd.ATD, {"in_chans": 1}, (5, 4)),
    (atd.ATD, {"in_chans": 4}, (5, 4)),
    (atd.ATD, {"upsampler": "", "upscale": 1}, (7, 5)),
    (atd.ATD, {"upsampler": None, "upscale": 1, "img_range": 2.0}, (4, 4)),
    (atd.ATD, {"upsampler": "pixelshuffle", "upscale": 1}, (4, 3)),
    (atd.ATD, {"upsampler": "pixelshuffle", "upscale": 8}, (3, 2)),
    (atd.ATD, {"upsampler": "pixelshuffledirect", "upscale": 8}, (4, 3)),
    (atd.ATD, {"upsampler": "pixelshuffle", "upscale": 3, "qkv_bias": False, "patch_norm": False}, (4, 3)),
    (atd.ATD, {}, (1, 1)),
    (atd.ATD, {"window_size": 8}, (1, 3)),
    (atd.ATDCVPR, {}, (5, 7)),
    (atd.ATDCVPR, {"category_size": 1000, "in_chans": 1}, (6, 5)),
    (atd.ATDCVPR, {"resi_connection": "3conv", "qkv_bias": False}, (5, 4)),
    (atd.ATDCVPR, {"upsampler": "nearest+conv", "upscale": 4}, (3, 4)),
    (atd.ATDCVPR, {"upsampler": "", "upscale": 1}, (4, 5)),
    (atd.ATDCVPR, {"no_norm": True, "img_range": 255.0}, (4, 5)),
    (atd.ATDReal, {}, (5, 7)),
    (atd.ATDReal, {"qkv_bias": False, "resi_connection": "3conv", "in_chans": 1}, (4, 5)),
    (atd.ATDReal, {"patch_norm": False, "upsampler": "nearest+conv", "upscale": 4}, (3, 4)),
    (atd.ATDReal, {"category_size": 1000, "upsampler": "", "upscale": 1}, (6, 5)),
    (atd.ATDU, {}, (16, 9)),
    (atd.ATDU, {"bias": True}, (10, 5)),
    (atd.ATDU, {"in_chans": 1}, (2, 3)),
    (atd.ATDU, {"in_chans": 4, "category_size": [1000, 1000, 1000]}, (1, 1)),
]


@pytest.mark.parametrize(
    ("family", "change", "size"), VARIANTS, ids=lambda value: getattr(value, "__name__", None) or str(value)
)
def test_equals_numpy(family, change, size):
    model = family(**(TINY[family] | change))
    torch.manual_seed(1)
    assert_equals_numpy(model, torch.rand(1, model.in_channels, *size))


@FAMILIES
def test_batch_equals_single_images(family):
    model = randomised(family(**TINY[family])).double()
    torch.manual_seed(2)
    images = torch.rand(3, 3, 9, 13, dtype=torch.float64)
    with torch.no_grad():
        together = model(images)
        alone = torch.cat([model(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-10)


@FAMILIES
def test_inference_leaves_tokens_and_parameters_as_they_are(family):
    model = randomised(family(**TINY[family]))
    parameters = {name: value.clone() for name, value in model.state_dict().items()}
    block = next(part for part in model.modules() if isinstance(part, DictionaryBlock))
    tokens = torch.rand(2, 64, block.td.shape[1])
    before = tokens.clone()
    with torch.no_grad():
        output = block(tokens, (8, 8))
    assert not torch.equal(output, tokens)
    assert torch.equal(tokens, before)
    assert all(torch.equal(value, parameters[name]) for name, value in model.state_dict().items())


@FAMILIES
@pytest.mark.parametrize("part", ["layer", "wqkv", "convffn.fc2", "attn_win"])
def test_what_stands_in_for_a_module_takes_part_in_inference(family, part):
    """Hooks, adapters and the like must be called, although inference on a CPU does without the modules' forwards."""
    model = randomised(family(**TINY[family]))
    image = torch.rand(1, 3, 8, 8)
    layer = next(part for part in model.modules() if isinstance(part, DictionaryLayer))
    calls = []
    hook = (layer if part == "layer" else layer.get_submodule(part)).register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        expected = model(image)
        assert calls
        hook.remove()
        plain = layer.convffn.forward
        layer.convffn.forward = lambda *args: calls.append("replaced") or plain(*args)
        torch.testing.assert_close(model(image), expected)
        assert calls[-1] == "replaced"
        del layer.convffn.forward
        torch.testing.assert_close(model(image), expected)
        layer.wqkv = nn.Sequential(layer.wqkv, ToZero())
        assert not torch.allclose(model(image), expected)
        layer.wqkv = layer.wqkv[0]
        parametrize.register_parametrization(layer.convffn.fc2, "weight", ToZero())
        assert not torch.allclose(model(image), expected)


@FAMILIES
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 2), (8, 8), (17, 23)])
def test_every_size(family, size):
    model = randomised(family(**TINY[family]))
    with torch.no_grad():
        output = model(torch.rand(1, 3, *size))
    assert output.shape == (1, 3, size[0] * model.scale, size[1] * model.scale)
    assert torch.isfinite(output).all()


@FAMILIES
@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_every_parameter_gets_a_gradient(family, backend):
    model = randomised(family(**TINY[family])).train()
    with ops.use(backend):
        model(torch.rand(2, 3, 9, 8)).square().sum().backward()
    # A constant added to one column of the attention map cancels in the softmax over tokens: norm3's bias is idle by
    # construction (CVPR 2024, equation 6), and so its gradient is rounding only.
    idle = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0}
    assert {name for name in idle if not name.endswith("norm3.bias")} == set()
    assert all(p.grad is not None for p in model.parameters())


@FAMILIES
def test_backends_give_the_same_gradients(family):
    model = randomised(family(**TINY[family])).double()
    image = torch.rand(2, 3, 9, 11, dtype=torch.float64)
    gradients = {}
    for backend in ("reference", "torch"):
        model.zero_grad()
        with ops.use(backend):
            model(image).square().mean().backward()
        gradients[backend] = {name: parameter.grad for name, parameter in model.named_parameters()}
    for name, expected in gradients["reference"].items():
        tolerance = 1e-9 * max(1e-3, expected.abs().max().item())
        torch.testing.assert_close(gradients["torch"][name], expected, rtol=0, atol=tolerance, msg=name)


@FAMILIES
def test_activation_checkpointing_changes_nothing(family):
    plain = randomised(family(**TINY[family])).double()
    frugal = family(**(TINY[family] | {"use_checkpoint": True})).double()
    frugal.load_state_dict(plain.state_dict())
    image = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    recomputed = []
    block = next(part for part in frugal.modules() if isinstance(part, nn.ModuleList) and hasattr(part[0], "norm1"))
    block[0].norm1.register_forward_hook(lambda *_: recomputed.append(True))
    for model in (plain, frugal):
        model(image).square().sum().backward()
    assert len(recomputed) == 2  # once in the forward pass, once in the backward pass
    for (name, a), b in zip(plain.named_parameters(), frugal.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-12, atol=1e-12, msg=name)


@FAMILIES
def test_what_a_model_tells_its_caller(family):
    model = family(**TINY[family])
    assert model.scale == TINY[family].get("upscale", 1)
    assert model.in_channels == 3
    assert model.window_size == (8 if family is atd.ATDU else 4)
    assert model.size_multiple == (16 if family is atd.ATDU else 4)
    assert model.task == ("restoration" if family is atd.ATDU else "sr")
    assert model.architecture == family.__name__
    rebuilt = family(**json.loads(json.dumps(model.config)))
    assert rebuilt.config == model.config
    rebuilt.load_state_dict(model.state_dict(), strict=True)


@FAMILIES
def test_position_index_is_optional_but_checked(family):
    model = family(**TINY[family])
    state = model.state_dict()
    keys = [key for key in state if key.endswith("relative_position_index_SA")]
    assert len(keys) == (1 if family is not atd.ATDU else 2 + 1 + 3 + 1 + 2 + 2)
    model.load_state_dict({key: value for key, value in state.items() if key not in keys}, strict=True)
    state[keys[0]] = state[keys[0]].flip(0)
    with pytest.raises(RuntimeError, match="not the index of a"):
        model.load_state_dict(state)


@FAMILIES
def test_tables_of_one_mode_do_not_reach_another(family):
    """Index tables are kept from call to call: not those without data, and none that autograd would refuse."""
    model = randomised(family(**TINY[family])).double()
    image = torch.rand(1, 3, 24, 24, dtype=torch.float64)  # a grid that no other test uses
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        model(torch.empty_like(image))
    with torch.inference_mode():
        expected = model(image).clone()
    output = model(image)
    output.sum().backward()
    torch.testing.assert_close(output.detach(), expected, rtol=0, atol=1e-10)


def test_half_precision_keeps_shape_and_dtype():
    model = randomised(atd.ATD(**TINY[atd.ATD])).to(torch.bfloat16)
    image = torch.rand(1, 3, 9, 8)
    with torch.no_grad():
        assert model(image).dtype == torch.float32
        assert model(image.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("family", "change", "word"),
    [
        (atd.ATD, {"upsampler": "bilinear"}, "upsampler"),
        (atd.ATD, {"upsampler": "", "upscale": 2}, "upscale"),
        (atd.ATD, {"upsampler": "pixelshuffle", "upscale": 6}, "upscale"),
        (atd.ATD, {"upsampler": "nearest+conv", "upscale": 2}, "upscale"),
        (atd.ATD, {"resi_connection": "2conv"}, "resi_connection"),
        (atd.ATD, {"num_heads": [2, 5]}, "num_heads"),
        (atd.ATDCVPR, {"depths": [2]}, "depths"),
        (atd.ATDU, {"window_size": [8, 4]}, "window_size"),
        (atd.ATDU, {"window_size": [8, 6, 4]}, "window_size"),
        (atd.ATDU, {"num_heads": [3, 2, 4]}, "num_heads"),
    ],
)
def test_impossible_arguments_are_named(family, change, word):
    with pytest.raises(ValueError, match=word):
        family(**(TINY[family] | change))


@FAMILIES
def test_bad_input_is_named(family):
    model = family(**TINY[family])
    for bad in (torch.rand(3, 8, 8), torch.rand(1, 2, 8, 8), torch.zeros(1, 3, 8, 8, dtype=torch.uint8)):
        with pytest.raises(ValueError, match=f"{family.__name__} got"):
            model(bad)
    with pytest.raises(ValueError, match="empty"):
        model(torch.rand(1, 3, 0, 8))


def test_the_maps_of_the_attentions_are_freed_before_the_feed_forward_network():
    model = small("ATD")
    layer = model.layers[0].residual_group.layers[0]
    maps = []
    layer.wqkv.register_forward_hook(lambda module, args, output: maps.extend(map(weakref.ref, (args[0], output))))
    layer.convffn.register_forward_pre_hook(lambda module, args: maps.append([ref() for ref in maps]))
    with torch.no_grad():
        model(image(model))
    assert maps[2] == [None, None]


@pytest.mark.parametrize(("upsampler", "scale"), [("pixelshuffle", 3), ("pixelshuffle", 4), ("nearest+conv", 4)])
def test_a_head_in_strips_gives_the_same_pixels(upsampler, scale, monkeypatch):
    model = small("ATD", upsampler=upsampler, upscale=scale).double()
    strips = []
    model.conv_last.register_forward_pre_hook(lambda module, args: strips.append(args[0].shape[2]))
    features, normalised = torch.randn(2, 12, 21, 5).double(), torch.randn(2, 3, 21, 5).double()
    with torch.no_grad():
        whole = model.reconstruct(features, normalised)
        monkeypatch.setattr(reconstruction, "_STRIP_VALUES", 1)
        assert (model.reconstruct(features, normalised) - whole).abs().max() < 1e-12
    assert strips == [scale * rows for rows in (21, 12, 16, 9)]
