"""Run an original model with regenerated random weights in its own environment, for parity tests.

Example, in a test marked slow (the environment is made by `rlhf-video rewards env create hpsv2`):

    run = run_original("hpsv2", frames, prompts, config=TINY, seed=0)
    run.arrays["score"], run.arrays["pixel_gradient"]      # names and shapes: docstring of hpsv2_scorer.py
    state = {key: random_array(key, shape, seed=0) for key, shape in run.state.items()}   # the same weights, here
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rewards import random_weights
from rewards.workers.process import WorkerProcess

SCORERS = Path(__file__).parent
DEADLINE_S = 300.0


@dataclass(frozen=True)
class OriginalRun:
    """What the original computed."""

    arrays: dict[str, np.ndarray]
    """Tensors by name; names and shapes are in the docstring of the worker's scorer file."""
    state: dict[str, tuple[int, ...]]
    """Every entry of the original's state dict with its shape; the floating-point ones are regenerated."""
    packages: dict[str, str]
    """Versions that ran."""


def run_original(
    worker: str,
    frames: np.ndarray,
    prompts: Sequence[str],
    *,
    config: Mapping[str, object] | None,
    seed: int = 0,
    python: str | Path,
    save_weights: str | Path | None = None,
) -> OriginalRun:
    """Build the original at reduced depth with random weights and return what it computes.

    Args:
        worker: "hpsv2" or "image-reward".
        frames: (n, height, width, 3), uint8, RGB.
        prompts: One per frame.
        config: Sizes in the original's own layout, None for the published ones; see the scorer file.
        seed: Of `rewards.random_weights.random_array`, which makes every floating-point entry.
        python: Interpreter of the worker's environment, see `rewards.workers.environments`.
        save_weights: Where to write the weights as a checkpoint in the original's layout, None for nowhere.

    Raises:
        WorkerFailure: The environment cannot run it.
        ItemError: The original refused the config or the inputs.
    """
    settings = {"weights": None, "config": None, "tokenizer": None, "device": "cpu", "frames_per_pass": 1}
    scorer = SCORERS / f"{worker.replace('-', '_')}_scorer.py"
    with WorkerProcess(python, scorer=scorer, settings=settings, worker=worker, deadline_s=DEADLINE_S) as process:
        path = process.folder / "frames.npy"
        np.save(path, frames, allow_pickle=False)
        request = {
            "frames": str(path),
            "prompts": list(prompts),
            "config": config,
            "seed": seed,
            "random_weights": random_weights.__file__,
            "out": str(process.folder),
            "save_weights": None if save_weights is None else str(save_weights),
        }
        answer = process.request("parity", request, deadline_s=DEADLINE_S)
        arrays = {name: np.load(file, allow_pickle=False) for name, file in answer["arrays"].items()}
        state = {key: tuple(shape) for key, shape in answer["state"].items()}
        return OriginalRun(arrays, state, process.hello["packages"])
