"""generate.py with a causal adapter: its recipe by default, streaming, and clear words where something does not fit."""

import contextlib
import json
import logging
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rlhf_video import generate as script
from rlhf_video.algorithms.generate import GenerateConfig, describe, generate
from rlhf_video.algorithms.generate_causal import causal_latents, clip_guidance, clip_recipe
from rlhf_video.algorithms.generation_pace import probed_pace
from rlhf_video.attention import AttentionConfig
from rlhf_video.attention.causal_layout import CausalLayout
from rlhf_video.backbones import VideoBackbone, VideoShape
from rlhf_video.backbones.causal_recipe import RECIPE_KEY, CausalConfig, CausalRecipe
from rlhf_video.data import LiveVideo, read_video
from rlhf_video.errors import ConfigError, DataError
from rlhf_video.lora import LoraConfig, adapter_parameters, adapter_state, attach, save_adapter
from rlhf_video.settings import load_config
from rlhf_video.testing import TINY_PROMPTS

RECIPE = CausalRecipe(
    layout=CausalLayout(chunk_frames=1), shift=5.0, steps=(1, 2), first_chunk_steps=2, num_latent_frames=3
)


@pytest.fixture
def adapter(make_tiny_wan: Callable[[], VideoBackbone], tmp_path: Path) -> Path:
    """Return an adapter whose file has RECIPE."""
    backbone, lora = make_tiny_wan(), LoraConfig(rank=2, alpha=2.0)
    attach(backbone, lora, seed=0)
    for parameter in adapter_parameters(backbone):
        parameter.data.add_(0.1)
    folder, metadata = tmp_path / "adapter", {RECIPE_KEY: RECIPE.to_json()}
    save_adapter(folder, adapter_state(backbone), backbone=backbone, config=lora, metadata=metadata)
    return folder


@pytest.fixture
def config(tiny_wan_folder: Path, adapter: Path, tmp_path: Path) -> GenerateConfig:
    prompts = tmp_path / "suite.txt"
    prompts.write_text("\n".join(TINY_PROMPTS) + "\n")
    return GenerateConfig(
        backbone=str(tiny_wan_folder),
        prompts=prompts,
        output_dir=tmp_path / "clips",
        adapter=adapter,
        num_frames=9,
        height=32,
        width=32,
        num_steps=2,
        batch_size=2,
        device="cpu",
    )


def test_null_takes_the_adapters_recipe_without_guidance(config: GenerateConfig) -> None:
    assert clip_recipe(config) == RECIPE
    manifest = json.loads(generate(config).read_text())
    assert manifest["causal"] == RECIPE.to_json()
    assert manifest["sampler"]["name"] == "causal" and manifest["sampler"]["guidance"] == 1.0
    text = describe(config)
    assert "3 chunks of 1 latent frames, all of the past; 2 steps for the first chunk" in text and "shift 5" in text


def test_a_stream_has_the_pixels_of_a_straight_run(
    config: GenerateConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    straight = json.loads(generate(config).read_text())["clips"]
    streaming = replace(config, output_dir=tmp_path / "stream", stream=True)
    with caplog.at_level(logging.INFO):
        streamed = json.loads(generate(streaming).read_text())["clips"]
    assert re.search(r"First frames after \d+\.\d+ s, 18 frames in \d+\.\d+ s: \d+\.\d frames/s", caplog.text)
    assert not list(streaming.output_dir.glob("*.part.mp4"))
    for one, other in zip(straight, streamed, strict=True):
        assert one["seed"] == other["seed"]
        ours, fps = read_video(streaming.output_dir / other["file"])
        theirs, _ = read_video(config.output_dir / one["file"])
        assert ours.shape == (9, 3, 32, 32) and fps == 8
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0.1)  # two encodings of the same frames


def test_a_streamed_run_is_finished_clip_by_clip(config: GenerateConfig) -> None:
    config = replace(config, stream=True)
    manifest = generate(config)
    files = [config.output_dir / clip["file"] for clip in json.loads(manifest.read_text())["clips"]]
    before = [file.read_bytes() for file in files]
    kept = files[0].stat().st_mtime_ns
    files[1].rename(files[1].with_suffix(".part.mp4"))  # a kill
    generate(config)
    assert [file.read_bytes() for file in files] == before
    assert files[0].stat().st_mtime_ns == kept


def test_decoding_chunk_by_chunk_equals_decoding_whole(tiny_wan: VideoBackbone) -> None:
    latents = tiny_wan.noise(VideoShape(batch=2, frames=21, height=32, width=32), torch.Generator().manual_seed(0))
    whole = tiny_wan.decode(latents)
    decoder = tiny_wan.stream_decoder()
    parts = [decoder.decode(part) for part in latents.split((2, 3, 1), 2)]
    assert [part.shape[1] for part in parts] == [5, 12, 4]
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-6)
    without_past = tiny_wan.stream_decoder().decode(latents[:, :, 2:5])
    assert (without_past[:, -4:] - parts[1][:, -4:]).abs().max() > 1e-4


def test_a_live_file_can_be_read_before_it_is_whole(tmp_path: Path) -> None:
    video = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with LiveVideo(tmp_path / "clip.mp4", 8) as live:
        live.add(video[:5])
        assert len(read_video(live.part)[0]) >= 4
        assert not live.path.exists()
        live.add(video[5:])
    assert read_video(live.path)[0].shape == (8, 3, 32, 32) and not live.part.exists()
    with contextlib.suppress(RuntimeError), LiveVideo(tmp_path / "other.mp4", 8) as live:
        live.add(video)
        raise RuntimeError
    assert live.part.exists() and not live.path.exists()
    with pytest.raises(DataError, match=r"\.mp4"):
        LiveVideo(tmp_path / "clip.mkv", 8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_steps": 4}, "trained for 1, 2 steps"),
        ({"num_frames": 13}, r"causal\.window_frames=3"),
        ({"adapter": None, "causal": CausalConfig()}, r"causal\.chunk_frames"),
        ({"adapter": None, "stream": True}, "stream needs causal"),
        ({"causal": CausalConfig(chunk_frames=4)}, "shorter than a chunk"),
        ({"causal": CausalConfig(window_frames=1, sink_frames=1)}, "window_frames=1"),
        (
            {
                "attention": AttentionConfig(preset="tile3"),
                "causal": CausalConfig(window_frames=3),
            },
            "window_frames: null",
        ),
    ],
)
def test_what_does_not_fit_is_said(config: GenerateConfig, change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        generate(replace(config, **change))
    assert not list(config.output_dir.glob("*.mp4"))


def test_streaming_and_tiles_exclude_each_other(config: GenerateConfig) -> None:
    with pytest.raises(ConfigError, match="tiling"):
        replace(config, stream=True, vae_tiling=True)


def test_a_window_makes_clips_longer_than_the_trainings(config: GenerateConfig) -> None:
    config = replace(config, num_frames=33, causal=CausalConfig(window_frames=3, sink_frames=1))
    clip = json.loads(generate(config).read_text())["clips"][0]
    assert len(read_video(config.output_dir / clip["file"])[0]) == 33


def test_settings_of_an_adapter_without_a_recipe(config: GenerateConfig, tiny_wan: VideoBackbone) -> None:
    config = replace(config, adapter=None, causal=CausalConfig(chunk_frames=3), guidance=1.0)
    recipe = clip_recipe(config)
    assert recipe is not None and recipe.shift == 3.0  # the backbone's own
    cond = tiny_wan.encode_prompts(TINY_PROMPTS[:1])
    one_chunk = causal_latents(config, recipe, tiny_wan, cond, [5])
    noise = tiny_wan.noise(VideoShape(batch=1, frames=9, height=32, width=32), torch.Generator().manual_seed(5))
    assert one_chunk.shape == noise.shape
    with torch.no_grad():
        first = noise - tiny_wan.velocity(noise, torch.tensor(1.0), cond)
    one_step = causal_latents(replace(config, num_steps=1), recipe, tiny_wan, cond, [5])
    torch.testing.assert_close(one_step, first, rtol=0, atol=1e-5)


def test_guidance_on_top_of_distillation_is_warned_of(
    config: GenerateConfig, tiny_wan: VideoBackbone, caplog: pytest.LogCaptureFixture
) -> None:
    assert clip_guidance(replace(config, guidance=3.0), RECIPE) == 3.0
    assert "guidance is in the adapter already" in caplog.text
    assert clip_guidance(config, None) == 5.0
    cond = tiny_wan.encode_prompts(TINY_PROMPTS[:1])
    guided, plain = (
        causal_latents(replace(config, guidance=scale), RECIPE, tiny_wan, cond, [5]) for scale in (3.0, None)
    )
    assert (guided - plain).abs().max() > 1e-4


def test_the_pace_of_a_roll_out_is_foretold(config: GenerateConfig) -> None:
    pace = probed_pace(config)
    assert pace.seconds > 0 and "roll-out of 5 of 9 frames" in pace.source


def test_the_command_line_has_short_flags(
    config: GenerateConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[GenerateConfig] = []
    monkeypatch.setattr(script, "generate", lambda config: seen.append(config) or tmp_path)
    for arguments in (
        ["--causal", "--steps", "2", "--stream"],
        ["--causal", "--config", str(script.CONFIGS / "sprite.yaml"), "causal.sink_frames=1"],
        ["--steps", "7"],
    ):
        monkeypatch.setattr("sys.argv", ["generate.py", *arguments])
        script.main()
    assert seen[0].adapter == Path("adapters/sprite-wan-asd") and seen[0].causal == CausalConfig()
    assert seen[0].num_steps == 2 and seen[0].stream and seen[0].guidance is None
    assert seen[1].causal == CausalConfig(sink_frames=1) and seen[1].adapter is None
    assert seen[2] == replace(load_config(GenerateConfig, script.CONFIGS / "sprite.yaml"), num_steps=7)
