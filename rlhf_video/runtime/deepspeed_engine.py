"""DeepSpeed ZeRO behind the few calls of `Distribution`: several backward passes per step, clipping set per step."""

import math
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from rlhf_video.errors import ConfigError


def prepare(
    modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer, accelerator: Accelerator
) -> tuple[Any, torch.optim.Optimizer]:
    """Wrap the one transformer in a DeepSpeed engine.

    Args:
        modules: Transformers by component name; the entry is replaced by the engine.
        optimizer: Fresh optimiser over its trainable parameters.
        accelerator: Holds the DeepSpeed plugin.

    Returns:
        The engine, and the optimiser as accelerate wraps it.

    Raises:
        ConfigError: There is more than one transformer.
    """
    if len(modules) != 1:
        raise ConfigError(
            f"DeepSpeed holds one transformer, this backbone has {len(modules)}: use configs/accelerate/fsdp2.yaml."
        )
    config = accelerator.state.deepspeed_plugin.deepspeed_config
    if config.get("train_micro_batch_size_per_gpu", "auto") == "auto":
        config["train_micro_batch_size_per_gpu"] = 1  # only scales its throughput report: no data loader of its own
    if accelerator.device.type == "cpu":
        config["zero_optimization"]["reduce_scatter"] = False  # gloo has none
    component, module = next(iter(modules.items()))
    engine, optimizer = accelerator.prepare(module, optimizer)
    modules[component] = engine
    return engine, optimizer


def backward(engine: Any, loss: Tensor, *, last: bool) -> None:
    """Back-propagate; gradients are added up until the last pass of a step."""
    engine.set_gradient_accumulation_boundary(is_boundary=last)
    engine.backward(loss)


def finish_step(engine: Any, max_grad_norm: float) -> Tensor:
    """Clip, step and clear; return the global gradient norm before clipping."""
    engine.optimizer.clip_grad = 0.0 if math.isinf(max_grad_norm) else max_grad_norm  # 0 is DeepSpeed's "do not clip"
    engine.set_gradient_accumulation_boundary(is_boundary=True)
    engine.step()
    return torch.as_tensor(engine.get_global_grad_norm(), dtype=torch.float32).detach().cpu()


def refresh_masters(engine: Any) -> None:
    """Copy the module's parameters into the optimiser's own float32 copies, after they were set from outside."""
    engine.optimizer.refresh_fp32_params()


def optimizer_part(engine: Any) -> dict[str, Any]:
    """Return this process's part of the optimiser state, moments and float32 parameter copies (ZeRO 1 and 2)."""
    zero = engine.optimizer
    return {"base": zero.optimizer.state_dict(), "masters": [p.detach() for p in zero.single_partition_of_fp32_groups]}


def load_optimizer_part(engine: Any, part: dict[str, Any]) -> None:
    """Restore what `optimizer_part` returned on the same process of an equal run."""
    zero = engine.optimizer
    zero.optimizer.load_state_dict(part["base"])
    with torch.no_grad():
        for own, saved in zip(zero.single_partition_of_fp32_groups, part["masters"], strict=True):
            own.copy_(saved)
