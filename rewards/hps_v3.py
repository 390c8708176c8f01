"""Human preference for pictures by a 7B vision-language model (HPSv3: Ma et al. 2025, arXiv:2508.03789).

Equal to github.com/MizzenAI/HPSv3 (package hpsv3 1.0.0); what had to be kept is told in rewards/qwen2_vl_model.py.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import Qwen2VLConfig

from rewards.architectures import read_config
from rewards.base import FramePolicy, RewardOutput, RewardSpec, parse_frame_policy, version_of
from rewards.frame_scores import FrameReduction, check_frames_per_pass, parse_frame_reduction, score_frames
from rewards.inputs import Precision
from rewards.qwen2_vl import check_area, load_tower, renamed, smart_resize
from rewards.qwen2_vl_instructions import HPS_V3
from rewards.qwen2_vl_prompts import PromptTokens

PUBLISHED = {
    "text_config": {
        "vocab_size": 151658,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "rms_norm_eps": 1e-6,
    },
    "vision_config": {"hidden_size": 3584},
}
"""config.json of Qwen/Qwen2-VL-7B-Instruct, its vocabulary cut to the tokenizer's 151,657 and the reward token."""
AREA = 256 * 28 * 28
"""Pixels of a frame, lower and upper limit alike (HPSv3_7B.yaml)."""
FRAMES = FramePolicy("uniform", 4)
"""Ours: each frame is a pass through seven billion parameters."""


class HpsV3:
    """Estimated preference of frames for their prompt: a Gaussian, of which "quality" is the mean.

    "quality" is about -1 to 12 and higher is better; "log_sigma", the logarithm of the estimate's standard deviation,
    comes without gradient and tells how sure the model is: it has no better direction. Both are reduced over the chosen
    frames. Preprocessing is in the graph and rounds nothing; the original's rounds to 8 bits for picture files and not
    for tensors. The model moves to the clip's device and never trains.
    """

    def __init__(
        self,
        weights: str | Path = "hps_v3",
        *,
        config: str | Path | None = None,
        tokenizer: str | Path = "Qwen/Qwen2-VL-7B-Instruct",
        frames: FramePolicy | str | Mapping[str, object] = FRAMES,
        reduction: FrameReduction | str | Mapping[str, object] = "mean",
        precision: Precision = "float32",
        min_pixels: int = AREA,
        max_pixels: int = AREA,
        frames_per_pass: int | None = 1,
        max_prompt_tokens: int = 1024,
        cache_size: int = 4096,
        accept_licence: bool = False,
    ) -> None:
        """Load the model.

        Args:
            weights: HPSv3.safetensors, or its name in the ledger (16.6 GB).
            config: Qwen2-VL config of another size; None for the published one.
            tokenizer: Folder or Hub id of Qwen2-VL's tokenizer.
            frames: "all", "first", {kind: uniform, count: 4} or {kind: rate, rate: 1.0}.
            reduction: "mean", "min", "first" or {kind: softmin, temperature: 0.5}: from frames to the clip.
            precision: Of the towers: "bfloat16", as the original runs, halves memory; the head stays float32.
            min_pixels: Smallest area of a frame; another than the published one is another reward.
            max_pixels: Largest area of a frame; likewise.
            frames_per_pass: Frames through the model at a time, None for all; bounds memory, changes no score.
            max_prompt_tokens: Longer prompts are cut, with a warning; the original cuts nothing.
            cache_size: Tokenised prompts kept.
            accept_licence: See `weight_files.resolve`; this licence asks nothing.

        Raises:
            RewardError: Missing or wrong weights, a tokenizer that does not fit, or a bad option.
        """
        check_area(min_pixels, max_pixels)
        self._min_pixels, self._max_pixels = min_pixels, max_pixels
        self._frames_per_pass = check_frames_per_pass(frames_per_pass)
        self._reduction = parse_frame_reduction(reduction)
        policy = parse_frame_policy(frames)
        sizes = read_config(config, Qwen2VLConfig, PUBLISHED)
        self._text = PromptTokens(
            tokenizer,
            instruct=_instruct,
            reward_tokens=("<|Reward|>",),
            vocab_size=sizes.text_config.vocab_size,
            max_tokens=max_prompt_tokens,
            cache_size=cache_size,
        )
        self._model = load_tower(
            weights,
            sizes,
            head=_head,
            rename=_rename,
            precision=precision,
            accept_licence=accept_licence,
        )
        self.spec = RewardSpec(
            name="hps_v3",
            version=version_of(precision=(precision, "float32"), area=((min_pixels, max_pixels), (AREA, AREA))),
            dimensions=("quality", "log_sigma"),
            without_gradient=("log_sigma",),
            range=(-torch.inf, torch.inf),
            higher_is_better=True,
            is_differentiable=True,
            frames=policy,
            resolution=None,
            licence="MIT",
            paper="arXiv:2508.03789",
            uses_prompt=True,
        )

    def __call__(self, video: Tensor, prompts: Sequence[str], *, fps: float) -> RewardOutput:
        """Score a batch, see `Reward`.

        Raises:
            RewardError: Input of the wrong form, or a prompt that cannot be read.
        """
        output = score_frames(
            video,
            prompts,
            fps=fps,
            spec=self.spec,
            model=self._model,
            score=self._score,
            condition=self._condition,
            reduction=self._reduction,
            frames_per_pass=self._frames_per_pass,
        )
        values = {**output.values, "log_sigma": output.values["log_sigma"].detach()}
        return dataclasses.replace(output, values=values)

    def _condition(self, prompts: Sequence[str], like: Tensor) -> tuple[Tensor]:
        return (self._text(prompts, like.device),)

    def _score(self, frames: Tensor, text: Tensor) -> Tensor:
        """Return mean and log-deviation (n, 2) of frames (n, 3, height, width), each for the prompt in its row."""
        resized = smart_resize(frames, min_pixels=self._min_pixels, max_pixels=self._max_pixels)
        prefix, reward_ids = self._text.prefix(frames.device), self._text.reward_ids(frames.device)
        return self._model(resized[:, None], text, prefix, reward_ids)[:, 0]


def _head(hidden_size: int) -> nn.Module:
    return nn.Sequential(  # dropout sits between for the numbering of the published names; in eval mode it does nothing
        nn.Linear(hidden_size, 1024), nn.ReLU(), nn.Dropout(0.05), nn.Linear(1024, 16), nn.ReLU(), nn.Linear(16, 2)
    )


def _rename(state: dict[str, Tensor]) -> dict[str, Tensor]:
    prefixes = (("visual.", "model.visual."), ("model.", "model.language_model."))
    return renamed(state, prefixes, unused=("lm_head.weight",))


def _instruct(prompt: str) -> str:
    return HPS_V3.format(text_prompt=prompt)
