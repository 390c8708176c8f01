"""Scores of a folder of clips by one reward: each clip has its values, or the reason why not."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from tqdm import tqdm

from rewards.base import Reward
from rewards.errors import RewardError
from rewards.workers.process import WorkerFailure
from rlhf_video.data.prompts import load_prompts
from rlhf_video.data.video import read_video
from rlhf_video.errors import ConfigError, DataError

ENDINGS = (".mp4", ".mov", ".mkv", ".webm", ".avi")
MANIFEST = "manifest.json"
"""Written by generate.py beside its clips: {"clips": [{"file": ..., "prompt": ...}]}."""


@dataclass(frozen=True)
class Clip:
    """A clip to score."""

    path: Path
    """Its file."""
    prompt: str
    """What it should show."""


@dataclass(frozen=True)
class ScoredClip:
    """A clip's scores."""

    file: str
    """Name of its file."""
    prompt: str
    """What it was scored for."""
    values: dict[str, float] | None
    """Per dimension; None where it could not be scored."""
    reason: str | None
    """Why not."""

    def record(self) -> dict[str, object]:
        """Return plain JSON values."""
        return {"file": self.file, "prompt": self.prompt, "values": self.values, "reason": self.reason}


def parse_options(pairs: Sequence[str]) -> dict[str, object]:
    """Read a reward's options.

    Args:
        pairs: Texts "key=value"; the value is read as in YAML: 8, true, [a, b], {kind: uniform, count: 8}.

    Raises:
        ConfigError: A text without "=", a repeated key, or a value that is no YAML.
    """
    options: dict[str, object] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier() or key in options:
            raise ConfigError(f"--option {pair!r} is not understood: give key=value once per key, as frames=first.")
        try:
            options[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"--option {pair!r}: the value is no YAML ({str(error).splitlines()[0]}).") from error
    return options


def find_clips(folder: Path, prompts: Path | None = None) -> list[Clip]:
    """Return the clips of a folder in the order of their names, each with its prompt.

    Args:
        folder: Holds the video files themselves, no deeper folders.
        prompts: JSON object {file: prompt}, or a prompt suite with one line per clip. None takes the folder's
            manifest, and without one the file names: "a red circle-0.mp4" and "a_red_circle.mp4" mean "a red circle".

    Raises:
        DataError: No folder, no clip, or a clip without a prompt.
    """
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}: give the folder that holds the clips.")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS)
    if not files:
        raise DataError(f"{folder} holds no clip: its files must end in {', '.join(ENDINGS)}.")
    if prompts is not None and prompts.suffix != ".json":
        suite = load_prompts(prompts).prompts
        if len(suite) != len(files):
            raise DataError(f"{prompts} has {len(suite)} prompts for the {len(files)} clips of {folder}.")
        return [Clip(path, prompt) for path, prompt in zip(files, suite, strict=True)]
    source = prompts if prompts is not None else folder / MANIFEST
    if prompts is None and not source.is_file():
        return [Clip(path, _prompt_of(path)) for path in files]
    table = _read_table(source)
    missing = [path.name for path in files if path.name not in table]
    if missing:
        raise DataError(f"{source} has no prompt for {missing[0]!r} ({len(missing)} such of {len(files)} clips).")
    return [Clip(path, table[path.name]) for path in files]


def _prompt_of(path: Path) -> str:
    return re.sub(r"-\d+$", "", path.stem).replace("_", " ").strip()


def _read_table(path: Path) -> dict[str, str]:
    """Read {file: prompt}, or a manifest's list of clips."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content.get("clips"), list):
            content = {clip["file"]: clip["prompt"] for clip in content["clips"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} holds no prompts: give a JSON object {{file: prompt}} ({error}).") from error
    if not all(isinstance(prompt, str) for prompt in content.values()):
        raise DataError(f"{path} holds no prompts: every value of its JSON object must be a text.")
    return dict(content)


def score_clips(reward: Reward, clips: Sequence[Clip]) -> list[ScoredClip]:
    """Score clips one at a time, with a progress bar on a terminal.

    A clip that cannot be read or scored has a reason; a worker that is broken for all ends the run.

    Args:
        reward: Any.
        clips: Of any sizes and lengths.

    Raises:
        WorkerFailure: The reward's worker cannot be started or keeps failing.
    """
    return [_score(reward, clip) for clip in tqdm(clips, unit="clip", disable=None)]


def _score(reward: Reward, clip: Clip) -> ScoredClip:
    try:
        video, fps = read_video(clip.path)
        with torch.no_grad():
            output = reward(video[None], [clip.prompt], fps=fps)
    except WorkerFailure:
        raise
    except (DataError, RewardError) as error:
        return ScoredClip(clip.path.name, clip.prompt, None, str(error))
    if not bool(output.valid[0]):
        return ScoredClip(clip.path.name, clip.prompt, None, output.reasons[0])
    values = {name: float(output.values[name][0]) for name in reward.spec.dimensions}
    return ScoredClip(clip.path.name, clip.prompt, values, None)


def statistics_of(clips: Sequence[ScoredClip], dimensions: Sequence[str]) -> dict[str, dict[str, float | None]]:
    """Return mean and (unbiased) standard deviation per dimension, as a config's `normalisation` takes them.

    Args:
        clips: Scored; those without values do not count.
        dimensions: Of the reward.

    Returns:
        {dimension: {"mean", "std"}}, None where there are too few clips: one for a mean, two for a deviation.
    """
    valid = [clip.values for clip in clips if clip.values is not None]
    columns = {name: np.array([values[name] for values in valid]) for name in dimensions}
    return {
        name: {
            "mean": float(column.mean()) if len(valid) else None,
            "std": float(column.std(ddof=1)) if len(valid) > 1 else None,
        }
        for name, column in columns.items()
    }
