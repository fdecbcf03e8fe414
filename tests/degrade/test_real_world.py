"""Real-ESRGAN's degradation: the statistics of its draws, and its steps against plain formulations of them."""

import dataclasses
import io
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

from atd import degrade
from atd.degrade import Blur, Compression, Noise, Order, OrderDraw, RealWorld, RealWorldDraw, Resize
from atd.errors import InputError
from atd.tasks import RealWorld as RealWorldTask

DRAWS = [RealWorld().draw(np.random.default_rng([7, sample])) for sample in range(3000)]


def share_is(probability, outcomes):
    """Whether a share is within four standard deviations of the binomial distribution."""
    outcomes = list(outcomes)
    assert len(outcomes) > 300
    bound = 4 * math.sqrt(probability * (1 - probability) / len(outcomes))
    assert np.mean(outcomes) == pytest.approx(probability, abs=bound)


def uniform_in(low, high, values):
    """Inside the range, and the mean within four standard deviations of that of the uniform distribution."""
    values = np.array(list(values))
    assert len(values) > 100
    assert low <= values.min() <= values.max() <= high
    assert values.mean() == pytest.approx((low + high) / 2, abs=4 * (high - low) / math.sqrt(12 * len(values)))


@pytest.mark.parametrize("order", ["first", "second"])
def test_kernels_are_drawn_with_the_published_probabilities(order):
    drawn = [getattr(draw, order).blur for draw in DRAWS]
    if order == "first":
        assert None not in drawn
    else:
        share_is(0.8, [blur is not None for blur in drawn])
    kernels = [blur for blur in drawn if blur]
    share_is(0.1, [blur.kind == "sinc" for blur in kernels])
    bells = [blur for blur in kernels if blur.kind != "sinc"]
    for kind, isotropic, probability in [
        ("gaussian", True, 0.45),
        ("gaussian", False, 0.25),
        ("generalised", True, 0.12),
        ("generalised", False, 0.03),
        ("plateau", True, 0.12),
        ("plateau", False, 0.03),
    ]:
        share_is(probability, [(b.kind, b.sigma[0] == b.sigma[1]) == (kind, isotropic) for b in bells])
    for size in range(7, 22, 2):
        share_is(1 / 8, [blur.size == size for blur in kernels])
    highest = 3.0 if order == "first" else 1.5
    uniform_in(0.2, highest, [blur.sigma[0] for blur in bells])
    uniform_in(0.2, highest, [blur.sigma[1] for blur in bells])
    uniform_in(-math.pi, math.pi, [blur.angle for blur in bells if blur.sigma[0] != blur.sigma[1]])
    assert {blur.angle for blur in bells if blur.sigma[0] == blur.sigma[1]} == {0.0}
    generalised = [blur.beta for blur in bells if blur.kind == "generalised"]
    share_is(0.5, [beta <= 1 for beta in generalised])
    uniform_in(0.5, 1, [beta for beta in generalised if beta <= 1])
    uniform_in(1, 4, [beta for beta in generalised if beta > 1])
    plateau = [blur.beta for blur in bells if blur.kind == "plateau"]
    share_is(0.5, [beta == 1 for beta in plateau])
    uniform_in(1, 2, [beta for beta in plateau if beta > 1])
    small = [blur.cutoff for blur in kernels if blur.kind == "sinc" and blur.size < 13]
    large = [blur.cutoff for blur in kernels if blur.kind == "sinc" and blur.size >= 13]
    assert math.pi / 3 <= min(small) <= max(small) <= math.pi
    assert math.pi / 5 <= min(large) < math.pi / 4 < math.pi * 0.9 < max(large) <= math.pi


@pytest.mark.parametrize(
    ("order", "up", "down", "factors", "sigma", "scale"),
    [("first", 0.2, 0.7, (0.15, 1.5), 30, (0.05, 3)), ("second", 0.3, 0.4, (0.3, 1.2), 25, (0.05, 2.5))],
)
def test_sizes_noise_and_quality_are_drawn_with_the_published_probabilities(order, up, down, factors, sigma, scale):
    drawn = [getattr(draw, order) for draw in DRAWS]
    sizes = [one.resize.factor for one in drawn]
    share_is(up, [factor > 1 for factor in sizes])
    share_is(down, [factor < 1 for factor in sizes])
    uniform_in(1, factors[1], [factor for factor in sizes if factor > 1])
    uniform_in(factors[0], 1, [factor for factor in sizes if factor < 1])
    for mode in ("area", "bilinear", "bicubic"):
        share_is(1 / 3, [one.resize.mode == mode for one in drawn])
    share_is(0.5, [one.noise.kind == "gaussian" for one in drawn])
    share_is(0.4, [one.noise.gray for one in drawn])
    uniform_in(1, sigma, [one.noise.strength for one in drawn if one.noise.kind == "gaussian"])
    uniform_in(*scale, [one.noise.strength for one in drawn if one.noise.kind == "poisson"])
    qualities = [one.compression.quality for one in drawn]
    assert set(qualities) == set(range(30, 96))
    uniform_in(30, 95, qualities)
    assert {one.compression.format for one in drawn} == {"jpeg"}
    assert len({one.noise.seed for one in drawn}) == len(drawn)


def test_the_end_is_drawn_with_the_published_probabilities():
    share_is(0.8, [draw.final_sinc is not None for draw in DRAWS])
    share_is(0.5, [draw.compressed_last for draw in DRAWS])
    for mode in ("area", "bilinear", "bicubic"):
        share_is(1 / 3, [draw.final_mode == mode for draw in DRAWS])
    sincs = [draw.final_sinc for draw in DRAWS if draw.final_sinc]
    assert {blur.kind for blur in sincs} == {"sinc"}
    uniform_in(math.pi / 3, math.pi, [blur.cutoff for blur in sincs])


def test_webp_is_an_option():
    draws = [RealWorld(webp=0.3).draw(np.random.default_rng([7, sample])) for sample in range(1000)]
    share_is(0.3, [draw.first.compression.format == "webp" for draw in draws])
    image = photo(64, 48)
    plain = plain_draw(Compression("webp", 40))
    result = degrade.degrade_batch(image[None], [plain], 1)[0]
    expected = as_pixels(image)
    for _ in range(2):
        stream = io.BytesIO()
        Image.fromarray(expected).save(stream, "WEBP", quality=40)
        expected = np.asarray(Image.open(stream).convert("RGB"))
    assert np.array_equal(as_pixels(result), expected)


def test_a_draw_is_a_function_of_its_seed_and_can_be_written_as_json():
    again = RealWorld().draw(np.random.default_rng([7, 5]))
    assert again == DRAWS[5]
    assert again != DRAWS[6]
    assert json.loads(json.dumps(dataclasses.asdict(again)))["first"]["noise"]["seed"] == again.first.noise.seed


def test_impossible_probabilities_are_refused():
    with pytest.raises(InputError, match=r"sum to 1, got 1\.05"):
        RealWorld(isotropic=0.5)
    with pytest.raises(InputError, match=r"odd .* \[8\]"):
        RealWorld(kernel_sizes=(8,))
    with pytest.raises(InputError, match=r"webp must be a probability, from 0 to 1, got 1\.5"):
        RealWorld(webp=1.5)
    with pytest.raises(InputError, match=r"up \+ down"):
        Order(up=0.7, down=0.6)
    with pytest.raises(InputError, match="from 1 to 100 in order"):
        Order(quality=(95, 30))


def photo(height, width, seed=0):
    """(3, h, w) float32, multiples of 1/255: smooth shapes, an edge and some texture."""
    y, x = np.mgrid[:height, :width] / height
    planes = np.stack([np.sin(5 * x + 3 * y + seed), np.cos(7 * x * y), x - y]) * 0.35 + 0.5
    planes[:, height // 3 : height // 2, width // 4 :] = 0.85
    noise = np.random.default_rng(seed).normal(0, 0.02, planes.shape)
    return torch.from_numpy(np.round((planes + noise).clip(0, 1) * 255) / 255).float()


def as_pixels(image):
    return np.ascontiguousarray((image * 255).round().to(torch.uint8).movedim(0, 2).numpy())


def plain_draw(compression):
    """Nothing but a compression, twice."""
    order = OrderDraw(None, Resize(1.0, "area"), Noise("gaussian", 0.0, False, 0), compression)
    return RealWorldDraw(order, order, None, "area", True)


def test_the_steps_come_in_their_order():
    """Two blurs, three resizings, two compressions and a last sinc, each written out."""
    image = photo(64, 80)
    silent = [Noise("gaussian", 0.0, True, seed) for seed in (1, 2)]
    blurs = [Blur("gaussian", 9, (1.5, 0.8), 0.4), Blur("plateau", 7, (1.0, 1.0), beta=1.5)]
    first = OrderDraw(blurs[0], Resize(0.8, "bilinear"), silent[0], Compression("jpeg", 60))
    second = OrderDraw(blurs[1], Resize(1.2, "bicubic"), silent[1], Compression("jpeg", 35))
    sinc = Blur("sinc", 11, cutoff=1.5)
    for last in (False, True):
        drawn = RealWorldDraw(first, second, sinc, "area", last)
        result = degrade.degrade_batch(image[None], [drawn], 2)[0]

        x = compressed(resized(blurred(image, blurs[0]), (51, 64), "bilinear"), 60)
        x = resized(blurred(x, blurs[1]), (38, 48), "bicubic")
        if not last:
            x = compressed(x.clamp(0, 1), 35)
        x = blurred(resized(x.clamp(0, 1) if last else x, (32, 40), "area"), sinc)
        if last:
            x = compressed(x.clamp(0, 1), 35)
        expected = as_pixels(x.clamp(0, 1)).astype(int)
        difference = np.abs(as_pixels(result).astype(int) - expected)
        # A last bit of a convolution may turn the rounding of a sample, and that a coefficient of a block.
        assert (difference > 0).mean() < 0.01
        assert difference.max() <= 12


def blurred(image, blur):
    half = blur.size // 2
    bordered = np.pad(image.double().numpy(), ((0, 0), (half, half), (half, half)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(bordered, (blur.size, blur.size), (1, 2))
    return torch.from_numpy((windows * blur.kernel().numpy()).sum((-2, -1))).float()


def resized(image, size, mode):
    return interpolate(image[None], size, mode=mode)[0]


def compressed(image, quality):
    stream = io.BytesIO()
    Image.fromarray(as_pixels(image)).save(stream, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(stream))).movedim(2, 0).float() / 255


def test_gaussian_noise_has_its_strength_and_its_colour():
    flat = torch.full((2, 3, 64, 64), 0.5)
    colour, gray = degrade.add_noise_batch(flat, [Noise("gaussian", 20, False, 3), Noise("gaussian", 10, True, 3)])
    assert (colour - 0.5).std().item() == pytest.approx(20 / 255, rel=0.03)
    assert abs(np.corrcoef((colour - 0.5).reshape(3, -1).numpy())[0, 1]) < 0.05
    assert (gray - 0.5).std().item() == pytest.approx(10 / 255, rel=0.05)
    assert torch.equal(gray[0], gray[1])
    assert torch.equal(gray[0], gray[2])


def test_shot_noise_has_the_variance_of_counted_photons():
    """An image of 100 levels has 128 photons at white: value v has variance v/128, times the strength squared."""
    levels = torch.arange(50, 150).repeat_interleave(400).reshape(1, 1, 200, 200).expand(-1, 3, -1, -1) / 255
    noisy = degrade.add_noise_batch(levels, [Noise("poisson", 0.7, False, 5)])
    noise = noisy[0, 0] - levels[0, 0]
    for level in (50, 100, 149):
        here = noise[(levels[0, 0] * 255).round() == level]
        assert here.var().item() == pytest.approx(0.49 * level / 255 / 128, rel=0.3)
        assert here.mean().item() == pytest.approx(0, abs=4 * math.sqrt(0.49 * level / 255 / 128 / 400))
    gray = degrade.add_noise_batch(levels, [Noise("poisson", 0.7, True, 5)]) - levels
    torch.testing.assert_close(gray[0, 0], gray[0, 1])


def test_a_sample_does_not_depend_on_the_others_of_its_batch():
    images = torch.stack([photo(64, 64, seed) for seed in range(4)])
    together = degrade.degrade_batch(images, DRAWS[:4], 4)
    assert together.shape == (4, 3, 16, 16)
    alone = torch.cat([degrade.degrade_batch(images[i : i + 1], [DRAWS[i]], 4) for i in range(4)])
    # The sums of a convolution may be ordered differently in a larger batch.
    assert (together != alone).float().mean() < 0.02
    torch.testing.assert_close(together, alone, atol=8 / 255, rtol=0)
    assert torch.equal(together, degrade.degrade_batch(images, DRAWS[:4], 4))
    assert torch.equal(together * 255, (together * 255).round())


@pytest.mark.parametrize("size", [(4, 4), (4, 12), (24, 8)])
def test_images_smaller_than_a_kernel(size):
    image = photo(*size)[None]
    for draw in DRAWS[:20]:
        result = degrade.degrade_batch(image, [draw], 4)
        assert result.shape == (1, 3, size[0] // 4, size[1] // 4)
        assert result.isfinite().all()


def test_gray_images_stay_gray():
    image = photo(32, 32)[:1]
    assert degrade.degrade_batch(image[None], [RealWorld(webp=1.0).draw(np.random.default_rng(0))], 2).shape[1] == 1
    assert degrade.degrade_batch(image[None], [DRAWS[1]], 2).shape == (1, 1, 16, 16)


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="multiples of 4, got 30x32"):
        degrade.degrade_batch(torch.zeros(1, 3, 30, 32), DRAWS[:1], 4)
    with pytest.raises(InputError, match="n draws"):
        degrade.degrade_batch(torch.zeros(2, 3, 32, 32), DRAWS[:1], 4)


def test_the_task_of_real_photos_draws_from_the_generator_or_from_the_image():
    image = as_pixels(photo(48, 64))
    drawn = degrade.for_task(image, RealWorldTask(4), np.random.default_rng([7, 3]))
    expected = degrade.degrade_batch(torch.from_numpy(image).movedim(2, 0)[None] / 255, DRAWS[3:4], 4)[0]
    assert np.array_equal(drawn, as_pixels(expected))
    protocol = degrade.for_task(image, RealWorldTask(4))
    assert np.array_equal(protocol, degrade.for_task(image.copy(), RealWorldTask(4)))
    assert not np.array_equal(protocol, drawn)
    assert degrade.for_task(image[..., 0], RealWorldTask(2)).shape == (24, 32)
    with pytest.raises(InputError, match="RandomState"):
        degrade.for_task(image, RealWorldTask(4), np.random.RandomState(0))
    with pytest.raises(InputError, match="float64"):
        degrade.for_task(image / 255, RealWorldTask(4))


def test_orders_of_ones_own():
    calm = Order(blur=0.0, up=0.0, down=0.0, gaussian=1.0, gaussian_sigma=(0.0, 0.0), quality=(95, 95))
    draw = RealWorld(first=calm, second=calm, final_sinc=0.0).draw(np.random.default_rng(0))
    assert draw.first.blur is draw.second.blur is draw.final_sinc is None
    image = photo(40, 40)
    result = degrade.degrade_batch(image[None], [draw], 1)[0]
    assert (result - image).abs().mean() < 6 / 255


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card")
def test_a_gpu_gives_the_same_but_for_the_noise():
    images = torch.stack([photo(64, 64, seed) for seed in range(8)])
    draws = []
    for draw in DRAWS[:8]:
        first, second = (
            dataclasses.replace(o, noise=dataclasses.replace(o.noise, strength=0.0)) for o in (draw.first, draw.second)
        )
        draws.append(dataclasses.replace(draw, first=first, second=second))
    here, there = degrade.degrade_batch(images, draws, 4), degrade.degrade_batch(images.cuda(), draws, 4).cpu()
    assert (here - there).abs().mean() < 0.5 / 255
