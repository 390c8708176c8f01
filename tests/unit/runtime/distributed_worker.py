"""One process of a multi-process test: trains a tiny Wan adapter on a fixed global batch and writes down what it got.

Run by torchrun, `accelerate launch` or python: distributed_worker.py MODEL_FOLDER RESULT_FILE.
The same steps are taken three times: in plain PyTorch on the whole batch without `Distribution` (the reference),
straight through with it, and the last step once more from the state before it.
"""

import faulthandler
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlhf_video.backbones.base import Conditioning, VideoBackbone, VideoShape
from rlhf_video.backbones.registry import load_backbone
from rlhf_video.lora import Ema, LoraConfig, adapter_state, attach
from rlhf_video.runtime import Distribution, create_accelerator, generator_for
from rlhf_video.runtime.checkpoints import to_cpu
from rlhf_video.testing.tiny_wan import TINY_PROMPTS

GLOBAL_BATCH = 4
NUM_STEPS = 3
EMA_DECAY = 0.5
MAX_GRAD_NORM = 0.05  # every step clips: the norm must be the global one


def losses(backbone: VideoBackbone, cond: Conditioning, step: int, items: range) -> Iterator[tuple[Tensor, bool]]:
    """Yield (loss, is last) of a step as reward backpropagation makes them: roll-out, then re-forward of some steps.

    Step 0 leaves the low-noise expert, where there are two, without a gradient: it must not move.
    """
    noise = backbone.noise(
        VideoShape(batch=len(items), frames=5, height=32, width=32),
        [generator_for(0, "noise", step, index) for index in items],
    )
    with torch.no_grad():
        latents = noise - 0.5 * backbone.velocity(noise, torch.tensor(1.0), cond)
    for start, sigma in ((latents, 0.25), (noise, 1.0))[1 if step == 0 else 0 :]:
        start = start.detach().requires_grad_()  # the chained gradient needs the input's, too
        yield (backbone.velocity(start, torch.tensor(sigma), cond) - 1).square().mean(), sigma == 1.0
        assert start.grad is not None


def build(model: Path, seed: int) -> tuple[VideoBackbone, torch.optim.Optimizer]:
    """Return a fresh model with an adapter, and its optimiser."""
    backbone = load_backbone(model)
    parameters = attach(backbone, LoraConfig(rank=3, alpha=3.0), seed=seed)
    return backbone, torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.1)


def train_plain(model: Path) -> dict[str, Any]:
    """Train without `Distribution`, on the whole global batch."""
    backbone, optimizer = build(model, seed=0)
    cond = backbone.encode_prompts([TINY_PROMPTS[index % 2] for index in range(GLOBAL_BATCH)])
    parameters, norms = optimizer.param_groups[0]["params"], []
    ema = Ema(parameters, EMA_DECAY)
    for step in range(NUM_STEPS):
        for loss, _ in losses(backbone, cond, step, range(GLOBAL_BATCH)):
            loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(parameters, MAX_GRAD_NORM))
        optimizer.step()
        optimizer.zero_grad()
        ema.update()
    adapter = adapter_state(backbone)
    with ema.swapped():
        return {"adapter": adapter, "norms": torch.stack(norms), "ema": adapter_state(backbone)}


def train(model: Path, distribution: Distribution, first: int, saved: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Train from step `first` with `Distribution`, from a saved state if given; return the state after each step."""
    backbone, optimizer = build(model, seed=distribution.rank)  # prepare must make the processes agree on rank 0's
    optimizer = distribution.prepare(backbone, optimizer)
    backbone.set_gradient_checkpointing(True)  # the reference has it off
    if saved is not None:
        distribution.load_adapter_state(backbone, saved["ema"])  # a fresh average starts at the parameters
    ema = Ema(distribution.parameters(optimizer), EMA_DECAY)
    if saved is not None:
        distribution.load_adapter_state(backbone, saved["adapter"])
        distribution.load_optimizer_state(optimizer, saved["optimizer"])
    share = distribution.shard_indices(GLOBAL_BATCH)
    cond = backbone.encode_prompts([TINY_PROMPTS[index % 2] for index in share])
    states = []
    for step in range(first, NUM_STEPS):
        for loss, is_last in losses(backbone, cond, step, share):
            distribution.backward(loss, last=is_last)
        norm = distribution.finish_step(optimizer, MAX_GRAD_NORM)
        ema.update()
        with ema.swapped():
            average = distribution.full_adapter_state(backbone)
        state = {
            "adapter": distribution.full_adapter_state(backbone),
            "ema": average,
            "optimizer": distribution.optimizer_state(optimizer),
            "norm": norm,
        }
        states.append(to_cpu(state))
    return states


def main(model: Path, result: Path) -> None:
    """Run the three trainings; the main process writes their results."""
    torch.set_num_threads(1)
    distribution = Distribution(create_accelerator())
    straight = train(model, distribution, 0, None)
    resumed = train(model, distribution, NUM_STEPS - 1, straight[-2])
    gathered = distribution.gather(torch.tensor([float(index) for index in distribution.shard_indices(GLOBAL_BATCH)]))
    if distribution.is_main:
        facts = {"kind": distribution.kind, "num_processes": distribution.num_processes, "gathered": gathered.tolist()}
        norms = torch.stack([state["norm"] for state in straight])
        states = {"plain": train_plain(model), "straight": {**straight[-1], "norms": norms}, "resumed": resumed[-1]}
        torch.save({**states, **facts}, result)
    distribution.barrier()
    distribution.accelerator.end_training()


if __name__ == "__main__":
    faulthandler.dump_traceback_later(600, exit=True)  # a process that waits for another says where
    main(Path(sys.argv[1]), Path(sys.argv[2]))
