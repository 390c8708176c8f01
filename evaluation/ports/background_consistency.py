"""VBench's background consistency: whether the scene stays the same, by CLIP features of the frames."""

from functools import partial
from pathlib import Path

from torch import Tensor

from evaluation.base import ClipScore, DecodedClip, MetricSpec
from evaluation.metrics.pixels import Device
from evaluation.ports.frame_features import (
    FRAMES_PER_PASS,
    FrameFeatures,
    check_two_frames,
    consistency,
    mean_and_curve,
)
from evaluation.ports.openai_clip import load_vision_tower
from evaluation.ports.preprocessing import clip_input
from evaluation.ports.weights import find_weights


class BackgroundConsistency:
    """Mean over frames of their resemblance to the previous and the first one, in [0, 1]; a still clip has 1."""

    def __init__(
        self,
        weights: str | Path = "openai_clip_vit_b_32",
        *,
        frames_per_pass: int | None = FRAMES_PER_PASS,
        device: Device = "auto",
    ) -> None:
        """Load CLIP's vision tower.

        Args:
            weights: Name in the ledger, OpenAI's file ViT-B-32.pt, or a state dict of it. "clip_vit_b_32" has the same
                weights from the Hub.
            frames_per_pass: Frames through the model at a time, None for all; bounds memory, changes no score.
            device: Where it computes.

        Raises:
            RewardError: Missing, corrupt or truncated weights, those of another model, a bad option.
            ConfigError: The device is not there.
        """
        tower = load_vision_tower(find_weights(weights))

        def embed(pixels: Tensor) -> Tensor:
            return tower(pixel_values=pixels).image_embeds

        prepare = partial(clip_input, size=tower.config.image_size)
        self._features = FrameFeatures(tower, embed, prepare=prepare, frames_per_pass=frames_per_pass, device=device)
        self.spec = MetricSpec(
            name="background_consistency",
            version="1",
            family="vbench-port",
            dimensions=("background_consistency",),
            unit="cosine",
            higher_is_better=True,
            uses_prompt=False,
            weights=("openai_clip_vit_b_32",),
            licence="Apache-2.0 AND MIT",
            paper="arXiv:2311.17982",
        )

    def score(self, clip: DecodedClip) -> ClipScore:
        """Score a clip, see `Metric`.

        Raises:
            SkipClipError: It has a single frame.
        """
        check_two_frames(clip)
        return mean_and_curve("background_consistency", consistency(self._features(clip)))
