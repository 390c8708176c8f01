"""Metrics of a run: one JSON line per call in metrics.jsonl, and the same numbers in TensorBoard."""

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger(__name__)


class MetricsLog:
    """Append-only log that a resumed run goes on with, without a step logged twice."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "metrics.jsonl"
        self._tensorboard_folder = directory / "tensorboard"
        self._purge_step: int | None = None
        self._writer: SummaryWriter | None = None

    def write(self, metrics: Mapping[str, float | Tensor], *, step: int) -> None:
        """Append one line {"step": ..., key: number} and the TensorBoard scalars.

        Args:
            metrics: Numbers or one-element tensors. A number that is not finite is written as null: JSON has no NaN.
            step: Steps finished before the one the numbers belong to.
        """
        numbers = {key: float(value.detach() if isinstance(value, Tensor) else value) for key, value in metrics.items()}
        line = {key: number if math.isfinite(number) else None for key, number in numbers.items()}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **line}) + "\n")
        if self._writer is None:
            self._writer = SummaryWriter(str(self._tensorboard_folder), purge_step=self._purge_step)
        for key, number in numbers.items():
            self._writer.add_scalar(key, number, step)

    def truncate(self, step: int) -> None:
        """Drop every line of this step or a later one: they are about to be written again."""
        self._purge_step = step
        if not self._path.exists():
            return
        kept, dropped = [], 0
        for line in self._path.read_text(encoding="utf-8").splitlines():
            if _step_of(line) < step:
                kept.append(line + "\n")
            else:
                dropped += 1
        if dropped:
            logger.info("Dropped %d lines of %s that belong to step %d or later", dropped, self._path, step)
            partial = self._path.with_suffix(".partial")
            partial.write_text("".join(kept), encoding="utf-8")
            partial.replace(self._path)

    def close(self) -> None:
        """Write out what TensorBoard holds back."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def read_metrics(directory: Path) -> list[dict[str, float | None]]:
    """Return the lines of a run's metrics.jsonl, in order; a last line cut off by a kill is left out."""
    path = directory / "metrics.jsonl"
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if _step_of(line) < math.inf]


def _step_of(line: str) -> float:
    """Return the step of a line; infinity for a line that a kill cut off."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf
