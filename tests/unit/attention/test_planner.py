"""The planner: what it proposes divides the grid and has the density that was asked for."""

import math

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from rlhf_video.attention import Band, Grid, Local, Tile, WindowSpec, plan_band, plan_local, plan_tile
from rlhf_video.attention.planner import CLOSE, NEAR, divisor_bands, divisor_tiles, divisor_windows
from rlhf_video.errors import ConfigError

WAN_480P, WAN_720P = Grid(21, 30, 52), Grid(21, 45, 80)
COGVIDEOX, HUNYUAN, SPRITE, PRIMES = Grid(13, 30, 45), Grid(33, 45, 80), Grid(5, 4, 4), Grid(13, 31, 47)
PLANNERS = (plan_tile, plan_local, plan_band)
DIVISORS = (divisor_tiles, divisor_windows, divisor_bands)

grids = st.builds(Grid, st.integers(1, 13), st.integers(1, 16), st.integers(1, 16))


@given(grid=grids, density=st.floats(0.02, 1.0), planner=st.sampled_from(PLANNERS))
def test_a_proposal_fits_the_grid_and_the_density(grid: Grid, density: float, planner: object) -> None:
    try:
        window: WindowSpec = planner(grid, density)  # type: ignore[operator]
    except ConfigError:
        reject()
    window.check(grid)
    assert abs(math.log(window.density(grid) / density)) <= math.log(NEAR) + 1e-5


@given(grid=grids, density=st.floats(0.02, 0.99), planner=st.sampled_from(range(3)))
def test_a_refusal_is_true_and_without_strictness_the_nearest_is_taken(
    grid: Grid, density: float, planner: int
) -> None:
    shares = [choice.density for choice in DIVISORS[planner](grid)]
    misses = [abs(math.log(share / density)) for share in shares if share < 1 or max(shares) == min(shares)]
    try:
        PLANNERS[planner](grid, density)
    except ConfigError:
        assert min(misses) > math.log(NEAR)
        nearest = PLANNERS[planner](grid, density, strict=False)
        assert abs(math.log(nearest.density(grid) / density)) == pytest.approx(min(misses), abs=1e-5)
    else:
        assert min(misses) <= math.log(NEAR) + 1e-5


@given(grid=grids, kind=st.sampled_from(DIVISORS), seed=st.integers(0, 10**6))
def test_planned_densities_are_those_of_the_windows(grid: Grid, kind: object, seed: int) -> None:
    choices = list(kind(grid))  # type: ignore[operator]
    choice = choices[seed % len(choices)]
    assert choice.density == pytest.approx(choice.window.density(grid), rel=1e-9)


@given(grid=grids, density=st.floats(0.05, 1.0))
def test_tiles_see_an_odd_number_of_tiles_or_the_whole_axis(grid: Grid, density: float) -> None:
    try:
        window = plan_tile(grid, density)
    except ConfigError:
        reject()
    for tile, box, size in zip(window.tile, window.box, grid, strict=True):
        assert box % 2 == 1 or box * tile == size


@pytest.mark.parametrize(
    ("window", "on_480p", "on_720p"),
    [  # densities of published and proposed patterns on the grids of Wan 2.1 at 81 frames, by hand
        ((Band(chunk=1, halo=1), Band(chunk=1, halo=1)), 1 / 7, 1 / 7),
        ((Band(), Band()), 2 / 21, 2 / 21),
        ((Band(chunk=0.5, halo=0.5), Band(chunk=0.5, halo=0.5)), 1.5 / 21, 1.5 / 21),
        ((Local((0, 15, 26)), Local((0, 15, 40))), 1 / 4, 1 / 6),
        ((Local((7, 15, 26)), Local((7, 15, 40))), 1 / 12, 1 / 18),
        ((Local((3, 0, 0)), Local((3, 0, 0))), 1 / 7, 1 / 7),
        ((Tile((3, 6, 13), (3, 3, 3)), Tile((3, 9, 16), (3, 3, 3))), 27 / 140, 27 / 175),
        ((Tile((7, 6, 13), (1, 3, 3)), Tile((7, 9, 16), (1, 3, 3))), 9 / 60, 9 / 75),
    ],
)
def test_densities_on_the_grids_of_wan(window: tuple[WindowSpec, WindowSpec], on_480p: float, on_720p: float) -> None:
    assert window[0].density(WAN_480P) == pytest.approx(on_480p)
    assert window[1].density(WAN_720P) == pytest.approx(on_720p)


@pytest.mark.parametrize(
    ("grid", "density", "window"),
    [
        (WAN_480P, 0.19, Tile((3, 6, 13), (3, 3, 3))),
        (WAN_720P, 0.15, Tile((3, 9, 16), (3, 3, 3))),
        (HUNYUAN, 0.1, Tile((3, 9, 16), (3, 3, 3))),
        (COGVIDEOX, 0.2, Tile((0, 6, 5), (1, 3, 3))),
        (SPRITE, 0.34, Tile((1, 1, 1), (3, 3, 3))),
        (PRIMES, 0.23, Tile((1, 0, 0), (3, 1, 1))),
    ],
)
def test_three_tiles_along_each_axis_of_known_grids(grid: Grid, density: float, window: Tile) -> None:
    assert plan_tile(grid, density, boxes=(3,)) == window


@pytest.mark.parametrize(
    ("grid", "density", "window"),
    [
        (WAN_480P, 0.25, Local((0, 15, 26))),
        (WAN_480P, 0.0833, Local((7, 15, 26))),
        (WAN_480P, 0.143, Local((3, 0, 0))),
        (WAN_720P, 1 / 6, Local((0, 15, 40))),
        (WAN_720P, 1 / 18, Local((7, 15, 40))),
        (COGVIDEOX, 1 / 6, Local((0, 15, 15))),
        (SPRITE, 0.25, Local((0, 2, 2))),
    ],
)
def test_local_windows_of_known_grids(grid: Grid, density: float, window: Local) -> None:
    assert plan_local(grid, density) == window


@pytest.mark.parametrize("grid", [WAN_480P, WAN_720P, HUNYUAN])
@pytest.mark.parametrize("density", [0.1, 0.2])
def test_tiles_of_real_grids_fill_a_kernel(grid: Grid, density: float) -> None:
    window = plan_tile(grid, density)
    tokens = math.prod(tile or size for tile, size in zip(window.tile, grid, strict=True))
    assert 192 <= tokens <= 1024
    assert abs(math.log(window.density(grid) / density)) <= math.log(CLOSE) + 1e-6


def test_boxes_are_those_that_were_asked_for() -> None:
    for choice in divisor_tiles(WAN_480P, boxes=(2,)):
        counts = [size // (tile or size) for tile, size in zip(choice.window.tile, WAN_480P, strict=True)]
        assert all(box == 2 or count == 1 for box, count in zip(choice.window.box, counts, strict=True))


def test_band_halves_its_chunk_for_the_halo() -> None:
    window = plan_band(WAN_480P, 0.05)
    chunk, halo, num_keys = window.tokens(WAN_480P)
    assert (chunk, halo, num_keys) == (819, 410, 1639)
    assert window.density(WAN_480P) == pytest.approx(0.05, rel=0.01)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_prime_axis_is_cut_into_single_tokens_or_not_at_all(axis: int) -> None:
    for choice in divisor_tiles(PRIMES):
        assert choice.window.tile[axis] in (0, 1)


def test_a_grid_of_primes_lists_the_nearest_densities() -> None:
    with pytest.raises(
        ConfigError, match=r"13 x 31 x 47 has .* Nearest densities: 0\.0769 \(local: window 1 x 0 x 0\); "
    ):
        plan_local(PRIMES, 0.3)


def test_a_covering_window_is_proposed_only_where_it_is_asked_for_or_all_there_is() -> None:
    assert plan_local(PRIMES, 1.0) == Local((0, 0, 0))
    assert plan_tile(Grid(1, 2, 2), 0.9, strict=False).density(Grid(1, 2, 2)) < 1
    assert plan_tile(Grid(1, 1, 1), 0.5, strict=False) == Tile((0, 0, 0), (1, 1, 1))


@pytest.mark.parametrize("density", [0.0, -1.0, 1.5, math.nan])
def test_a_density_outside_its_range_is_refused(density: float) -> None:
    with pytest.raises(ConfigError, match="above 0 and at most 1"):
        plan_tile(SPRITE, density)
