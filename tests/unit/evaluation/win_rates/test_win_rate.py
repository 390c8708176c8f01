import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from evaluation.win_rates.command import parse_request, run, to_text
from evaluation.win_rates.win_rates import comparisons_of_pairs, comparisons_of_scores, standing
from rlhf_video.errors import ConfigError, DataError
from rlhf_video.preferences import ClipRecord, Label, PreferencePair, PreferenceStore
from rlhf_video.reward_scores import ScoredClip
from rlhf_video.stats import Comparisons, share_interval


def _clip(name: str, adapter: str | None, model: str | None = "base") -> ClipRecord:
    return ClipRecord(
        path=f"{name}.mp4", sha256=hashlib.sha256(name.encode()).hexdigest(), model=model, adapter=adapter
    )


def _pairs(labels: Sequence[Label], a: str | None = "mine", b: str | None = None) -> list[PreferencePair]:
    """Return records of the adapter `a` against `b` (None: the base), two of each prompt."""
    return [
        PreferencePair(
            prompt=f"prompt {index // 2}",
            a=_clip(f"{a}{b}{index}a", a),
            b=_clip(f"{a}{b}{index}b", b),
            labels={"overall": label},
        )
        for index, label in enumerate(labels)
    ]


LABELS: tuple[Label, ...] = ("A", "A", "A", "B", "tie", "A", "both-bad", "A", "B", "A")


@pytest.mark.parametrize(
    ("ties", "points"),
    [
        ("half", [0, 0, 0, 1, 0.5, 0, 0.5, 0, 1, 0]),
        ("loss", [0, 0, 0, 1, 0, 0, 0, 0, 1, 0]),
        ("drop", [0, 0, 0, 1, 0, 0, 1, 0]),
    ],
)
def test_rate_follows_the_tie_policy_with_wilsons_interval(ties: str, points: list[float]) -> None:
    (rate,) = standing(comparisons_of_pairs(_pairs(LABELS))[0], ties=ties).rates  # type: ignore[arg-type]
    prompts = np.array([index // 2 for index, label in enumerate(LABELS) if ties != "drop" or label in ("A", "B")])
    assert (rate.system, rate.opponent) == ("base", "mine")
    assert rate.rate == share_interval(points, prompts)
    assert (rate.num_wins, rate.num_ties, rate.num_losses) == (2, 2, 6)


def test_side_on_which_a_system_is_shown_changes_nothing() -> None:
    pairs = _pairs(LABELS)
    turn = {"A": "B", "B": "A"}
    turned = [
        PreferencePair(
            prompt=pair.prompt,
            a=pair.b,
            b=pair.a,
            labels={"overall": turn.get(label, label)},  # type: ignore[dict-item]
        )
        for pair, label in zip(pairs, LABELS, strict=True)
    ]
    assert standing(comparisons_of_pairs(turned)[0]) == standing(comparisons_of_pairs(pairs)[0])


def test_records_that_compare_nothing_are_counted_with_their_reason() -> None:
    same = _pairs(["A"], a="mine", b="mine")
    unknown = [PreferencePair(prompt="p", a=_clip("x", None, None), b=_clip("y", "mine"), labels={"overall": "A"})]
    other = [PreferencePair(prompt="p", a=_clip("x", "mine"), b=_clip("y", None), labels={"motion_quality": "A"})]
    table, notes = comparisons_of_pairs(_pairs(LABELS) + same + unknown + other)
    assert len(table) == len(LABELS)
    assert notes == (
        "1 of 13 records compare a system with itself: left out.",
        "1 of 13 records do not say which model or adapter made a clip: left out.",
        "1 of 13 records have no answer to 'overall': left out.",
    )
    with pytest.raises(DataError, match=r"No record compares two systems\. 1 of 1 records compare a system"):
        comparisons_of_pairs(same)


def _scored(values: Sequence[float | None], samples: int = 2) -> list[ScoredClip]:
    return [
        ScoredClip(
            f"{index}.mp4", f"prompt {index // samples}", None if value is None else {"overall": value}, "broken"
        )
        for index, value in enumerate(values)
    ]


def test_scores_of_the_same_prompts_are_compared_clip_by_clip() -> None:
    scores = {"base": _scored([1.0, 2.0, 3.0, None]), "mine": _scored([1.5, 1.0, 3.05, 9.0])}
    table, notes = comparisons_of_scores(scores, "overall", margin=0.1)
    assert table.outcome.tolist() == [-1, 1, 0]
    assert notes == ("1 clips without a scored partner of the same prompt: left out.",)
    flipped, _ = comparisons_of_scores(scores, "overall", margin=0.1, higher_is_better=False)
    assert flipped.outcome.tolist() == [1, -1, 0]


def test_identical_scores_are_an_even_match() -> None:
    scores = {"base": _scored([1.0, 2.0, 3.0, 4.0]), "mine": _scored([1.0, 2.0, 3.0, 4.0])}
    (rate,) = standing(comparisons_of_scores(scores, "overall")[0]).rates
    assert (rate.rate.mean, rate.num_ties) == (0.5, 4)
    assert rate.rate.low < 0.5 < rate.rate.high
    with pytest.raises(DataError, match="Every comparison is a tie"):
        standing(comparisons_of_scores(scores, "overall")[0], ties="drop")


def test_more_than_two_systems_are_ranked() -> None:
    rng = np.random.default_rng(0)
    scores = {
        name: _scored((shift + rng.normal(size=60)).tolist()) for name, shift in (("c", 0.0), ("b", 0.8), ("a", 1.6))
    }
    found = standing(comparisons_of_scores(scores, "overall")[0])
    assert [line.system for line in found.ranking] == ["a", "b", "c"]
    assert [(rate.system, rate.opponent) for rate in found.rates] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert all(rate.rate.low > 0.5 for rate in found.rates)
    assert found.notes == ()


def test_undefeated_system_is_ranked_by_a_prior_that_is_named() -> None:
    scores = {name: _scored([value] * 12) for name, value in (("a", 3.0), ("b", 2.0), ("c", 1.0))}
    found = standing(comparisons_of_scores(scores, "overall")[0])
    assert [line.system for line in found.ranking] == ["a", "b", "c"]
    assert len(found.notes) == 1 and found.notes[0].startswith("A prior of 1 log-odds keeps the ranking finite")


def test_systems_that_never_met_are_not_ranked() -> None:
    table = Comparisons.from_labels(
        ["a", "b", "c", "d"], ["b", "a", "d", "c"], ["A", "A", "A", "A"], prompts=["x", "y", "x", "y"]
    )
    found = standing(table)
    assert found.ranking == () and "joined by no chain" in found.notes[0]
    assert len(found.rates) == 2


def test_interval_of_a_win_rate_covers_it_in_95_percent_of_simulated_runs() -> None:
    rng, hits, truth = np.random.default_rng(4), 0, 0.7
    prompts = np.repeat(np.arange(20), 3)
    for _ in range(500):
        chance = rng.beta(truth * 3, (1 - truth) * 3, size=20)[prompts]  # prompts differ in how easy they are
        labels = np.where(rng.random(60) < chance, "A", "B").tolist()
        table = Comparisons.from_labels(["mine"] * 60, ["other"] * 60, labels, prompts=prompts)
        (rate,) = standing(table).rates
        hits += rate.rate.low <= truth <= rate.rate.high
    assert hits / 500 >= 0.92


def test_command_reads_records_and_writes_what_it_prints(tmp_path: Path) -> None:
    PreferenceStore(tmp_path / "pairs.jsonl").append(_pairs(LABELS))
    out = tmp_path / "rate" / "win.json"
    request = parse_request(
        ["--pairs", str(tmp_path / "pairs.jsonl"), "--name", "base=wan", "--out", str(out), "--ties", "drop"]
    )
    result = run(request)
    text = to_text(result, request.ties)
    assert "mine against wan: 75.0% [" in text and "(won 6, tied 2, lost 2; 5 prompts)" in text
    record = json.loads(out.read_text())
    assert (record["ties"], record["rates"][0]["num_wins"]) == ("drop", 6)


def test_command_reads_scores_of_a_reward(tmp_path: Path) -> None:
    for name, shift in (("base", 0.0), ("mine", 1.0)):
        clips = [clip.record() for clip in _scored([shift + index for index in range(6)])]
        (tmp_path / f"{name}.json").write_text(json.dumps({"clips": clips}))
    files = [f"{name}={tmp_path / name}.json" for name in ("base", "mine")]
    (rate,) = run(parse_request(["--scores", *files])).rates
    assert (rate.num_wins, rate.num_losses) == (0, 6)
    with pytest.raises(ConfigError, match="No clip has a score 'quality'"):
        run(parse_request(["--scores", *files, "--dimension", "quality"]))
    with pytest.raises(ConfigError, match="needs two systems"):
        run(parse_request(["--scores", files[0]]))
    with pytest.raises(DataError, match="holds no scores of clips"):
        run(parse_request(["--scores", files[0], f"mine={tmp_path / 'none.json'}"]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Give either --pairs"),
        (["--pairs", "a.jsonl", "--scores", "b=c"], "Give either --pairs"),
        (["--scores", "base.json"], "is not understood"),
    ],
)
def test_malformed_request_is_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_request(arguments)


@pytest.mark.parametrize("words", [["--surprise"], ["--ties", "third"], ["--margin", "wide"]])
def test_unknown_and_malformed_arguments_are_told_like_other_mistakes(words: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"See --help\."):
        parse_request([*words, "--pairs", "a.jsonl"])
