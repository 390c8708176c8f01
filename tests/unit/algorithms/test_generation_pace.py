"""How long clips take: from files that are there, and from a probe."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from rlhf_video.algorithms import generation_pace
from rlhf_video.algorithms.generate import MANIFEST, GenerateConfig
from rlhf_video.algorithms.generation_pace import probed_pace, recorded_pace
from rlhf_video.attention import AttentionConfig
from rlhf_video.backbones.attention_host import AttentionHost
from rlhf_video.backbones.causal_recipe import CausalConfig
from rlhf_video.testing import TINY_PROMPTS


@pytest.fixture
def config(tiny_wan_folder: Path, tmp_path: Path) -> GenerateConfig:
    prompts = tmp_path / "suite.txt"
    prompts.write_text("\n".join(TINY_PROMPTS) + "\n")
    return GenerateConfig(
        backbone=str(tiny_wan_folder),
        prompts=prompts,
        output_dir=tmp_path / "clips",
        num_frames=9,
        height=16,
        width=16,
        num_steps=5,
        guidance=1.0,
        batch_size=2,
        device="cpu",
    )


def write_clips(folder: Path, times: list[float]) -> None:
    folder.mkdir()
    for number, moment in enumerate(times):
        (folder / f"{number}.mp4").touch()
        os.utime(folder / f"{number}.mp4", (moment, moment))
    clips = [{"file": f"{number}.mp4"} for number in range(len(times))]
    (folder / MANIFEST).write_text(json.dumps({"clips": clips}))


def test_recorded_pace_is_the_median_over_whole_batches_so_that_pauses_do_not_count(config: GenerateConfig) -> None:
    assert recorded_pace(config) is None
    write_clips(config.output_dir, [100, 101, 110, 111, 5000, 5001, 5010, 5011, 5999])
    pace = recorded_pace(config)
    assert pace is not None and pace.seconds == pytest.approx(5.0)  # ten seconds a batch of two
    assert pace.source == "times of the 9 files that are there"


def test_two_batches_tell_no_pace(config: GenerateConfig) -> None:
    write_clips(config.output_dir, [100, 101, 110, 111])
    assert recorded_pace(config) is None


def test_probe_counts_every_step_and_writes_nothing(config: GenerateConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds(call: object) -> float:
        call()  # type: ignore[operator]
        return 2.0

    monkeypatch.setattr(generation_pace, "_seconds", seconds)
    pace = probed_pace(config, budget_s=100.0)
    assert pace.seconds == (2.0 + 5 * 2.0) / 2 + 2.0  # prompts and five steps of two clips, decoding of one
    assert pace.source == "one step of a batch measured, times 5, and one decoding"
    assert not config.output_dir.exists()


@pytest.mark.parametrize(
    ("budget_s", "source"),
    [
        (1e-9, "a lower bound: one step of 1 of 33 frames, by length alone"),
        (20.0, "extrapolated from one step of 5 and of 13 of 33 frames"),
    ],
)
def test_clips_too_long_to_try_are_extrapolated(
    config: GenerateConfig, monkeypatch: pytest.MonkeyPatch, budget_s: float, source: str
) -> None:
    monkeypatch.setattr(generation_pace._Probe, "step", lambda _, latent: 0.25 * latent + 0.5 * latent**2)
    monkeypatch.setattr(generation_pace._Probe, "encoding", lambda _: 0.0)
    monkeypatch.setattr(generation_pace._Probe, "decoding", lambda _, latent: 1.0 * latent)
    pace = probed_pace(GenerateConfig(**{**vars(config), "num_frames": 33}), budget_s=budget_s)
    assert pace.source == source
    if "lower bound" in source:
        assert pace.seconds == pytest.approx(5 * 0.75 * 9 / 2 + 9.0)
    else:
        assert pace.seconds == pytest.approx(5 * (0.25 * 9 + 0.5 * 81) / 2 + 9.0)


def test_causal_probe_is_dense_where_windows_need_not_fit_its_short_clip(config: GenerateConfig) -> None:
    windows = AttentionConfig(preset="local_shift", backend="mask")
    config = replace(config, num_frames=33, height=32, width=32, num_steps=1, attention=windows)
    pace = probed_pace(replace(config, causal=CausalConfig(chunk_frames=2)))
    assert pace.seconds > 0 and pace.source.endswith("and one decoding, by dense attention")


def test_probe_keeps_the_attention_back_end(config: GenerateConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    apply = AttentionHost.apply_attention

    def noted(self: AttentionHost, plan: object, *, backend: str = "auto") -> None:
        asked.append(backend)
        apply(self, plan, backend=backend)  # type: ignore[arg-type]

    monkeypatch.setattr(AttentionHost, "apply_attention", noted)
    windows = AttentionConfig(preset="local_shift", backend="mask")
    probed_pace(replace(config, num_frames=33, height=32, width=32, num_steps=1, attention=windows))
    assert set(asked) == {"mask"}
