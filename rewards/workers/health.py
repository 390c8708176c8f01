"""Whether an environment can do its work: the original at toy size, or the lock's own check."""

import os
import subprocess
from pathlib import Path

import numpy as np

from rewards.workers.lock import WorkerLock
from rewards.workers.parity import run_original
from rewards.workers.process import ItemError, WorkerFailure

NUM_FRAMES = 16
TOLERANCE = 1e-4
"""Between the package's own per-picture score and the worker's in batches; they differ by rounding, about 1e-7."""
DEADLINE_S = 900
"""A fresh environment compiles what it imports: a minute, and many on a machine with other work."""


def check_health(lock: WorkerLock, python: Path) -> str | None:
    """Return what is wrong with an environment, None where nothing is.

    A worker whose lock has the sizes of a toy model scores 16 frames with random weights, in two ways that must agree.
    The others run their lock's code.

    Args:
        lock: Of the worker.
        python: Interpreter of the environment.
    """
    return _run_code(lock, python) if lock.health_code is not None else _score_toy(lock, python)


def _score_toy(lock: WorkerLock, python: Path) -> str | None:
    frames = np.random.default_rng(0).integers(0, 256, (NUM_FRAMES, 32, 48, 3), dtype=np.uint8)
    prompts = ["a red circle"] * NUM_FRAMES
    try:
        run = run_original(lock.name, frames, prompts, config=lock.health_config, python=python)
    except (WorkerFailure, ItemError) as error:
        return str(error)
    wrong = {name: version for name, version in run.packages.items() if not lock.has(name, version)}
    if wrong:
        return f"it holds {wrong}, which the lock does not: make it again with --force"
    difference = float(np.abs(run.arrays["score"] - run.arrays["package_score"]).max())
    if not difference <= TOLERANCE:  # also for NaN
        return f"the package's own score and the worker's differ by {difference:g} on a toy model"
    return None


def _run_code(lock: WorkerLock, python: Path) -> str | None:
    command = [str(python), "-I", "-c", lock.health_code or ""]
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    except subprocess.TimeoutExpired:
        return f"its health check did not end within {DEADLINE_S} s"
    if done.returncode == 0:
        return None
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"its health check ended with exit code {done.returncode}"
