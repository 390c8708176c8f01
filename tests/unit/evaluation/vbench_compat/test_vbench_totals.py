"""VBench's totals against what its own script computes, and against its formula written out again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.vbench_compat.totals import (
    TOTALS,
    VBENCH_DIMENSIONS,
    needed_dimensions,
    normalise,
    pooled_mean,
    total_formula,
)
from rlhf_video.errors import DataError

# Raw scores in the order of VBENCH_DIMENSIONS, then total, quality and semantic as printed for them by VBench's own
# scripts/cal_final_score.py with its constant.py (github.com/Vchitect/VBench, commit 45e79ec).
VBENCH_TOTALS = {
    "rising": ([0.3 + 0.04 * i for i in range(16)], (0.2538558557662813, -0.014955558463596206, 1.3291015126857912)),
    "falling": ([0.95 - 0.05 * i for i in range(16)], (0.6633940628408782, 0.6844398114142067, 0.5792110685475639)),
    "zeros": ([0.0] * 16, (-0.5717484478319304, -0.7145977172038273, -0.00035137034434293746)),
    "ones": ([1.0] * 16, (1.1393065636175588, 1.0013194352816994, 1.6912550769609966)),
}


@pytest.mark.parametrize("case", VBENCH_TOTALS)
def test_totals_are_those_of_vbenchs_own_script(case: str) -> None:
    scores, expected = VBENCH_TOTALS[case]
    raw = dict(zip(VBENCH_DIMENSIONS, scores, strict=True))
    ours = [total_formula(name)(raw) for name in ("total", "quality", "semantic")]
    assert ours == pytest.approx(expected, abs=1e-12)


@given(st.lists(st.floats(0.0, 1.0), min_size=16, max_size=16))
def test_formula_is_the_weighted_mean_of_normalised_scores(values: list[float]) -> None:
    raw = dict(zip(VBENCH_DIMENSIONS, values, strict=True))
    scaled = {name: normalise(name, value) * VBENCH_DIMENSIONS[name].weight for name, value in raw.items()}
    quality = sum(scaled[name] for name in needed_dimensions("quality")) / 6.5
    semantic = sum(scaled[name] for name in needed_dimensions("semantic")) / 9
    expected = [quality, semantic, (quality * 4 + semantic) / 5]
    assert [total_formula(name)(raw) for name in TOTALS] == pytest.approx(expected, abs=1e-12)


def test_freezing_a_video_pays() -> None:
    weights = total_formula("total").weights
    assert weights["motion_smoothness"] / weights["dynamic_degree"] == pytest.approx(6.9, abs=0.1)


def test_partial_formula_shares_the_weights_out_among_what_is_there() -> None:
    formula = total_formula("quality", ["imaging_quality", "dynamic_degree"])
    assert formula({"imaging_quality": 0.6, "dynamic_degree": 0.3}) == pytest.approx((0.6 + 0.5 * 0.3) / 1.5)


def test_total_without_one_of_its_groups_is_refused() -> None:
    with pytest.raises(DataError, match="no semantic dimension among imaging_quality"):
        total_formula("total", ["imaging_quality"])
    with pytest.raises(DataError, match="VBench has no dimension 'colour'"):
        total_formula("total", ["colour"])


def test_clips_of_unequal_length_are_pooled_as_on_one_gpu() -> None:
    # 2 and 8 frame pairs for subject consistency; frames do not count for a mean over videos.
    assert pooled_mean("subject_consistency", [1.0, 0.5], [3, 9]) == pytest.approx((2 * 1.0 + 8 * 0.5) / 10)
    assert pooled_mean("appearance_style", [1.0, 0.5], [3, 9]) == pytest.approx((3 * 1.0 + 9 * 0.5) / 12)
    assert pooled_mean("aesthetic_quality", [1.0, 0.5], [3, 9]) == 0.75
    with pytest.raises(DataError, match="frame count of 2 or more"):
        pooled_mean("subject_consistency", [1.0], [1])
