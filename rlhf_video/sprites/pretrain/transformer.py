"""Pre-train the sprite text-to-video model: `WanTransformer3DModel` with its `UMT5EncoderModel`, by flow matching."""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from rlhf_video.data.fingerprint import weights_fingerprint
from rlhf_video.runtime.precision import bfloat16_linears
from rlhf_video.sprites.grammar import Scene, Split, random_scenes, swap_one_attribute
from rlhf_video.sprites.pretrain.loop import fit
from rlhf_video.sprites.pretrain.text import TEXT_WIDTH, sprite_tokenizer, text_encoder
from rlhf_video.sprites.renderer import render

logger = logging.getLogger(__name__)

CONFIG = {
    "patch_size": (1, 2, 2),
    "num_attention_heads": 6,
    "attention_head_dim": 24,
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": TEXT_WIDTH,
    "freq_dim": 128,
    "ffn_dim": 576,
    "num_layers": 6,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "rope_max_seq_len": 256,
}
SHIFT = 3.0
CAPTION_NOISE = 0.12
"""Share of training captions with one wrong attribute."""
CAPTION_DROPOUT = 0.12
"""Share of training captions that are empty: the null prompt of guidance."""
TEXT_LENGTHS = (32, 512)
LONG_TEXT_SHARE = 0.08
"""Share of steps with the stock padding of 512; the cross-attention sees the zero padding, so both must be learned."""


@dataclass(frozen=True)
class LatentClips:
    """Encoded clips: latents (n, 16, 6, 8, 8) float16, normalised, with the scene each one shows."""

    latents: Tensor
    scenes: tuple[Scene, ...]


class TextToVideo(nn.Module):
    """The two parts that train together."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        """Build both with their initial weights."""
        super().__init__()
        self.text_encoder = text_encoder(len(tokenizer))
        self.transformer = WanTransformer3DModel(**CONFIG)
        self.tokenizer = tokenizer

    def forward(self, latents: Tensor, sigma: Tensor, prompts: Sequence[str], *, text_length: int) -> Tensor:
        """Return the velocity for noisy latents (batch, 16, frames, 8, 8) at sigma (batch,)."""
        tokens = self.tokenizer(list(prompts), padding="max_length", max_length=32, return_tensors="pt").to(
            latents.device
        )
        text = self.text_encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state
        text = text * tokens.attention_mask[..., None]  # WanPipeline pads with zeros
        text = nn.functional.pad(text, (0, 0, 0, text_length - text.shape[1]))
        return self.transformer(latents, sigma * 1000, text, return_dict=False)[0]


@torch.no_grad()
def encode_rendered(
    vae: AutoencoderKLWan, split: Split, count: int, *, seed: int, file: Path | None = None
) -> LatentClips:
    """Render and encode clips of random scenes of a split; `file` keeps them for a resumed run."""
    rng = np.random.default_rng((seed, 7))
    generator = random_scenes(split, rng, two_object_share=0.4)
    scenes = tuple(next(generator) for _ in range(count))
    if file is not None and file.exists():
        return LatentClips(torch.load(file, weights_only=True), scenes)
    device = next(vae.parameters()).device
    mean, std = (
        torch.tensor(values, device=device).view(1, -1, 1, 1, 1)
        for values in (vae.config.latents_mean, vae.config.latents_std)
    )
    latents = []
    for start in range(0, count, 16):
        video = render(
            scenes[start : start + 16], range(seed * 1_000_000 + start, seed * 1_000_000 + min(start + 16, count))
        )
        with torch.autocast(device.type, torch.bfloat16):
            posterior = vae.encode(video.to(device).transpose(1, 2) * 2 - 1).latent_dist
        latents.append(((posterior.mean.float() - mean) / std).half().cpu())
        if start % 1600 == 0:
            logger.info("encoded %d/%d clips", start, count)
    encoded = torch.cat(latents)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(encoded, file)
    return LatentClips(encoded, scenes)


def train_transformer(
    work: Path, vae: AutoencoderKLWan, *, num_steps: int, num_clips: int, batch: int = 32, device: str = "cpu"
) -> tuple[TextToVideo, dict[str, object]]:
    """Train transformer and text encoder on encoded train clips; the history holds the validation loss.

    Args:
        work: Folder for progress and encoded clips.
        vae: The frozen VAE.
        num_steps: Optimiser steps.
        num_clips: Rendered clips to encode.
        batch: Clips per step.
        device: Where to train.
    """
    made_from = weights_fingerprint(vae)
    train = encode_rendered(vae, "train", num_clips, seed=3, file=work / f"latents-{made_from}-{num_clips}.pt")
    held_out = encode_rendered(vae, "validation", 256, seed=4, file=work / f"latents-{made_from}-validation.pt")
    torch.manual_seed(0)
    model = TextToVideo(sprite_tokenizer()).to(device)

    def loss_at(step: int) -> Tensor:
        rng = np.random.default_rng((5, step))
        rows = rng.integers(len(train.scenes), size=batch)
        prompts = [_caption(train.scenes[row], rng) for row in rows]
        length = TEXT_LENGTHS[int(rng.random() < LONG_TEXT_SHARE)]
        return _flow_loss(model, train.latents[rows].float().to(device), prompts, seed=step, text_length=length)

    @torch.no_grad()
    def validate() -> dict[str, float]:
        parts = [
            _flow_loss(
                model,
                held_out.latents[i : i + 64].float().to(device),
                _prompts(held_out, i, 64),
                seed=i,
                text_length=32,
            )
            for i in range(0, 256, 64)
        ]
        return {"validation_loss": round(float(torch.stack(parts).mean()), 4)}

    with bfloat16_linears(model), _compiled_blocks(model.transformer):
        record = fit(
            model, loss_at, num_steps=num_steps, state_file=work / "transformer.pt",
            inputs=made_from, validate=validate, validate_every=500, ema_decay=0.998, warmup=150, autocast=False,
        )  # fmt: skip
    return model.eval(), record


@contextlib.contextmanager
def _compiled_blocks(transformer: WanTransformer3DModel) -> Iterator[None]:
    """Fuse what lies between the products: 1.5 times faster on a CPU; blocks are alike, so one is compiled for all."""
    for block in transformer.blocks:
        block.compile(dynamic=False)  # two text lengths: two versions
    yield
    for block in transformer.blocks:
        block._compiled_call_impl = None


def _flow_loss(model: TextToVideo, clean: Tensor, prompts: Sequence[str], *, seed: int, text_length: int) -> Tensor:
    """Return the flow-matching loss; half of the noise levels are shifted as in sampling, half are uniform.

    Shifted levels alone (Esser et al. 2024, arXiv:2403.03206) teach motion and colour; outlines need the low ones.
    """
    generator = torch.Generator().manual_seed(seed)
    u = torch.rand(len(clean), generator=generator)
    sigma = torch.where(torch.arange(len(u)) % 2 == 0, SHIFT * u / (1 + (SHIFT - 1) * u), u).to(clean.device)
    noise = torch.randn(clean.shape, generator=generator).to(clean.device)
    level = sigma.view(-1, 1, 1, 1, 1)
    velocity = model((1 - level) * clean + level * noise, sigma, prompts, text_length=text_length)
    return (velocity.float() - (noise - clean)).square().mean()


def _caption(scene: Scene, rng: np.random.Generator) -> str:
    if rng.random() < CAPTION_DROPOUT:
        return ""
    return (swap_one_attribute(scene, rng) if rng.random() < CAPTION_NOISE else scene).prompt


def _prompts(clips: LatentClips, start: int, count: int) -> list[str]:
    return [scene.prompt for scene in clips.scenes[start : start + count]]


def save_pipeline(folder: Path, model: TextToVideo, vae: AutoencoderKLWan) -> None:
    """Write the folder that `WanPipeline.from_pretrained` loads: float16 on disk, float32 once loaded."""
    vae.register_to_config(_name_or_path="sprite-wan/vae")  # else the work folder's path would be written
    WanPipeline(
        tokenizer=model.tokenizer,
        text_encoder=model.text_encoder,
        transformer=model.transformer.half(),
        vae=vae.half(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=SHIFT),
    ).save_pretrained(folder)
