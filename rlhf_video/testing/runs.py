"""Compare training runs by what they leave behind: adapters, metrics, checkpoints."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from rlhf_video.lora.files import WEIGHT_NAME, read_adapter
from rlhf_video.runtime import read_metrics


def write_config(recipe: Mapping[str, Any], folder: Path, **changes: object) -> Path:
    """Write a config file beside a run directory.

    Args:
        recipe: Plain config values.
        folder: Run directory; becomes `output_dir`.
        changes: Values by field, sections joined with "__" as in `optim__learning_rate=0.1`.

    Returns:
        The YAML file.
    """
    values: dict[str, Any] = copy.deepcopy(dict(recipe))
    for dotted, value in changes.items():
        target, parts = values, dotted.split("__")
        for part in parts[:-1]:
            target = target.setdefault(part, {})
        target[parts[-1]] = value
    values["output_dir"] = str(folder)
    file = folder.parent / f"{folder.name}.yaml"
    file.write_text(yaml.safe_dump(values))
    return file


def adapter_of(run: Path, name: str = WEIGHT_NAME) -> dict[str, Tensor]:
    """Return the weights that a run published."""
    return read_adapter(run / "adapter" / name)[0]


def is_trained(adapter: Mapping[str, Tensor]) -> bool:
    """Return whether the second matrices, zero at the start, have moved."""
    return any(bool((value != 0).any()) for name, value in adapter.items() if "lora_B" in name)


def adapter_distance(first: Path, second: Path) -> float:
    """Return the largest difference between two runs' published weights; both must have been trained."""
    a, b = adapter_of(first), adapter_of(second)
    if a.keys() != b.keys() or not (is_trained(a) and is_trained(b)):
        raise AssertionError("the adapters differ in their weights' names, or one was not trained")
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def timeless_metrics(run: Path) -> list[dict[str, float | None]]:
    """Return the logged lines without wall-clock and memory."""
    return [
        {key: value for key, value in line.items() if key.split("/")[0] not in ("time", "memory")}
        for line in read_metrics(run)
    ]


def same_checkpoint(first: Path, second: Path, step: int) -> bool:
    """Return whether two runs' checkpoints after `step` steps are bit-equal: weights, optimiser, generators, all."""
    states = []
    for run in (first, second):
        files = sorted((run / "checkpoints" / f"step-{step:06d}").glob("*.pt"))
        states.append({file.name: torch.load(file, weights_only=True) for file in files})
    return bool(states[0]) and _is_same(*states)


def _is_same(first: object, second: object) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(_is_same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(map(_is_same, first, second))
    return first == second
