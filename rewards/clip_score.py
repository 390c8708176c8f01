"""CLIPScore: how well a frame fits its prompt, by CLIP as it was published (Hessel et al. 2021, arXiv:2104.08718)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from rewards.base import FramePolicy, version_of
from rewards.clip_text import clean_prompt
from rewards.clip_towers import OPENAI_B_32, OPENAI_L_14, ClipCosine, ClipTowers
from rewards.errors import RewardError
from rewards.frame_scores import FrameReduction
from rewards.inputs import Precision

_PUBLISHED: dict[str, tuple[dict[str, Any], str]] = {
    "clip_vit_b_32": (OPENAI_B_32, "openai/clip-vit-base-patch32"),
    "clip_vit_l_14": (OPENAI_L_14, "openai/clip-vit-large-patch14"),
}
"""Architecture and tokenizer of a name in the ledger."""


class ClipScore(ClipCosine):
    """2.5 * max(cosine, 0) by default, as the paper defines it; or 100 * cosine.

    Range [0, 2.5] with `formula: paper` (0.6 to 0.9 is usual), [-100, 100] with `formula: percent` (25 to 35). Higher
    is better. The paper's formula has no gradient where the cosine is negative: train on `percent`.
    """

    def __init__(
        self,
        weights: str | Path = "clip_vit_b_32",
        *,
        formula: Literal["paper", "percent"] = "paper",
        prefix: str = "A photo depicts",
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
            weights: "clip_vit_b_32" (the paper's), "clip_vit_l_14", or a file: the state dict of a
                `transformers.CLIPModel`.
            formula: "paper" or "percent".
            prefix: Words before the prompt: the paper's, or "" for none (torchmetrics, most work on video).
            config: `config.json` of another architecture, or its folder; None for that of `weights`, ViT-B/32 for a
                file.
            tokenizer: Folder or Hub id, None for OpenAI's.
            frames: "all", "first", or {kind: uniform, count: 8}.
            reduction: "mean", "min", "first" or {kind: softmin, temperature: 0.05}: from frames to the clip.
            frames_per_pass: Frames through the vision tower at a time, None for all; bounds memory, changes no score.
            precision: Of the vision tower: "bfloat16" is 3 times faster; the weights and the cosine stay float32.
            cache_size: Prompt embeddings kept.
            accept_licence: Not needed for the published weights (MIT).

        Raises:
            RewardError: Missing, corrupt or truncated weights, another architecture, a tokenizer that does not fit, a
                bad option.
        """
        if formula not in ("paper", "percent"):
            raise RewardError(f"Unknown CLIPScore formula {formula!r}. Known: paper, percent.")
        architecture, published_tokenizer = _PUBLISHED.get(str(weights), _PUBLISHED["clip_vit_b_32"])
        self._prefix = prefix
        self._is_clamped = formula == "paper"
        towers = ClipTowers.from_file(
            weights,
            config=config,
            published=architecture,
            tokenizer=tokenizer or published_tokenizer,
            fit="crop",
            cache_size=cache_size,
            precision=precision,
            accept_licence=accept_licence,
            prepare=self._caption,
        )
        super().__init__(
            towers,
            name="clip_score",
            dimension="alignment",
            scale=2.5 if self._is_clamped else 100.0,
            lowest=0.0 if self._is_clamped else None,
            version=version_of(
                formula=(formula, "paper"), prefix=(prefix, "A photo depicts"), precision=(precision, "float32")
            ),
            licence="MIT",
            paper="arXiv:2104.08718",
            frames=frames,
            reduction=reduction,
            frames_per_pass=frames_per_pass,
        )

    def _caption(self, prompt: str) -> str:
        return clean_prompt(f"{self._prefix} {prompt}")

    def _score(self, frames: Tensor, text: Tensor) -> Tensor:
        score = super()._score(frames, text)
        return score.clamp(min=0) if self._is_clamped else score
