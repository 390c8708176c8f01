"""PickScore v1: CLIP ViT-H/14 trained on choices between two images (Kirstain et al. 2023, arXiv:2305.01569)."""

from collections.abc import Mapping
from pathlib import Path

from rewards.base import FramePolicy
from rewards.clip_towers import LAION_H_14, LAION_H_14_TOKENIZER, ClipCosine, ClipTowers
from rewards.frame_scores import FrameReduction
from rewards.inputs import Precision


class PickScore(ClipCosine):
    """exp(logit_scale) * cosine(frame, prompt), frame by frame.

    Range [-100, 100] with the published weights, where 17 to 24 is usual. Higher is better; comparable for one prompt
    only. The official script resizes 8-bit images with Pillow: its pixels differ from ours by about one grey level.
    """

    def __init__(
        self,
        weights: str | Path = "pick_score",
        *,
        config: str | Path | None = None,
        tokenizer: str | Path | None = None,
        frames: FramePolicy | str | Mapping[str, object] = "all",
        reduction: FrameReduction | str | Mapping[str, object] = "mean",
        frames_per_pass: int | None = None,
        precision: Precision = "float32",
        cache_size: int = 4096,
        accept_licence: bool = False,
    ) -> None:
        """Load the model.

        Args:
            weights: Name in the ledger, or a file: the state dict of a `transformers.CLIPModel`.
            config: `config.json` of another architecture, or its folder; None for ViT-H/14.
            tokenizer: Folder or Hub id, None for the published one.
            frames: "all", "first", or {kind: uniform, count: 8}.
            reduction: "mean", "min", "first" or {kind: softmin, temperature: 0.5}: from frames to the clip.
            frames_per_pass: Frames through the vision tower at a time, None for all; bounds memory, changes no score.
            precision: Of the vision tower: "bfloat16" is 3 times faster; the weights and the cosine stay float32.
            cache_size: Prompt embeddings kept.
            accept_licence: Not needed for the published weights (MIT).

        Raises:
            RewardError: Missing, corrupt or truncated weights, another architecture, a tokenizer that does not fit, a
                bad option.
        """
        towers = ClipTowers.from_file(
            weights,
            config=config,
            published=LAION_H_14,
            tokenizer=tokenizer or LAION_H_14_TOKENIZER,
            fit="processor_crop",
            cache_size=cache_size,
            precision=precision,
            accept_licence=accept_licence,
        )
        super().__init__(
            towers,
            name="pick_score",
            dimension="preference",
            scale=towers.scale,
            licence="MIT",
            paper="arXiv:2305.01569",
            frames=frames,
            reduction=reduction,
            frames_per_pass=frames_per_pass,
        )
