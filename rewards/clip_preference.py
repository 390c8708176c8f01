"""Image preference by a CLIP model, frame by frame (PickScore: Kirstain et al. 2023, arXiv:2305.01569).

Any `transformers.CLIPModel` folder with its tokenizer is one: PickScore, CLIPScore's CLIP, or a small one of your own.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn
from transformers import CLIPModel

from rewards.base import FramePolicy
from rewards.clip_towers import ClipCosine, ClipTowers
from rewards.frame_scores import FrameReduction
from rewards.inputs import CheckedClips, check_clips, full_precision
from rewards.pretrained import follow, in_passes, load_model
from rewards.tower_inputs import SquareInput
from rewards.trainable import parameters_outside_towers, save_folder
from rewards.video_ops import Fit, take_frames


class ClipPreference(ClipCosine):
    """exp(logit_scale) * cosine(frame, prompt), over the chosen frames their mean or another reduction.

    Range [-s, s] with s = exp(logit_scale) of the folder (100 for CLIP and PickScore, where 17 to 24 is usual). Higher
    is better; comparable for one prompt only. Every step is float32, whatever the clip's precision or autocast. The
    model moves to the clip's device; its weights are frozen unless it is built to train (rewards/trainable.py).
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
        trainable: bool = False,
    ) -> None:
        """Load the model.

        Args:
            model: `CLIPModel` folder or Hub id.
            tokenizer: Folder or Hub id of the tokenizer where it is not beside the model (PickScore uses
                "laion/CLIP-ViT-H-14-laion2B-s32B-b79K").
            frames: "all", "first", or {kind: uniform, count: 8}.
            reduction: "mean", "min", "first" or {kind: softmin, temperature: 0.5}: from frames to the clip.
            fit: How a frame becomes the model's square: "crop", "processor_crop" (PickScore's own), "letterbox" or
                "squash".
            frames_per_pass: Frames through the vision tower at a time, None for all; bounds memory, changes no score.
            cache_size: Prompt embeddings kept.
            licence: Of the weights, for tables.
            trainable: Whether scores carry gradients to weights that require them; prompts are then encoded anew.

        Raises:
            RewardError: Missing folder, wrong class, incomplete weights, a tokenizer that does not fit, a bad option.
        """
        loaded = load_model(model, CLIPModel)
        pixels = SquareInput.of(loaded.config.vision_config.image_size, fit=fit, folder=model)
        towers = ClipTowers(
            loaded, pixels=pixels, tokenizer=tokenizer or model, cache_size=cache_size, trainable=trainable
        )
        super().__init__(
            towers,
            name="clip_preference",
            dimension="preference",
            scale=math.inf if trainable else towers.scale,
            licence=licence,
            paper="arXiv:2305.01569",
            frames=frames,
            reduction=reduction,
            frames_per_pass=frames_per_pass,
        )

    def _score(self, frames: Tensor, text: Tensor) -> Tensor:
        """Return the score (n,) of frames (n, 3, height, width), by the scale that the model has now."""
        return self.model.logit_scale.exp() * (self._towers.embed_frames(frames) * text).sum(-1)

    def embed(self, video: Tensor, prompts: Sequence[str], *, fps: float) -> tuple[Tensor, Tensor, CheckedClips]:
        """Return what the score is made of: the mean unit embedding of the frames, and the prompt's, (batch, dim) each.

        Raises:
            RewardError: As `__call__`.
        """
        clips = check_clips(video, prompts, fps=fps)
        follow(self.model, clips.video)
        with full_precision(clips.video):
            indices = tuple(dict.fromkeys(self.spec.frames.select(clips.video.shape[1], fps=fps)))
            frames = take_frames(clips.video, indices)
            images = in_passes(self._towers.embed_frames, (frames.flatten(0, 1),), self._frames_per_pass)
            text = self._towers.embed_prompts(prompts, clips.video)
            return images.unflatten(0, frames.shape[:2]).mean(dim=1), text, clips

    @property
    def model(self) -> CLIPModel:
        """The model whose weights can be trained."""
        return self._towers.model

    def head_parameters(self) -> list[nn.Parameter]:
        """Return both projections and the logit scale."""
        return parameters_outside_towers(self.model)

    def save_pretrained(self, folder: Path) -> None:
        """Write the folder that this class and `CLIPModel.from_pretrained` load."""
        pixels = self._towers.pixels
        save_folder(folder, self.model, self._towers.text.tokenizer, pixels.mean, pixels.std)
