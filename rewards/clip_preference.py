"""Image preference by a CLIP model, frame by frame (PickScore: Kirstain et al. 2023, arXiv:2305.01569).

Any `transformers.CLIPModel` folder with its tokenizer is one: PickScore, CLIPScore's CLIP, or a small one of your own.
"""

from collections.abc import Mapping
from pathlib import Path

from transformers import CLIPModel

from rewards.base import FramePolicy
from rewards.clip_towers import ClipCosine, ClipTowers
from rewards.frame_scores import FrameReduction
from rewards.pretrained import load_model
from rewards.tower_inputs import SquareInput
from rewards.video_ops import Fit


class ClipPreference(ClipCosine):
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
        loaded = load_model(model, CLIPModel)
        pixels = SquareInput.of(loaded.config.vision_config.image_size, fit=fit, folder=model)
        towers = ClipTowers(loaded, pixels=pixels, tokenizer=tokenizer or model, cache_size=cache_size)
        super().__init__(
            towers,
            name="clip_preference",
            dimension="preference",
            scale=towers.scale,
            licence=licence,
            paper="arXiv:2305.01569",
            frames=frames,
            reduction=reduction,
            frames_per_pass=frames_per_pass,
        )
