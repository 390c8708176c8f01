"""VBench's subject consistency: whether the subject stays itself, by DINO features of the frames."""

from pathlib import Path

from evaluation.base import ClipScore, DecodedClip, MetricSpec
from evaluation.metrics.pixels import Device
from evaluation.ports.dino import load_dino
from evaluation.ports.frame_features import (
    FRAMES_PER_PASS,
    FrameFeatures,
    check_two_frames,
    consistency,
    mean_and_curve,
)
from evaluation.ports.preprocessing import dino_input
from evaluation.ports.weights import find_weights


class SubjectConsistency:
    """Mean over frames of their resemblance to the previous and the first one, in [0, 1]; a still clip has 1."""

    def __init__(
        self,
        weights: str | Path = "dino_vit_b_16",
        *,
        frames_per_pass: int | None = FRAMES_PER_PASS,
        device: Device = "auto",
    ) -> None:
        """Load DINO.

        Args:
            weights: Name in the ledger, or DINO's own file dino_vitbase16_pretrain.pth.
            frames_per_pass: Frames through the model at a time, None for all; bounds memory, changes no score.
            device: Where it computes.

        Raises:
            RewardError: Missing, corrupt or truncated weights, those of another model, a bad option.
            ConfigError: The device is not there.
        """
        model = load_dino(find_weights(weights))
        self._features = FrameFeatures(model, model, prepare=dino_input, frames_per_pass=frames_per_pass, device=device)
        self.spec = MetricSpec(
            name="subject_consistency",
            version="1",
            family="vbench-port",
            dimensions=("subject_consistency",),
            unit="cosine",
            higher_is_better=True,
            uses_prompt=False,
            weights=("dino_vit_b_16",),
            paper="arXiv:2311.17982",
        )

    def score(self, clip: DecodedClip) -> ClipScore:
        """Score a clip, see `Metric`.

        Raises:
            SkipClipError: It has a single frame.
        """
        check_two_frames(clip)
        return mean_and_curve("subject_consistency", consistency(self._features(clip)))
