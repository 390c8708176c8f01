"""Clip generation: the files, the manifest, resuming, and the same clip in plain diffusers."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import WanPipeline

from rlhf_video.algorithms.generate import MANIFEST, GenerateConfig, describe, generate, load_generator
from rlhf_video.algorithms.generate_config import clip_shape
from rlhf_video.backbones import VideoBackbone
from rlhf_video.data import read_video, sha256_file, write_video
from rlhf_video.errors import AdapterError, ConfigError, DataError
from rlhf_video.lora import (
    LoraConfig,
    adapter_layers,
    adapter_parameters,
    adapter_scale,
    adapter_state,
    attach,
    save_adapter,
)
from rlhf_video.testing import TINY_PROMPTS

SCRIPT = Path(__file__).resolve().parents[3] / "rlhf_video" / "generate.py"


@pytest.fixture
def config(tiny_wan_folder: Path, tmp_path: Path) -> GenerateConfig:
    prompts = tmp_path / "suite.txt"
    prompts.write_text("\n".join((*TINY_PROMPTS, "a green triangle moving up")) + "\n")
    return GenerateConfig(
        backbone=str(tiny_wan_folder),
        prompts=prompts,
        output_dir=tmp_path / "clips",
        clips_per_prompt=2,
        num_frames=9,
        height=32,
        width=32,
        num_steps=2,
        guidance=3.0,
        batch_size=4,
        device="cpu",
    )


def _adapter(backbone: VideoBackbone, folder: Path) -> Path:
    lora = LoraConfig(rank=2, alpha=3)
    attach(backbone, lora, seed=0)
    for parameter in adapter_parameters(backbone):
        parameter.data.add_(0.3)
    save_adapter(folder, adapter_state(backbone), backbone=backbone, config=lora, metadata={"base": "tiny"})
    return folder


def _hashes(folder: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in folder.iterdir()}


def test_every_clip_is_written_with_its_seed_and_hash(config: GenerateConfig) -> None:
    manifest = json.loads(generate(config).read_text())
    assert len(manifest["clips"]) == 6
    assert len({clip["seed"] for clip in manifest["clips"]}) == 6
    assert [clip["prompt"] for clip in manifest["clips"]][::2] == [*TINY_PROMPTS, "a green triangle moving up"]
    for clip in manifest["clips"]:
        file = config.output_dir / clip["file"]
        assert clip["sha256"] == sha256_file(file)
        video, fps = read_video(file)
        assert video.shape == (9, 3, 32, 32)
        assert fps == 8
    assert manifest["adapter_sha256"] is None
    assert manifest["sampler"]["num_steps"] == 2
    assert manifest["prompts"]["name"] == "suite"


def test_a_killed_run_is_finished_to_the_same_bytes(config: GenerateConfig, tmp_path: Path) -> None:
    generate(config)
    straight = _hashes(config.output_dir)
    resumed = replace(config, output_dir=tmp_path / "resumed")
    generate(resumed)
    manifest = json.loads((resumed.output_dir / MANIFEST).read_text())
    files = [resumed.output_dir / clip["file"] for clip in manifest["clips"]]
    untouched = files[0].stat().st_mtime_ns
    files[1].unlink()  # never made
    files[2].write_bytes(b"damaged")
    manifest["clips"] = manifest["clips"][:4]  # 4 and 5 were written, but the kill came before the manifest
    (resumed.output_dir / MANIFEST).write_text(json.dumps(manifest))
    generate(resumed)
    assert _hashes(resumed.output_dir) == straight
    assert files[0].stat().st_mtime_ns == untouched


def test_a_finished_run_loads_no_model(config: GenerateConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    generate(config)
    before = _hashes(config.output_dir)

    def refuse(*arguments: object, **named: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("rlhf_video.algorithms.generate.load_backbone", refuse)
    generate(config)
    assert _hashes(config.output_dir) == before


def test_the_manifests_seed_makes_the_same_clip_in_plain_diffusers(config: GenerateConfig, tmp_path: Path) -> None:
    clip = json.loads(generate(replace(config, batch_size=1)).read_text())["clips"][3]
    pipeline = WanPipeline.from_pretrained(config.backbone)
    pipeline.set_progress_bar_config(disable=True)
    video = pipeline(
        prompt=clip["prompt"],
        height=32,
        width=32,
        num_frames=9,
        num_inference_steps=2,
        guidance_scale=3.0,
        max_sequence_length=32,
        generator=torch.Generator().manual_seed(clip["seed"]),
        output_type="pt",
    ).frames[0]
    write_video(tmp_path / "theirs.mp4", video, 8)
    ours, theirs = (read_video(file)[0] for file in (config.output_dir / clip["file"], tmp_path / "theirs.mp4"))
    torch.testing.assert_close(
        ours, theirs, rtol=0, atol=0.04
    )  # H.264 makes a few levels of 255 of a rounding difference
    assert (ours - theirs).abs().mean() < 1e-3


def test_adapter_at_strength_zero_gives_the_bases_clips(
    config: GenerateConfig, make_tiny_wan: Callable[[], VideoBackbone], tmp_path: Path
) -> None:
    adapter = _adapter(make_tiny_wan(), tmp_path / "adapter")
    hashes = {}
    for name, changes in {"base": {}, "off": {"adapter_scale": 0.0}, "on": {"adapter_scale": 1.0}}.items():
        folder = tmp_path / name
        path = adapter if changes else None
        manifest = generate(replace(config, output_dir=folder, adapter=path, **changes))  # type: ignore[arg-type]
        recorded = json.loads(manifest.read_text())
        assert (recorded["adapter_sha256"] is None) == (path is None)
        hashes[name] = [clip["sha256"] for clip in recorded["clips"]]
    assert hashes["off"] == hashes["base"]
    assert not set(hashes["on"]) & set(hashes["base"])


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_a_merged_adapter_does_the_same_without_products_of_its_own(
    config: GenerateConfig, make_tiny_wan: Callable[[], VideoBackbone], tmp_path: Path, strength: float
) -> None:
    adapter = _adapter(make_tiny_wan(), tmp_path / "adapter")
    beside = replace(config, adapter=adapter, adapter_scale=strength)
    merged = replace(beside, merge_adapter=True)
    velocities = []
    for each in (config, beside, merged):
        backbone = load_generator(each, None)
        assert bool(list(adapter_layers(backbone))) == (each is beside)
        noise = backbone.noise(clip_shape(each, 1), [torch.Generator().manual_seed(0)])
        cond = backbone.encode_prompts(TINY_PROMPTS[:1])
        with torch.no_grad(), adapter_scale(backbone, strength):
            velocities.append(backbone.velocity(noise, torch.tensor(0.7), cond))
    torch.testing.assert_close(velocities[2], velocities[1], rtol=1e-5, atol=1e-5)
    assert (velocities[2] - velocities[0]).abs().max() > 1e-2
    assert f"strength {strength:g}, merged" in describe(merged)
    assert ", merged" not in describe(beside)
    assert json.loads(generate(beside).read_text())["merge_adapter"] is False
    with pytest.raises(ConfigError, match="merge_adapter changed"):
        generate(merged)


def test_clips_of_other_settings_are_never_mixed(
    config: GenerateConfig, make_tiny_wan: Callable[[], VideoBackbone], tmp_path: Path
) -> None:
    generate(config)
    with pytest.raises(ConfigError, match=r"sampler\.guidance changed"):
        generate(replace(config, guidance=4.0))
    with pytest.raises(ConfigError, match="adapter"):
        generate(replace(config, adapter=_adapter(make_tiny_wan(), tmp_path / "adapter")))
    (config.output_dir / MANIFEST).write_text("{")
    with pytest.raises(DataError, match="damaged"):
        generate(config)


def test_bad_input_is_named(config: GenerateConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="temporal stride"):
        generate(replace(config, num_frames=10))
    with pytest.raises(AdapterError, match="no adapter at"):
        generate(replace(config, adapter=tmp_path))
    with pytest.raises(DataError, match="does not exist"):
        generate(replace(config, prompts=tmp_path / "nothing.txt"))
    with pytest.raises(ConfigError, match="batch_size=0"):
        replace(config, batch_size=0)
    with pytest.raises(ConfigError, match="negative"):
        replace(config, adapter_scale=-1.0)


def test_dry_run_says_what_would_be_made(config: GenerateConfig) -> None:
    text = describe(config)
    assert "3 prompts x 2, 9 frames of 32 x 32" in text
    assert "(4, 4, 3, 4, 4)" in text
    assert not config.output_dir.exists()


def _command(config: GenerateConfig, *more: str) -> list[str]:
    names = ("backbone", "prompts", "output_dir", "num_frames", "height", "width", "num_steps", "clips_per_prompt")
    values = [f"{name}={getattr(config, name)}" for name in names]
    return [sys.executable, str(SCRIPT), *values, "batch_size=1", "guidance=3.0", "device=cpu", *more]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_script_killed_half_way_leaves_no_half_clip(config: GenerateConfig, tmp_path: Path) -> None:
    config = replace(config, clips_per_prompt=8, num_steps=30, batch_size=1)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(_command(config), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while len(list(config.output_dir.glob("*.mp4"))) < 3 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    clips = sorted(config.output_dir.glob("*.mp4"))
    assert 3 <= len(clips) < 24
    assert all(len(read_video(clip)[0]) == 9 for clip in clips)
    generate(config)
    straight = generate(replace(config, output_dir=tmp_path / "straight")).parent
    finished = {path.name: sha256_file(path) for path in config.output_dir.iterdir() if not path.name.startswith(".")}
    assert finished == _hashes(straight)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_script_ends_a_mistake_with_one_paragraph(config: GenerateConfig) -> None:
    done = subprocess.run(_command(config, "num_frames=10"), capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: num_frames=10 does not fit")
    assert "Traceback" not in done.stderr
