"""VBench's appearance style: how much the frames look like the style that the prompt names, by CLIP."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import cast

from torch import Tensor
from torch.nn import functional

from evaluation.base import ClipEntry, ClipScore, DecodedClip, MetricSpec, SkipClipError
from evaluation.metrics.pixels import Device
from evaluation.ports.computing import exactly
from evaluation.ports.frame_features import FRAMES_PER_PASS, FrameFeatures, mean_and_curve
from evaluation.ports.openai_clip import load_clip_model
from evaluation.ports.preprocessing import clip_input_by_pillow
from evaluation.ports.weights import find_weights
from rewards.clip_text import clean_prompt
from rewards.tower_inputs import text_embeddings

FACT = "appearance_style"
"""Key of the style among a prompt's facts, for example "Van Gogh style"."""
TOKENIZER = "openai/clip-vit-base-patch32"
"""Hub id; the vocabulary is that of every CLIP of OpenAI's."""
SCALE = 100.0
"""What VBench divides CLIP's logits by; CLIP multiplies the cosine by about as much."""
CACHE_SIZE = 256
"""Styles kept; VBench has 9."""


class AppearanceStyle:
    """Mean over frames of CLIP's logit of frame and style over 100; 0.15 to 0.3 is usual.

    The style is no part of the model's prompt: it is what the suite says about the prompt (`ClipEntry.facts`).
    """

    def __init__(
        self,
        weights: str | Path = "openai_clip_vit_b_32",
        *,
        tokenizer: str | Path = TOKENIZER,
        frames_per_pass: int | None = FRAMES_PER_PASS,
        device: Device = "auto",
    ) -> None:
        """Load CLIP.

        Args:
            weights: Name in the ledger, OpenAI's file ViT-B-32.pt, or a state dict of it. "clip_vit_b_32" has the same
                weights from the Hub.
            tokenizer: Folder or Hub id.
            frames_per_pass: Frames through the model at a time, None for all; bounds memory, changes no score.
            device: Where it computes.

        Raises:
            RewardError: Missing, corrupt or truncated weights, those of another model, a tokenizer that does not fit,
                a bad option.
            ConfigError: The device is not there.
        """
        self._model = model = load_clip_model(find_weights(weights))
        config = model.config.text_config
        self._text = text_embeddings(
            tokenizer, self._embed_text, config=config, pools_at=config.eos_token_id, cache_size=CACHE_SIZE
        )

        def embed(pixels: Tensor) -> Tensor:
            return functional.normalize(model.get_image_features(pixel_values=pixels).pooler_output, dim=-1)

        prepare = partial(clip_input_by_pillow, size=model.config.vision_config.image_size)
        self._features = FrameFeatures(
            model, embed, prepare=prepare, frames_per_pass=frames_per_pass, device=device, prepares_on_cpu=True
        )
        self.spec = MetricSpec(
            name="appearance_style",
            version="1",
            family="vbench-port",
            dimensions=("appearance_style",),
            unit="logit / 100",
            higher_is_better=True,
            uses_prompt=True,
            weights=("openai_clip_vit_b_32",),
            licence="Apache-2.0 AND MIT",
            paper="arXiv:2311.17982",
        )

    def score(self, clip: DecodedClip) -> ClipScore:
        """Score a clip, see `Metric`.

        Raises:
            SkipClipError: The suite names no style for its prompt.
        """
        style = style_of(clip.entry)
        frames = self._features(clip)
        with exactly(frames.device):
            text = self._text([clean_prompt(style)], like=frames)[0]
            logits = self._model.logit_scale.exp() * frames @ text
        return mean_and_curve("appearance_style", logits / SCALE)

    def _embed_text(self, token_ids: Tensor) -> Tensor:
        """Map token ids (1, tokens) to a unit embedding (1, dim)."""
        features = cast(Tensor, self._model.get_text_features(input_ids=token_ids).pooler_output)
        return functional.normalize(features, dim=-1)


def style_of(entry: ClipEntry) -> str:
    """Return the style that the suite names for a clip's prompt.

    Args:
        entry: With the fact "appearance_style": the text, or VBench's auxiliary info {"appearance_style": text}.

    Raises:
        SkipClipError: There is none.
    """
    style = entry.facts.get(FACT)
    if isinstance(style, Mapping):
        style = style.get(FACT)
    if not isinstance(style, str) or not style.strip():
        raise SkipClipError("the suite names no appearance style for this prompt")
    return style
