"""Human Preference Score v2 and v2.1: CLIP ViT-H/14 trained on ranked images (Wu et al. 2023, arXiv:2306.09341)."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from rewards.base import FramePolicy
from rewards.clip_text import clean_prompt
from rewards.clip_towers import LAION_H_14, LAION_H_14_TOKENIZER, ClipCosine, ClipTowers
from rewards.frame_scores import FrameReduction
from rewards.inputs import Precision
from rewards.open_clip_weights import to_transformers


class HpsV2(ClipCosine):
    """Cosine of frame and prompt, the frame letterboxed as the official script does.

    Range [-1, 1]; 0.2 to 0.35 is usual (papers state it times 100). Higher is better; comparable for one prompt only,
    and not between v2 and v2.1. The long side is resized to 224 and the rest is black: cropping or squashing instead,
    as many training scripts do, is another score.
    """

    published: ClassVar[str] = "hps_v2"
    """Registry name, and name in the ledger of its weights."""

    def __init__(
        self,
        weights: str | Path | None = None,
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
            weights: Name in the ledger, or a file: an open_clip state dict, alone or under "state_dict". None for this
                version's published one.
            config: `config.json` of a `transformers.CLIPModel` of another size, or its folder; None for ViT-H/14.
            tokenizer: Folder or Hub id, None for the published one.
            frames: "all", "first", or {kind: uniform, count: 8}.
            reduction: "mean", "min", "first" or {kind: softmin, temperature: 0.01}: from frames to the clip.
            frames_per_pass: Frames through the vision tower at a time, None for all; bounds memory, changes no score.
            precision: Of the vision tower: "bfloat16" is 3 times faster; the weights and the cosine stay float32.
            cache_size: Prompt embeddings kept.
            accept_licence: Not needed for the published weights (Apache-2.0).

        Raises:
            RewardError: Missing, corrupt or truncated weights, another architecture, a tokenizer that does not fit, a
                bad option.
        """
        towers = ClipTowers.from_file(
            self.published if weights is None else weights,
            config=config,
            published=LAION_H_14,
            tokenizer=tokenizer or LAION_H_14_TOKENIZER,
            fit="letterbox",
            cache_size=cache_size,
            precision=precision,
            accept_licence=accept_licence,
            translate=to_transformers,
            prepare=clean_prompt,
        )
        super().__init__(
            towers,
            name=self.published,
            dimension="preference",
            scale=1.0,
            licence="Apache-2.0",
            paper="arXiv:2306.09341",
            frames=frames,
            reduction=reduction,
            frames_per_pass=frames_per_pass,
        )


class HpsV21(HpsV2):
    """The same with the weights of version 2.1, trained on more and cleaner choices."""

    published: ClassVar[str] = "hps_v2_1"
