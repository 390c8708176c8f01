"""VBench's suite and its variants, read from a file in VBench's form."""

import json
from pathlib import Path
from typing import Any

import pytest

from evaluation.prompt_suites import load_suite
from evaluation.vbench_compat.suite import FILE, INSTALLED, load_vbench_suite
from rewards.errors import RewardError
from rlhf_video.errors import ConfigError, DataError

ENTRIES: list[dict[str, Any]] = [
    {"prompt_en": "a red bird", "dimension": ["color"], "auxiliary_info": {"color": {"color": "red"}}},
    {"prompt_en": "The pier, oil painting", "dimension": ["overall_consistency", "imaging_quality"]},
    {"prompt_en": "a fantasy landscape", "dimension": ["overall_consistency"]},
    {
        "prompt_en": "The pier, oil painting",
        "dimension": ["appearance_style"],
        "auxiliary_info": {"appearance_style": {"appearance_style": "oil painting"}},
    },
    {"prompt_en": "A fantasy landscape", "dimension": ["imaging_quality"]},
    {"prompt_en": "a still lake", "dimension": ["temporal_flickering"]},
]


def write(path: Path, entries: object = ENTRIES) -> Path:
    path.write_text(json.dumps(entries, ensure_ascii=False), encoding="utf-8")
    return path


@pytest.fixture
def info(tmp_path: Path) -> Path:
    return write(tmp_path / FILE)


def test_entries_of_one_prompt_become_one_with_all_dimensions_and_facts(info: Path) -> None:
    suite = load_vbench_suite(info)
    by_prompt = {asked.prompt: asked for asked in suite.prompts}
    assert len(suite.prompts) == 5
    pier = by_prompt["The pier, oil painting"]
    assert pier.dimensions == {"overall_consistency", "imaging_quality", "appearance_style"}
    assert pier.facts == {"appearance_style": {"appearance_style": "oil painting"}}
    assert by_prompt["a red bird"].facts == {"color": {"color": "red"}}


def test_flickering_gets_25_clips_and_the_rest_5(info: Path) -> None:
    suite = load_vbench_suite(info)
    assert [asked.num_samples for asked in suite.prompts] == [5, 5, 5, 5, 25]
    assert suite.num_clips == 45
    assert {asked.num_samples for asked in load_vbench_suite(info, clips_per_prompt=2).prompts} == {2}


def test_prompts_equal_but_for_case_are_generated_in_different_folders(info: Path) -> None:
    parts = load_vbench_suite(info).generation_parts()
    assert list(parts) == ["5-per-prompt", "5-per-prompt-2", "25-per-prompt"]
    assert [asked.prompt for asked in parts["5-per-prompt-2"].prompts] == ["A fantasy landscape"]
    assert sum(len(part.prompts) for part in parts.values()) == 5
    for part in parts.values():
        assert len({asked.prompt.casefold() for asked in part.prompts}) == len(part.prompts)
    assert list(load_vbench_suite(info, dimensions=["color"]).generation_parts()) == [""]


def test_extended_prompts_are_another_suite_whose_metrics_read_the_raw_prompt(info: Path, tmp_path: Path) -> None:
    lines = [f"{entry['prompt_en']}, in great detail, take {number}" for number, entry in enumerate(ENTRIES)]
    (tmp_path / "longer.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    raw, extended = load_vbench_suite(info), load_vbench_suite(info, extended=tmp_path / "longer.txt")
    assert extended.name == f"{raw.name}+longer"
    assert extended.sha256 != raw.sha256
    assert [asked.prompt for asked in extended.prompts] == [asked.prompt for asked in raw.prompts]
    assert extended.prompts[0].text == "a red bird, in great detail, take 0"
    assert raw.prompts[0].text == "a red bird"


def test_extended_prompts_of_another_length_are_refused(info: Path, tmp_path: Path) -> None:
    (tmp_path / "longer.txt").write_text("one\n\nthree\n")
    with pytest.raises(DataError, match=r"3 lines \(1 empty\) for 6 entries"):
        load_vbench_suite(info, extended=tmp_path / "longer.txt")


def test_dimensions_keep_their_prompts_and_ask_nothing_else(info: Path) -> None:
    suite = load_vbench_suite(info, dimensions=["imaging_quality"])
    assert [asked.prompt for asked in suite.prompts] == ["The pier, oil painting", "A fantasy landscape"]
    assert all(asked.dimensions == {"imaging_quality"} and not asked.facts for asked in suite.prompts)
    assert suite.sha256 != load_vbench_suite(info).sha256
    with pytest.raises(ConfigError, match="Did you mean 'color'"):
        load_vbench_suite(info, dimensions=["colour"])


def test_first_prompts_have_another_hash_and_name(info: Path) -> None:
    whole = load_vbench_suite(info)
    part = whole.first(2)
    assert (part.name, len(part.prompts)) == (f"{whole.name}-first-2", 2)
    assert part.sha256 != whole.sha256
    assert whole.first(None) is whole
    with pytest.raises(ConfigError, match="holds 5 prompts"):
        whole.first(6)


def test_a_changed_fact_changes_the_hash(tmp_path: Path) -> None:
    other = [{**ENTRIES[0], "auxiliary_info": {"color": {"color": "blue"}}}, *ENTRIES[1:]]
    hashes = [load_vbench_suite(write(tmp_path / name, e)).sha256 for name, e in (("a", ENTRIES), ("b", other))]
    assert hashes[0] != hashes[1]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"prompt_en": "x", "dimension": ["imagine_quality"]}], "Did you mean 'imaging_quality'"),
        ([{"prompt_en": "x", "dimension": ["color"]}], "does not say what to look for"),
        ([{"prompt_en": " ", "dimension": ["scene"]}], "no text under prompt_en"),
        ([{"prompt_en": "x", "dimension": "scene"}], "needs a list under dimension"),
        ([*ENTRIES, {**ENTRIES[0], "auxiliary_info": {"color": {"color": "blue"}}}], "contradicts itself"),
        ({"prompt_en": "x"}, "no list of prompts"),
    ],
)
def test_malformed_files_are_refused(tmp_path: Path, entries: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_vbench_suite(write(tmp_path / FILE, entries))


def test_a_missing_file_says_where_there_is_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="installed"):
        load_vbench_suite(tmp_path / FILE)


def test_the_installed_file_is_read_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLHF_VIDEO_ENVS", str(tmp_path))
    with pytest.raises(RewardError, match="env create vbench"):
        load_vbench_suite(INSTALLED)
    package = tmp_path / "env" / "lib" / "python3.11" / "site-packages" / "vbench"
    package.mkdir(parents=True)
    write(package / FILE)
    monkeypatch.setattr(
        "evaluation.vbench_compat.suite.require", lambda _name: type("Environment", (), {"path": tmp_path / "env"})
    )
    assert len(load_vbench_suite(INSTALLED).prompts) == 5


def test_a_plain_list_and_the_sprite_suite_keep_the_hash_of_their_prompts() -> None:
    suite = load_suite(Path("assets/prompts/sprite-test.txt"), clips_per_prompt=2)
    assert (suite.name, len(suite.prompts), suite.num_clips) == ("sprite-test", 72, 144)
    assert all(asked.dimensions is None for asked in suite.prompts)
    assert suite.first(72) is suite
    assert list(suite.generation_parts()) == [""]
