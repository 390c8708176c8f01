"""A tiny `WanPipeline` folder with random weights: every class is the real one, only the widths are small."""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

TINY_PROMPTS = ("a red circle moving left on a navy background", "a blue square standing still on a grey background")
_WORDS = sorted(
    {word for prompt in TINY_PROMPTS for word in prompt.split()} | {"green", "triangle", "right", "up", "down"}
)
_LATENT_CHANNELS = 4
_TEXT_WIDTH = 16


def tiny_wan_pipeline(
    folder: Path, seed: int = 0, *, shift: float = 3.0, text_length: int | None = 32, two_experts: bool = False
) -> Path:
    """Write a tiny Wan text-to-video folder that `WanPipeline.from_pretrained` loads.

    Strides are 4 (time) and 8 (space), the transformer patch is (1, 2, 2), latents have 4 channels: a clip of 9
    frames and 32 x 32 pixels has 3 latent frames of 4 x 4.

    Args:
        folder: Where to write; made if missing.
        seed: Seed of the random weights.
        shift: Sigma shift that the scheduler config carries.
        text_length: Written to `rlhf_video.json` as the default text length; None writes no such file.
        two_experts: Add `transformer_2` and a boundary at sigma 0.5, as in Wan 2.2 A14B.

    Returns:
        The folder.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = word_tokenizer(_WORDS)
        pipeline = WanPipeline(
            tokenizer=tokenizer,
            text_encoder=_text_encoder(len(tokenizer)),
            transformer=_transformer(),
            transformer_2=_transformer() if two_experts else None,
            vae=_vae(),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=shift),
            boundary_ratio=0.5 if two_experts else None,
        )
    pipeline.save_pretrained(folder)
    if text_length is not None:
        (folder / "rlhf_video.json").write_text(json.dumps({"text_length": text_length, "fps": 8}))
    return folder


def word_tokenizer(words: list[str]) -> PreTrainedTokenizerFast:
    """Return a fast tokenizer with one token per word and T5's habits: pad 0, `</s>` at the end, no start token."""
    vocabulary = {token: index for index, token in enumerate(["<pad>", "</s>", "<unk>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=512
    )


def _text_encoder(vocabulary_size: int) -> UMT5EncoderModel:
    config = UMT5Config(
        vocab_size=vocabulary_size, d_model=_TEXT_WIDTH, d_kv=4, d_ff=32, num_layers=1, num_heads=4, dropout_rate=0.0
    )
    return UMT5EncoderModel(config).eval()


def _transformer() -> WanTransformer3DModel:
    return WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=6,
        attention_head_dim=6,
        in_channels=_LATENT_CHANNELS,
        out_channels=_LATENT_CHANNELS,
        text_dim=_TEXT_WIDTH,
        freq_dim=16,
        ffn_dim=48,
        num_layers=2,
        rope_max_seq_len=256,
    ).eval()


def _vae() -> AutoencoderKLWan:
    return AutoencoderKLWan(
        base_dim=4,
        z_dim=_LATENT_CHANNELS,
        dim_mult=[1, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[True, True],
        latents_mean=[0.1, -0.2, 0.05, 0.0],
        latents_std=[0.8, 1.1, 0.9, 1.3],
        is_residual=True,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_temporal=4,
        scale_factor_spatial=8,
    ).eval()
