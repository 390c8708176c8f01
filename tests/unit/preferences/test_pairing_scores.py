"""Rules by scores: what they pair, what they drop, and the numbers that they write."""

import hashlib
import math

import numpy as np
import pytest

from rlhf_video.errors import ConfigError, DataError
from rlhf_video.preferences import ClipRecord, PreferencePair
from rlhf_video.preferences.pairing import (
    AllPairsConfig,
    BestWorstConfig,
    OmniScoreConfig,
    ParetoConfig,
    ReweightingConfig,
    ScoredClip,
    all_pairs,
    best_worst,
    omniscore,
    pareto,
)
from rlhf_video.preferences.pairing.normalisation import Normalisation, normalised
from rlhf_video.preferences.pairing.reweighting import pair_weights


def _clip(name: str, prompt: str = "a red circle", **scores: float) -> ScoredClip:
    record = ClipRecord(path=f"clips/{name}.mkv", sha256=hashlib.sha256(name.encode()).hexdigest())
    return ScoredClip(prompt, record, scores)


def _sides(pair: PreferencePair, question: str = "overall") -> tuple[str, str]:
    """Return the names of the preferred clip and of the other one."""
    names = [clip.path.removeprefix("clips/").removesuffix(".mkv") for clip in pair.clips]
    return (names[0], names[1]) if pair.winner(question) == "A" else (names[1], names[0])


# best against worst


def test_best_and_worst_of_a_prompt_become_one_pair() -> None:
    clips = [_clip("low", s=0.125), _clip("middle", s=0.5), _clip("high", s=0.875)]
    made = best_worst(clips, BestWorstConfig(score="s"), source="synthetic")
    (pair,) = made.pairs
    assert _sides(pair) == ("high", "low")
    assert (pair.margin, pair.source, pair.weight) == (0.75, "synthetic", 1.0)
    assert (made.dropped, made.unused) == ({}, {"neither best nor worst of its prompt": 1})


def test_the_side_of_a_clip_is_that_of_its_hash() -> None:
    names = [f"clip {index}" for index in range(20)]
    made = best_worst([_clip(n, prompt=f"{i // 2}", s=i) for i, n in enumerate(names)], BestWorstConfig(score="s"))
    assert all(pair.a.sha256 < pair.b.sha256 for pair in made.pairs)
    assert {pair.winner() for pair in made.pairs} == {"A", "B"}


def test_small_margins_and_equal_scores_are_dropped_by_name() -> None:
    clips = [_clip("a", "one", s=1.0), _clip("b", "one", s=1.0), _clip("c", "two", s=0.0), _clip("d", "two", s=0.25)]
    clips += [_clip("e", "three", s=0.0), _clip("f", "three", s=0.5)]
    made = best_worst(clips, BestWorstConfig(score="s", min_margin=0.5))
    assert [pair.prompt for pair in made.pairs] == ["three"]
    assert made.dropped == {"the margin is below min_margin": 1, "the scores are equal": 1}
    assert made.num_comparisons == 3


def test_clips_that_cannot_be_compared_are_counted() -> None:
    clips = [_clip("a", s=1.0), _clip("b", s=0.0), _clip("b", s=0.0), _clip("c", s=math.nan), _clip("d", other=1.0)]
    clips.append(_clip("lonely", "another prompt", s=1.0))
    made = best_worst(clips, BestWorstConfig(score="s"))
    assert len(made.pairs) == 1
    assert made.unused == {
        "no score 's'": 2,
        "no second clip of its prompt": 1,
        "same file as another clip of its prompt": 1,
    }


def test_a_misspelt_score_names_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match=r"No clip has a score 'motoin'. Did you mean 'motion'\? Known: motion"):
        best_worst([_clip("a", motion=1.0)], BestWorstConfig(score="motoin"))


def test_no_clips_are_an_error() -> None:
    with pytest.raises(DataError, match="no scored clips"):
        best_worst([], BestWorstConfig(score="s"))


@pytest.mark.parametrize("margin", [-0.1, math.nan, math.inf])
def test_a_margin_out_of_its_range_is_refused(margin: float) -> None:
    with pytest.raises(ConfigError, match="min_margin"):
        BestWorstConfig(score="s", min_margin=margin)


# all pairs


def test_all_pairs_keeps_those_that_differ_enough() -> None:
    clips = [_clip(str(score), s=score) for score in (0.0, 0.25, 1.0)]
    made = all_pairs(clips, AllPairsConfig(score="s", min_margin=0.5))
    assert {_sides(pair): pair.margin for pair in made.pairs} == {("1.0", "0.0"): 1.0, ("1.0", "0.25"): 0.75}
    assert made.dropped == {"the margin is below min_margin": 1}


def test_the_cap_keeps_the_largest_margins_of_each_prompt() -> None:
    clips = [_clip(f"{prompt}{score}", prompt, s=score) for prompt in "xy" for score in (0.0, 1.0, 3.0, 7.0)]
    made = all_pairs(clips, AllPairsConfig(score="s", max_pairs_per_prompt=2))
    assert sorted((pair.prompt, pair.margin) for pair in made.pairs) == [("x", 6.0), ("x", 7.0), ("y", 6.0), ("y", 7.0)]
    assert made.dropped == {"over the cap of its prompt": 8}
    assert made.num_comparisons == 2 * math.comb(4, 2)


# weighted set


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("none", [2.0, 4.0, 4.0, 6.0]),
        ("min_max", [0.0, 0.5, 0.5, 1.0]),
        ("z_score", [-math.sqrt(2), 0.0, 0.0, math.sqrt(2)]),
        ("rank", [0.0, 0.5, 0.5, 1.0]),
    ],
)
def test_normalisations_have_their_closed_form(kind: Normalisation, expected: list[float]) -> None:
    np.testing.assert_allclose(normalised(np.array([2.0, 4.0, 4.0, 6.0]), kind), expected, atol=1e-15)


@pytest.mark.parametrize("kind", ["min_max", "z_score", "rank"])
def test_a_constant_score_says_nothing(kind: Normalisation) -> None:
    assert normalised(np.full(3, 7.0), kind).tolist() == [0.0, 0.0, 0.0]


def test_the_weighted_set_adds_normalised_scores() -> None:
    # Ranges over the set: q 0..10, t 0..1. By q alone "quality" wins, by t alone "text"; 3 : 1 decides for quality.
    clips = [_clip("quality", q=10.0, t=0.5), _clip("text", q=5.0, t=1.0), _clip("poor", q=0.0, t=0.0)]
    (pair,) = omniscore(clips, OmniScoreConfig(weights={"q": 3.0, "t": 1.0})).pairs
    assert _sides(pair) == ("quality", "poor")
    assert pair.margin == pytest.approx((3 * 1.0 + 1 * 0.5) / 4)
    (pair,) = omniscore(clips, OmniScoreConfig(weights={"q": 1.0, "t": 3.0})).pairs
    assert _sides(pair) == ("text", "poor")
    assert pair.margin == pytest.approx((1 * 0.5 + 3 * 1.0) / 4)
    assert set(pair.labels) == {"overall", "q", "t"}


def test_a_contradicting_dimension_vetoes_beyond_its_tolerance() -> None:
    # Normalised motion: still 0, lively 1, middle 0.4.
    clips = [_clip("sharp", q=1.0, motion=0.0), _clip("blurred", q=0.0, motion=0.4)]
    clips += [_clip("x", "other", q=1.0, motion=1.0), _clip("y", "other", q=0.0, motion=0.0)]
    tight = omniscore(clips, OmniScoreConfig(weights={"q": 1.0}, veto={"motion": 0.3}))
    assert [pair.prompt for pair in tight.pairs] == ["other"]
    assert tight.dropped == {"vetoed by 'motion'": 1}
    loose = omniscore(clips, OmniScoreConfig(weights={"q": 1.0}, veto={"motion": 0.5}))
    by_prompt = {pair.prompt: pair for pair in loose.pairs}
    assert by_prompt["a red circle"].labels["motion"] == "tie"
    assert _sides(by_prompt["other"], "motion") == ("x", "y")


def test_labels_of_dimensions_stand_for_the_right_clip() -> None:
    clips = [_clip(name, name[-1], q=q, m=m) for name, q, m in
             [("good0", 1.0, 0.0), ("bad0", 0.0, 0.5), ("good1", 1.0, 0.0), ("bad1", 0.0, 0.5)]]  # fmt: skip
    for pair in omniscore(clips, OmniScoreConfig(weights={"q": 1.0}, veto={"m": 1.0 - 1e-9, "q": 0.0})).pairs:
        assert _sides(pair)[0].startswith("good")
        assert _sides(pair, "q")[0].startswith("good")
    kept = omniscore(clips, OmniScoreConfig(weights={"q": 2.0, "m": 1.0})).pairs
    assert len(kept) == 2
    assert all(_sides(pair, "m")[0].startswith("bad") for pair in kept)


def test_weights_that_decide_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="nothing would decide"):
        OmniScoreConfig(weights={"q": 0.0})
    with pytest.raises(ConfigError, match=r"veto\.motion"):
        OmniScoreConfig(weights={"q": 1.0}, veto={"motion": -1.0})


# re-weighting: scores 0, 1, 0, 1, 0.4, 1 in four bins: shares 2/6, 3/6, and 1/6 for 0.4; P = 1/6, 1/6, 1/12

CHOSEN, REJECTED = np.array([1.0, 1.0, 1.0]), np.array([0.0, 0.0, 0.4])
SCORES = np.array([0.0, 1.0, 0.0, 1.0, 0.4, 1.0])


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (ReweightingConfig(alpha=1.0, num_bins=4), [1.0, 1.0, 2.0]),
        (ReweightingConfig(alpha=0.5, num_bins=4), [1.0, 1.0, math.sqrt(2)]),
        (ReweightingConfig(alpha=0.0, num_bins=4), [1.0, 1.0, 1.0]),
        (ReweightingConfig(alpha=1.0, num_bins=4, max_weight=1.5), [1.0, 1.0, 1.5]),
        (ReweightingConfig(alpha=1.0, num_bins=4, beta=0.72), [4.32, 4.32, 8.64]),
        (ReweightingConfig(alpha=1.0, num_bins=1), [1.0, 1.0, 1.0]),
        # Margins 1, 1, 0.6: shares 2/3 and 1/3.
        (ReweightingConfig(alpha=1.0, num_bins=4, histogram="margins"), [1.0, 1.0, 2.0]),
    ],
)
def test_rare_pairs_weigh_what_the_formula_says(config: ReweightingConfig, expected: list[float]) -> None:
    np.testing.assert_allclose(pair_weights(CHOSEN, REJECTED, SCORES, config), expected, rtol=1e-12)


def test_the_weights_are_written_into_the_right_pairs() -> None:
    rows = [(0.0, "one"), (1.0, "one"), (0.0, "two"), (1.0, "two"), (0.4, "three"), (1.0, "three")]
    clips = [_clip(f"{prompt}{score}", prompt, s=score) for score, prompt in rows]
    config = OmniScoreConfig(weights={"s": 5.0}, reweighting=ReweightingConfig(alpha=1.0, num_bins=4))
    made = omniscore(clips, config)
    assert {pair.prompt: pair.weight for pair in made.pairs} == pytest.approx({"one": 1.0, "two": 1.0, "three": 2.0})


def test_re_weighting_without_pairs_is_no_error() -> None:
    clips = [_clip("a", s=1.0), _clip("b", s=1.0)]
    assert omniscore(clips, OmniScoreConfig(weights={"s": 1.0}, reweighting=ReweightingConfig())).pairs == ()


@pytest.mark.parametrize("wrong", [{"alpha": -1.0}, {"num_bins": 0}, {"beta": 0.0}, {"beta": 1.5}, {"max_weight": 0.5}])
def test_re_weighting_out_of_its_range_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        ReweightingConfig(**wrong)  # type: ignore[arg-type]


# Pareto


def test_only_clips_that_are_worse_on_nothing_win() -> None:
    clips = [_clip("best", q=2.0, m=1.0), _clip("still", q=1.0, m=0.0), _clip("lively", q=0.0, m=1.0)]
    made = pareto(clips, ParetoConfig(tolerances={"q": 0.0, "m": 0.0}))
    margins = {_sides(pair): pair.margin for pair in made.pairs}
    assert margins == {("best", "still"): pytest.approx((0.5 + 1.0) / 2), ("best", "lively"): pytest.approx(1.0)}
    assert made.dropped == {"the scores contradict one another": 1}


def test_differences_within_the_tolerance_are_equal() -> None:
    clips = [_clip("x", q=1.0, m=0.0), _clip("y", q=0.0, m=0.1)]
    (pair,) = pareto(clips, ParetoConfig(tolerances={"q": 0.5, "m": 0.1})).pairs
    assert _sides(pair) == ("x", "y") == _sides(pair, "q")
    assert pair.labels["m"] == "tie"
    assert pareto(clips, ParetoConfig(tolerances={"q": 1.0, "m": 0.1})).dropped == {
        "every score is within its tolerance": 1
    }


def test_the_pareto_cap_is_counted() -> None:
    clips = [_clip(str(n), q=float(n), m=float(n)) for n in range(4)]
    made = pareto(clips, ParetoConfig(tolerances={"q": 0.0, "m": 0.0}, max_pairs_per_prompt=1))
    assert [_sides(pair) for pair in made.pairs] == [("3", "0")]
    assert made.dropped == {"over the cap of its prompt": 5}


def test_pareto_needs_dimensions() -> None:
    with pytest.raises(ConfigError, match="tolerances is empty"):
        ParetoConfig(tolerances={})
