"""Pairs are appended and read strictly; clips are checked all at once; prompts never straddle a split."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rlhf_video.errors import ConfigError, DataError
from rlhf_video.preferences import ClipRecord, PreferencePair, PreferenceStore, refuse_shared_prompts, split_by_prompt
from rlhf_video.testing.tiny_pairs import tiny_pairs


def clip(letter: str, **facts: object) -> ClipRecord:
    return ClipRecord(path=f"clips/{letter}.mkv", sha256=letter * 64, **facts)  # type: ignore[arg-type]


def pair(prompt: str = "a red wall", **facts: object) -> PreferencePair:
    values: dict[str, object] = {"labels": {"overall": "A"}, **facts}
    return PreferencePair(prompt=prompt, a=clip("a"), b=clip("b"), **values)  # type: ignore[arg-type]


def test_what_is_appended_is_read_back_in_order(tmp_path: Path) -> None:
    store = PreferenceStore(tmp_path / "pairs.jsonl")
    full = pair(
        labels={"overall": "tie", "motion_quality": "both-bad"}, soft={"text_alignment": 0.75}, margin=0.3,
        confidence=0.9, num_votes=4, source="arena",
    )  # fmt: skip
    full = replace(full, a=clip("a", seed=7, model="m", adapter="x", sampler={"num_steps": 30, "guidance": 5.0}))
    assert store.append([pair()]) == 1
    assert store.append([full, pair("Ein blauer Würfel")]) == 2
    assert store.read() == (pair(), full, pair("Ein blauer Würfel"))
    assert "seed" not in store.path.read_text().splitlines()[0], "what is empty is left out"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompts": "x"}, "Unknown key 'prompts'. Did you mean 'prompt'"),
        ({"labels": {"overall": "a"}}, "must be one of A, B, tie, both-bad"),
        ({"labels": {}}, "all empty"),
        ({"version": 2}, "reads version 1"),
        ({"prompt": " "}, "prompt is empty"),
        ({"soft": {"overall": 1.5}}, "between 0 and 1"),
        ({"margin": -1.0}, "at least 0"),
        ({"num_votes": 0}, "at least 1"),
        ({"b": {"path": "clips/a.mkv", "sha256": "a" * 64}}, "same clip"),
        ({"b": {"path": "/clips/b.mkv", "sha256": "b" * 64}}, "relative to the folder"),
        ({"b": {"path": "clips/b.mkv", "sha256": "B"}}, "no SHA-256"),
        ({"b": {"path": "clips/b.mkv", "sha256": "b" * 64, "sed": 1}}, "Did you mean 'b.seed'"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    store = PreferenceStore(tmp_path / "pairs.jsonl")
    store.append([pair()])
    with store.path.open("a") as stream:
        stream.write(json.dumps({**json.loads(store.path.read_text()), **change}) + "\n")
    with pytest.raises(DataError, match=f"Line 2 of .*{message}"):
        store.read()


def test_missing_empty_torn_and_misnamed_files_are_refused(tmp_path: Path) -> None:
    store = PreferenceStore(tmp_path / "pairs.jsonl")
    with pytest.raises(DataError, match="no file of preference pairs"):
        store.read()
    store.path.write_text("")
    with pytest.raises(DataError, match="holds no preference pair"):
        store.read()
    store.path.write_text('{"version": 1, "pro')
    with pytest.raises(DataError, match=r"Line 1 .* is not JSON"):
        store.read()
    with pytest.raises(DataError, match="cut off"):
        store.append([pair()])
    with pytest.raises(DataError, match=r"must be a \.jsonl file.*or a \.parquet file"):
        PreferenceStore(tmp_path / "pairs.csv")


def test_missing_and_changed_clips_are_listed_together(tmp_path: Path) -> None:
    store = tiny_pairs(tmp_path / "pairs.jsonl", adjectives=("big",))
    pairs = store.read()
    store.check_clips(pairs)
    store.clip_path(pairs[0].a).unlink()
    store.clip_path(pairs[1].b).write_bytes(b"another clip")
    with pytest.raises(DataError, match=r"2 of 72 clips .*a\.mkv is missing; .*b\.mkv is not the recorded file"):
        store.check_clips(pairs)
    with pytest.raises(DataError, match="1 of 72 clips"):
        store.check_clips(pairs, hashes=False)
    with pytest.raises(DataError, match="two hashes"):
        store.check_clips([*pairs[2:], replace(pairs[2], a=replace(pairs[2].a, sha256="0" * 64))])


def test_a_prompt_is_dealt_by_its_hash_alone() -> None:
    pairs = [pair(f"prompt {number}") for number in range(400)] + [pair(" PROMPT  7 ")]
    parts = split_by_prompt(pairs, {"validation": 0.2, "calibration": 0.0, "train": 0.8})
    assert sum(map(len, parts.values())) == 401 and not parts["calibration"]
    assert 50 < len(parts["validation"]) < 110
    home = next(name for name, part in parts.items() if pairs[7] in part)
    assert pairs[400] in parts[home], "case and white space make no new prompt"
    fewer = split_by_prompt(pairs[::-3], {"validation": 0.2, "train": 0.8})
    assert {p.prompt for p in fewer["validation"]} <= {p.prompt for p in parts["validation"]}
    assert split_by_prompt(pairs, {"validation": 0.2, "train": 0.8}, seed=1)["validation"] != parts["validation"]
    refuse_shared_prompts(parts)
    with pytest.raises(DataError, match="train and validation pairs share prompts, for example 'a red wall'"):
        refuse_shared_prompts({"train": [pair()], "validation": [pair("A red  wall")]})
    with pytest.raises(DataError, match="sum to 1"):
        split_by_prompt(pairs, {"train": 0.5})


def test_the_winner_of_a_question_is_its_soft_label_first() -> None:
    mixed = pair(labels={"overall": "B", "motion": "both-bad"}, soft={"overall": 0.7, "style": 0.5})
    assert [mixed.winner(q) for q in ("overall", "motion", "style", "unasked")] == ["A", None, None, None]


def test_a_clip_of_an_unknown_hash_form_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="no SHA-256"):
        ClipRecord(path="x.mp4", sha256="123")
