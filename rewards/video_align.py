"""Visual quality, motion quality and text alignment (VideoReward: Liu et al. 2025, arXiv:2501.13918).

Equal to github.com/KwaiVGI/VideoAlign; what had to be kept is told in rewards/qwen2_vl_model.py.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import Qwen2VLConfig

from rewards.architectures import read_config
from rewards.base import FramePolicy, RewardOutput, RewardSpec, masked_output, version_of
from rewards.errors import RewardError
from rewards.inputs import Precision, check_clips, full_precision
from rewards.pretrained import follow, in_passes
from rewards.qwen2_vl import check_area, load_tower, renamed, smart_resize
from rewards.qwen2_vl_instructions import VIDEO_ALIGN
from rewards.qwen2_vl_prompts import PromptTokens
from rewards.video_ops import take_frames

PUBLISHED = {
    "text_config": {
        "vocab_size": 151660,
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6,
    },
    "vision_config": {"hidden_size": 1536},
}
"""config.json of Qwen/Qwen2-VL-2B-Instruct, its vocabulary cut to the tokenizer's 151,657 and the reward tokens."""
STATISTICS = {"VQ": (3.6757, 2.2476), "MQ": (1.1646, 1.3811), "TA": (2.8105, 2.5121)}
"""Mean and deviation of the raw scores: `inference_config` of the released model_config.json."""
FRAMES = FramePolicy("rate", count=4, rate=2.0, multiple=2)
"""2 fps, at least 4 frames, an even number: `data_config` and vision_process.py. Their cap at 768 frames, six minutes,
is left out."""
MIN_PIXELS, MAX_PIXELS = 128 * 28 * 28, 448 * 448
"""Area of a frame: VIDEO_MIN_PIXELS of vision_process.py and `max_frame_pixels` of the released config."""
LORA_ALPHA = 128
"""`peft_lora_config` of the released config; the rank (64) is the tensors'."""


class VideoAlign:
    """VQ, MQ, TA, each in deviations from the mean over the authors' clips, and "Overall", their sum.

    Usual clips score about -3 to 3 in each; higher is better. A clip needs two frames or more. Preprocessing is in the
    graph and rounds nothing, where the original rounds to 8 bits after resizing. The model moves to the clip's device
    and never trains.
    """

    def __init__(
        self,
        weights: str | Path = "video_align",
        *,
        config: str | Path | None = None,
        tokenizer: str | Path = "Qwen/Qwen2-VL-2B-Instruct",
        precision: Precision = "float32",
        min_pixels: int = MIN_PIXELS,
        max_pixels: int = MAX_PIXELS,
        clips_per_pass: int | None = 1,
        max_prompt_tokens: int = 1024,
        cache_size: int = 4096,
        accept_licence: bool = False,
    ) -> None:
        """Load the model.

        Args:
            weights: model.pth of the release, which holds base model, LoRA and head, or its name in the ledger (5 GB).
            config: Qwen2-VL config of another size; None for the published one.
            tokenizer: Folder or Hub id of Qwen2-VL's tokenizer.
            precision: Of the towers: "bfloat16", as the original runs, halves memory; the head stays float32.
            min_pixels: Smallest area of a frame; another than the published one is another reward.
            max_pixels: Largest area of a frame; likewise.
            clips_per_pass: Clips through the model at a time, None for all; bounds memory, changes no score.
            max_prompt_tokens: Longer prompts are cut, with a warning; the original cuts nothing.
            cache_size: Tokenised prompts kept.
            accept_licence: See `weight_files.resolve`; this licence asks nothing.

        Raises:
            RewardError: Missing or wrong weights, a tokenizer that does not fit, or a bad option.
        """
        if clips_per_pass is not None and clips_per_pass < 1:
            raise RewardError(f"clips_per_pass must be 1 or more, got {clips_per_pass}.")
        check_area(min_pixels, max_pixels)
        self._min_pixels, self._max_pixels, self._clips_per_pass = min_pixels, max_pixels, clips_per_pass
        sizes = read_config(config, Qwen2VLConfig, PUBLISHED)
        self._text = PromptTokens(
            tokenizer,
            instruct=_instruct,
            reward_tokens=tuple(f"<|{key}_reward|>" for key in STATISTICS),
            vocab_size=sizes.text_config.vocab_size,
            max_tokens=max_prompt_tokens,
            cache_size=cache_size,
        )
        self._model = load_tower(
            weights,
            sizes,
            head=_head,
            rename=merge_lora,
            precision=precision,
            accept_licence=accept_licence,
        )
        self.spec = RewardSpec(
            name="video_align",
            version=version_of(
                precision=(precision, "float32"), area=((min_pixels, max_pixels), (MIN_PIXELS, MAX_PIXELS))
            ),
            dimensions=(*STATISTICS, "Overall"),
            range=(-torch.inf, torch.inf),
            higher_is_better=True,
            is_differentiable=True,
            frames=FRAMES,
            resolution=None,
            licence="MIT code, Apache-2.0 weights",
            paper="arXiv:2501.13918",
            uses_prompt=True,
        )

    def __call__(self, video: Tensor, prompts: Sequence[str], *, fps: float) -> RewardOutput:
        """Score a batch, see `Reward`.

        Raises:
            RewardError: Input of the wrong form, a clip of one frame, or a prompt that cannot be read.
        """
        clips = check_clips(video, prompts, fps=fps, min_frames=FRAMES.multiple)
        follow(self._model, clips.video)
        with full_precision(clips.video):
            frames = take_frames(clips.video, FRAMES.select(video.shape[1], fps=fps))
            text = self._text(prompts, clips.video.device)
            raw = in_passes(self._score, (frames, text), self._clips_per_pass).unbind(-1)
        scores = {key: (value - mean) / std for value, (key, (mean, std)) in zip(raw, STATISTICS.items(), strict=True)}
        scores["Overall"] = torch.stack(list(scores.values())).sum(dim=0)
        return masked_output(scores, clips.valid, clips.reasons)

    def _score(self, frames: Tensor, text: Tensor) -> Tensor:
        """Return raw scores (n, 3) of clips (n, frames, 3, height, width), each for the prompt in its row."""
        resized = smart_resize(frames, min_pixels=self._min_pixels, max_pixels=self._max_pixels)
        prefix, reward_ids = self._text.prefix(frames.device), self._text.reward_ids(frames.device)
        return self._model(resized, text, prefix, reward_ids)[..., 0]


def _head(hidden_size: int) -> nn.Module:
    return nn.Linear(hidden_size, 1, bias=False)  # one for all three tokens: output_dim 1 in the released config


def _instruct(prompt: str) -> str:
    return VIDEO_ALIGN.format(text_prompt=prompt)


def merge_lora(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict of a plain model for one of PEFT's, each low-rank update added to its weight in float32.

    Args:
        state: Names as PEFT gives them, "base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight".

    Raises:
        RewardError: Half of an update, or one without its weight.
    """
    prefixes = (
        ("base_model.model.visual.", "model.visual."),
        ("base_model.model.model.", "model.language_model."),
        ("base_model.model.", ""),
    )
    plain = renamed(state, prefixes, unused=("base_model.model.lm_head.weight",))
    merged = {name.replace(".base_layer.", "."): value for name, value in plain.items() if ".lora_" not in name}
    for name in (name for name in plain if ".lora_" in name):
        module, _, half = name.partition(".lora_")
        weight = f"{module}.weight"
        if half == "A.default.weight" and f"{module}.lora_B.default.weight" in plain and weight in merged:
            down, up = plain[name].float(), plain[f"{module}.lora_B.default.weight"].float()
            merged[weight] = merged[weight].float() + (LORA_ALPHA / len(down)) * (up @ down)
        elif half != "B.default.weight" or f"{module}.lora_A.default.weight" not in plain:
            raise RewardError(f"The weights hold {name!r} without its other half or the weight that it changes.")
    return merged
