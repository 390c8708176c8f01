"""Image preference by a CLIP model, frame by frame (PickScore: Kirstain et al. 2023, arXiv:2305.01569).

Any `transformers.CLIPModel` folder with its tokenizer is one: PickScore, CLIPScore's CLIP, or a small one of your own.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional
from transformers import CLIPModel

from rewards.base import FramePolicy, RewardOutput, RewardSpec, parse_frame_policy
from rewards.frame_scores import FrameReduction, check_frames_per_pass, parse_frame_reduction, score_frames
from rewards.pretrained import (
    TextEmbeddings,
    check_pooling,
    image_statistics,
    load_model,
    load_tokenizer,
    square_size,
)
from rewards.video_ops import Fit, fit_square, normalise


class ClipPreference:
    """exp(logit_scale) * cosine(frame, prompt), over the chosen frames their mean or another reduction.

    Range [-s, s] with s = exp(logit_scale) of the folder (100 for CLIP and PickScore, where 17 to 24 is usual). Higher
    is better; comparable for one prompt only. Every step is float32, whatever the clip's precision or autocast. The
    model moves to the clip's device and never trains.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        tokenizer: str | Path | None = None,
        frames: FramePolicy | str | Mapping[str, object] = "all",
        fit: Fit = "crop",
        reduction: FrameReduction | str | Mapping[str, object] = "mean",
        frames_per_pass: int | None = None,
        cache_size: int = 4096,
        licence: str = "see the model card",
    ) -> None:
        """Load the model.

        Args:
            model: `CLIPModel` folder or Hub id.
            tokenizer: Folder or Hub id of the tokenizer where it is not beside the model (PickScore uses
                "laion/CLIP-ViT-H-14-laion2B-s32B-b79K").
            frames: "all", "first", or {kind: uniform, count: 8}.
            reduction: "mean", "min", "first" or {kind: softmin, temperature: 0.5}: from frames to the clip.
            fit: How a frame becomes the model's square: "crop" (PickScore's own), "letterbox" or "squash".
            frames_per_pass: Frames through the vision tower at a time, None for all; bounds memory, changes no score.
            cache_size: Prompt embeddings kept.
            licence: Of the weights, for tables.

        Raises:
            RewardError: Missing folder, wrong class, incomplete weights, a tokenizer that does not fit, a bad option.
        """
        self._frames_per_pass = check_frames_per_pass(frames_per_pass)
        self._reduction = parse_frame_reduction(reduction)
        self._model = load_model(model, CLIPModel)
        config = self._model.config
        self._size = square_size(config.vision_config.image_size, model)
        self._mean, self._std = image_statistics(model)
        self._fit: Fit = fit
        fit_square(torch.zeros(3, 2, 2), 2, fit)  # refuses an unknown fit now, not at the first clip
        text_config = config.text_config
        loaded_tokenizer = load_tokenizer(tokenizer or model)
        # eos_token_id 2 is transformers' mark of folders from before its fix; they pool at the highest id.
        pools_at = None if text_config.eos_token_id == 2 else text_config.eos_token_id
        check_pooling(loaded_tokenizer, pools_at=pools_at, vocab_size=text_config.vocab_size, folder=tokenizer or model)
        self._text = TextEmbeddings(
            loaded_tokenizer, self._embed_text, max_tokens=text_config.max_position_embeddings, cache_size=cache_size
        )
        self._scale = float(self._model.logit_scale.exp())
        self.spec = RewardSpec(
            name="clip_preference",
            version="1",
            dimensions=("preference",),
            range=(-self._scale, self._scale),
            higher_is_better=True,
            is_differentiable=True,
            frames=parse_frame_policy(frames),
            resolution=(self._size, self._size),
            licence=licence,
            paper="arXiv:2305.01569",
            uses_prompt=True,
        )

    def __call__(self, video: Tensor, prompts: Sequence[str], *, fps: float) -> RewardOutput:
        """Score a batch, see `Reward`.

        Raises:
            RewardError: Input of the wrong form, or an empty prompt.
        """
        return score_frames(
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

    def _condition(self, prompts: Sequence[str], like: Tensor) -> tuple[Tensor]:
        return (self._text(prompts, like=like),)

    def _score(self, frames: Tensor, text: Tensor) -> Tensor:
        """Return the preference (n,) of frames (n, 3, height, width), each for the text embedding in its row."""
        return self._scale * (self._embed_frames(frames) * text).sum(-1)

    def _embed_frames(self, frames: Tensor) -> Tensor:
        """Map frames (n, 3, height, width) in [0, 1] to unit embeddings (n, dim)."""
        pixels = normalise(fit_square(frames, self._size, self._fit), self._mean, self._std)
        features = cast(Tensor, self._model.get_image_features(pixel_values=pixels).pooler_output)
        return functional.normalize(features, dim=-1)

    def _embed_text(self, token_ids: Tensor) -> Tensor:
        """Map token ids (1, tokens) to a unit embedding (1, dim)."""
        features = cast(Tensor, self._model.get_text_features(input_ids=token_ids).pooler_output)
        return functional.normalize(features, dim=-1)
