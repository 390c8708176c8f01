"""Our model call and sampler against `WanPipeline`, from the same noise."""

from pathlib import Path

import pytest
import torch
from diffusers import WanPipeline
from torch import Tensor

from rlhf_video.backbones import Conditioning, VideoBackbone, VideoShape, load_backbone
from rlhf_video.diffusion.samplers import rollout
from rlhf_video.diffusion.sigmas import flow_sigmas
from rlhf_video.errors import ConfigError
from rlhf_video.testing import TINY_PROMPTS

SHAPE = VideoShape(batch=2, frames=9, height=32, width=48)
SIGMA = torch.tensor(0.6)


@pytest.fixture(scope="module")
def pipeline(tiny_wan_folder: Path) -> WanPipeline:
    return _pipeline(tiny_wan_folder)


def _pipeline(folder: Path) -> WanPipeline:
    pipeline = WanPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _inputs(backbone: VideoBackbone, shape: VideoShape = SHAPE) -> tuple[Tensor, Conditioning]:
    noise = backbone.noise(shape, torch.Generator().manual_seed(1))
    return noise, backbone.encode_prompts((TINY_PROMPTS * shape.batch)[: shape.batch])


def _ours(backbone: VideoBackbone, noise: Tensor, cond: Conditioning, guidance: float, num_steps: int = 4) -> Tensor:
    sigmas = flow_sigmas(num_steps, backbone.spec.default_shift)
    return rollout(lambda x, sigma: backbone.velocity(x, sigma, cond, guidance=guidance), noise, sigmas)[-1]


def _theirs(pipeline: WanPipeline, noise: Tensor, guidance: float, text_length: int, output: str = "latent") -> Tensor:
    frames = pipeline(
        prompt=list(TINY_PROMPTS),
        height=SHAPE.height,
        width=SHAPE.width,
        num_frames=SHAPE.frames,
        num_inference_steps=4,
        guidance_scale=guidance,
        latents=noise,
        output_type=output,
        max_sequence_length=text_length,
    ).frames
    return torch.as_tensor(frames)


@pytest.mark.parametrize("text_length", [32, 512])
@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_sampler_reproduces_the_pipeline_from_the_same_noise(
    pipeline: WanPipeline, tiny_wan_folder: Path, guidance: float, text_length: int
) -> None:
    backbone = load_backbone(tiny_wan_folder, text_length=text_length)
    assert backbone.spec.default_shift == 3.0
    noise, cond = _inputs(backbone)
    expected = _theirs(pipeline, noise, guidance, text_length)
    torch.testing.assert_close(_ours(backbone, noise, cond, guidance), expected, rtol=0, atol=1e-5)


def test_decoded_pixels_equal_the_pipelines(pipeline: WanPipeline, tiny_wan: VideoBackbone) -> None:
    noise, cond = _inputs(tiny_wan)
    video = tiny_wan.decode(_ours(tiny_wan, noise, cond, 5.0)).detach()
    expected = _theirs(pipeline, noise, 5.0, 32, output="np").permute(0, 1, 4, 2, 3)
    torch.testing.assert_close(video, expected, rtol=0, atol=1e-5)


def test_two_expert_sampler_reproduces_the_pipeline(tiny_two_expert_folder: Path) -> None:
    backbone = load_backbone(tiny_two_expert_folder)
    assert list(backbone.transformers) == ["transformer", "transformer_2"]
    noise, cond = _inputs(backbone)
    expected = _theirs(_pipeline(tiny_two_expert_folder), noise, 5.0, 32)
    torch.testing.assert_close(_ours(backbone, noise, cond, 5.0), expected, rtol=0, atol=1e-5)


def test_each_expert_answers_for_its_own_noise_levels(tiny_two_expert_folder: Path) -> None:
    backbone = load_backbone(tiny_two_expert_folder)
    noise, cond = _inputs(backbone)
    called: list[str] = []
    for name, module in backbone.transformers.items():
        module.register_forward_pre_hook(lambda *_, name=name: called.append(name))
    for sigma in (torch.tensor(0.5), torch.tensor([0.2, 0.4])):
        backbone.velocity(noise, sigma, cond, guidance=(3.0, 4.0))
    assert called == ["transformer", "transformer_2"]
    with pytest.raises(ConfigError, match="both sides"):
        backbone.velocity(noise, torch.tensor([0.2, 0.9]), cond)


def test_batched_guidance_equals_two_single_passes(tiny_wan: VideoBackbone) -> None:
    noise, cond = _inputs(tiny_wan)
    guided = tiny_wan.velocity(noise, SIGMA, cond, guidance=5.0)
    positive = tiny_wan.velocity(noise, SIGMA, cond)
    negative = tiny_wan.velocity(noise, SIGMA, Conditioning(cond.negative_embeds, cond.negative_embeds))
    torch.testing.assert_close(
        guided, negative + 5 * (positive - negative), rtol=0, atol=5e-6
    )  # guidance multiplies rounding, which differs by CPU


def test_a_batch_equals_its_items(tiny_wan: VideoBackbone) -> None:
    noise, cond = _inputs(tiny_wan)
    batched = tiny_wan.velocity(noise, torch.tensor([0.3, 0.8]), cond, guidance=4.0)
    for item, sigma in enumerate((0.3, 0.8)):
        one = slice(item, item + 1)
        single = tiny_wan.velocity(noise[one], torch.tensor(sigma), cond.select(one), guidance=4.0)
        torch.testing.assert_close(
            batched[one], single, rtol=0, atol=5e-6
        )  # guidance multiplies rounding, which differs by CPU


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_per_frame_sigma_equals_scalar_sigma_when_constant(tiny_wan: VideoBackbone, guidance: float) -> None:
    noise, cond = _inputs(tiny_wan)
    scalar = tiny_wan.velocity(noise, SIGMA, cond, guidance=guidance)
    for sigma in (SIGMA.expand(2), SIGMA.expand(2, noise.shape[2])):
        torch.testing.assert_close(
            tiny_wan.velocity(noise, sigma, cond, guidance=guidance), scalar, rtol=0, atol=5e-6
        )  # guidance multiplies rounding, which differs by CPU


def test_per_frame_sigma_is_read_frame_by_frame(tiny_wan: VideoBackbone) -> None:
    noise, cond = _inputs(tiny_wan)
    sigma = torch.full((2, noise.shape[2]), 0.6)
    other = sigma.clone()
    other[0, 1] = 0.1
    change = (tiny_wan.velocity(noise, other, cond) - tiny_wan.velocity(noise, sigma, cond)).abs()
    assert change[0].amax(dim=(0, 2, 3)).argmax() == 1
    assert change[1].max() == 0


def test_the_same_inputs_give_the_same_velocity_in_training_and_in_sampling(tiny_wan: VideoBackbone) -> None:
    noise, cond = _inputs(tiny_wan)
    with torch.no_grad():
        sampling = tiny_wan.velocity(noise, SIGMA, cond, guidance=5.0)
    for module in tiny_wan.transformers.values():
        module.train()
    for checkpointing in (False, True):
        tiny_wan.set_gradient_checkpointing(checkpointing)
        training = tiny_wan.velocity(noise.clone().requires_grad_(), SIGMA, cond, guidance=5.0)
        assert training.requires_grad
        assert torch.equal(training.detach(), sampling)


def test_noise_is_the_pipelines_and_does_not_depend_on_batching(pipeline: WanPipeline, tiny_wan: VideoBackbone) -> None:
    theirs = pipeline.prepare_latents(2, 4, 32, 48, 9, torch.float32, "cpu", torch.Generator().manual_seed(3))
    assert torch.equal(tiny_wan.noise(SHAPE, torch.Generator().manual_seed(3)), theirs)
    generators = [torch.Generator().manual_seed(seed) for seed in (5, 6)]
    both = tiny_wan.noise(SHAPE, generators)
    second = tiny_wan.noise(VideoShape(batch=1, frames=9, height=32, width=48), torch.Generator().manual_seed(6))
    assert torch.equal(both[1:], second)
    with pytest.raises(ConfigError, match="1 generators for a batch of 2"):
        tiny_wan.noise(SHAPE, generators[:1])


def test_conditioning_of_another_batch_size_is_refused(tiny_wan: VideoBackbone) -> None:
    noise, cond = _inputs(tiny_wan)
    with pytest.raises(ConfigError, match="1 encoded prompts for a batch of 2"):
        tiny_wan.velocity(noise, SIGMA, cond.select([0]))
