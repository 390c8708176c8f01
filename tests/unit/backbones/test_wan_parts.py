"""Prompts, pixels, folders and the meta device."""

import json
import shutil
from pathlib import Path
from typing import cast

import pytest
import torch
from diffusers import WanPipeline

from rlhf_video.backbones import Conditioning, VideoBackbone, VideoShape, load_backbone, meta_backbone
from rlhf_video.backbones.wan import WanBackbone
from rlhf_video.errors import BackboneError, ConfigError
from rlhf_video.lora import LoraConfig, attach
from rlhf_video.testing import TINY_PROMPTS


def test_prompt_embeddings_equal_the_pipelines(tiny_wan: VideoBackbone, tiny_wan_folder: Path) -> None:
    pipeline = WanPipeline.from_pretrained(tiny_wan_folder)
    with torch.no_grad():
        positive, negative = pipeline.encode_prompt(list(TINY_PROMPTS), max_sequence_length=32)
    cond = tiny_wan.encode_prompts(TINY_PROMPTS)
    torch.testing.assert_close(cond.prompt_embeds, positive, rtol=0, atol=1e-6)
    torch.testing.assert_close(cond.negative_embeds, negative, rtol=0, atol=1e-6)
    assert not cond.prompt_embeds.requires_grad


def test_each_distinct_prompt_is_encoded_once(tiny_wan: VideoBackbone) -> None:
    encoder = cast("WanBackbone", tiny_wan)._prompts
    assert encoder is not None
    assert not encoder.is_loaded
    tiny_wan.encode_prompts(["a red circle"])
    passes: list[int] = []
    assert encoder._encoder is not None
    encoder._encoder.register_forward_pre_hook(lambda *_: passes.append(1))
    cond = tiny_wan.encode_prompts(["a red circle", "a blue square", " a  blue square ", "a blue square"])
    assert len(passes) == 1
    assert torch.equal(cond.prompt_embeds[1], cond.prompt_embeds[2])


def test_text_encoder_leaves_and_comes_back_only_for_a_new_prompt(tiny_wan: VideoBackbone) -> None:
    encoder = cast("WanBackbone", tiny_wan)._prompts
    assert encoder is not None
    before = tiny_wan.encode_prompts(["a red circle"])
    tiny_wan.release_text_encoder()
    assert torch.equal(tiny_wan.encode_prompts(["a red circle"]).prompt_embeds, before.prompt_embeds)
    assert not encoder.is_loaded
    tiny_wan.encode_prompts(["a green triangle"])
    assert encoder.is_loaded


def test_negative_prompts_are_one_for_all_or_one_each(tiny_wan: VideoBackbone) -> None:
    same = tiny_wan.encode_prompts(TINY_PROMPTS, "a blue square").negative_embeds
    each = tiny_wan.encode_prompts(TINY_PROMPTS, ["a blue square", ""]).negative_embeds
    assert torch.equal(same[0], same[1])
    assert torch.equal(same[0], each[0])
    assert not torch.equal(each[0], each[1])
    with pytest.raises(ConfigError, match="3 negative prompts for 2"):
        tiny_wan.encode_prompts(TINY_PROMPTS, ["", "", ""])


def test_conditioning_selects_and_moves() -> None:
    cond = Conditioning(torch.arange(6.0).view(3, 2, 1), torch.zeros(3, 2, 1))
    picked = cond.select([2, 0, 2])
    assert picked.prompt_embeds[:, 0, 0].tolist() == [4, 0, 4]
    assert len(cond.select(slice(0, 1))) == 1
    assert cond.to("cpu", torch.bfloat16).prompt_embeds.dtype == torch.bfloat16


def test_encode_gives_the_normalised_mode(tiny_wan: VideoBackbone) -> None:
    video = torch.rand(2, 9, 3, 32, 32)
    latents = tiny_wan.encode(video)
    assert latents.shape == (2, 4, 3, 4, 4)
    raw = tiny_wan.vae.encode(video.transpose(1, 2) * 2 - 1).latent_dist.mode()
    mean, std = (
        torch.tensor(values).view(1, 4, 1, 1, 1)
        for values in (tiny_wan.vae.config.latents_mean, tiny_wan.vae.config.latents_std)
    )
    torch.testing.assert_close(latents, (raw - mean) / std, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("latent_frames", "pixel_frames"),
    [
        (slice(0, 1), slice(0, 1)),
        (slice(1, 3), slice(1, 9)),
        (slice(0, 2), slice(0, 5)),
        (slice(-1, None), slice(5, 9)),
    ],
)
def test_decoding_some_latent_frames_equals_cutting_the_whole_clip(
    tiny_wan: VideoBackbone, latent_frames: slice, pixel_frames: slice
) -> None:
    latents = torch.randn(2, 4, 3, 4, 4)
    whole = tiny_wan.decode(latents)
    assert whole.shape == (2, 9, 3, 32, 32)
    assert torch.equal(tiny_wan.decode(latents, frames=latent_frames), whole[:, pixel_frames])


def test_decoding_the_first_frame_has_no_gradient_to_later_ones(tiny_wan: VideoBackbone) -> None:
    latents = torch.randn(1, 4, 3, 4, 4, requires_grad=True)
    tiny_wan.decode(latents, frames=slice(0, 1)).sum().backward()
    assert latents.grad is not None
    assert latents.grad[:, :, 0].abs().sum() > 0
    assert latents.grad[:, :, 1:].abs().sum() == 0


@pytest.mark.parametrize("frames", [slice(2, 1), slice(5, 9), slice(0, 3, 2)])
def test_an_empty_run_of_frames_is_refused(tiny_wan: VideoBackbone, frames: slice) -> None:
    with pytest.raises(ConfigError, match="Latent frames"):
        tiny_wan.decode(torch.zeros(1, 4, 3, 4, 4), frames=frames)


def test_straight_through_clamp_keeps_the_value_and_passes_the_gradient(tiny_wan: VideoBackbone) -> None:
    latents = 30 * torch.randn(1, 4, 3, 4, 4)
    grads = {}
    for clamp in ("hard", "straight_through"):
        leaf = latents.clone().requires_grad_()
        video = tiny_wan.decode(leaf, clamp=clamp)  # type: ignore[arg-type]
        torch.testing.assert_close(video, tiny_wan.decode(latents), rtol=0, atol=1e-6)
        outside = (video == 0) | (video == 1)
        assert outside.any()
        (video * outside).sum().backward()
        assert leaf.grad is not None
        grads[clamp] = leaf.grad.abs().sum()
    assert grads["hard"] == 0
    assert grads["straight_through"] > 0


def test_tiled_decoding_is_close_and_refuses_straight_through(tiny_wan: VideoBackbone) -> None:
    latents = torch.randn(1, 4, 3, 8, 8)
    whole = tiny_wan.decode(latents)
    cast("WanBackbone", tiny_wan).enable_tiling(tile_size=48, tile_stride=32)
    tiled = tiny_wan.decode(latents)
    assert tiled.shape == whole.shape
    assert not torch.equal(tiled, whole)
    assert (tiled - whole).abs().mean() < 0.5 * whole.std()  # its attention sees one tile instead of the frame
    assert tiny_wan.encode(whole).shape == latents.shape
    with pytest.raises(ConfigError, match="tiling"):
        tiny_wan.decode(latents, clamp="straight_through")


@pytest.mark.parametrize(
    ("frames", "height", "width", "message"),
    [
        (10, 32, 32, "4k \\+ 1, for example 9"),
        (9, 40, 32, "height=40 .* multiple of 16"),
        (9, 32, 8, "width=8 .* multiple of 16"),
        (0, 32, 32, "at least 1"),
    ],
)
def test_sizes_that_do_not_fit_are_named(
    tiny_wan: VideoBackbone, frames: int, height: int, width: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny_wan.spec.latent_shape(VideoShape(batch=1, frames=frames, height=height, width=width))


def test_missing_and_wrong_folders_are_named(tmp_path: Path, tiny_wan_folder: Path) -> None:
    with pytest.raises(BackboneError, match="no model folder"):
        load_backbone(tmp_path / "nothing")
    with pytest.raises(BackboneError, match="no model folder 'assets/not-there'"):
        load_backbone("assets/not-there")
    with pytest.raises(BackboneError, match="could be fetched"):
        load_backbone("nobody-knows/this-model")
    with pytest.raises(BackboneError, match=r"model_index\.json is missing"):
        load_backbone(tmp_path)
    (tmp_path / "model_index.json").write_text('{"_class_name": "CogVideoXPipeline"}')
    with pytest.raises(BackboneError, match="holds a CogVideoXPipeline"):
        load_backbone(tmp_path)
    (tmp_path / "model_index.json").write_text("{")
    with pytest.raises(BackboneError, match="not valid JSON"):
        load_backbone(tmp_path)
    (tmp_path / "model_index.json").write_text("[]")
    with pytest.raises(BackboneError, match="JSON object"):
        load_backbone(tmp_path)


def test_damaged_folders_are_named(tmp_path: Path, tiny_wan_folder: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_wan_folder, folder)
    (folder / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(BackboneError, match="could not be loaded"):
        load_backbone(folder)
    config = json.loads((folder / "transformer" / "config.json").read_text())
    (folder / "transformer" / "config.json").write_text(json.dumps({**config, "image_dim": 8}))
    with pytest.raises(BackboneError, match="not a Wan text-to-video transformer"):
        load_backbone(folder)
    (folder / "vae" / "config.json").unlink()
    with pytest.raises(BackboneError, match=r"config\.json is missing"):
        load_backbone(folder)


@pytest.mark.parametrize(
    ("scheduler", "is_flow"),
    [
        ({"_class_name": "DDIMScheduler", "prediction_type": "epsilon"}, False),
        ({"_class_name": "UniPCMultistepScheduler", "prediction_type": "v_prediction", "use_flow_sigmas": True}, False),
        (
            {"_class_name": "UniPCMultistepScheduler", "prediction_type": "flow_prediction", "use_flow_sigmas": True},
            True,
        ),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}, True),
    ],
)
def test_a_base_that_is_not_flow_matching_is_refused(
    tiny_wan_folder: Path, tmp_path: Path, scheduler: dict[str, object], is_flow: bool
) -> None:
    folder = shutil.copytree(tiny_wan_folder, tmp_path / "model")
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    if is_flow:
        assert load_backbone(folder).spec.prediction == "velocity"
    else:
        with pytest.raises(BackboneError, match="a flow-matching model is needed"):
            load_backbone(folder)


def test_folder_states_its_own_text_length_and_fps(tiny_wan_folder: Path, tmp_path: Path) -> None:
    assert load_backbone(tiny_wan_folder).spec.text_length == 32
    assert load_backbone(tiny_wan_folder).spec.fps == 8
    plain = shutil.copytree(tiny_wan_folder, tmp_path / "plain")
    (plain / "rlhf_video.json").unlink()
    assert load_backbone(plain).spec.text_length == 512
    assert load_backbone(plain).spec.fps == 16


def test_meta_backbone_needs_only_config_files(tiny_wan_folder: Path, tmp_path: Path) -> None:
    for file in tiny_wan_folder.rglob("*.json"):
        if "tokenizer" not in file.parts:
            target = tmp_path / file.relative_to(tiny_wan_folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    real, meta = load_backbone(tiny_wan_folder), meta_backbone(tmp_path)
    assert meta.spec == real.spec
    shape = VideoShape(batch=2, frames=9, height=32, width=32)
    noise = meta.noise(shape, torch.Generator())
    cond = meta.encode_prompts(TINY_PROMPTS)
    latents = meta.velocity(noise, torch.tensor(0.5), cond, guidance=5.0)
    assert latents.is_meta
    assert meta.decode(latents).shape == (2, 9, 3, 32, 32)
    count = [sum(p.numel() for p in attach(model, LoraConfig(rank=4), seed=0)) for model in (real, meta)]
    assert count[0] == count[1] > 0
    meta.release_text_encoder()


def test_half_precision_transformer_keeps_latents_in_float32(tiny_wan_folder: Path) -> None:
    backbone = load_backbone(tiny_wan_folder, dtype=torch.bfloat16)
    shape = VideoShape(batch=1, frames=9, height=32, width=32)
    noise = backbone.noise(shape, torch.Generator().manual_seed(0))
    cond = backbone.encode_prompts(TINY_PROMPTS[:1])
    velocity = backbone.velocity(noise, torch.tensor(0.5), cond, guidance=3.0)
    assert velocity.dtype == torch.float32
    exact = load_backbone(tiny_wan_folder)
    expected = exact.velocity(noise, torch.tensor(0.5), exact.encode_prompts(TINY_PROMPTS[:1]), guidance=3.0)
    torch.testing.assert_close(velocity, expected, rtol=0, atol=0.05 * float(expected.abs().max()))


def test_wan_1_3b_geometry_is_known_from_its_config_files() -> None:
    folder = Path(__file__).resolve().parents[3] / "configs" / "backbones" / "wan2.1-t2v-1.3b"
    backbone = meta_backbone(folder, dtype=torch.bfloat16)
    parameters = list(backbone.transformers["transformer"].parameters())
    assert sum(parameter.numel() for parameter in parameters) == 1_418_996_800
    shape = VideoShape(batch=1, frames=81, height=480, width=832)
    assert backbone.spec.latent_shape(shape) == (1, 16, 21, 60, 104)
    assert sum(p.numel() for p in attach(backbone, LoraConfig(rank=64), seed=0)) == 64 * 1_367_040
