"""Attention plans: what fits a model, what a plan costs, and that a plan survives its file."""

import json
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_video.attention import AXIS_ORDERS, AttentionConfig, AttentionPlan, Band, Full, Grid, Local, Tile, WindowSpec
from rlhf_video.attention.plan import _log_fewer_heads
from rlhf_video.attention.plan_text import layers_from_text, text_of_layers, text_of_window
from rlhf_video.errors import ConfigError
from rlhf_video.settings.building import build_config

GRID = Grid(4, 6, 8)
PLAN = AttentionPlan(6, (Full(), Band(), Local((2, 3, 4), shift=(1, 0, 2)), Band(), Tile((2, 3, 2), (1, 1, 3))))


def windows() -> st.SearchStrategy[WindowSpec]:
    size, frames = st.integers(1, 9), st.floats(0, 4, allow_nan=False)
    triple = st.tuples(size, size, size)
    orders = st.lists(st.sampled_from(AXIS_ORDERS), min_size=1, max_size=6).map(tuple)
    return st.one_of(
        st.just(Full()),
        triple.map(lambda window: Local(window, shift=(window[0] - 1, 0, window[2] // 2))),
        st.builds(Band, orders, frames, frames, st.integers(0, 3)),
        st.builds(Tile, triple, triple),
    )


def plans() -> st.SearchStrategy[AttentionPlan]:
    layers = st.lists(windows(), min_size=1, max_size=4).flatmap(
        lambda few: st.lists(st.sampled_from(few), min_size=1, max_size=12)
    )
    sigmas = st.none() | st.tuples(st.floats(0, 0.5), st.floats(0.5, 1))
    return st.builds(AttentionPlan, st.integers(1, 48), layers, sigmas)


@given(plan=plans())
def test_a_plan_survives_its_json_text(plan: AttentionPlan) -> None:
    again = AttentionPlan.from_json(json.loads(json.dumps(plan.to_json())))
    assert again == plan
    assert again.fingerprint == plan.fingerprint


@given(plan=plans(), other=plans())
def test_fingerprints_are_equal_exactly_where_plans_are(plan: AttentionPlan, other: AttentionPlan) -> None:
    assert (plan.fingerprint == other.fingerprint) == (plan == other)


def test_fingerprint_does_not_tell_an_integer_from_the_same_number() -> None:
    whole, decimal = Band(chunk=1, halo=2), Band(chunk=1.0, halo=2.0)
    assert AttentionPlan(6, (whole,), (0, 1)).fingerprint == AttentionPlan(6, (decimal,), (0.0, 1.0)).fingerprint


@given(layers=st.sets(st.integers(0, 60), min_size=1))
def test_layer_numbers_survive_their_text(layers: set[int]) -> None:
    assert layers_from_text(text_of_layers(layers)) == sorted(layers)


def test_layers_read_as_a_person_writes_them() -> None:
    assert text_of_layers([*range(8), *range(23, 30)]) == "0-7, 23-29"
    assert text_of_layers(range(1, 28, 2)) == "1-27 by 2"
    assert text_of_layers([0, 29]) == "0, 29"


@pytest.mark.parametrize("text", ["", "7-3", "a", "0,,1", "1-9 by 0", "0-99999", 3, None])
def test_text_that_names_no_layers_is_refused(text: object) -> None:
    with pytest.raises(ConfigError, match='as in "0-7, 23-29"'):
        layers_from_text(text)


def test_density_and_flops_are_those_of_the_layers() -> None:
    densities = [window.density(GRID) for window in PLAN.layers]
    assert PLAN.density(GRID) == pytest.approx(sum(densities) / 5)
    assert PLAN.flops(GRID, head_dim=8) == sum(window.flops(GRID, num_heads=6, head_dim=8) for window in PLAN.layers)
    assert AttentionPlan(6, (Full(), Full())).density(GRID) == 1
    assert AttentionPlan(6, (Full(), Full())).is_full
    assert not PLAN.is_full


def test_description_tells_layers_window_density_and_gain() -> None:
    plan = AttentionPlan(6, (Full(), Local((2, 3, 4)), Local((2, 3, 4)), Full()), dense_sigmas=(0.8, 1.0))
    lines = plan.describe(GRID).splitlines()
    assert lines[0].split() == ["layers", "window", "density", "fewer", "FLOPs"]
    assert lines[2].split("  ")[0] == "1-2"
    assert lines[2].split()[-2:] == ["12.5%", "8.0x"]
    assert lines[3].split()[-2:] == ["56.2%", "1.8x"]
    assert lines[4] == "dense at noise levels 0.8 to 1"


def test_windows_have_one_short_line() -> None:
    assert text_of_window(Full()) == "full"
    assert text_of_window(Band()) == "band: 6 orders, chunk 1, halo 0.5"
    assert text_of_window(Band(("hwf",), chunk=0, halo=2, sink_frames=1)) == "band: order hwf, halo 2, sink_frames 1"
    assert text_of_window(Local((0, 3, 4), shift=(0, 0, 2))) == "local: window 0 x 3 x 4, shift 0 x 0 x 2"


@pytest.mark.parametrize(("sigma", "dense"), [(0.0, False), (0.79, False), (0.8, True), (1.0, True), (0.9, True)])
def test_windows_are_off_inside_the_dense_noise_levels(sigma: float, dense: bool) -> None:
    assert AttentionPlan(1, (Band(),), (0.8, 1.0)).is_dense_at(sigma) is dense
    assert not AttentionPlan(1, (Band(),)).is_dense_at(sigma)


@pytest.mark.parametrize(
    ("num_layers", "num_heads", "grid", "message"),
    [
        (30, 6, None, "for 5 layers does not fit a model of 30: .* num_layers=30"),
        (5, 12, None, "for 6 heads does not fit a model of 12: .* num_heads=12"),
        (5, 6, Grid(3, 6, 8), "layer 2: window=.2, 3, 4. does not fit .* Sizes that fit: 1, 3 "),
        (5, 6, Grid(4, 6, 7), "layer 2: .* Sizes that fit: 1, 7 "),
    ],
)
def test_what_does_not_fit_is_named_with_what_does(
    num_layers: int, num_heads: int, grid: Grid | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        PLAN.check(num_layers=num_layers, num_heads=num_heads, grid=grid)


def test_a_plan_fits_its_own_model() -> None:
    PLAN.check(num_layers=5, num_heads=6, grid=GRID)


def test_fewer_heads_than_orders_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    _log_fewer_heads.cache_clear()
    plan = AttentionPlan(4, (Band(), Band(halo=1.0)))
    with caplog.at_level(logging.INFO, logger="rlhf_video.attention.plan"):
        plan.check(num_layers=2, num_heads=4, grid=GRID)
        plan.check(num_layers=2, num_heads=4, grid=GRID)
    assert [record.getMessage() for record in caplog.records] == [
        "4 heads take 4 of the window's 6 axis orders, at equal distances"
    ]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_heads": 0}, "num_heads=0 .* 1 or more"),
        ({"layers": ()}, "at least one layer"),
        ({"layers": ("full",)}, "Layer 0 .* use Full, Local, Band or Tile"),
        ({"dense_sigmas": (0.9, 0.8)}, "lowest and the highest"),
        ({"dense_sigmas": (0.9, 1.5)}, r"in \[0, 1\]"),
        ({"dense_sigmas": (float("nan"), 1.0)}, r"in \[0, 1\]"),
        ({"dense_sigmas": (0.9,)}, "lowest and the highest"),
    ],
)
def test_a_plan_refuses_values_that_cannot_be(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AttentionPlan(**{"num_heads": 6, "layers": (Full(),), **values})  # type: ignore[arg-type]


def _file(**changes: object) -> dict[str, object]:
    return {"format": 1, "num_heads": 6, "windows": [{"layers": "0-1", "window": {"kind": "full"}}], **changes}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "must be a JSON object"),
        (_file(format=2), "has format 2, this version reads 1"),
        (_file(depth=30), "has no 'depth'. Known: format, num_heads, windows, dense_sigmas"),
        ({"format": 1, "num_heads": 6}, "needs 'windows'"),
        (_file(num_heads="6"), "num_heads='6'"),
        (_file(windows={}), "must be a list"),
        (_file(windows=[{"layers": "0", "windows": {}}]), "needs 'window'"),
        (_file(windows=[{"layers": "0", "window": {"kind": "ful"}}]), "Unknown window kind 'ful'"),
        (_file(windows=[{"layers": "0", "window": {"kind": ["full"]}}]), "Unknown window kind"),
        (_file(windows=[{"layers": "0", "window": "full"}]), "must be a JSON object"),
        (_file(windows=[{"layers": "1-2", "window": {"kind": "full"}}]), "no window for layer 0"),
        (_file(windows=[{"layers": "0, 0", "window": {"kind": "full"}}]), "Layer 0 has two windows"),
        (_file(windows=[]), "at least one layer"),
        (_file(dense_sigmas="0.8"), "lowest and the highest"),
    ],
)
def test_a_file_that_holds_no_plan_says_why(values: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=f"plan.json.*{message}"):
        AttentionPlan.load(path)


def test_a_file_that_is_missing_or_no_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.json cannot be read"):
        AttentionPlan.load(tmp_path / "absent.json")
    (tmp_path / "plan.json").write_text("layers: 3")
    with pytest.raises(ConfigError, match=r"plan\.json is no JSON"):
        AttentionPlan.load(tmp_path / "plan.json")


def test_config_makes_the_plan_of_a_preset_and_of_a_file(tmp_path: Path) -> None:
    config = build_config(AttentionConfig, {"preset": "hybrid_middle", "dense_sigmas": [0.9, 1]})
    plan = config.plan(num_layers=6, num_heads=6, grid=GRID)
    assert plan.dense_sigmas == (0.9, 1.0)
    assert [isinstance(window, Band) for window in plan.layers] == [False, False, True, True, True, False]
    plan.save(tmp_path / "plan.json")
    assert AttentionConfig(file=tmp_path / "plan.json").plan(num_layers=6, num_heads=6, grid=GRID) == plan
    with pytest.raises(ConfigError, match="for 6 layers does not fit a model of 8"):
        AttentionConfig(file=tmp_path / "plan.json").plan(num_layers=8, num_heads=6, grid=GRID)


def test_config_without_values_leaves_the_model_as_it_is() -> None:
    assert AttentionConfig().plan(num_layers=3, num_heads=2, grid=GRID) == AttentionPlan(2, (Full(),) * 3)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"presets": "full"}, "Did you mean 'preset'"),
        ({"preset": "hybrid_midle"}, "Did you mean 'hybrid_middle'"),
        ({"backend": "mas"}, "Did you mean 'mask'"),
        ({"preset": "tile3", "density": 0.0}, "density=0.0 must be above 0"),
        ({"preset": "tile3", "dense_sigmas": [1.0, 0.8]}, "lowest and the highest"),
        ({"preset": "tile3", "file": "plan.json"}, "two plans: keep one"),
        ({"file": "plan.json", "density": 0.1}, "change it in plan.json"),
        ({"file": "plan.json", "dense_sigmas": [0.8, 1.0]}, "change it in plan.json"),
        ({"density": 0.1}, "preset='full' has none"),
        ({"dense_sigmas": [0.8, 1.0]}, "preset='full' has none"),
    ],
)
def test_config_refuses_what_contradicts_itself(tree: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_config(AttentionConfig, tree)


def test_config_refuses_an_unknown_preset_from_python_too() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'tile3'"):
        AttentionConfig(preset="tiles3")  # type: ignore[arg-type]
