"""The training loop of every pre-training stage: AdamW, cosine schedule, weight average, resume after a kill."""

import hashlib
import logging
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from rlhf_video.errors import CheckpointError

logger = logging.getLogger(__name__)


def fit(
    model: nn.Module,
    loss_at: Callable[[int], Tensor],
    *,
    num_steps: int,
    learning_rate: float,
    state_file: Path,
    inputs: str = "",
    weight_decay: float = 0.01,
    warmup: int = 100,
    ema_decay: float = 0.998,
    autocast: bool = True,
    validate: Callable[[], Mapping[str, float]] | None = None,
    validate_every: int = 250,
) -> dict[str, object]:
    """Train `model` in place and leave the averaged weights in it; continue from `state_file` where it exists.

    Args:
        model: Holds every trained parameter.
        loss_at: Maps a step to a scalar loss; draws its data from the step alone, so a resumed run repeats nothing.
        num_steps: Optimiser steps in all.
        learning_rate: Peak of the cosine schedule.
        state_file: Where progress is kept, written atomically every 100 steps.
        inputs: What the stage was made from, for example a hash of the stage before; a state made from other inputs, or
            for another number of steps or learning rate, is refused.
        weight_decay: AdamW's.
        warmup: Steps of linear warm-up.
        ema_decay: Weight average per step; the average is what is validated and kept.
        autocast: Whether matrix products run in bfloat16 (3 to 8 times faster on CPUs that have it).
        validate: Metrics of the averaged model, logged and kept in the history.
        validate_every: Steps between validations.

    Raises:
        CheckpointError: The state file belongs to another recipe.

    Returns:
        {"minutes", "steps", "history": list of validation metrics with their step}.
    """
    device = next(model.parameters()).device
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, betas=(0.9, 0.97), weight_decay=weight_decay)
    average = [p.detach().clone() for p in parameters]
    step, seconds, history = 0, 0.0, []
    recipe = f"{num_steps} steps, learning rate {learning_rate}, inputs {inputs}"
    if state_file.exists():
        state = torch.load(state_file, map_location=device, weights_only=True)
        if state["recipe"] != recipe:
            raise CheckpointError(
                f"{state_file} belongs to another recipe ({state['recipe']}; now: {recipe}): delete it, or choose "
                "another --work folder."
            )
        for p, saved in zip(parameters, state["parameters"], strict=True):
            p.data.copy_(saved)
        average, step, seconds, history = state["average"], state["step"], state["seconds"], state["history"]
        optimizer.load_state_dict(state["optimizer"])
        logger.info("Resumed %s at step %d", state_file.stem, step)

    def validated() -> None:
        if validate is not None:
            _swap(parameters, average)
            history.append({"step": step, **validate()})
            _swap(parameters, average)
            logger.info("%s %s", state_file.stem, history[-1])

    mark, running = time.perf_counter(), 0.0
    while step < num_steps:
        for group in optimizer.param_groups:
            group["lr"] = (
                learning_rate * min((step + 1) / warmup, 1) * (0.5 + 0.5 * math.cos(math.pi * step / num_steps))
            )
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            loss = loss_at(step)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        decay = min(ema_decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(average, [p.detach() for p in parameters], 1 - decay)
        running += loss.item()
        if step % 50 == 0:
            now = time.perf_counter()
            seconds, mark = seconds + now - mark, now
            logger.info(
                "%s step %d/%d loss %.4f, %.1f min", state_file.stem, step, num_steps, running / 50, seconds / 60
            )
            running = 0.0
        if step % validate_every == 0 or step == num_steps:
            validated()
        if step % 100 == 0 or step == num_steps:
            _save(
                state_file,
                {
                    "recipe": recipe,
                    "parameters": [p.detach() for p in parameters],
                    "average": average,
                    "optimizer": optimizer.state_dict(),
                    "step": step,
                    "seconds": seconds,
                    "history": history,
                },
            )
    _swap(parameters, average)
    return {"minutes": round(seconds / 60, 1), "steps": num_steps, "history": history}


def fingerprint(model: nn.Module) -> str:
    """Return 12 hex digits that change with any weight: what was made from these weights carries them in its name."""
    digest = hashlib.sha256()
    for value in model.state_dict().values():
        digest.update(value.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()[:12]


@torch.no_grad()
def _swap(parameters: list[nn.Parameter], average: list[Tensor]) -> None:
    for p, a in zip(parameters, average, strict=True):
        held = p.detach().clone()
        p.copy_(a)
        a.copy_(held)


def _save(path: Path, state: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)
