"""VBench-Long (part of VBench++, arXiv:2411.13503): dimensions of VBench on clips of five seconds and more."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from evaluation.base import ClipScore, DecodedClip, Metric, MetricSpec, SkipClipError
from evaluation.metric_catalogue import CATALOGUE
from evaluation.metrics.pixels import Device
from evaluation.ports.long_alignment import fuse
from evaluation.ports.long_consistency import DINOV2, ClipToClip, clip_to_clip_by, pick_clip_to_clip
from evaluation.ports.long_splitting import parts, scenes
from evaluation.registry import build_metric
from evaluation.vbench_compat.totals import VBENCH_DIMENSIONS
from rlhf_video.errors import ConfigError

SECONDS = 2.0
"""Length of a part."""
LONGER_SECONDS = 10.0
"""Length of a part in `LONGER`."""
LONGER = ("human_action", "temporal_style", "overall_consistency", "aesthetic_quality", "imaging_quality")
"""Dimensions with longer parts: the models of the first three see more than two seconds; VBench asks the last two of
the prompts of overall consistency, and cuts a clip once, for the longest parts that any dimension of its prompt has."""
PORTED = tuple(name for name in VBENCH_DIMENSIONS if name in CATALOGUE)
"""Dimensions that have a port."""


class VBenchLong:
    """A dimension of VBench on a long clip: the mean over its parts of what the port says of each.

    Parts are two or ten seconds long by the dimension (`parts` says what becomes of a remainder); a frame rate with a
    fraction is rounded down. Subject and background consistency are half the mean over parts and half the consistency
    of the parts' first frames, aligned by VBench's table (`long_alignment`). Where a clip is cut into scenes, each
    scene is scored as a clip, and their mean is the clip's. The curve holds the port's value of each part.

    A part that the port skips skips the clip, and one that fails fails it; where VBench itself leaves out clips (moving
    ones of temporal flickering with the port's `static_filter`), the mean is over the parts that are left.

    What differs from the original: parts are not encoded again before they are scored; with the static filter every
    part of a clip that stands still counts, not only the first five of a prompt; of the features of first frames,
    DreamSim has no port; scene changes see `long_splitting.scenes`.
    """

    def __init__(
        self,
        dimension: str,
        *,
        options: Mapping[str, object] | None = None,
        clip_seconds: float | None = None,
        clip_to_clip: ClipToClip | None = None,
        clip_to_clip_weights: str | Path = DINOV2,
        scene_threshold: float | None = None,
        device: Device = "auto",
    ) -> None:
        """Build the port.

        Args:
            dimension: One of VBench's that has a port.
            options: Of the port.
            clip_seconds: Length of a part; None takes VBench-Long's for its own prompts. It uses 2 for any dimension on
                prompts of your own.
            clip_to_clip: Features that compare the first frames for subject consistency ("dinov2", "dino") and
                background consistency ("clip"), or "off" for the mean over parts alone. None takes the original's
                default, DINOv2 for subject consistency.
            clip_to_clip_weights: Of DINOv2: a name of the ledger, or dinov2_vitb14_pretrain.pth.
            scene_threshold: Cut at scene changes first, where neighbouring frames differ by so many 8-bit levels;
                VBench-Long has 35 where it is told to. None cuts none, as its own evaluation script.
            device: Where the port computes, unless its options say so.

        Raises:
            ConfigError: The dimension has no port, or an option does not fit.
            RewardError: The port cannot be built.
        """
        for name, number in (("clip_seconds", clip_seconds), ("scene_threshold", scene_threshold)):
            if number is not None and not 0 < number < float("inf"):
                raise ConfigError(f"{name} must be above 0, got {number}.")
        choice = pick_clip_to_clip(_check_dimension(dimension), clip_to_clip)
        port = build_metric(dimension, None, options or {}, device=device).metric
        assert isinstance(port, Metric), "every port scores single clips"
        self._dimension, self._port = dimension, port
        self._seconds = clip_seconds or (LONGER_SECONDS if dimension in LONGER else SECONDS)
        self._resemblance = clip_to_clip_by(choice, port, clip_to_clip_weights, device)
        self._scene_threshold = scene_threshold
        facts = port.spec
        self.spec = MetricSpec(
            name=f"long_{dimension}",
            version=f"1-{facts.version}",
            family="vbench-long-port",
            dimensions=(dimension,),
            unit=facts.unit,
            higher_is_better=facts.higher_is_better,
            uses_prompt=facts.uses_prompt,
            weights=(*facts.weights, DINOV2) if choice == "dinov2" else facts.weights,
            licence=facts.licence,
            paper="arXiv:2411.13503",
        )

    def score(self, clip: DecodedClip) -> ClipScore:
        """Score a clip, see `Metric`.

        Raises:
            SkipClipError: The port has nothing to say about a part, or VBench leaves out every part.
        """
        rate = max(1, int(clip.fps))
        size = max(1, round(rate * self._seconds))
        whole = [range(len(clip.frames))]
        values, curve = [], []
        for scene in whole if self._scene_threshold is None else scenes(clip.frames, self._scene_threshold):
            of_scene = [
                DecodedClip(clip.entry, clip.frames[scene.start + part.start : scene.start + part.stop], float(rate))
                for part in parts(len(scene), size)
            ]
            scores, reasons = self._part_scores(of_scene)
            if scores:
                values.append(self._fused(of_scene, float(np.mean(scores))))
                curve += scores
        if not values:
            raise SkipClipError(f"every part is left out, the last one because {reasons[-1]}")
        return ClipScore(values={self._dimension: float(np.mean(values))}, curves={self._dimension: curve})

    def _part_scores(self, clips: Sequence[DecodedClip]) -> tuple[list[float], list[str]]:
        """Return the values of the parts that count, and why the others do not."""
        scores: list[float] = []
        reasons: list[str] = []
        for number, part in enumerate(clips, 1):
            try:
                scores.append(self._port.score(part).values[self._dimension])
            except SkipClipError as error:
                if not VBENCH_DIMENSIONS[self._dimension].may_skip:
                    raise SkipClipError(f"part {number} of {len(clips)}: {error}") from error
                reasons.append(str(error))
        return scores, reasons

    def _fused(self, clips: Sequence[DecodedClip], in_clip: float) -> float:
        """Return the score of a scene: with the resemblance of its parts' first frames where that is asked for."""
        if self._resemblance is None:
            return in_clip
        first = None
        if len(clips) > 1:
            frames = torch.stack([part.frames[0] for part in clips])
            first = self._resemblance(DecodedClip(clips[0].entry, frames, clips[0].fps))
        return fuse(self._dimension, in_clip, first)


def _check_dimension(dimension: str) -> str:
    """Return a dimension that has a port.

    Raises:
        ConfigError: It has none, or VBench has no such dimension.
    """
    if dimension in PORTED:
        return dimension
    if dimension in VBENCH_DIMENSIONS:
        raise ConfigError(f"{dimension} has no port, so no vbench_long: choose one of {', '.join(PORTED)}.")
    close = difflib.get_close_matches(dimension, PORTED, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    raise ConfigError(f"VBench has no dimension '{dimension}'.{hint} Those with a port: {', '.join(PORTED)}.")
