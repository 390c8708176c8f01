"""FSDP2: shard transformers block by block with torch's `fully_shard`, and gather or load whole tensors.

The settings come from accelerate's FSDP plugin. Its own `prepare` is not used: accelerate 1.15 turns FSDP on for GPU
processes only (state.py, MULTI_CPU is not in the list) and prepares one model, and Wan 2.2 A14B has two experts.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from rlhf_video.errors import ConfigError


def shard(modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer, accelerator: Accelerator) -> None:
    """Shard modules over all processes in place, and point the optimiser at the shards.

    Parameters keep their dtypes: what a forward computes is what it computes unsharded. The main process's values win.

    Args:
        modules: Transformers by component name; blocks are the classes the plugin names, or `_no_split_modules`.
        optimizer: Optimiser without state over parameters of these modules.
        accelerator: Its FSDP plugin supplies `reshard_after_forward`, the block classes and CPU offload.

    Raises:
        ConfigError: The plugin asks for FSDP version 1.
    """
    plugin = _plugin(accelerator)
    assert not optimizer.state, "shard before the first step: optimiser state cannot follow its parameters"
    names = {id(p): (component, name) for component, module in modules.items() for name, p in module.named_parameters()}
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    options: dict[str, Any] = {"mesh": mesh, "reshard_after_forward": plugin.reshard_after_forward}
    if plugin.cpu_offload is not None and accelerator.device.type != "cpu":
        options["offload_policy"] = plugin.cpu_offload
    for module in modules.values():
        for parameter in module.parameters():
            dist.broadcast(parameter.data, src=0)
        blocks = set(plugin.transformer_cls_names_to_wrap or getattr(module, "_no_split_modules", None) or ())
        for child in reversed(list(module.modules())):
            if child is not module and type(child).__name__ in blocks:
                fully_shard(child, **options)
        fully_shard(module, **options)
    for group in optimizer.param_groups:
        places = [names[id(parameter)] for parameter in group["params"]]
        group["params"] = [modules[component].get_parameter(name) for component, name in places]


def full(tensor: Tensor) -> Tensor:
    """Return a sharded tensor whole (a collective), any other tensor as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def full_tree(value: Any) -> Any:
    """Return nested dicts, lists and tuples with every sharded tensor whole; a collective."""
    if isinstance(value, Tensor):
        return full(value)
    if isinstance(value, Mapping):
        return {key: full_tree(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(full_tree(item) for item in value)
    return value


def like(whole: Tensor, target: Tensor) -> Tensor:
    """Return a whole tensor placed and sharded like another one."""
    whole = whole.to(device=target.device, dtype=target.dtype)
    if isinstance(target, DTensor):
        return distribute_tensor(whole, target.device_mesh, target.placements)
    return whole


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Load a whole optimiser state; tensors of a parameter's shape are sharded like the parameter."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    placed = {
        index: {
            name: like(item, parameters[index])
            if isinstance(item, Tensor) and item.shape == parameters[index].shape and item.dim() > 0
            else item
            for name, item in entries.items()
        }
        for index, entries in state["state"].items()
    }
    optimizer.load_state_dict({"state": placed, "param_groups": state["param_groups"]})


def _plugin(accelerator: Accelerator) -> FullyShardedDataParallelPlugin:
    if accelerator.distributed_type == DistributedType.FSDP:
        plugin = accelerator.state.fsdp_plugin
    else:
        plugin = FullyShardedDataParallelPlugin()  # reads what `accelerate launch` put into the environment
    if plugin.fsdp_version != 2:
        raise ConfigError(
            f"fsdp_version: {plugin.fsdp_version} is not supported: set fsdp_version: 2, as in "
            "configs/accelerate/fsdp2.yaml."
        )
    return plugin
