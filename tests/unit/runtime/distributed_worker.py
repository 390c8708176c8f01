"""One process of a multi-process test: trains a tiny Wan adapter on a fixed global batch and writes it down.

Run by torchrun or `accelerate launch`: distributed_worker.py MODEL_FOLDER RESULT_FILE NUM_STEPS [CHECKPOINT_TO_RESUME]
"""

import json
import sys
from pathlib import Path

import torch

from rlhf_video.backbones.base import VideoShape
from rlhf_video.backbones.registry import load_backbone
from rlhf_video.lora import LoraConfig, attach
from rlhf_video.runtime import Distribution, create_accelerator, generator_for
from rlhf_video.testing.tiny_wan import TINY_PROMPTS

GLOBAL_BATCH = 4
SHAPE = VideoShape(batch=1, frames=5, height=32, width=32)
MAX_GRAD_NORM = 0.05  # small enough that every step clips: the norm must be the global one


def main(model: Path, result: Path, num_steps: int, resume: Path | None) -> None:
    """Train, gather and write {"adapter", "optimizer", "norms", "kind"} from the main process."""
    torch.set_num_threads(1)
    distribution = Distribution(create_accelerator())
    backbone = load_backbone(model)
    parameters = attach(backbone, LoraConfig(rank=3, alpha=3.0), seed=distribution.rank)  # prepare must agree on one
    optimizer = torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.1)
    optimizer = distribution.prepare(backbone, optimizer)
    first_step = 0
    if resume is not None:
        saved = torch.load(resume, weights_only=True)
        distribution.load_adapter_state(backbone, saved["adapter"])
        distribution.load_optimizer_state(optimizer, saved["optimizer"])
        first_step = saved["steps"]
    share = distribution.shard_indices(GLOBAL_BATCH)
    cond = backbone.encode_prompts([TINY_PROMPTS[index % 2] for index in share])
    norms = []
    for step in range(first_step, num_steps):
        noise = backbone.noise(
            VideoShape(batch=len(share), frames=5, height=32, width=32),
            [generator_for(0, "noise", step, index) for index in share],
        )
        with torch.no_grad():  # as a roll-out does
            latents = noise - 0.5 * backbone.velocity(noise, torch.tensor(1.0), cond)
        for number, (start, sigma) in enumerate(((noise, 1.0), (latents, 0.5))):
            start = start.detach().requires_grad_()  # the chained gradient needs the input's, too
            velocity = backbone.velocity(start, torch.tensor(sigma), cond)
            distribution.backward((velocity - 1).square().mean(), last=number == 1)
            assert start.grad is not None
        norms.append(distribution.finish_step(optimizer, MAX_GRAD_NORM).item())
    adapter, moments = distribution.full_adapter_state(backbone), distribution.optimizer_state(optimizer)
    gathered = distribution.gather(torch.tensor([float(index) for index in share]))
    assert gathered.tolist() == list(range(GLOBAL_BATCH))
    if distribution.is_main:
        torch.save({"adapter": adapter, "optimizer": moments, "steps": num_steps}, result)
        facts = {"norms": norms, "kind": distribution.kind, "num_processes": distribution.num_processes}
        result.with_suffix(".json").write_text(json.dumps(facts))
    distribution.barrier()
    distribution.accelerator.end_training()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]) if len(sys.argv) > 4 else None)
