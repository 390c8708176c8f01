"""How much the parts of a long clip resemble each other: VBench-Long's clip-to-clip consistency of first frames."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from evaluation.base import DecodedClip, Metric
from evaluation.metrics.pixels import Device
from evaluation.ports.dino import load_dino
from evaluation.ports.frame_features import FRAMES_PER_PASS, FrameFeatures, consistency
from evaluation.ports.preprocessing import dinov2_input
from evaluation.ports.weights import find_weights
from rlhf_video.errors import ConfigError

ClipToClip = Literal["dinov2", "dino", "clip", "off"]
"""Features of the first frames, by VBench-Long's own names; "off" leaves them out, as it does without `--dev_flag`."""
DINOV2 = "dinov2_vit_b_14"
"""Name of its weights in `rewards.ledger`."""
CHOICES: dict[str, tuple[ClipToClip, ...]] = {
    "subject_consistency": ("dinov2", "dino", "off"),
    "background_consistency": ("clip", "off"),
}
"""Dimension -> what can be asked for, the original's default first where it has a port."""
Resemblance = Callable[[DecodedClip], float]
"""From a clip of first frames to their consistency in [0, 1]."""


def pick_clip_to_clip(dimension: str, asked: ClipToClip | None) -> ClipToClip:
    """Return the features to use.

    Args:
        dimension: One of VBench's.
        asked: What the user names; None takes the original's default.

    Raises:
        ConfigError: The dimension has no such features, or the original's default has no port.
    """
    choices = CHOICES.get(dimension)
    if choices is None:
        if asked not in (None, "off"):
            raise ConfigError(
                f"clip_to_clip={asked!r} is for {' and '.join(CHOICES)} alone: leave it out for {dimension}."
            )
        return "off"
    if asked is None and choices[0] == "dinov2":
        return "dinov2"
    if asked is None:
        raise ConfigError(
            f"VBench-Long compares the parts of a clip by DreamSim for {dimension}, which has no port here. Give "
            "clip_to_clip: clip for its own alternative, or clip_to_clip: off for the consistency inside the parts "
            "alone. Neither compares with published numbers."
        )
    if asked not in choices:
        raise ConfigError(f"clip_to_clip={asked!r} does not fit {dimension}: it is one of {', '.join(choices)}.")
    return asked


def clip_to_clip_by(
    choice: ClipToClip, port: Metric, weights: str | Path, device: Device = "auto"
) -> Resemblance | None:
    """Return what compares first frames, None where that is off.

    Args:
        choice: Of `pick_clip_to_clip`.
        port: Of the dimension; "dino" and "clip" are its own features.
        weights: DINOv2's, a name of the ledger or a file.
        device: Where DINOv2 computes.

    Raises:
        RewardError: Missing, corrupt or truncated weights, or those of another model.
    """
    if choice == "off":
        return None
    if choice != "dinov2":
        (dimension,) = port.spec.dimensions
        return lambda clip: port.score(clip).values[dimension]
    model = load_dino(find_weights(weights))
    features = FrameFeatures(model, model, prepare=dinov2_input, frames_per_pass=FRAMES_PER_PASS, device=device)
    return lambda clip: float(consistency(features(clip)).double().mean())
