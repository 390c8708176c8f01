"""Presets: which layers are windowed, at every depth, and what that costs on known grids."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_video.attention import PRESETS, AttentionPlan, Band, Full, Grid, Local, Tile, preset_plan
from rlhf_video.attention.presets import middle_layers
from rlhf_video.errors import ConfigError

WAN_480P, SPRITE = Grid(21, 30, 52), Grid(5, 4, 4)


def windowed(plan: AttentionPlan) -> list[int]:
    return [layer for layer, window in enumerate(plan.layers) if not isinstance(window, Full)]


def plan(name: str, num_layers: int, grid: Grid = SPRITE, density: float | None = None) -> AttentionPlan:
    return preset_plan(name, num_layers=num_layers, num_heads=6, grid=grid, density=density)


@pytest.mark.parametrize("num_layers", [1, 2, 3, 4, 5, 6, 7, 8, 30, 40, 42, 48])
@pytest.mark.parametrize("name", [name for name in PRESETS if name != "full"])
def test_every_depth_has_a_windowed_layer_and_the_plan_fits(name: str, num_layers: int) -> None:
    made = plan(name, num_layers)
    made.check(num_layers=num_layers, num_heads=6, grid=SPRITE)
    assert windowed(made)
    assert made.density(SPRITE) < 1


def test_hybrid_middle_is_easyanimates() -> None:
    made = plan("hybrid_middle", 48, WAN_480P)
    assert windowed(made) == list(range(12, 36))
    assert {made.layers[layer] for layer in windowed(made)} == {Band(chunk=1.0, halo=0.5)}
    assert 1 / made.layers[12].density(WAN_480P) == pytest.approx(10.5)
    assert made.density(WAN_480P) == pytest.approx((1 + 2 / 21) / 2)


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("hybrid_middle", {1: [0], 2: [1], 3: [1], 4: [1, 2], 5: [2, 3], 6: [2, 3, 4]}),
        ("all_but_edges", {1: [0], 2: [1], 3: [1, 2], 4: [1, 2, 3], 6: [1, 2, 3, 4], 48: list(range(6, 42))}),
        ("local_shift", {1: [0], 2: [1], 3: [1], 4: [1, 2], 6: [1, 2, 3, 4]}),
        ("tile3", {1: [0], 4: [0, 1, 2, 3]}),
        ("full", {1: [], 6: []}),
    ],
)
def test_windowed_layers_of_each_preset(name: str, layers: dict[int, list[int]]) -> None:
    assert {depth: windowed(plan(name, depth)) for depth in layers} == layers


@given(num_layers=st.integers(1, 100), num_windowed=st.integers(-2, 120))
def test_middle_layers_lie_in_the_middle_with_an_odd_one_in_front(num_layers: int, num_windowed: int) -> None:
    layers = middle_layers(num_layers, num_windowed)
    assert len(layers) == min(num_layers, max(1, num_windowed))
    assert layers[0] - (num_layers - 1 - layers[-1]) in (0, 1)


def test_local_shift_alternates_plain_and_half_shifted_windows() -> None:
    made = plan("local_shift", 6, WAN_480P)
    plain, shifted = Local((0, 10, 26)), Local((0, 10, 26), shift=(0, 5, 13))
    assert made.layers == (Full(), plain, shifted, plain, shifted, Full())


def test_tile3_has_three_tiles_along_each_axis() -> None:
    assert plan("tile3", 1, WAN_480P).layers == (Tile((3, 6, 13), (3, 3, 3)),)


@pytest.mark.parametrize(("name", "density"), [("hybrid_middle", 0.05), ("local_shift", 1 / 12), ("tile3", 0.1)])
def test_a_density_is_that_of_the_windowed_layers(name: str, density: float) -> None:
    made = plan(name, 6, WAN_480P, density)
    assert made.layers[windowed(made)[0]].density(WAN_480P) == pytest.approx(density, rel=0.1)


@pytest.mark.parametrize(
    ("name", "grid", "density", "message"),
    [
        ("tiles3", SPRITE, None, "Did you mean 'tile3'.* Known: full, hybrid_middle"),
        ("", SPRITE, None, "Known: full"),
        ("full", SPRITE, 0.5, "leave density out"),
        ("tile3", SPRITE, 0.1, "Nearest densities: 0.338"),
        ("tile3", SPRITE, 0.0, "above 0"),
        ("local_shift", Grid(13, 31, 47), None, "can be shifted by half"),
    ],
)
def test_a_preset_that_cannot_be_made_says_what_can(name: str, grid: Grid, density: float | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(name, 6, grid, density)


def test_a_model_without_layers_is_refused() -> None:
    with pytest.raises(ConfigError, match="num_layers=0"):
        plan("hybrid_middle", 0)
