"""Pairs from a tiny real model: right labels, the same bytes however often it was killed, every source."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rewards import registry
from rewards.base import RewardOutput, masked_output
from rlhf_video.algorithms.pair_building import PairBuildingConfig, build
from rlhf_video.algorithms.pair_building_clips import Records
from rlhf_video.backbones import VideoShape, load_backbone
from rlhf_video.data import load_prompts, read_video, write_lossless
from rlhf_video.diffusion.samplers import sample
from rlhf_video.diffusion.sigmas import flow_sigmas, sigmas_from
from rlhf_video.errors import DataError
from rlhf_video.lora import LoraConfig, attach, save_adapter
from rlhf_video.lora.adapter import adapter_parameters, adapter_state
from rlhf_video.preferences import PreferencePair, PreferenceStore
from rlhf_video.runtime import create_accelerator
from rlhf_video.settings import load_config
from rlhf_video.testing.runs import write_config

Recipe = dict[str, Any]


def run(recipe: Recipe, folder: Path, *, resume: bool = False, **changes: object) -> Path:
    config = load_config(PairBuildingConfig, write_config(recipe, folder, **changes))
    build(config, accelerator=create_accelerator(), resume=resume)
    return folder


def pairs_of(folder: Path) -> list[PreferencePair]:
    """Return all pairs; every clip is there and unchanged, and no prompt is in both parts."""
    parts = []
    for name in ("train", "validation"):
        store = PreferenceStore(folder / f"{name}.jsonl")
        parts.append(store.read())
        store.check_clips(parts[-1])
    assert not {p.prompt for p in parts[0]} & {p.prompt for p in parts[1]}
    return [pair for part in parts for pair in part]


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Return what a run leaves, config.yaml (which names the folder) aside."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file() and file.name != "config.yaml")
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def brightness(folder: Path, clip: Any) -> float:
    video, fps = read_video(folder / clip.path)
    return float(registry.build("brightness")(video[None], [""], fps=fps).values["brightness"][0])


def test_the_better_clip_of_a_prompt_wins_and_its_record_says_how_it_was_made(
    pairs_recipe: Recipe, tmp_path: Path
) -> None:
    folder = run(pairs_recipe, tmp_path / "a")
    pairs = pairs_of(folder)
    assert len(pairs) == 4 * 3, "every two of three clips of four prompts"
    for pair in pairs:
        better, worse = pair.clips if pair.winner() == "A" else pair.clips[::-1]
        gap = brightness(folder, better) - brightness(folder, worse)
        assert gap > 0 and pair.margin == pytest.approx(gap, abs=1e-6)
        assert pair.source == "reward"
    clip = pairs[0].a
    assert (clip.num_frames, clip.height, clip.width, clip.fps) == (9, 16, 16, 8.0)
    assert clip.model == pairs_recipe["backbone"] and clip.adapter is None
    assert clip.sampler == {"name": "flow_euler", "num_steps": 3, "guidance": 2.0, "shift": 3.0, "precision": "float32"}
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["comparisons"] == {"considered": 12, "kept": 12, "dropped": {}}
    assert manifest["settings"]["rule"]["all_pairs"]["score"] == "brightness/brightness"
    assert {"prompts", "made", "scores"} == set(manifest["sources"])


def test_clips_of_a_prompt_take_guidances_in_turn_and_say_so(pairs_recipe: Recipe, tmp_path: Path) -> None:
    plain, mixed = run(pairs_recipe, tmp_path / "a"), run(pairs_recipe, tmp_path / "b", guidances=[2.0, 5.0])
    clips = {clip.path: clip for pair in pairs_of(mixed) for clip in pair.clips}
    assert {path[-5]: clip.sampler["guidance"] for path, clip in clips.items()} == {"0": 2.0, "1": 5.0, "2": 2.0}
    for path in clips:
        same = (plain / path).read_bytes() == (mixed / path).read_bytes()
        assert same == (path[-5] != "1"), "only the guidance differs"


def test_a_clip_is_what_its_record_says(pairs_recipe: Recipe, tmp_path: Path) -> None:
    folder = run(pairs_recipe, tmp_path / "a")
    pair = pairs_of(folder)[0]
    backbone = load_backbone(pairs_recipe["backbone"])
    cond = backbone.encode_prompts([pair.prompt], "")
    assert pair.a.seed is not None
    shape = VideoShape(batch=1, frames=9, height=16, width=16)
    noise = backbone.noise(shape, torch.Generator().manual_seed(pair.a.seed))
    with torch.no_grad():
        latents = sample(lambda x, s: backbone.velocity(x, s, cond, guidance=2.0), noise, flow_sigmas(3, 3.0))
        expected = backbone.decode(latents)[0]
    torch.testing.assert_close(read_video(folder / pair.a.path)[0], expected, rtol=0, atol=0.6 / 255)


@pytest.mark.parametrize("source", ["generated", "partial_renoising"])
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(
    pairs_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    if source == "partial_renoising":
        pairs_recipe |= {"source": source, "renoising": {"score": "brightness/brightness", "segment_frames": 4}}
        del pairs_recipe["rule"]
    straight = run(pairs_recipe, tmp_path / "straight")
    whole, killed = Records.write, tmp_path / "killed"

    def kill_in_second_batch(records: Records, number: int, batch: Any) -> None:
        if number == 1:
            raise KeyboardInterrupt
        whole(records, number, batch)

    monkeypatch.setattr(Records, "write", kill_in_second_batch)
    with pytest.raises(KeyboardInterrupt):
        run(pairs_recipe, killed)
    monkeypatch.setattr(Records, "write", whole)
    first = {file: file.stat().st_mtime_ns for file in sorted((killed / "clips").iterdir())[:4]}
    run(pairs_recipe, killed, resume=True)
    assert {file: file.stat().st_mtime_ns for file in first} == first, "a finished batch is not made again"
    assert bytes_of(killed) == bytes_of(straight)


def test_a_finished_run_runs_no_model_again_and_a_lost_clip_is_made_again(
    pairs_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run(pairs_recipe, tmp_path / "a")
    before = bytes_of(folder)
    lost = next((folder / "clips").iterdir())
    lost.unlink()
    run(pairs_recipe, folder, resume=True)
    assert bytes_of(folder) == before

    def not_again(*_: object) -> None:
        raise AssertionError("everything is there")

    monkeypatch.setattr("rlhf_video.algorithms.pair_building_model.load_model", not_again)
    run(pairs_recipe, folder, resume=True)
    assert bytes_of(folder) == before


def test_another_rule_takes_the_clips_that_are_there(
    pairs_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run(pairs_recipe, tmp_path / "a")
    for name in ("train.jsonl", "validation.jsonl", "manifest.json"):
        (folder / name).unlink()
    monkeypatch.delattr("rlhf_video.algorithms.pair_building_model.load_model")
    pairs_recipe["rule"] = {"best_worst": {"score": "brightness/brightness"}}
    run(pairs_recipe, folder, resume=True)
    assert len(pairs_of(folder)) == 4


class Darkness:
    """Brightness, lower is better; clips of red circles cannot be scored."""

    def __init__(self) -> None:
        self._reward = registry.build("brightness")
        self.spec = replace(self._reward.spec, name="darkness", higher_is_better=False)

    def __call__(self, video: torch.Tensor, prompts: Sequence[str], *, fps: float) -> RewardOutput:
        valid = torch.tensor(["red" not in prompt for prompt in prompts])
        reasons = tuple(None if ok else "red is not seen" for ok in valid)
        return masked_output(self._reward(video, prompts, fps=fps).values, valid, reasons)


@pytest.fixture
def darkness(monkeypatch: pytest.MonkeyPatch) -> str:
    module = ModuleType("darkness_of_a_test")
    module.Darkness = Darkness  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return f"{module.__name__}:Darkness"


def test_lower_is_better_where_a_reward_says_so_and_what_has_no_score_is_counted(
    pairs_recipe: Recipe, tmp_path: Path, darkness: str, caplog: pytest.LogCaptureFixture
) -> None:
    pairs_recipe["rewards"] = [{"name": darkness, "label": "dark"}]
    pairs_recipe["rule"] = {"best_worst": {"score": "dark/brightness"}}
    folder = run(pairs_recipe, tmp_path / "a", split__validation_share=0.0)
    pairs = PreferenceStore(folder / "train.jsonl").read()
    assert len(pairs) == 3 and not any("red" in pair.prompt for pair in pairs)
    for pair in pairs:
        better, worse = pair.clips if pair.winner() == "A" else pair.clips[::-1]
        assert brightness(folder, better) < brightness(folder, worse)
    unused = json.loads((folder / "manifest.json").read_text())["unused_inputs"]
    assert unused["no score 'dark/brightness'"] == 3
    assert "3 of 12 clips have no score dark/brightness: red is not seen" in caplog.text


def test_a_reward_that_scores_nothing_is_an_error(pairs_recipe: Recipe, tmp_path: Path, darkness: str) -> None:
    (tmp_path / "train.txt").write_text("a red circle moving left\n")
    pairs_recipe |= {
        "rewards": [{"name": darkness, "label": "dark"}],
        "rule": {"all_pairs": {"score": "dark/brightness"}},
    }
    with pytest.raises(DataError, match=r"scored none of the 3 clips \(red is not seen\)"):
        run(pairs_recipe, tmp_path / "a")


@pytest.mark.parametrize(("kept", "tolerance"), [("float16", 0.02), ("float8_e4m3fn", 0.1)])
def test_latents_are_kept_as_they_were_sampled_and_scored_as_they_decode(
    pairs_recipe: Recipe, tmp_path: Path, kept: str, tolerance: float
) -> None:
    exact = pairs_of(run(pairs_recipe, tmp_path / "pixels"))
    folder = run(pairs_recipe, tmp_path / "latents", save={"format": "latents", "latents_type": kept})
    backbone = load_backbone(pairs_recipe["backbone"])
    pairs = pairs_of(folder)
    sides = {pair.a.seed: pair.a for pair in exact}
    assert len(pairs) == len(exact)
    for pair in pairs:
        latents = load_file(folder / pair.a.path)["latents"]
        assert latents.shape == (4, 3, 2, 2) and latents.dtype == getattr(torch, kept)
        if (other := sides.get(pair.a.seed)) is not None:
            pixels = read_video(tmp_path / "pixels" / other.path)[0]
            with torch.no_grad():
                torch.testing.assert_close(backbone.decode(latents[None].float())[0], pixels, rtol=0, atol=tolerance)


def test_an_adapter_makes_other_clips_from_the_same_noise(pairs_recipe: Recipe, tmp_path: Path) -> None:
    backbone, config = load_backbone(pairs_recipe["backbone"]), LoraConfig(rank=2, alpha=2.0)
    attach(backbone, config, seed=0)
    for parameter in adapter_parameters(backbone):
        torch.nn.init.normal_(parameter, std=0.3)
    save_adapter(tmp_path / "adapter", adapter_state(backbone), backbone=backbone, config=config)
    base = {pair.a.seed: pair.a for pair in pairs_of(run(pairs_recipe, tmp_path / "base"))}
    with_adapter = run(pairs_recipe, tmp_path / "with", adapter=str(tmp_path / "adapter"))
    shared = [pair.a for pair in pairs_of(with_adapter) if pair.a.seed in base]
    assert shared and all(clip.sha256 != base[clip.seed].sha256 for clip in shared)
    assert {clip.adapter for clip in shared} == {str(tmp_path / "adapter")}
    assert "adapter" in json.loads((with_adapter / "manifest.json").read_text())["sources"]


@pytest.mark.parametrize("flips", [0.0, 1.0])
def test_voters_follow_the_scores_or_turn_them_around(pairs_recipe: Recipe, tmp_path: Path, flips: float) -> None:
    rater = {"score": "double", "sharpness": 1e9, "flips": flips, "voters": 5}
    sums = {"double": {"brightness/brightness": 2.0}}
    exact = pairs_of(run(pairs_recipe, tmp_path / "exact"))
    votes = pairs_of(run(pairs_recipe, tmp_path / "votes", rater=rater, sums=sums))
    assert len(votes) == len(exact)
    for true, voted in zip(exact, votes, strict=True):
        assert voted.clips == true.clips
        assert (voted.winner() == true.winner()) == (flips == 0.0)
        assert voted.soft["overall"] in (0.0, 1.0) and voted.num_votes == 5 and voted.margin is None
        assert voted.source == "synthetic"


def test_votes_of_a_pair_do_not_depend_on_other_pairs(pairs_recipe: Recipe, tmp_path: Path) -> None:
    pairs_recipe["rater"] = {"score": "brightness/brightness", "voters": 50, "sharpness": 1.0}
    many = pairs_of(run(pairs_recipe, tmp_path / "many"))
    pairs_recipe["rule"] = {"best_worst": {"score": "brightness/brightness"}}
    few = pairs_of(run(pairs_recipe, tmp_path / "few"))
    shares = {(pair.a.sha256, pair.b.sha256): pair.soft for pair in many}
    assert len(few) == 4 and len({pair.soft["overall"] for pair in many}) > 4
    assert all(shares[pair.a.sha256, pair.b.sha256] == pair.soft for pair in few)


@pytest.fixture
def given(tmp_path: Path) -> Callable[..., str]:
    """Write lossless clips and their list; return its path."""

    def write(count: int = 4, frames: int = 9) -> str:
        prompts, lines = load_prompts(tmp_path / "train.txt").prompts, []
        for number in range(count):
            video = torch.rand(frames, 3, 16, 16, generator=torch.Generator().manual_seed(number))
            write_lossless(tmp_path / "given" / f"{number}.mkv", video, 8)
            lines.append(json.dumps({"file": f"{number}.mkv", "prompt": prompts[number % len(prompts)]}) + "\n")
        (tmp_path / "given" / "list.jsonl").write_text("".join(lines))
        return str(tmp_path / "given" / "list.jsonl")

    return write


@pytest.mark.parametrize("kept", ["video", "latents"])
def test_real_clips_win_against_generated_ones_of_their_prompt(
    pairs_recipe: Recipe, tmp_path: Path, given: Callable[..., str], kept: str
) -> None:
    for name in ("prompts", "rewards", "rule"):
        del pairs_recipe[name]
    pairs_recipe |= {"source": "real_vs_generated", "clips": given(5), "clips_per_prompt": 2, "save": {"format": kept}}
    folder = run(pairs_recipe, tmp_path / "a")
    pairs = pairs_of(folder)
    assert len(pairs) == 5 * 2, "one prompt has two real clips, each meets both generated ones"
    for pair in pairs:
        real, made = pair.clips if pair.winner() == "A" else pair.clips[::-1]
        assert real.model is None and made.model == pairs_recipe["backbone"]
        assert pair.source == "real-vs-generated" and pair.margin is None
        if kept == "video":
            number = int(real.path.split("-")[1])
            assert (folder / real.path).read_bytes() == (tmp_path / "given" / f"{number}.mkv").read_bytes()
        else:
            assert load_file(folder / real.path)["latents"].shape == load_file(folder / made.path)["latents"].shape


@pytest.mark.parametrize("from_given", [False, True])
def test_two_copies_of_a_clip_are_labelled_segment_by_segment(
    pairs_recipe: Recipe, tmp_path: Path, given: Callable[..., str], from_given: bool
) -> None:
    del pairs_recipe["rule"]
    if from_given:
        del pairs_recipe["prompts"]
        pairs_recipe["clips"] = given()
    pairs_recipe |= {"source": "partial_renoising", "clips_per_prompt": 2}
    pairs_recipe["renoising"] = {"score": "brightness/brightness", "segment_frames": 4}
    folder = run(pairs_recipe, tmp_path / "a")
    pairs = pairs_of(folder)
    assert len(pairs) == 8
    reward = registry.build("brightness")
    for pair in pairs:
        assert [(segment.start, segment.stop) for segment in pair.segments] == [(0, 5), (5, 9)]
        assert pair.a.sampler == pair.b.sampler, "both were noised to one level"
        assert 0.6 <= pair.a.sampler["renoised_to"] <= 0.9  # type: ignore[operator]
        a, b = (read_video(folder / clip.path)[0] for clip in pair.clips)
        for segment in (*pair.segments, None):
            start, stop = (segment.start, segment.stop) if segment is not None else (0, 9)
            stretch = torch.stack([a[start:stop], b[start:stop]])
            one, other = reward(stretch, [pair.prompt] * 2, fps=8.0).values["brightness"].tolist()
            label = segment.label if segment is not None else pair.labels["overall"]
            assert label == ("A" if one > other else "B")
    assert len({pair.a.sampler["renoised_to"] for pair in pairs}) == 2, "a level for each batch"


def test_copies_keep_more_of_their_clip_the_less_they_were_noised(
    pairs_recipe: Recipe, tmp_path: Path, given: Callable[..., str]
) -> None:
    for name in ("prompts", "rule"):
        del pairs_recipe[name]
    pairs_recipe |= {"source": "partial_renoising", "clips": given(), "clips_per_prompt": 1}
    spread = []
    for level in (0.2, 0.9):
        span = {"lowest": level, "highest": level, "score": "brightness/brightness", "labels": "overall"}
        folder = run(pairs_recipe, tmp_path / f"{level}", renoising=span)
        pairs = pairs_of(folder)
        assert not any(pair.segments for pair in pairs)
        videos = [[read_video(folder / clip.path)[0] for clip in pair.clips] for pair in pairs]
        spread.append(sum(float((a - b).abs().mean()) for a, b in videos) / len(videos))
    assert 0 < spread[0] < 0.7 * spread[1]


def test_segments_have_votes_of_their_own(pairs_recipe: Recipe, tmp_path: Path) -> None:
    del pairs_recipe["rule"]
    pairs_recipe |= {"source": "partial_renoising", "clips_per_prompt": 2}
    pairs_recipe["renoising"] = {"score": "brightness/brightness", "segment_frames": 4}
    exact = pairs_of(run(pairs_recipe, tmp_path / "exact"))
    pairs_recipe["rater"] = {"score": "brightness/brightness", "sharpness": 1e9, "flips": 1.0, "voters": 3}
    turned = pairs_of(run(pairs_recipe, tmp_path / "turned"))
    for one, other in zip(exact, turned, strict=True):
        labels = [one.winner(), *(segment.label for segment in one.segments)]
        assert [other.winner(), *(segment.label for segment in other.segments)] == [
            {"A": "B", "B": "A"}[label] for label in labels if label is not None
        ]
        assert other.num_votes == 3


def test_a_schedule_from_a_level_is_the_rest_of_the_whole_one() -> None:
    whole = flow_sigmas(10, 3.0)
    rest = sigmas_from(0.7, whole)
    assert rest[0] == pytest.approx(0.7) and rest[-1] == 0 and bool((rest[:-1] > rest[1:]).all())
    assert torch.equal(rest[1:], whole[whole < 0.7])
    assert torch.equal(sigmas_from(1.0, whole), whole)
