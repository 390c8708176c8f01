"""A model's error on fixed items at fixed noise, with the adapter and without: what sampling is too noisy to show."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlhf_video.backbones import VideoBackbone
from rlhf_video.lora import adapter_off
from rlhf_video.runtime import Distribution
from rlhf_video.validation import Comparison


class HeldOutError:
    """One error per item; items of one prompt form a cluster."""

    def __init__(
        self,
        name: str,
        prompts: Sequence[str],
        error: Callable[[Sequence[int]], Tensor],
        *,
        backbone: VideoBackbone,
        distribution: Distribution,
        batch: int,
    ) -> None:
        """Say what is measured; nothing is computed yet.

        Args:
            name: Name of the error in metrics, "what/error".
            prompts: Prompt of each item.
            error: Numbers of items -> their errors, shape (batch,); the same numbers always give the same noise.
            backbone: The model.
            distribution: The processes that share the items.
            batch: Items per call of `error`.
        """
        self._name, self._error, self._count = name, error, len(prompts)
        self._backbone, self._distribution, self._batch = backbone, distribution, batch
        index = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}
        self._clusters = np.array([index[prompt] for prompt in prompts], dtype=np.int64)
        self._base: NDArray[np.float64] | None = None
        self._latest: Comparison | None = None

    @torch.no_grad()
    def compare(self) -> Comparison:
        """Return base (adapter off, measured once) against adapter; call it on every process."""
        if self._base is None:
            with adapter_off(self._backbone):
                self._base = self._measure()
        self._latest = Comparison({self._name: self._base}, {self._name: self._measure()}, self._clusters)
        return self._latest

    def latest(self) -> Comparison:
        """Return the last comparison, for weights that have not moved since; measure where there is none yet."""
        return self.compare() if self._latest is None else self._latest

    def _measure(self) -> NDArray[np.float64]:
        return measure_items(self._error, self._count, distribution=self._distribution, batch=self._batch)


def measure_items(
    error: Callable[[Sequence[int]], Tensor], count: int, *, distribution: Distribution, batch: int
) -> NDArray[np.float64]:
    """Return what `error` says of every item; every process makes as many calls (FSDP needs it).

    Args:
        error: Numbers of items -> shape (batch, ...).
        count: Number of items.
        distribution: The processes that share them.
        batch: Items per call.

    Returns:
        Shape (count, ...), on every process.
    """
    padded = count + -count % distribution.num_processes
    share = [index % count for index in distribution.shard_indices(padded)]
    parts = [error(share[start : start + batch]) for start in range(0, len(share), batch)]
    return distribution.gather(torch.cat(parts).float())[:count].double().cpu().numpy()
