"""VBench's totals against published rows of its leaderboard, and against its formula written out again."""

import numpy as np
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

# Percent, in the order of VBENCH_DIMENSIONS, then total, quality and semantic as VBench's leaderboard shows them.
LEADERBOARD = {
    "VideoCrafter-2.0": (
        (
            96.85,
            98.22,
            98.41,
            97.73,
            42.50,
            63.13,
            67.22,
            92.55,
            40.66,
            95.00,
            92.92,
            35.86,
            55.29,
            25.13,
            25.84,
            28.23,
        ),
        (80.44, 82.20, 73.42),
    ),
    "CogVideoX-5B": (
        (
            96.23,
            96.52,
            98.66,
            96.92,
            70.97,
            61.98,
            62.90,
            85.23,
            62.11,
            99.40,
            82.81,
            66.35,
            53.20,
            24.91,
            25.38,
            27.59,
        ),
        (81.61, 82.75, 77.04),
    ),
    "CogVideoX-2B": (
        (
            96.78,
            96.63,
            98.89,
            97.73,
            59.86,
            60.82,
            61.68,
            83.37,
            62.63,
            98.00,
            79.41,
            69.90,
            51.14,
            24.80,
            24.36,
            26.66,
        ),
        (80.91, 82.18, 75.83),
    ),
}
# The seven quality dimensions and the quality score of a table of LinGen (arXiv:2412.09856), which quotes the board.
QUALITY_ROWS = {
    "T2V-Turbo-v2": ((95.50, 96.71, 97.35, 97.07, 90.00, 62.61, 71.78), 85.13),
    "Gen-3": ((97.10, 96.62, 98.61, 99.23, 60.14, 63.34, 66.82), 84.11),
    "LaVie-2": ((97.90, 98.45, 98.76, 98.42, 31.11, 67.62, 70.39), 83.24),
    "Pika-1.0": ((96.94, 97.36, 99.74, 99.50, 47.50, 62.04, 61.87), 82.92),
    "OpenSora V1.2": ((96.75, 97.61, 99.53, 98.50, 42.39, 56.85, 63.34), 81.35),
    "LinGen": ((98.30, 97.60, 99.26, 98.58, 63.67, 60.55, 63.36), 83.77),
}


@pytest.mark.parametrize("model", LEADERBOARD)
def test_totals_are_those_of_the_leaderboard(model: str) -> None:
    percent, published = LEADERBOARD[model]
    raw = dict(zip(VBENCH_DIMENSIONS, np.array(percent) / 100.0, strict=True))
    ours = [100.0 * total_formula(name)(raw) for name in ("total", "quality", "semantic")]
    # Both sides are rounded to 0.01; the raw scores enter with weights that sum to about 1.3.
    assert ours == pytest.approx(published, abs=0.012)


@pytest.mark.parametrize("model", QUALITY_ROWS)
def test_quality_score_is_the_published_one(model: str) -> None:
    percent, published = QUALITY_ROWS[model]
    raw = dict(zip(needed_dimensions("quality"), np.array(percent) / 100.0, strict=True))
    assert 100.0 * total_formula("quality")(raw) == pytest.approx(published, abs=0.012)


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
