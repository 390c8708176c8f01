"""Agreement of a whole clip with its prompt by a video-and-text model (X-CLIP: Ni et al. 2022, arXiv:2208.02816).

Any `transformers.XCLIPModel` folder with its tokenizer is one. It sees all frames in order, so unlike an image reward
it can tell left from right and motion from a still.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import XCLIPModel

from rewards.base import FramePolicy, RewardOutput, RewardSpec, masked_output
from rewards.errors import RewardError
from rewards.inputs import CheckedClips, check_clips, full_precision
from rewards.pretrained import follow, in_passes, load_model
from rewards.tower_inputs import SquareInput, text_embeddings
from rewards.trainable import parameters_outside_towers, save_folder
from rewards.video_ops import Fit, take_frames


class VideoText:
    """exp(logit_scale) * cosine(clip, prompt), the prompt conditioned on the clip as X-CLIP does.

    Range [-s, s] with s = exp(logit_scale) of the folder. Higher is better; comparable for one prompt only. The model
    takes exactly `num_frames` frames: a clip of another length is resampled uniformly, first and last frame included,
    frames repeated where it is shorter. Every step is float32; the model moves to the clip's device; its
    weights are frozen unless it is built to train (rewards/trainable.py).
    """

    def __init__(
        self,
        model: str | Path,
        *,
        tokenizer: str | Path | None = None,
        fit: Fit = "crop",
        clips_per_pass: int | None = None,
        cache_size: int = 4096,
        licence: str = "see the model card",
        trainable: bool = False,
    ) -> None:
        """Load the model.

        Args:
            model: `XCLIPModel` folder or Hub id.
            tokenizer: Folder or Hub id of the tokenizer where it is not beside the model.
            fit: How a frame becomes the model's square: "crop", "letterbox" or "squash".
            clips_per_pass: Clips through the model at a time, None for all; bounds memory, changes no score.
            cache_size: Prompt embeddings kept.
            licence: Of the weights, for tables.
            trainable: Whether scores carry gradients to weights that require them; prompts are then encoded anew.

        Raises:
            RewardError: Missing folder, wrong class, incomplete weights, a tokenizer that does not fit, a bad option.
        """
        if clips_per_pass is not None and clips_per_pass < 1:
            raise RewardError(f"clips_per_pass must be 1 or more, got {clips_per_pass}.")
        self._model = load_model(model, XCLIPModel)
        vision, text = self._model.config.vision_config, self._model.config.text_config
        self._pixels = SquareInput.of(vision.image_size, fit=fit, folder=model)
        self._clips_per_pass = clips_per_pass
        self._text = text_embeddings(
            tokenizer or model,
            self._embed_text,
            config=text,
            pools_at=None,
            cache_size=cache_size,
            trainable=trainable,
        )
        scale = math.inf if trainable else float(self._model.logit_scale.exp())
        self.spec = RewardSpec(
            name="video_text",
            version="1",
            dimensions=("alignment",),
            range=(-scale, scale),
            higher_is_better=True,
            is_differentiable=True,
            frames=FramePolicy("uniform", vision.num_frames),
            resolution=(self._pixels.size, self._pixels.size),
            licence=licence,
            paper="arXiv:2208.02816",
            uses_prompt=True,
        )

    def __call__(self, video: Tensor, prompts: Sequence[str], *, fps: float) -> RewardOutput:
        """Score a batch, see `Reward`.

        Raises:
            RewardError: Input of the wrong form, or an empty prompt.
        """
        clip, prompt, clips = self.embed(video, prompts, fps=fps)
        with full_precision(clips.video):
            score = self._model.logit_scale.exp() * functional.cosine_similarity(clip, prompt, dim=-1)
        return masked_output({"alignment": score}, clips.valid, clips.reasons)

    def embed(self, video: Tensor, prompts: Sequence[str], *, fps: float) -> tuple[Tensor, Tensor, CheckedClips]:
        """Return what the score is made of: the clip's embedding and its prompt's, (batch, dim) each.

        Raises:
            RewardError: As `__call__`.
        """
        clips = check_clips(video, prompts, fps=fps)
        follow(self._model, clips.video)
        with full_precision(clips.video):
            frames = take_frames(clips.video, self.spec.frames.select(clips.video.shape[1]))
            text = self._text(prompts, like=clips.video)
            clip, prompt = in_passes(self._embed_pairs, (frames, text), self._clips_per_pass).unbind(dim=1)
        return clip, prompt, clips

    @property
    def model(self) -> XCLIPModel:
        """The model whose weights can be trained."""
        return self._model

    def head_parameters(self) -> list[nn.Parameter]:
        """Return the projections, the logit scale, and what X-CLIP computes behind its towers."""
        return parameters_outside_towers(self._model)

    def save_pretrained(self, folder: Path) -> None:
        """Write the folder that this class and `XCLIPModel.from_pretrained` load."""
        save_folder(folder, self._model, self._text.tokenizer, self._pixels.mean, self._pixels.std)

    def _embed_pairs(self, frames: Tensor, text: Tensor) -> Tensor:
        """Embed each clip and its own prompt, (n, 2, dim): `XCLIPModel.forward` without the other pairs.

        Args:
            frames: (n, num_frames, 3, height, width) in [0, 1].
            text: (n, dim), before the clip conditions it.
        """
        model = self._model
        num_clips, num_frames = frames.shape[:2]
        vision = model.vision_model(pixel_values=self._pixels(frames).flatten(0, 1))
        per_frame = model.visual_projection(vision.pooler_output).unflatten(0, (num_clips, num_frames))
        clip = model.mit(per_frame).pooler_output
        patches = model.prompts_visual_layernorm(vision.last_hidden_state[:, 1:]) @ model.prompts_visual_projection
        patches = patches.unflatten(0, (num_clips, num_frames)).mean(dim=1)
        prompt = text[:, None]
        prompt = (prompt + model.prompts_generator(prompt, patches))[:, 0]
        return torch.stack((clip, prompt), dim=1)

    def _embed_text(self, token_ids: Tensor) -> Tensor:
        """Map token ids (1, tokens) to an embedding (1, dim), not normalised."""
        return cast(Tensor, self._model.get_text_features(input_ids=token_ids).pooler_output)
