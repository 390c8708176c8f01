"""A reward that an original package computes in an environment of its own. It gives no gradient.

Frames reach the worker as the 8-bit pictures that the package was made for, rounded to nearest, in a file that it maps:
no video codec is in between. A clip that the worker cannot do is masked with the reason; what happens to one that kills
the worker is described in resident.py.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rewards.base import RewardOutput, RewardSpec, masked_output
from rewards.errors import RewardError
from rewards.frame_scores import FrameReduction, parse_frame_reduction
from rewards.inputs import check_clips
from rewards.video_ops import take_frames
from rewards.workers.lock import WorkerLock
from rewards.workers.process import ItemError
from rewards.workers.resident import ResidentWorker


class WorkerReward:
    """One model in one worker process, which starts with the first clip and lives as long as this object."""

    def __init__(
        self,
        *,
        worker: str,
        scorer: str | Path,
        python: str | Path,
        settings: Mapping[str, object],
        spec: RewardSpec,
        lock: WorkerLock | None = None,
        reduction: FrameReduction | str | Mapping[str, object] = "mean",
        deadline_s: float = 120.0,
        start_deadline_s: float = 600.0,
    ) -> None:
        """Keep the facts; nothing is started yet.

        Args:
            worker: Name that the process greets with.
            scorer: File with its class `Scorer`, see hpsv2_scorer.py.
            python: Interpreter of its environment.
            settings: For `Scorer`; plain JSON values.
            spec: Facts of this reward; the worker must know the same dimensions.
            lock: Versions that the process must greet with, None for any.
            reduction: Over the frames of a clip.
            deadline_s: Seconds for one clip before the worker counts as hung.
            start_deadline_s: Seconds for its imports and for loading weights.

        Raises:
            RewardError: An unknown reduction, or a deadline that is not positive.
        """
        self._arguments: dict[str, Any] = {
            "worker": worker,
            "scorer": scorer,
            "python": python,
            "settings": dict(settings),
            "spec": spec,
            "lock": lock,
            "reduction": reduction,
            "deadline_s": deadline_s,
            "start_deadline_s": start_deadline_s,
        }
        self.spec = spec
        self._reduction = parse_frame_reduction(reduction)
        self._resident = ResidentWorker(
            worker=worker,
            scorer=scorer,
            python=python,
            settings=settings,
            dimensions=spec.dimensions,
            lock=lock,
            deadline_s=deadline_s,
            start_deadline_s=start_deadline_s,
        )

    def __call__(self, video: Tensor, prompts: Sequence[str], *, fps: float) -> RewardOutput:
        """Score a batch, see `Reward`.

        Raises:
            RewardError: Input of the wrong form, an empty prompt, or a worker that cannot be started or keeps failing.
        """
        clips = check_clips(video, prompts, fps=fps)
        if not all(prompt.strip() for prompt in prompts):
            raise RewardError("A reward that reads the prompt got an empty one.")
        frames = take_frames(
            clips.video.detach(), tuple(dict.fromkeys(self.spec.frames.select(video.shape[1], fps=fps)))
        )
        pictures = frames.mul(255).round_().clamp_(0, 255).to(torch.uint8).movedim(2, -1).contiguous().cpu().numpy()
        rows: list[list[float]] = []
        reasons = list(clips.reasons)
        for index, prompt in enumerate(prompts):
            row = None
            if reasons[index] is None:
                row, reasons[index] = self._score_or_reason(pictures[index], prompt, fps)
            rows.append([math.nan] * len(self.spec.dimensions) if row is None else row)
        table = torch.tensor(rows, dtype=clips.video.dtype, device=clips.video.device)
        valid = torch.tensor([reason is None for reason in reasons], device=clips.video.device)
        values = dict(zip(self.spec.dimensions, table.unbind(1), strict=True))
        return masked_output(values, valid, tuple(reasons))

    def _score_or_reason(
        self, pictures: np.ndarray, prompt: str, fps: float
    ) -> tuple[list[float], None] | tuple[None, str]:
        """Return one clip's score per dimension, or why there is none."""
        identity = hashlib.sha256(pictures.tobytes() + f"{pictures.shape}{prompt}\n{fps}".encode()).hexdigest()

        def write(folder: Path) -> dict[str, object]:
            np.save(folder / "frames.npy", pictures, allow_pickle=False)
            return {"frames": str(folder / "frames.npy"), "prompt": prompt, "fps": fps}

        try:
            values = self._resident.ask(identity, "score", write).get("values")
            if not isinstance(values, dict) or set(values) != set(self.spec.dimensions):
                raise ItemError(f"the worker answered {str(values)[:80]} instead of {self.spec.dimensions}")
            return [self._reduce(values[name], len(pictures)) for name in self.spec.dimensions], None
        except ItemError as error:
            return None, str(error)

    def _reduce(self, scores: object, num_frames: int) -> float:
        if not isinstance(scores, list) or not all(isinstance(value, float | int) for value in scores):
            raise ItemError(f"the worker answered {repr(scores)[:80]} instead of {num_frames} scores")
        if len(scores) != num_frames:
            raise ItemError(f"the worker gave {len(scores)} scores for {num_frames} frames")
        reduced = float(self._reduction(torch.tensor([scores], dtype=torch.float64)))
        if not math.isfinite(reduced):
            raise ItemError(f"the worker gave a score that is not a finite number: {scores}")
        return reduced

    def close(self) -> None:
        """End the worker; the next clip starts it again."""
        self._resident.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel without the process: the copy starts its own."""
        return _rebuild, (type(self), self._arguments)


def _rebuild(kind: type[WorkerReward], arguments: dict[str, Any]) -> WorkerReward:
    return kind(**arguments)
