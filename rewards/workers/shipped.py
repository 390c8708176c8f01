"""The shipped worker rewards: HPS v2 and ImageReward by their original packages."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from rewards.base import FramePolicy, RewardSpec, parse_frame_policy
from rewards.errors import RewardError
from rewards.frame_scores import FrameReduction, check_frames_per_pass
from rewards.weight_files import resolve
from rewards.workers.environments import require
from rewards.workers.lock import load_lock
from rewards.workers.reward import WorkerReward

Device = Literal["auto", "cpu", "cuda"]


def hps_v2_worker(
    *,
    weights: str | Path = "hps_v2_1",
    config: str | Path | None = None,
    frames: FramePolicy | str | Mapping[str, object] = "all",
    reduction: FrameReduction | str | Mapping[str, object] = "mean",
    frames_per_pass: int = 8,
    device: Device = "auto",
    deadline_s: float = 120.0,
    accept_licence: bool = False,
) -> WorkerReward:
    """Build HPS v2 or v2.1 by the original package.

    Args:
        weights: Name in the ledger (hps_v2_1, hps_v2) or a checkpoint file with the key "state_dict".
        config: JSON file in open_clip's layout for another size of the model, None for ViT-H/14.
        frames: Which frames it looks at.
        reduction: Over the frames of a clip.
        frames_per_pass: Pictures per forward pass.
        device: Where the worker computes; "auto" takes a GPU where there is one.
        deadline_s: Seconds for one clip before the worker counts as hung.
        accept_licence: Passed to `rewards.weight_files.resolve`.

    Raises:
        RewardError: The environment is not made, or there are no such weights.
    """
    return _shipped(
        "hpsv2",
        name="hps_v2_worker",
        dimension="hps_v2",
        score_range=(-1.0, 1.0),
        paper="arXiv:2306.09341",
        weights=weights,
        config=config,
        tokenizer=None,
        frames=frames,
        reduction=reduction,
        frames_per_pass=frames_per_pass,
        device=device,
        deadline_s=deadline_s,
        accept_licence=accept_licence,
    )


def image_reward_worker(
    *,
    weights: str | Path = "image_reward",
    config: str | Path | None = None,
    tokenizer: str | Path | None = None,
    frames: FramePolicy | str | Mapping[str, object] = "all",
    reduction: FrameReduction | str | Mapping[str, object] = "mean",
    frames_per_pass: int = 8,
    device: Device = "auto",
    deadline_s: float = 120.0,
    accept_licence: bool = False,
) -> WorkerReward:
    """Build ImageReward 1.0 by the original package.

    Args:
        weights: Name in the ledger or a checkpoint file.
        config: JSON file in the layout of image_reward_scorer.py for another size, None for the published one, whose
            med_config.json the package takes from the Hub.
        tokenizer: Folder, None for bert-base-uncased from the Hub.
        frames: Which frames it looks at.
        reduction: Over the frames of a clip.
        frames_per_pass: Pictures per forward pass.
        device: Where the worker computes; "auto" takes a GPU where there is one.
        deadline_s: Seconds for one clip before the worker counts as hung.
        accept_licence: Passed to `rewards.weight_files.resolve`.

    Raises:
        RewardError: The environment is not made, or there are no such weights.
    """
    return _shipped(
        "image-reward",
        name="image_reward_worker",
        dimension="image_reward",
        score_range=(-math.inf, math.inf),
        paper="arXiv:2304.05977",
        weights=weights,
        config=config,
        tokenizer=tokenizer,
        frames=frames,
        reduction=reduction,
        frames_per_pass=frames_per_pass,
        device=device,
        deadline_s=deadline_s,
        accept_licence=accept_licence,
    )


def _shipped(
    worker: str,
    *,
    name: str,
    dimension: str,
    score_range: tuple[float, float],
    paper: str,
    weights: str | Path,
    config: str | Path | None,
    tokenizer: str | Path | None,
    frames: FramePolicy | str | Mapping[str, object],
    reduction: FrameReduction | str | Mapping[str, object],
    frames_per_pass: int,
    device: Device,
    deadline_s: float,
    accept_licence: bool,
) -> WorkerReward:
    lock = load_lock(worker)
    assert lock.scorer is not None
    environment = require(worker)
    for path in (config, tokenizer):
        if path is not None and not Path(path).exists():
            raise RewardError(f"There is no {path} for reward {name!r}: give an existing path.")
    settings = {
        "weights": str(resolve(weights, accept_licence=accept_licence).resolve()),
        "config": None if config is None else str(Path(config).resolve()),
        "tokenizer": None if tokenizer is None else str(Path(tokenizer).resolve()),
        "frames_per_pass": check_frames_per_pass(frames_per_pass),
        "device": device,
    }
    spec = RewardSpec(
        name=name,
        version=f"1+{lock.digest}",  # another environment may score otherwise
        dimensions=(dimension,),
        range=score_range,
        higher_is_better=True,
        is_differentiable=False,
        frames=parse_frame_policy(frames),
        resolution=(224, 224) if config is None else None,
        licence=lock.licence,
        paper=paper,
        uses_prompt=True,
    )
    return WorkerReward(
        worker=worker,
        scorer=lock.scorer,
        python=environment.python,
        settings=settings,
        spec=spec,
        lock=lock,
        reduction=reduction,
        deadline_s=deadline_s,
    )
