"""Joining adapters: one inside a larger one, one merged into the base, two as one.

An adapter adds scale * B A to a layer's weight, with scale = alpha / rank. So a smaller adapter is a larger one whose
further columns of B are zero, and the sum of two is their A below and their B beside one another.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from rlhf_video.errors import AdapterError
from rlhf_video.lora.adapter import Adaptable, LoraConfig, check_bare
from rlhf_video.lora.files import AttentionRule, Plannable, read_adapter_folder, recorded_attention, trained_size

_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True)
class AdapterWeights:
    """An adapter outside of a model."""

    state: Mapping[str, Tensor]
    """Weights as `adapter_state` names them."""
    config: LoraConfig
    """Its size and place; the targets are named."""

    @property
    def scale(self) -> float:
        """What its update is multiplied by."""
        return self.config.alpha / self.config.rank

    @property
    def layers(self) -> list[str]:
        """Full names of the adapted layers."""
        return [name.removesuffix(_DOWN) for name in self.state if name.endswith(_DOWN)]


def embedded(small: AdapterWeights, fresh: Mapping[str, Tensor], config: LoraConfig) -> dict[str, Tensor]:
    """Return an adapter as the start of a larger one; what is new keeps its fresh values and adds nothing.

    Args:
        small: The adapter.
        fresh: State of the larger one as `attach` starts it: random A, zero B.
        config: Size of the larger one.

    Raises:
        AdapterError: Its rank is larger, or it adapts a layer that the larger one does not.
    """
    rank = small.config.rank
    if rank > config.rank:
        raise AdapterError(f"An adapter of rank {rank} does not fit lora.rank={config.rank}: set lora.rank={rank}.")
    if missing := [name for name in small.layers if f"{name}{_DOWN}" not in fresh]:
        raise AdapterError(
            f"The adapter changes {len(missing)} layers that this one does not, first {missing[0]}: it is of another "
            "base, or lora.targets must name them too."
        )
    state = {name: value.clone() for name, value in fresh.items()}
    for layer in small.layers:
        down, up = small.state[layer + _DOWN], small.state[layer + _UP]
        if state[layer + _DOWN].shape[1] != down.shape[1] or state[layer + _UP].shape[0] != up.shape[0]:
            raise AdapterError(
                f"The adapter's layer {layer} maps {down.shape[1]} to {up.shape[0]} features, the model's "
                f"{state[layer + _DOWN].shape[1]} to {state[layer + _UP].shape[0]}: it is of another base."
            )
        state[layer + _DOWN][:rank] = down
        state[layer + _UP][:, :rank] = up * (small.scale / (config.alpha / config.rank))
    return state


@torch.no_grad()
def merge_into_base(backbone: Adaptable, adapter: AdapterWeights, *, strength: float = 1.0) -> None:
    """Add an adapter's update to the model's own weights, computed in float32.

    Args:
        backbone: The model, without an adapter.
        adapter: What to add.
        strength: Factor on the update.

    Raises:
        AdapterError: The model has an adapter, or a layer is missing or of another size; nothing is changed then.
    """
    check_bare(backbone)
    modules = {
        f"{component}.{name}": module
        for component, transformer in backbone.transformers.items()
        for name, module in transformer.named_modules()
        if isinstance(module, nn.Linear)
    }
    updates = {}
    for layer in adapter.layers:
        update = strength * adapter.scale * (adapter.state[layer + _UP].float() @ adapter.state[layer + _DOWN].float())
        if layer not in modules or modules[layer].weight.shape != update.shape:
            raise AdapterError(f"The model has no layer {layer} of shape {tuple(update.shape)}: it is another base.")
        updates[layer] = update
    for layer, update in updates.items():
        weight = cast(nn.Parameter, modules[layer].weight)
        weight.copy_((weight.float() + update.to(weight.device)).to(weight.dtype))


def merge_adapter(
    backbone: Plannable, folder: str | Path, *, strength: float = 1.0, attention: AttentionRule = "check"
) -> dict[str, Any]:
    """Add the adapter of a folder to the weights of a backbone that has none; it then runs without products of its own.

    Args:
        backbone: The base model.
        folder: Adapter folder, or its main weight file.
        strength: Factor on the update; it cannot be changed afterwards.
        attention: As in `load_adapter`.

    Returns:
        The adapter's metadata.

    Raises:
        AdapterError, ConfigError: As `load_adapter`.
    """
    state, metadata = read_adapter_folder(folder)
    check_bare(backbone)  # before the plan changes: the adapter that is there would run under the wrong one
    backbone.match_attention(recorded_attention(metadata), attention)
    merge_into_base(backbone, AdapterWeights(state, trained_size(metadata)), strength=strength)
    return metadata


def joined(first: AdapterWeights, second: AdapterWeights) -> AdapterWeights:
    """Return one adapter whose update is the sum of two, with scale 1 and the ranks added."""
    rank = first.config.rank + second.config.rank
    state = {}
    for layer in dict.fromkeys([*first.layers, *second.layers]):
        downs, ups = [], []
        for part, other in ((first, second), (second, first)):
            owner = part if layer in part.layers else other
            down, up = owner.state[layer + _DOWN], owner.state[layer + _UP]
            is_own = owner is part
            size = part.config.rank
            downs.append(down if is_own else torch.zeros(size, down.shape[1]))
            ups.append(part.scale * up if is_own else torch.zeros(up.shape[0], size))
        state[layer + _DOWN], state[layer + _UP] = torch.cat(downs), torch.cat(ups, dim=1)
    targets = tuple(dict.fromkeys([*(first.config.targets or ()), *(second.config.targets or ())]))
    return AdapterWeights(state, LoraConfig(rank=rank, alpha=float(rank), targets=targets or None))
