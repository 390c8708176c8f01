"""Prompts stay in one part and out of the evaluation; the files say where they are from, in the same bytes."""

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest

from rlhf_video.data import load_prompts, sha256_file
from rlhf_video.errors import ConfigError, DataError
from rlhf_video.preferences import ClipRecord, PreferenceStore
from rlhf_video.preferences.pairing import (
    BestWorstConfig,
    Pairing,
    ScoredClip,
    SplitConfig,
    all_pairs,
    best_worst,
    remove_leaks,
    split_pairs,
    write_pairs,
)
from rlhf_video.preferences.pairing.one_score import AllPairsConfig
from rlhf_video.preferences.store import prompt_key

CONFIG = BestWorstConfig(score="s", min_margin=0.5)
WHERE = {"rule": "best_worst", "settings": CONFIG, "sources": {"scores.jsonl": "ab" * 32}}


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _clips(num_prompts: int = 40) -> list[ScoredClip]:
    return [
        ScoredClip(
            f"Prompt  {number}",
            ClipRecord(path=f"clips/{number}-{index}.mkv", sha256=_sha256(f"{number} {index}")),
            {"s": float(index * (number % 4 != 0))},
        )
        for number in range(num_prompts)
        for index in range(3)
    ]  # fmt: skip


def _suite(folder: Path, *prompts: str) -> Path:
    file = folder / "evaluation.txt"
    file.write_text("\n".join(prompts) + "\n")
    return file


def test_files_hold_the_pairs_and_the_manifest_their_counts(tmp_path: Path) -> None:
    pairing = best_worst(_clips(), CONFIG)
    written = write_pairs(tmp_path, pairing, **WHERE, split=SplitConfig(validation_share=0.25, seed=3))
    parts = {name: PreferenceStore(file).read() for name, file in written.files.items()}
    assert sorted((*parts["train"], *parts["validation"]), key=lambda pair: pair.prompt) == list(pairing.pairs)
    manifest = json.loads(written.manifest.read_text())
    assert manifest["comparisons"] == {"considered": 40, "kept": 30, "dropped": {"the scores are equal": 10}}
    assert manifest["unused_inputs"] == {"neither best nor worst of its prompt": 40}
    assert (manifest["rule"], manifest["settings"]) == ("best_worst", {"score": "s", "min_margin": 0.5})
    assert manifest["split"]["seed"] == 3
    assert manifest["sources"] == {"scores.jsonl": "ab" * 32}
    for name, pairs in parts.items():
        summary = manifest["parts"][name]
        assert summary["sha256"] == sha256_file(written.files[name])
        assert summary["num_pairs"] == len(pairs) == sum(summary["labels"]["overall"].values())
        assert summary["prompts"] == {
            "num": len(pairs), "effective_num": len(pairs), "most_pairs": 1, "median_pairs": 1.0
        }  # fmt: skip
        assert summary["margin"] == {"least": 2.0, "median": 2.0, "most": 2.0}


def test_the_effective_number_of_prompts_is_kishs(tmp_path: Path) -> None:
    clips = [*_clips(4), *(dataclasses.replace(clip, prompt="one") for clip in _clips(12)[-3:])]
    clips = [dataclasses.replace(clip, prompt=clip.prompt if clip.prompt == "one" else "two") for clip in clips]
    pairing = all_pairs(clips, AllPairsConfig(score="s"))
    counts = [sum(pair.prompt == prompt for pair in pairing.pairs) for prompt in ("one", "two")]
    written = write_pairs(tmp_path, pairing, rule="all_pairs", settings={}, split=SplitConfig(validation_share=0.0))
    summary = json.loads(written.manifest.read_text())["parts"]["train"]["prompts"]
    assert summary["effective_num"] == pytest.approx(sum(counts) ** 2 / sum(n * n for n in counts), abs=1e-3)
    assert 1.0 < summary["effective_num"] < 2.0
    assert summary["most_pairs"] == max(counts)


def test_the_same_inputs_give_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    for folder, clips in ((tmp_path / "x", _clips()), (tmp_path / "y", _clips()[::-1])):
        write_pairs(folder, best_worst(clips, CONFIG), **WHERE)
    for name in ("train.jsonl", "validation.jsonl", "manifest.json"):
        assert (tmp_path / "x" / name).read_bytes() == (tmp_path / "y" / name).read_bytes()


def test_writing_the_same_again_is_fine_and_other_pairs_are_refused(tmp_path: Path) -> None:
    pairing = best_worst(_clips(), CONFIG)
    before = write_pairs(tmp_path, pairing, **WHERE).manifest.read_bytes()
    write_pairs(tmp_path, pairing, **WHERE)
    with pytest.raises(DataError, match="holds something else"):
        write_pairs(tmp_path, pairing, **WHERE, split=SplitConfig(seed=1))
    (tmp_path / "train.jsonl").unlink()
    with pytest.raises(DataError, match=r"validation\.jsonl' exists"):
        write_pairs(tmp_path, pairing, **WHERE, split=SplitConfig(validation_share=0.0))
    assert (tmp_path / "manifest.json").read_bytes() == before
    assert not (tmp_path / "train.jsonl").exists()


def test_no_prompt_is_in_two_parts_whatever_its_spelling() -> None:
    clips = _clips(60)
    clips += [
        ScoredClip(c.prompt.upper(), dataclasses.replace(c.clip, sha256=c.clip.sha256[::-1]), c.scores) for c in clips
    ]
    parts = split_pairs(best_worst(clips, CONFIG).pairs, SplitConfig(validation_share=0.3))
    keys = [{prompt_key(pair.prompt) for pair in part} for part in parts.values()]
    assert len(keys) == 2 and not keys[0] & keys[1]
    assert sum(map(len, keys)) == 45


def test_an_empty_part_is_an_error() -> None:
    pairs = best_worst(_clips(2), CONFIG).pairs
    with pytest.raises(DataError, match="No pair of 1 \\(1 prompts\\) is left for"):
        split_pairs(pairs, SplitConfig(validation_share=0.5))
    assert list(split_pairs(pairs, SplitConfig(validation_share=0.0))) == ["train"]


def test_a_rule_that_leaves_nothing_says_why(tmp_path: Path) -> None:
    nothing = best_worst(_clips(), BestWorstConfig(score="s", min_margin=5.0))
    with pytest.raises(DataError, match="10: the scores are equal"):
        write_pairs(tmp_path, nothing, **WHERE)
    assert list(tmp_path.iterdir()) == []


def test_prompts_of_the_evaluation_are_an_error(tmp_path: Path) -> None:
    suites = {"test": load_prompts(_suite(tmp_path, "prompt 1", "an unrelated prompt"))}
    with pytest.raises(DataError, match=r"1 of 30 pairs .* 'Prompt  1' \(in test\)"):
        write_pairs(tmp_path / "out", best_worst(_clips(), CONFIG), **WHERE, evaluation=suites)
    assert not (tmp_path / "out").exists()


def test_prompts_of_the_evaluation_can_be_dropped_and_are_counted(tmp_path: Path) -> None:
    suites = {"test": load_prompts(_suite(tmp_path, "prompt 1", "PROMPT 2", "an unrelated prompt"))}
    pairing = best_worst(_clips(), CONFIG)
    written = write_pairs(
        tmp_path / "out", pairing, **WHERE, evaluation=suites, split=SplitConfig(leaks="drop", validation_share=0.2)
    )
    manifest = json.loads(written.manifest.read_text())
    counts = manifest["comparisons"]
    assert counts["dropped"] == {"its prompt is in the evaluation suite 'test'": 2, "the scores are equal": 10}
    assert counts["considered"] == pairing.num_comparisons == counts["kept"] + sum(counts["dropped"].values())
    assert manifest["evaluation"]["test"]["num_prompts"] == 3
    left = {prompt_key(pair.prompt) for file in written.files.values() for pair in PreferenceStore(file).read()}
    assert not left & {"prompt 1", "prompt 2"}


def test_pairs_without_leaks_come_through_unchanged(tmp_path: Path) -> None:
    pairing = best_worst(_clips(), CONFIG)
    suites = {"test": load_prompts(_suite(tmp_path, "an unrelated prompt"))}
    assert remove_leaks(pairing, suites, "error") == pairing == remove_leaks(pairing, {}, "drop")
    assert isinstance(pairing, Pairing)


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_out_of_its_range_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match="validation_share"):
        SplitConfig(validation_share=share)
