import json
import math

import numpy as np
import pytest
import torch

from rlhf_video.errors import DataError
from rlhf_video.validation import Clips, Comparison, Validator


def comparison(gain: float = 0.5, *, num_prompts: int = 20, seed: int = 0) -> Comparison:
    """Return pairs whose adapter scores exceed the base's by about `gain`."""
    rng = np.random.default_rng(seed)
    clusters = np.repeat(np.arange(num_prompts), 4)
    base = rng.normal(size=num_prompts)[clusters] + rng.normal(size=clusters.size)
    return Comparison({"r/all": base}, {"r/all": base + gain + 0.1 * rng.normal(size=clusters.size)}, clusters)


def test_pairing_removes_what_prompts_and_noise_share() -> None:
    change = comparison().change("r/all")
    assert change.difference.mean == pytest.approx(0.5, abs=0.05)
    assert change.difference.high - change.difference.low < 0.1 * (change.base.high - change.base.low)
    assert change.difference.num_clusters == 20


def test_a_pair_counts_only_when_both_clips_have_a_score() -> None:
    base, adapter = np.array([1.0, math.nan, 1.0, 1.0]), np.array([2.0, 2.0, math.nan, 4.0])
    change = Comparison({"r/x": base}, {"r/x": adapter}, np.arange(4)).change("r/x")
    assert (change.num_masked, change.difference.num_items) == (2, 2)
    assert change.difference.mean == 2.0


def test_a_score_without_any_valid_pair_is_an_error() -> None:
    masked = Comparison({"r/x": np.array([math.nan])}, {"r/x": np.array([1.0])}, np.zeros(1, dtype=np.int64))
    with pytest.raises(DataError, match="masked every pair"):
        masked.intervals()


def test_unknown_and_unpaired_scores_are_refused() -> None:
    with pytest.raises(DataError, match=r"Unknown score 'r/none'\. Known: r/all"):
        comparison().change("r/none")
    with pytest.raises(DataError, match="only one of base and adapter"):
        Comparison({"a": np.zeros(1)}, {}, np.zeros(1, dtype=np.int64))
    with pytest.raises(DataError, match="must be"):
        Comparison({"a": np.zeros(1)}, {"a": np.zeros(2)}, np.zeros(1, dtype=np.int64))


def test_json_round_trip_keeps_every_value() -> None:
    before = comparison()
    before.base["r/all"][3] = math.nan
    after = Comparison.from_json(json.loads(json.dumps(before.to_json(), allow_nan=False)))
    np.testing.assert_array_equal(after.base["r/all"], before.base["r/all"])
    np.testing.assert_array_equal(after.adapter["r/all"], before.adapter["r/all"])
    assert after.intervals() == before.intervals()
    with pytest.raises(DataError, match="run the validation again"):
        Comparison.from_json({"base": {}})


def test_metrics_leave_out_the_infinite_interval_of_a_single_prompt() -> None:
    assert "validation/r/all/difference_low" in comparison().metrics()
    single = comparison(num_prompts=1).metrics(prefix="test")
    assert set(single) == {"test/r/all/base", "test/r/all/adapter", "test/r/all/difference"}


def test_gain_is_in_deviations_of_the_base() -> None:
    pairs = comparison(gain=1.0)
    assert pairs.normalised_gain(["r/all"]) == pytest.approx(1.0 / pairs.base["r/all"].std(), rel=0.05)
    with pytest.raises(DataError, match="at least one score"):
        pairs.normalised_gain([])
    assert pairs.normalised_gain({"r/all": -0.5}) == -pairs.normalised_gain({"r/all": 2.0})


def test_table_shows_the_interval() -> None:
    lines = comparison().table().splitlines()
    assert lines[0].startswith("| score")
    assert "+0.5" in lines[2]
    assert "[" in lines[2]


class FakeModel:
    """Clips that are brighter at higher strength, and a count of generations."""

    def __init__(self) -> None:
        self.scales: list[float] = []

    def __call__(self, scale: float) -> Clips:
        self.scales.append(scale)
        generator = torch.Generator().manual_seed(0)
        video = torch.rand(6, 2, 3, 4, 4, generator=generator) * 0.5 + 0.2 * scale
        return Clips(video, ("a", "a", "b", "b", "c", "c"), tuple(range(6)))


def brightness(clips: Clips) -> dict[str, np.ndarray]:
    return {"bright/all": clips.video.mean(dim=(1, 2, 3, 4)).double().numpy()}


def test_validator_generates_the_base_once() -> None:
    model = FakeModel()
    validator = Validator(model, brightness)
    first, clips = validator.compare()
    validator.compare(0.5)
    assert model.scales == [0.0, 1.0, 0.5]
    assert first.intervals()["bright/all"].mean == pytest.approx(0.2, abs=1e-6)
    assert len(clips) == 6


def test_validator_at_strength_zero_is_the_base_itself() -> None:
    model = FakeModel()
    pairs, _ = Validator(model, brightness).compare(0.0)
    assert model.scales == [0.0]
    assert pairs.intervals()["bright/all"].mean == 0.0


def test_pairs_of_other_noise_are_refused() -> None:
    model = FakeModel()
    clips = model(1.0)
    other = Clips(clips.video, clips.prompts, (9, *clips.seeds[1:]))
    with pytest.raises(DataError, match="must share prompt and noise"):
        Comparison.of(clips, brightness(clips), other, brightness(other))


def test_validator_sweep_finds_the_best_strength() -> None:
    sweep = Validator(FakeModel(), brightness).sweep(held_out=["bright/all"], scales=(0.0, 0.5, 1.0))
    assert sweep.recommended_scale == 1.0
    assert [row.scale for row in sweep.rows] == [0.0, 0.5, 1.0]
