from pathlib import Path

import numpy as np
import pytest

from evaluation.judging.bias import PROMPT_LENGTH, BiasResult, bias_controls
from evaluation.judging.judgement import Joined, Resampling, join_scores, judge_dimension
from evaluation.judging.matching import match_dimensions
from evaluation.judging.records import Benchmark, Comparison, Label
from evaluation.judging.score_store import ClipScore
from rewards.base import FramePolicy, RewardSpec
from rlhf_video.errors import ConfigError, DataError

FAST = Resampling(num_resamples=200, num_repeats=3)


def _joined(labels: np.ndarray, margins: np.ndarray, prompts: np.ndarray, **changes: object) -> Joined:
    fields: dict[str, object] = {
        "labels": labels.astype(np.int8),
        "margins": margins,
        "prompts": prompts,
        "words": np.ones(len(labels)),
        "covariates": {},
        "models": ("x vs y",) * len(labels),
        "num_unscored": 0,
    }
    return Joined(**{**fields, **changes})  # type: ignore[arg-type]


def _simulated(
    *, lean: float, seed: int = 0, num_prompts: int = 80
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """People judge quality alone; the reward sees quality plus `lean` times brightness."""
    rng = np.random.default_rng(seed)
    prompts = np.repeat(np.arange(num_prompts), 4)
    quality, brightness = rng.normal(size=(2, prompts.size))
    labels = np.where(np.abs(quality) < 0.3, 0, np.sign(quality)).astype(np.int8)
    return labels, quality + lean * brightness, prompts, brightness


def _brightness_bias(lean: float) -> BiasResult:
    labels, margins, prompts, brightness = _simulated(lean=lean)
    covariates = {"brightness": brightness}
    words = np.ones(len(labels))
    return bias_controls(labels, margins, prompts, covariates, words, num_resamples=200, seed=0)[0]


def test_reward_that_leans_on_brightness_is_seen_to() -> None:
    bias = _brightness_bias(lean=1.0)
    assert bias.correlation is not None and bias.correlation.is_above_zero
    assert bias.correlation.mean == pytest.approx(0.7, abs=0.1)
    assert bias.reward_prefers_more is not None and bias.people_prefer_more is not None
    assert bias.reward_prefers_more > 0.65 > 0.56 > bias.people_prefer_more
    assert bias.accuracy_more is not None and bias.accuracy_less is not None
    assert bias.accuracy_more.low > bias.accuracy_less.high
    assert bias.accuracy_against == bias.accuracy_less


def test_reward_that_leans_the_other_way_is_measured_on_the_other_side() -> None:
    bias = _brightness_bias(lean=-1.0)
    assert bias.correlation is not None and bias.correlation.is_below_zero
    assert bias.accuracy_against == bias.accuracy_more


def test_reward_that_ignores_brightness_is_equally_right_on_both_sides() -> None:
    bias = _brightness_bias(lean=0.0)
    assert bias.correlation is not None and bias.correlation.low < 0 < bias.correlation.high
    assert bias.accuracy_more is not None and bias.accuracy_more.mean == 1.0
    assert bias.accuracy_less is not None and bias.accuracy_less.mean == 1.0


def test_covariate_that_does_not_vary_has_no_numbers() -> None:
    labels, margins, prompts, _ = _simulated(lean=0.0)
    still = {"duration": np.zeros(len(labels))}
    duration, length = bias_controls(
        labels, margins, prompts, still, np.full(len(labels), 7.0), num_resamples=50, seed=0
    )
    assert duration == BiasResult(
        name="duration",
        correlation=None,
        reward_prefers_more=None,
        people_prefer_more=None,
        accuracy_more=None,
        accuracy_less=None,
    )
    assert duration.accuracy_against is None
    assert length.name == PROMPT_LENGTH and length.correlation is None
    assert length.accuracy_more is None and length.accuracy_less is not None


def test_reward_that_is_blind_on_long_prompts_is_seen_to_be() -> None:
    labels, margins, prompts, _ = _simulated(lean=0.0)
    words = np.where(prompts % 2 == 0, 40.0, 5.0)
    margins = np.where(words > 10, 0.01 * np.random.default_rng(1).normal(size=len(words)), margins)
    (length,) = bias_controls(labels, margins, prompts, {}, words, num_resamples=200, seed=0)
    assert length.correlation is not None and length.correlation.is_below_zero
    assert length.accuracy_more is not None and length.accuracy_less is not None
    assert length.accuracy_more.mean < 0.65 < length.accuracy_less.low
    assert length.accuracy_against is None


def test_every_number_of_a_perfect_reward_is_perfect() -> None:
    labels, _, prompts, _ = _simulated(lean=0.0)
    joined = _joined(labels, labels * 2.0, prompts)
    result = judge_dimension(joined, dimension="VQ", score="s", dropped_labels={}, resampling=FAST)
    intervals = (result.without_ties, result.half_credit, result.with_ties, result.tau_b, result.tie_auc)
    assert [interval.mean for interval in intervals if interval] == pytest.approx([1.0] * 5)
    assert result.calibrated is not None and result.calibrated.accuracy.mean == 1.0
    assert result.threshold == result.calibrated.threshold == 0.0
    assert result.counts.discordant == result.counts.model_ties == result.counts.human_ties == 0


def test_reward_that_always_ties_reaches_the_share_of_human_ties_and_half_credit() -> None:
    labels, _, prompts, _ = _simulated(lean=0.0)
    joined = _joined(labels, np.zeros(len(labels)), prompts)
    result = judge_dimension(joined, dimension="VQ", score="s", dropped_labels={}, resampling=FAST)
    assert result.without_ties is not None and result.without_ties.mean == 0.0
    assert result.half_credit is not None and result.half_credit.mean == 0.5
    assert result.with_ties.mean == pytest.approx(result.human_tie_share)
    assert result.tau_b is None
    assert result.tie_auc is not None and result.tie_auc.mean == 0.5


def test_dimension_with_ties_only_has_no_accuracy_without_them() -> None:
    prompts = np.repeat(np.arange(4), 2)
    joined = _joined(np.zeros(8), np.linspace(-1, 1, 8), prompts)
    result = judge_dimension(joined, dimension="VQ", score="s", dropped_labels={}, resampling=FAST)
    assert result.without_ties is result.half_credit is result.tau_b is result.tie_auc is None
    assert result.with_ties.mean == 1.0
    assert result.pairings[0].without_ties is None


def test_single_prompt_is_not_calibrated() -> None:
    joined = _joined(np.array([1, 0]), np.array([1.0, 0.1]), np.zeros(2, dtype=np.int64))
    result = judge_dimension(joined, dimension="VQ", score="s", dropped_labels={}, resampling=FAST)
    assert result.calibrated is None
    assert result.with_ties.low == -np.inf


def test_pairs_of_generators_are_told_apart_at_one_common_threshold() -> None:
    labels, margins = np.array([1, 1, 1, 0, -1, -1, 0, -1]), np.array([1.0, 2, 3, 0.1, 1, 2, 0.2, 3])
    models = ("x vs y",) * 4 + ("x vs z",) * 4
    joined = _joined(labels, margins, np.arange(8) % 3, models=models)
    result = judge_dimension(joined, dimension="VQ", score="s", dropped_labels={}, resampling=FAST)
    assert result.threshold == 0.2
    assert [pairing.models for pairing in result.pairings] == ["x vs y", "x vs z"]
    assert [pairing.num_comparisons for pairing in result.pairings] == [4, 4]
    assert [pairing.without_ties.mean for pairing in result.pairings if pairing.without_ties] == [1.0, 0.0]
    assert [pairing.with_ties.mean for pairing in result.pairings] == [1.0, 0.25]


def _benchmark(*labels: dict[str, Label]) -> Benchmark:
    items = tuple(
        Comparison(
            prompt=f"p{number}",
            clip_a=Path("a"),
            clip_b=Path("b"),
            labels=label,
            model_a="y",
            model_b="x",
            source=f"line {number}",
        )
        for number, label in enumerate(labels)
    )
    return Benchmark(name="b", file=Path("f"), dimensions=("VQ",), comparisons=items, dropped={})


def _score(value: float) -> ClipScore:
    return ClipScore(values={"s": value}, covariates={"brightness": value / 2})


def test_joining_leaves_out_what_has_no_label_or_no_score_and_counts_the_latter() -> None:
    benchmark = _benchmark({"VQ": "A"}, {"VQ": "B"}, {}, {"VQ": "tie"})
    scores = {(Path(clip), f"p{number}"): _score(number + (clip == "a")) for number in range(4) for clip in "ab"}
    del scores[Path("b"), "p1"]
    joined = join_scores(benchmark, "VQ", "s", scores, higher_is_better=True)
    assert joined.labels.tolist() == [1, 0]
    assert joined.margins.tolist() == [1.0, 1.0]
    assert joined.covariates["brightness"].tolist() == [0.5, 0.5]
    assert joined.num_unscored == 1
    assert joined.models == ("x vs y", "x vs y")


def test_reward_for_which_lower_is_better_is_turned() -> None:
    scores = {(Path("a"), "p0"): _score(3.0), (Path("b"), "p0"): _score(1.0)}
    joined = join_scores(_benchmark({"VQ": "A"}), "VQ", "s", scores, higher_is_better=False)
    assert joined.margins.tolist() == [-2.0]


def test_dimension_without_a_scored_comparison_is_refused() -> None:
    with pytest.raises(DataError, match=r"none of the 1 comparisons.*--map VQ=none"):
        join_scores(_benchmark({"VQ": "A"}), "VQ", "s", {}, higher_is_better=True)


def _spec(*dimensions: str) -> RewardSpec:
    return RewardSpec(
        name="r",
        version="1",
        dimensions=dimensions,
        range=(0.0, 1.0),
        higher_is_better=True,
        is_differentiable=False,
        frames=FramePolicy("all"),
        resolution=None,
        licence="x",
        paper=None,
        uses_prompt=False,
    )


def test_dimensions_are_matched_by_wish_by_name_and_by_being_the_only_one() -> None:
    assert match_dimensions(_spec("s"), ("VQ", "TA")) == {"VQ": "s", "TA": "s"}
    assert match_dimensions(_spec("vq", "x"), ("VQ", "TA"), ["TA=x"]) == {"VQ": "vq", "TA": "x"}
    assert match_dimensions(_spec("VQ", "x"), ("VQ", "TA"), ["TA=none"]) == {"VQ": "VQ"}


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ([], "none named 'TA': say which one judges it with --map TA=vq"),
        (["TA"], "write LABEL=SCORE"),
        (["XX=vq"], "with LABEL one of VQ, TA"),
        (["TA=z"], "no dimension 'z'. Known: vq, x, none"),
        (["VQ=none", "TA=none"], "nothing is left to judge"),
    ],
)
def test_matching_that_leaves_a_question_is_refused(wishes: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        match_dimensions(_spec("vq", "x"), ("VQ", "TA"), wishes)


@pytest.mark.parametrize("settings", [{"num_resamples": 0}, {"seed": -1}])
def test_resampling_that_cannot_be_drawn_is_refused_before_scoring(settings: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="bootstrap draws"):
        Resampling(**settings)
