"""The loop of every pre-training stage: Muon and AdamW, cosine schedule, weight average, resume after a kill."""

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlhf_video.errors import CheckpointError

logger = logging.getLogger(__name__)


def fit(
    model: nn.Module,
    loss_at: Callable[[int], Tensor],
    *,
    num_steps: int,
    state_file: Path,
    inputs: str = "",
    muon_rate: float = 1e-2,
    adamw_rate: float = 1.5e-3,
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
        state_file: Where progress is kept, written atomically every 100 steps.
        inputs: What the stage was made from, for example a hash of the stage before; a state made from other inputs, or
            by another recipe, is refused.
        muon_rate: Peak learning rate of the matrices of repeated layers, which Muon trains.
        adamw_rate: Peak learning rate of everything else, which AdamW trains.
        weight_decay: Of both.
        warmup: Steps of linear warm-up before the cosine takes over.
        ema_decay: Weight average per step; the average is what is validated and kept.
        autocast: Whether matrix products run in bfloat16 (3 to 8 times faster on CPUs that have it).
        validate: Metrics of the averaged model, logged and kept in the history.
        validate_every: Steps between validations.

    Raises:
        CheckpointError: The state file belongs to another recipe.

    Returns:
        {"minutes", "steps", "history": list of validation metrics with their step}.
    """
    progress = _Progress(
        model,
        state_file,
        recipe=f"{num_steps} steps, Muon {muon_rate}, AdamW {adamw_rate}, inputs {inputs}",
        optimizers=_optimizers(model, muon_rate, adamw_rate, weight_decay),
    )
    device, mark, running = next(model.parameters()).device, time.perf_counter(), 0.0
    while progress.step < num_steps:
        cosine = 0.5 + 0.5 * math.cos(math.pi * progress.step / num_steps)
        progress.set_rate(min((progress.step + 1) / warmup, 1) * cosine)
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            loss = loss_at(progress.step)
        loss.backward()
        nn.utils.clip_grad_norm_(progress.parameters, 1.0)
        progress.take_step(ema_decay)
        running += loss.item()
        if progress.step % 50 == 0:
            now = time.perf_counter()
            progress.seconds, mark = progress.seconds + now - mark, now
            progress.report(f"of {num_steps}, loss {running / 50:.4f}, {progress.seconds / 60:.1f} min")
            running = 0.0
        is_last = progress.step == num_steps
        if validate is not None and (is_last or progress.step % validate_every == 0):
            with progress.averaged():
                progress.history.append({"step": progress.step, **validate()})
            progress.report(str(progress.history[-1]))
        if is_last or progress.step % 100 == 0:
            progress.save()
    progress.keep_average()
    return {"minutes": round(progress.seconds / 60, 1), "steps": num_steps, "history": progress.history}


def _optimizers(model: nn.Module, muon_rate: float, adamw_rate: float, decay: float) -> list[torch.optim.Optimizer]:
    """Return Muon (Jordan 2024; step sizes matched to AdamW's, arXiv:2502.16982) and AdamW for the rest.

    Muon reaches the losses of AdamW in half of its steps here (docs/log.md).
    """
    repeated = {id(linear.weight) for name, linear in model.named_modules() if _is_repeated_linear(name, linear)}
    trained = [p for p in model.parameters() if p.requires_grad]
    hidden = [p for p in trained if id(p) in repeated]
    rest = [p for p in trained if id(p) not in repeated]
    optimizers: list[torch.optim.Optimizer] = []
    if hidden:
        optimizers.append(torch.optim.Muon(hidden, lr=muon_rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"))
    if rest:
        optimizers.append(torch.optim.AdamW(rest, lr=adamw_rate, betas=(0.9, 0.97), weight_decay=decay))
    return optimizers


def _is_repeated_linear(name: str, module: nn.Module) -> bool:
    """Tell the linear layers of a list of blocks; embeddings and output heads are none of them."""
    return isinstance(module, nn.Linear) and any(part.isdigit() for part in name.split("."))


class _Progress:
    """Parameters, their average, optimisers and history: all that a killed run needs to go on."""

    def __init__(self, model: nn.Module, file: Path, *, recipe: str, optimizers: list[torch.optim.Optimizer]) -> None:
        self.file, self.recipe, self.optimizers = file, recipe, optimizers
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.average = [p.detach().clone() for p in self.parameters]
        self.step, self.seconds = 0, 0.0
        self.history: list[dict[str, float]] = []
        self.peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
        if file.exists():
            self._restore(torch.load(file, map_location=self.parameters[0].device, weights_only=True))

    def _restore(self, state: dict[str, Any]) -> None:
        if state.get("recipe") != self.recipe:
            raise CheckpointError(
                f"{self.file} belongs to another recipe ({state.get('recipe')}; now: {self.recipe}): delete it, or "
                "choose another --work folder."
            )
        for p, saved in zip(self.parameters, state["parameters"], strict=True):
            p.data.copy_(saved)
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.average, self.step = state["average"], state["step"]
        self.seconds, self.history = state["seconds"], state["history"]
        self.report("resumed")

    def set_rate(self, factor: float) -> None:
        for optimizer, peaks in zip(self.optimizers, self.peaks, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * factor

    def take_step(self, ema_decay: float) -> None:
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        decay = min(ema_decay, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - decay)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Hold the averaged weights in the model."""
        trained = [p.detach().clone() for p in self.parameters]
        self.keep_average()
        yield
        for p, value in zip(self.parameters, trained, strict=True):
            p.data.copy_(value)

    def keep_average(self) -> None:
        for p, average in zip(self.parameters, self.average, strict=True):
            p.data.copy_(average)

    def report(self, what: str) -> None:
        logger.info("%s step %d %s", self.file.stem, self.step, what)

    def save(self) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        partial = self.file.with_suffix(".partial")
        state = {
            "recipe": self.recipe,
            "parameters": [p.detach() for p in self.parameters],
            "average": self.average,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "seconds": self.seconds,
            "history": self.history,
        }
        torch.save(state, partial)
        partial.replace(self.file)
