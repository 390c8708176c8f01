"""Every rule by its section of the config, and votes: those of a rater, and those of a pairs file."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rlhf_video.algorithms.pair_building import PairBuildingConfig, build
from rlhf_video.algorithms.pair_building_clips import PromptClip
from rlhf_video.algorithms.pair_building_config import RaterConfig, RenoisingConfig, RuleConfig
from rlhf_video.algorithms.pair_building_labels import TIED_EVERYWHERE, aligned_pairs, counted, rated
from rlhf_video.algorithms.pair_building_scores import ClipScores
from rlhf_video.data import sha256_file, write_lossless
from rlhf_video.errors import DataError
from rlhf_video.preferences import ClipRecord, PreferencePair, PreferenceStore, SegmentLabel
from rlhf_video.preferences.pairing import (
    AllPairsConfig,
    BestWorstConfig,
    OmniScoreConfig,
    Pairing,
    ParetoConfig,
    ReweightingConfig,
    ScoredClip,
    VotesConfig,
)
from rlhf_video.runtime import create_accelerator
from rlhf_video.settings import load_config
from rlhf_video.testing.runs import write_config

PROMPTS = tuple(f"a circle number {number}" for number in range(6))


def record(name: str) -> ClipRecord:
    return ClipRecord(path=f"clips/{name}.mkv", sha256=hashlib.sha256(name.encode()).hexdigest(), fps=8.0)


def scored(quality: Sequence[float], motion: Sequence[float]) -> list[ScoredClip]:
    """Return clips of each prompt with these two scores."""
    return [
        ScoredClip(prompt, record(f"{place}-{clip}"), {"quality": good, "motion": moves})
        for place, prompt in enumerate(PROMPTS)
        for clip, (good, moves) in enumerate(zip(quality, motion, strict=True))
    ]


@pytest.mark.parametrize(
    ("rule", "per_prompt", "scores"),
    [
        (RuleConfig(best_worst=BestWorstConfig(score="quality")), 1, ("quality",)),
        (RuleConfig(all_pairs=AllPairsConfig(score="motion")), 3, ("motion",)),
        (RuleConfig(omniscore=OmniScoreConfig(weights={"quality": 1.0}, veto={"motion": 0.1})), 0, None),
        (RuleConfig(omniscore=OmniScoreConfig(weights={"quality": 1.0}, veto={"motion": 2.0})), 1, None),
        (RuleConfig(pareto=ParetoConfig(tolerances={"quality": 0.0, "motion": 0.0})), 1, None),
    ],
)
def test_a_section_is_its_rule(rule: RuleConfig, per_prompt: int, scores: tuple[str, ...] | None) -> None:
    # The best clip of each prompt moves least; only the last two agree in both scores.
    pairing = rule.apply(scored([0.9, 0.5, 0.1], [0.1, 0.9, 0.8]))
    assert len(pairing.pairs) == per_prompt * len(PROMPTS)
    assert set(rule.scores) == set(scores or ("quality", "motion"))


def test_votes_of_a_rater_are_counted_and_a_weight_of_the_rule_stays() -> None:
    clips = scored([0.9, 0.1], [0.2, 0.8])
    weights = OmniScoreConfig(weights={"quality": 1.0}, reweighting=ReweightingConfig(beta=1.0))
    pairing = RuleConfig(omniscore=weights).apply(clips)
    assert all(pair.weight > 1.0 for pair in pairing.pairs)
    scores = {clip.clip.path: ClipScores(dict(clip.scores), {}) for clip in clips}
    sure = RaterConfig(score="motion", sharpness=1e9, flips=0.0, voters=4)
    kept = counted(rated(pairing, scores, sure, seed=0), VotesConfig(threshold=0.9))
    for before, after in zip(pairing.pairs, kept.pairs, strict=True):
        assert {before.winner(), after.winner()} == {"A", "B"}, "the voters look at motion, the rule at quality"
        assert after.weight == before.weight and after.num_votes == 4
        assert after.confidence == pytest.approx(1 - 0.5**5), "four of four votes on a uniform prior"
    split = rated(pairing, scores, replace(sure, flips=0.5, voters=2), seed=0)
    undecided = sum(pair.soft["overall"] == 0.5 for pair in split.pairs)
    few = counted(split, VotesConfig(threshold=0.8))
    assert 0 < undecided < len(PROMPTS) and sum(few.dropped.values()) == undecided


def test_a_pair_without_the_raters_score_is_dropped_and_counted() -> None:
    clips = scored([0.9, 0.1], [0.2, 0.8])
    pairing = RuleConfig(best_worst=BestWorstConfig(score="quality")).apply(clips)
    scores = {clip.clip.path: ClipScores(dict(clip.scores), {}) for clip in clips}
    scores[clips[0].clip.path] = ClipScores({"quality": 0.9}, {"motion": "too dark"})
    kept = rated(pairing, scores, RaterConfig(score="motion"), seed=0)
    assert len(kept.pairs) == len(PROMPTS) - 1 and kept.dropped == {"a clip has no score 'motion'": 1}


def aligned(gaps: Sequence[float | None], least_gap: float = 0.0) -> Pairing:
    """Return the pairing of one clip's two copies; a gap is of the whole clip or a segment, None has no score."""
    a, b = sorted((record("x-a"), record("x-b")), key=lambda clip: clip.sha256)
    rows = [
        [ClipScores({} if gap is None else {"s": side * gap}, {} if gap is not None else {"s": "dark"}) for gap in gaps]
        for side in (1.0, 0.0)
    ]
    batch = (PromptClip("a circle", a), PromptClip("a circle", b))
    spans = ((0, 9), (0, 5), (5, 9))
    config = RenoisingConfig(score="s", least_gap=least_gap)
    return aligned_pairs([batch], [rows], spans, config=config, rater=None, seed=0)


def test_segments_are_labelled_where_they_can_be_scored() -> None:
    (pair,) = aligned([0.1, -0.5, 0.7]).pairs
    assert pair.labels == {"overall": "A"} and pair.margin == pytest.approx(0.1)
    assert pair.segments == (SegmentLabel(start=0, stop=5, label="B"), SegmentLabel(start=5, stop=9, label="A"))
    (pair,) = aligned([0.1, None, 0.7]).pairs
    assert [segment.start for segment in pair.segments] == [5]
    (pair,) = aligned([0.1, -0.5, 0.7], least_gap=0.2).pairs
    assert pair.labels == {"overall": "tie"} and [part.label for part in pair.segments] == ["B", "A"]
    assert aligned([0.1, 0.1, -0.1], least_gap=0.2).dropped == {TIED_EVERYWHERE: 1}
    assert aligned([None, 0.5, 0.5]).dropped == {"a clip has no score 's'": 1}


@pytest.fixture
def votes(tmp_path: Path) -> PreferenceStore:
    """Write three votes on one pair of clips of each prompt, two of them for the brighter clip."""
    store, pairs = PreferenceStore(tmp_path / "arena" / "votes.jsonl"), []
    for place, prompt in enumerate(PROMPTS):
        clips = []
        for side, level in (("dark", 0.2), ("bright", 0.8)):
            file = tmp_path / "arena" / "clips" / f"{place}-{side}.mkv"
            noise = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(place))
            write_lossless(file, level + 0.1 * noise, 8)
            clips.append(ClipRecord(path=f"clips/{file.name}", sha256=sha256_file(file)))
        for label in ("A", "A", "B"):
            pairs.append(PreferencePair(prompt=prompt, a=clips[1], b=clips[0], labels={"overall": label}))
    store.append(pairs)
    return store


def vote_config(store: PreferenceStore, folder: Path, **changes: object) -> PairBuildingConfig:
    recipe = {"source": "votes", "pairs": str(store.path), "split": {"validation_share": 0.5}, **changes}
    return load_config(PairBuildingConfig, write_config(recipe, folder))


def test_votes_become_pairs_in_a_folder_that_stands_alone(votes: PreferenceStore, tmp_path: Path) -> None:
    config = vote_config(votes, tmp_path / "a", votes={"threshold": 0.6})
    written = build(config, accelerator=create_accelerator())
    assert set(written.files) == {"train", "validation"}
    (tmp_path / "arena").rename(tmp_path / "gone")
    pairs = []
    for file in written.files.values():
        store = PreferenceStore(file)
        store.check_clips(store.read())
        pairs += store.read()
    assert len(pairs) == len(PROMPTS) and all(pair.num_votes == 3 for pair in pairs)
    manifest = json.loads(written.manifest.read_text())
    assert manifest["rule"] == "votes" and manifest["settings"]["votes"]["threshold"] == 0.6
    assert set(manifest["sources"]) == {"votes"}


def test_two_of_three_votes_do_not_decide_by_default(votes: PreferenceStore, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="6: the votes decide nothing"):
        build(vote_config(votes, tmp_path / "a"), accelerator=create_accelerator())


def test_a_lost_clip_of_the_votes_is_named(votes: PreferenceStore, tmp_path: Path) -> None:
    (tmp_path / "arena" / "clips" / "3-dark.mkv").unlink()
    with pytest.raises(DataError, match=r"3-dark\.mkv is missing"):
        build(vote_config(votes, tmp_path / "a", votes={"threshold": 0.6}), accelerator=create_accelerator())
    assert not (tmp_path / "a").exists()
