"""VBench's aesthetic quality: LAION's linear aesthetic predictor on CLIP ViT-L/14, frame by frame."""

from functools import partial
from pathlib import Path
from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from evaluation.base import ClipScore, DecodedClip, MetricSpec
from evaluation.metrics.pixels import Device
from evaluation.ports.frame_features import FRAMES_PER_PASS, FrameFeatures, mean_and_curve
from evaluation.ports.openai_clip import load_vision_tower
from evaluation.ports.preprocessing import clip_input
from evaluation.ports.weights import find_weights
from rewards.weight_files import load_strictly, read_state

SCALE = 10.0
"""Top of the predictor's scale of 1 to 10."""


class AestheticQuality:
    """Mean over frames of the predictor's rating over 10; 0.4 to 0.7 is usual.

    The reward `aesthetic` with the head "aesthetic_linear" is the same model with a smoothed resize: other numbers.
    """

    def __init__(
        self,
        weights: str | Path = "aesthetic_linear",
        *,
        clip_weights: str | Path = "openai_clip_vit_l_14",
        frames_per_pass: int | None = FRAMES_PER_PASS,
        device: Device = "auto",
    ) -> None:
        """Load CLIP's vision tower and the head.

        Args:
            weights: The head: name in the ledger, or LAION's file sa_0_4_vit_l_14_linear.pth.
            clip_weights: Name in the ledger, OpenAI's file ViT-L-14.pt, or a state dict of it. "clip_vit_l_14" has the
                same weights from the Hub.
            frames_per_pass: Frames through the model at a time, None for all; bounds memory, changes no score.
            device: Where it computes.

        Raises:
            RewardError: Missing, corrupt or truncated weights, those of another model, a bad option.
            ConfigError: The device is not there.
        """
        head_path = find_weights(weights)
        tower = load_vision_tower(find_weights(clip_weights))
        head = nn.Linear(tower.config.projection_dim, 1)
        load_strictly(head, read_state(head_path), source=head_path)
        model = nn.ModuleDict({"tower": tower, "head": head})

        def rate(pixels: Tensor) -> Tensor:
            unit = functional.normalize(tower(pixel_values=pixels).image_embeds, dim=-1)
            return cast(Tensor, head(unit)[:, 0])

        prepare = partial(clip_input, size=tower.config.image_size)
        self._ratings = FrameFeatures(model, rate, prepare=prepare, frames_per_pass=frames_per_pass, device=device)
        self.spec = MetricSpec(
            name="aesthetic_quality",
            version="1",
            family="vbench-port",
            dimensions=("aesthetic_quality",),
            unit="rating / 10",
            higher_is_better=True,
            uses_prompt=False,
            weights=("openai_clip_vit_l_14", "aesthetic_linear"),
            licence="Apache-2.0 AND MIT",
            paper="arXiv:2311.17982",
        )

    def score(self, clip: DecodedClip) -> ClipScore:
        """Score a clip, see `Metric`."""
        return mean_and_curve("aesthetic_quality", self._ratings(clip) / SCALE)
