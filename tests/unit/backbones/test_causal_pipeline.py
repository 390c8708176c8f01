"""The pipeline for users of diffusers: the pixels of generate.py, streamed or whole, and an untouched WanPipeline."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from diffusers import WanPipeline

from rlhf_video.algorithms.generate_causal import causal_latents
from rlhf_video.algorithms.generate_config import GenerateConfig
from rlhf_video.attention import AttentionPlan, Full, Local
from rlhf_video.attention.causal_layout import CausalLayout
from rlhf_video.backbones import VideoBackbone
from rlhf_video.backbones.causal_pipeline import CausalWanPipeline
from rlhf_video.backbones.causal_recipe import RECIPE_KEY, CausalRecipe
from rlhf_video.errors import AdapterError, ConfigError
from rlhf_video.lora import LoraConfig, adapter_parameters, adapter_state, attach, load_adapter, save_adapter
from rlhf_video.testing import TINY_PROMPTS

RECIPE = CausalRecipe(layout=CausalLayout(chunk_frames=2), shift=5.0, steps=(1, 2), first_chunk_steps=2)
SIZE = {"num_frames": 13, "height": 32, "width": 32}


def _save(backbone: VideoBackbone, folder: Path, metadata: dict[str, object], *, scale: float = 0.1) -> Path:
    lora = LoraConfig(rank=2, alpha=3)
    attach(backbone, lora, seed=0)
    for parameter in adapter_parameters(backbone):
        parameter.data.add_(scale)
    save_adapter(folder, adapter_state(backbone), backbone=backbone, config=lora, metadata=metadata)
    return folder


@pytest.fixture(scope="module")
def pipe(tiny_wan_folder: Path) -> WanPipeline:
    pipe = WanPipeline.from_pretrained(tiny_wan_folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def adapter(make_tiny_wan: Callable[[], VideoBackbone], tmp_path: Path) -> Path:
    return _save(make_tiny_wan(), tmp_path / "adapter", {RECIPE_KEY: RECIPE.to_json()})


@pytest.fixture
def loaded(pipe: WanPipeline, adapter: Path) -> Iterator[WanPipeline]:
    pipe.load_lora_weights(adapter)
    yield pipe
    pipe.unload_lora_weights()


def _seeds(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_the_same_seed_gives_the_pixels_of_generate(
    loaded: WanPipeline, adapter: Path, tiny_wan: VideoBackbone, tiny_wan_folder: Path, tmp_path: Path
) -> None:
    config = GenerateConfig(
        backbone=str(tiny_wan_folder), prompts=tmp_path, output_dir=tmp_path, adapter=adapter, num_steps=2, **SIZE
    )
    load_adapter(tiny_wan, adapter)
    cond = tiny_wan.encode_prompts(TINY_PROMPTS)
    wanted = torch.cat([tiny_wan.decode(one[None]) for one in causal_latents(config, RECIPE, tiny_wan, cond, [3, 4])])
    causal = CausalWanPipeline.from_pipeline(loaded, adapter)
    ours = causal(TINY_PROMPTS, **SIZE, generator=_seeds(3, 4), output_type="pt").frames
    torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-5)
    other = causal(TINY_PROMPTS, **SIZE, generator=_seeds(3, 5), output_type="pt").frames
    assert torch.equal(other[0], ours[0]) and (other[1] - ours[1]).abs().max() > 1e-3
    streamed = list(causal.stream(TINY_PROMPTS, **SIZE, generator=_seeds(3, 4), output_type="pt"))
    assert [part.shape[1] for part in streamed] == [5, 8]
    torch.testing.assert_close(torch.cat(streamed, 1), ours, rtol=0, atol=1e-6)


def test_output_types_are_those_of_the_wan_pipeline(loaded: WanPipeline, adapter: Path) -> None:
    causal = CausalWanPipeline.from_pipeline(loaded, adapter)

    def made(output_type: str) -> object:
        return causal(TINY_PROMPTS[0], **SIZE, generator=_seeds(1), output_type=output_type).frames

    array, tensor, pictures, latents = (made(kind) for kind in ("np", "pt", "pil", "latent"))
    assert array.shape == (1, 13, 32, 32, 3) and array.min() >= 0 and array.max() <= 1
    assert torch.equal(torch.from_numpy(array).permute(0, 1, 4, 2, 3), tensor)
    assert len(pictures) == 1 and len(pictures[0]) == 13 and pictures[0][0].size == (32, 32)
    assert latents.shape == (1, 4, 4, 4, 4)
    stock = loaded(TINY_PROMPTS[0], **SIZE, num_inference_steps=1, guidance_scale=1.0, max_sequence_length=32).frames
    assert stock.shape == array.shape
    with pytest.raises(ConfigError, match="output_type='gif'"):
        made("gif")


def test_a_folder_is_enough_and_the_wan_pipeline_stays_what_it_was(
    adapter: Path, tiny_wan_folder: Path, loaded: WanPipeline
) -> None:
    bare = WanPipeline.from_pretrained(tiny_wan_folder)
    bare.set_progress_bar_config(disable=True)
    causal = CausalWanPipeline.from_pipeline(bare, adapter)
    made = causal(TINY_PROMPTS[0], **SIZE, generator=_seeds(1), output_type="pt").frames
    wanted = CausalWanPipeline.from_pipeline(loaded, adapter)(
        TINY_PROMPTS[0], **SIZE, generator=_seeds(1), output_type="pt"
    ).frames
    assert torch.equal(made, wanted)
    arguments = {**SIZE, "num_inference_steps": 1, "guidance_scale": 1.0, "output_type": "pt"}
    after = bare(TINY_PROMPTS[0], **arguments, generator=_seeds(1)[0]).frames
    fresh = WanPipeline.from_pretrained(tiny_wan_folder)
    fresh.set_progress_bar_config(disable=True)
    fresh.load_lora_weights(adapter)
    assert torch.equal(fresh(TINY_PROMPTS[0], **arguments, generator=_seeds(1)[0]).frames, after)


def test_a_fused_adapter_needs_its_recipe_alone(adapter: Path, tiny_wan_folder: Path, loaded: WanPipeline) -> None:
    fused = WanPipeline.from_pretrained(tiny_wan_folder)
    fused.load_lora_weights(adapter)
    fused.fuse_lora()
    fused.unload_lora_weights()
    with pytest.raises(ConfigError, match="CausalRecipe"):
        CausalWanPipeline.from_pipeline(fused)
    ours, theirs = (
        causal(TINY_PROMPTS[0], **SIZE, generator=_seeds(1), output_type="pt").frames
        for causal in (
            CausalWanPipeline.from_pipeline(fused, recipe=RECIPE),
            CausalWanPipeline.from_pipeline(loaded, adapter),
        )
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("is_loaded", [False, True])
def test_the_attention_plan_of_the_training_comes_along(
    tiny_wan_folder: Path, make_tiny_wan: Callable[[], VideoBackbone], tmp_path: Path, is_loaded: bool
) -> None:
    backbone, plan = make_tiny_wan(), AttentionPlan(6, (Full(), Local(window=(1, 1, 1))))
    backbone.apply_attention(plan)
    adapter = _save(backbone, tmp_path / "adapter", {RECIPE_KEY: RECIPE.to_json()})
    pipe = WanPipeline.from_pretrained(tiny_wan_folder)
    if is_loaded:
        pipe.load_lora_weights(adapter)
    with pytest.raises(AdapterError, match="attention"):
        CausalWanPipeline.from_pipeline(pipe, adapter, attention="check")
    assert CausalWanPipeline.from_pipeline(pipe, adapter).backbone.causal_plan == plan


def test_what_does_not_fit_is_said(
    loaded: WanPipeline, adapter: Path, make_tiny_wan: Callable[[], VideoBackbone], tmp_path: Path
) -> None:
    plain = _save(make_tiny_wan(), tmp_path / "plain", {})
    other = _save(make_tiny_wan(), tmp_path / "other", {RECIPE_KEY: RECIPE.to_json()}, scale=0.2)
    with pytest.raises(AdapterError, match="other adapter weights"):
        CausalWanPipeline.from_pipeline(loaded, other)
    causal = CausalWanPipeline.from_pipeline(loaded, adapter)
    with pytest.raises(ConfigError, match="trained for 1, 2 steps"):
        causal(TINY_PROMPTS[0], **SIZE, num_inference_steps=4)
    with pytest.raises(ConfigError, match="4k \\+ 1"):
        causal(TINY_PROMPTS[0], **{**SIZE, "num_frames": 12})
    loaded.unload_lora_weights()
    with pytest.raises(AdapterError, match="not trained causally"):
        CausalWanPipeline.from_pipeline(loaded, plain)
