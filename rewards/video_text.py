"""Agreement of a whole clip with its prompt by a video-and-text model (X-CLIP: Ni et al. 2022, arXiv:2208.02816).

Any `transformers.XCLIPModel` folder with its tokenizer is one. It sees all frames in order, so unlike an image reward
it can tell left from right and motion from a still.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from torch import Tensor
from torch.nn import functional
from transformers import XCLIPModel

from rewards.base import FramePolicy, RewardOutput, RewardSpec, masked_output
from rewards.errors import RewardError
from rewards.inputs import check_clips, full_precision
from rewards.pretrained import follow, in_passes, load_model
from rewards.tower_inputs import SquareInput, text_embeddings
from rewards.video_ops import Fit, take_frames


class VideoText:
    """exp(logit_scale) * cosine(clip, prompt), the prompt conditioned on the clip as X-CLIP does.

    Range [-s, s] with s = exp(logit_scale) of the folder. Higher is better; comparable for one prompt only. The model
    takes exactly `num_frames` frames: a clip of another length is resampled uniformly, first and last frame included,
    frames repeated where it is shorter. Every step is float32; the model moves to the clip's device and never trains.
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
    ) -> None:
        """Load the model.

        Args:
            model: `XCLIPModel` folder or Hub id.
            tokenizer: Folder or Hub id of the tokenizer where it is not beside the model.
            fit: How a frame becomes the model's square: "crop", "letterbox" or "squash".
            clips_per_pass: Clips through the model at a time, None for all; bounds memory, changes no score.
            cache_size: Prompt embeddings kept.
            licence: Of the weights, for tables.

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
            tokenizer or model, self._embed_text, config=text, pools_at=None, cache_size=cache_size
        )
        self._scale = float(self._model.logit_scale.exp())
        self.spec = RewardSpec(
            name="video_text",
            version="1",
            dimensions=("alignment",),
            range=(-self._scale, self._scale),
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
        clips = check_clips(video, prompts, fps=fps)
        follow(self._model, clips.video)
        with full_precision(clips.video):
            frames = take_frames(clips.video, self.spec.frames.select(clips.video.shape[1]))
            text = self._text(prompts, like=clips.video)
            cosine = in_passes(self._cosine, (frames, text), self._clips_per_pass)
        return masked_output({"alignment": self._scale * cosine}, clips.valid, clips.reasons)

    def _cosine(self, frames: Tensor, text: Tensor) -> Tensor:
        """Return the cosine of each clip with its own prompt: `XCLIPModel.forward` without the other pairs.

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
        return functional.cosine_similarity(clip, prompt, dim=-1)

    def _embed_text(self, token_ids: Tensor) -> Tensor:
        """Map token ids (1, tokens) to an embedding (1, dim), not normalised."""
        return cast(Tensor, self._model.get_text_features(input_ids=token_ids).pooler_output)
