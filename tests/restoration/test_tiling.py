"""The tiler alone, proved with operations whose untiled result is known: nearest upscaling and a convolution."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

from atd.restoration.tiling import Span, crossfade, discarded, half_sine, join_columns, join_rows, plan_axis, plan_tiles


def run_tiled(image, operation, tile, overlap, multiple=1, scale=1):
    """The plainest possible driver of the pure functions."""
    plan = plan_tiles(*image.shape[-2:], tile, overlap, multiple)
    rows, tail = [], None
    for index, row in enumerate(plan.rows.tiles):
        tiles = [operation(image[:, row.start : row.stop, c.start : c.stop]) for c in plan.columns.tiles]
        strip = join_columns(tiles, plan.columns, scale)
        fade_in, fade_out = plan.rows.seam_before(index), plan.rows.seam_after(index)
        rows.append(join_rows(tail, strip, row.start, fade_in, fade_out, scale))
        tail = strip[:, fade_out.scaled(scale).within(row.start * scale)].clone()
    return torch.cat(rows, dim=1)


@pytest.mark.parametrize("multiple", [1, 8, 16])
def test_plan_covers_the_axis_with_even_tiles(multiple):
    lengths, limits, overlaps = (1, 2, 7, 16, 33, 64, 100, 257), (1, 8, 16, 48, 100), (0, 1, 7, 16, 32)
    for length, tile, overlap in itertools.product(lengths, limits, overlaps):
        plan = plan_axis(length, tile, overlap, multiple)
        limit = max(tile // multiple, 1) * multiple
        assert plan.tiles[0].start == 0
        assert plan.tiles[-1].stop == length
        assert len({span.size for span in plan.tiles}) == 1
        assert plan.size <= limit
        assert len(plan.tiles) == 1 or plan.size % multiple == 0
        shared = min(overlap, limit // 2)
        for index, seam in enumerate(plan.seams):
            before, after = plan.tiles[index], plan.tiles[index + 1]
            assert before.start < after.start
            assert before.stop - after.start >= shared
            assert seam.start >= after.start + discarded(shared)
            assert seam.stop <= before.stop - discarded(shared)
            assert seam.start >= plan.seam_before(index).stop


def test_plan_uses_no_more_tiles_than_needed():
    plan = plan_axis(100, 60, 20)
    assert len(plan.tiles) == 2
    assert plan.tiles == (Span(0, 60), Span(40, 100))
    assert len(plan_axis(101, 60, 20).tiles) == 3
    assert len(plan_axis(60, 60, 20).tiles) == 1


def test_plan_from_an_origin_covers_the_rest():
    plan = plan_axis(200, 48, 16, multiple=8, origin=71)
    assert plan.tiles[0].start == 71
    assert plan.tiles[-1].stop == 200
    assert plan.size <= 48


@pytest.mark.parametrize("arguments", [(0, 8, 0, 1), (8, 0, 0, 1), (8, 8, -1, 1), (8, 8, 0, 0)])
def test_plan_refuses_nonsense(arguments):
    with pytest.raises(ValueError, match=r"expected|nothing"):
        plan_axis(*arguments)


def test_half_sine_is_a_smooth_partition_of_unity():
    weights = half_sine(16)
    assert torch.allclose(weights + weights.flip(0), torch.ones(16), atol=1e-6)
    assert (weights.diff() > 0).all()
    assert weights[0] < 0.01


def test_crossfade_of_equal_values_is_bit_exact():
    values = torch.rand(3, 5, 11)
    assert torch.equal(crossfade(values, values.clone(), dim=-1), values)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1, 2, 4])
def test_nearest_upscaling_is_exact_at_any_tile_overlap_and_size(scale):
    generator = torch.Generator().manual_seed(scale)
    for (height, width), tile, overlap, multiple in itertools.product(
        ((1, 1), (5, 31), (40, 23), (64, 64)), (3, 7, 16, 33), (0, 1, 2, 5, 16, 64), (1, 4)
    ):
        image = torch.rand(3, height, width, generator=generator)

        def nearest(x):
            return x.repeat_interleave(scale, -1).repeat_interleave(scale, -2)

        assert torch.equal(run_tiled(image, nearest, tile, overlap, multiple, scale), nearest(image))


@pytest.mark.parametrize("radius", [1, 2, 4])
def test_convolution_is_exact_when_the_discarded_rim_covers_its_radius(radius):
    """In integers, so that "exact" is not a question of summation order."""
    generator = torch.Generator().manual_seed(radius)
    size = 2 * radius + 1
    kernel = torch.randint(-3, 4, (1, 1, size, size), generator=generator).double()

    def convolve(x):
        return F.conv2d(x[None].double(), kernel, padding=radius)[0]

    for (height, width), extra, tile in itertools.product(((37, 90), (64, 65)), (0, 3, 16), (16, 24, 48)):
        overlap = 4 * radius + extra
        if 2 * overlap > tile:
            continue
        assert discarded(overlap) >= radius
        image = torch.randint(0, 256, (1, height, width), generator=generator).double()
        assert torch.equal(run_tiled(image, convolve, tile, overlap), convolve(image))


def test_convolution_shows_seams_without_overlap():
    image = torch.full((1, 40, 40), 100.0, dtype=torch.float64)

    def blur(x):
        return F.avg_pool2d(x[None], 5, stride=1, padding=2)[0]

    difference = (run_tiled(image, blur, 16, 0) - blur(image)).abs()
    assert difference.max() > 10
    assert run_tiled(image, blur, 20, 8).sub(blur(image)).abs().max() < 1e-9


def test_an_overlap_a_little_too_small_for_the_convolution_is_not_exact():
    image = torch.rand(1, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def blur(x):
        return F.avg_pool2d(x[None], 9, stride=1, padding=4)[0]

    assert (run_tiled(image, blur, 32, 4) - blur(image)).abs().max() > 1e-3
