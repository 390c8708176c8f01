"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv:2106.09685) on the transformers of a frozen backbone, by PEFT."""

import logging
import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, cast

import peft
import torch
from diffusers.loaders.peft import PeftAdapterMixin
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from rlhf_video.errors import AdapterError

logger = logging.getLogger(__name__)

ADAPTER_NAME = "default"


class _AdaptableSpec(Protocol):
    @property
    def lora_targets(self) -> tuple[str, ...]: ...


class Adaptable(Protocol):
    """What this room needs of a backbone."""

    @property
    def transformers(self) -> Mapping[str, nn.Module]:
        """One transformer or two experts by component name."""
        ...

    @property
    def spec(self) -> _AdaptableSpec:
        """The model's facts, among them the default LoRA targets."""
        ...


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Size and place of an adapter."""

    rank: int = 16
    """Rank of the update. 32-128 for Wan 1.3B and larger (EasyAnimate's reward adapters use 128), 16 for sprites."""
    alpha: float = 16.0
    """The update is scaled by alpha / rank."""
    targets: tuple[str, ...] | None = None
    """Endings of the module names to adapt, for example ["to_q", "to_v"]; null takes the backbone's own list (every
    Linear of attention and feed-forward), which is what ComfyUI and kohya files carry."""

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            AdapterError: rank or alpha is not positive, or the list of targets is empty.
        """
        if self.rank < 1 or self.alpha <= 0:
            raise AdapterError(f"lora.rank={self.rank} and lora.alpha={self.alpha} must be positive.")
        if self.targets is not None and not self.targets:
            raise AdapterError("lora.targets is empty: name module endings, or leave it null for the backbone's list.")


def attach(backbone: Adaptable, config: LoraConfig, *, seed: int, name: str = ADAPTER_NAME) -> list[nn.Parameter]:
    """Add a trainable adapter that starts as exactly nothing (its second matrix is zero).

    Args:
        backbone: The model; its own weights are frozen here.
        config: Size and place.
        seed: Seed of the first matrices, which depend on nothing else.
        name: The default is the policy, which every switch and file means; another name is a further role on the same
            base (`roles.py`), which runs only inside `role`.

    Returns:
        The trainable parameters, float32, in a fixed order.

    Raises:
        AdapterError: There is an adapter of that name already, or a target fits no Linear.
    """
    if name == ADAPTER_NAME or any(name in layer.lora_A for _, layer in adapter_layers(backbone)):
        check_bare(backbone)
    targets = config.targets or backbone.spec.lora_targets
    for component, transformer in backbone.transformers.items():
        _check_targets(component, transformer, targets)
    trained = _trained_matrices(backbone)
    for transformer in backbone.transformers.values():
        transformer.requires_grad_(False)
        settings = peft.LoraConfig(r=config.rank, lora_alpha=config.alpha, target_modules=list(targets))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")  # a further role, on purpose
            cast("PeftAdapterMixin", transformer).add_adapter(settings, adapter_name=name)
    generator = torch.Generator().manual_seed(seed)
    for _, layer in adapter_layers(backbone):
        if name in layer.lora_A:
            _initialise(layer, generator, name)
    for _, layer in adapter_layers(backbone):  # PEFT switches to the newest adapter, and freezes the others
        layer._active_adapter = [ADAPTER_NAME]
    for weight in trained:
        weight.requires_grad_(True)
    parameters = adapter_parameters(backbone, name=name)
    logger.info(
        "Attached LoRA '%s' rank=%d alpha=%g: %.3f M trainable parameters in %d tensors",
        name,
        config.rank,
        config.alpha,
        sum(parameter.numel() for parameter in parameters) / 1e6,
        len(parameters),
    )
    return parameters


def _trained_matrices(backbone: Adaptable) -> list[nn.Parameter]:
    """Return the matrices of all adapters that are attached already and trainable."""
    matrices = (
        matrix.weight
        for _, layer in adapter_layers(backbone)
        for matrix in (*layer.lora_A.values(), *layer.lora_B.values())
    )
    return [weight for weight in matrices if weight.requires_grad]


def check_bare(backbone: Adaptable) -> None:
    """Refuse a model that has an adapter.

    Raises:
        AdapterError: It has one.
    """
    if any(True for _ in adapter_layers(backbone)):
        raise AdapterError("This backbone has an adapter already: load the base again for another one.")


def _check_targets(component: str, transformer: nn.Module, targets: tuple[str, ...]) -> None:
    linear = [  # where another adapter is attached, the Linear is its base_layer
        name.removesuffix(".base_layer")
        for name, module in transformer.named_modules()
        if isinstance(module, nn.Linear) and ".lora_" not in name
    ]
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in linear):
            endings = sorted({name.rsplit(".", 1)[-1] for name in linear})
            raise AdapterError(
                f"lora.targets: no Linear of {component} ends in '{target}'. Last name parts there: "
                f"{', '.join(endings)}."
            )


def _initialise(layer: LoraLayer, generator: torch.Generator, name: str) -> None:
    """Kaiming-uniform first matrix (PEFT's and kohya's choice), zero second matrix, both float32 leaves."""
    down, up = layer.lora_A[name], layer.lora_B[name]
    down.float()
    up.float()
    if down.weight.is_meta:
        return
    bound = 1 / math.sqrt(down.weight.shape[1])
    values = torch.empty(down.weight.shape).uniform_(-bound, bound, generator=generator)
    with torch.no_grad():
        down.weight.copy_(values)
        up.weight.zero_()


def adapter_layers(backbone: Adaptable) -> Iterator[tuple[str, LoraLayer]]:
    """Yield every adapted layer with its full name, such as "transformer.blocks.0.attn1.to_q", in a fixed order."""
    for component, transformer in backbone.transformers.items():
        for name, module in transformer.named_modules():
            if isinstance(module, LoraLayer):
                yield f"{component}.{_plain_name(name)}", module


def _plain_name(name: str) -> str:
    """Drop what wrappers (DDP, DeepSpeed, checkpointing, compile) put into module names."""
    wrappers = ("module.", "_orig_mod.", "_checkpoint_wrapped_module.")
    for wrapper in wrappers:
        name = name.replace(wrapper, "")
    return name


def adapter_parameters(backbone: Adaptable, *, name: str = ADAPTER_NAME) -> list[nn.Parameter]:
    """Return an adapter's parameters, first and second matrix of every layer, in a fixed order."""
    return [
        matrix[name].weight
        for _, layer in adapter_layers(backbone)
        if name in layer.lora_A
        for matrix in (layer.lora_A, layer.lora_B)
    ]


def adapter_state(backbone: Adaptable, *, name: str = ADAPTER_NAME) -> dict[str, Tensor]:
    """Return copies of the adapter's weights on the CPU, named as diffusers saves them.

    Keys look like "transformer.blocks.0.attn1.to_q.lora_A.weight"; a two-expert model has "transformer_2." too.

    Raises:
        AdapterError: There is no adapter.
    """
    named = named_adapter_parameters(backbone, name=name)
    return {label: parameter.detach().cpu().clone() for label, parameter in named}


def named_adapter_parameters(backbone: Adaptable, *, name: str = ADAPTER_NAME) -> list[tuple[str, nn.Parameter]]:
    """Return the adapter's parameters by the names of `adapter_state`.

    Raises:
        AdapterError: There is no adapter.
    """
    named = [
        (f"{place}.{label}.weight", matrix[name].weight)
        for place, layer in adapter_layers(backbone)
        if name in layer.lora_A
        for label, matrix in (("lora_A", layer.lora_A), ("lora_B", layer.lora_B))
    ]
    if not named:
        raise AdapterError("This backbone has no adapter: attach or load one first.")
    return named


def load_adapter_state(backbone: Adaptable, state: Mapping[str, Tensor], *, name: str = ADAPTER_NAME) -> None:
    """Copy weights of `adapter_state` into the adapter of that name, which is attached.

    Raises:
        AdapterError: Names or shapes differ; nothing is changed then.
    """
    named = dict(named_adapter_parameters(backbone, name=name))
    if missing := sorted(set(named) ^ set(state)):
        raise AdapterError(
            f"The adapter file does not fit this backbone: {len(missing)} weights are on one side only, first "
            f"{missing[0]}."
        )
    for label, parameter in named.items():
        if parameter.shape != state[label].shape:
            raise AdapterError(
                f"The adapter file does not fit: {label} is {tuple(state[label].shape)}, here {tuple(parameter.shape)}."
            )
    with torch.no_grad():
        for label, parameter in named.items():
            parameter.copy_(state[label])
