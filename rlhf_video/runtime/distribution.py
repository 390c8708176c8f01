"""One process or many: the same adapter after the same steps on the same global batch.

Four ways to spread a run, chosen by `accelerate launch`'s configuration:

- single: one process.
- data_parallel: every process holds the frozen base; after backward the small adapter gradients are averaged by one
  all-reduce. No DDP wrapper: its hooks expect one forward per backward, and reward backpropagation runs many.
- fsdp2: parameters are sharded block by block (`fully_shard`); gradients are averaged by FSDP as they appear.
- deepspeed: ZeRO through `accelerator.prepare`; its engine averages, clips and steps.

Every process must run the same number of forward and backward passes, on equal shares of the global batch.
"""

import os
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Protocol

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import DistributedType, InitProcessGroupKwargs
from torch import Tensor, nn

from rlhf_video.errors import ConfigError
from rlhf_video.lora.adapter import Adaptable, load_adapter_state, named_adapter_parameters
from rlhf_video.runtime import deepspeed_engine, fsdp2

Kind = Literal["single", "data_parallel", "fsdp2", "deepspeed"]


class Preparable(Adaptable, Protocol):
    """What is prepared: a backbone with its adapter attached."""

    transformers: dict[str, nn.Module]
    """Trainable modules by component name; entries are replaced."""


def create_accelerator(*, mixed_precision: str | None = None) -> Accelerator:
    """Return the Accelerator of this process; every entry script starts with it.

    Plain `Accelerator()` without a GPU takes each of several launched CPU processes for a run of its own (accelerate
    1.15 starts gloo only when told `cpu=True`, and DeepSpeed's processes only when told the backend).

    Args:
        mixed_precision: "no" or "bf16"; None takes what `accelerate launch` says.
    """
    if torch.cuda.is_available():
        return Accelerator(mixed_precision=mixed_precision)
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        handler = InitProcessGroupKwargs(backend="gloo")
        return Accelerator(mixed_precision=mixed_precision, kwargs_handlers=[handler])
    return Accelerator(cpu=True, mixed_precision=mixed_precision)


class Distribution:
    """How the processes of a run share one optimiser step."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.kind: Kind = _kind(accelerator)
        self.num_processes: int = accelerator.num_processes
        self.rank: int = accelerator.process_index
        self._engine: Any = None

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and logs."""
        return bool(self.accelerator.is_main_process)

    def prepare(self, backbone: Preparable, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        """Make a model and its optimiser ready for many processes, before the first step.

        Under fsdp2 and deepspeed the parameters become other objects: take them from `parameters(optimizer)`
        afterwards, never from a list made before.

        Args:
            backbone: Entries of `transformers` are replaced by the prepared modules.
            optimizer: Fresh optimiser over the trainable parameters of these modules.

        Returns:
            The optimiser to use from now on.

        Raises:
            ConfigError: DeepSpeed is asked to hold two transformers.
        """
        if self.kind == "data_parallel":
            _broadcast(self.parameters(optimizer))
        elif self.kind == "fsdp2":
            fsdp2.shard(backbone.transformers, optimizer, self.accelerator)
        elif self.kind == "deepspeed":
            self._engine, optimizer = deepspeed_engine.prepare(backbone.transformers, optimizer, self.accelerator)
        return optimizer

    def parameters(self, optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
        """Return the trainable parameters an optimiser holds now, in its order (shards under fsdp2)."""
        if self.kind == "deepspeed" and self._engine is not None:
            return [parameter for parameter in self._engine.module.parameters() if parameter.requires_grad]
        return [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Back-propagate one part of an optimiser step's loss; gradients add up.

        Args:
            loss: Scalar: the mean over this process's share of the global batch, times the part's weight.
            last: Whether this is the last backward before `finish_step`.
        """
        if self._engine is not None:
            deepspeed_engine.backward(self._engine, loss, last=last)
        else:
            loss.backward()

    def finish_step(self, optimizer: torch.optim.Optimizer, max_grad_norm: float) -> Tensor:
        """Average the gradients over the processes, clip them, step, and clear them.

        Args:
            optimizer: What `prepare` returned.
            max_grad_norm: Bound on the global gradient norm; inf does not clip.

        Returns:
            Gradient norm over all processes before clipping, scalar float32.
        """
        if self._engine is not None:
            return deepspeed_engine.finish_step(self._engine, max_grad_norm)
        parameters = self.parameters(optimizer)
        self.average_gradients(parameters)
        norm = torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return fsdp2.full(norm).detach().float()

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its mean over the processes, in one all-reduce; a no-op where the framework does it.

        A parameter without a gradient counts as zero where another process has one, and stays without where none has.
        """
        parameters = list(parameters)
        if self.kind != "data_parallel" or not parameters:
            return
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        has_grad = torch.tensor([float(p.grad is not None) for p in parameters], device=grads[0].device)
        flat = torch.cat([has_grad, *(grad.detach().reshape(-1).float() for grad in grads)])
        dist.all_reduce(flat)
        used, flat = flat[: len(parameters)] > 0, flat[len(parameters) :] / self.num_processes
        for parameter, grad, is_used, part in zip(
            parameters, grads, used.tolist(), flat.split([grad.numel() for grad in grads]), strict=True
        ):
            parameter.grad = part.view_as(grad).to(grad.dtype) if is_used else None

    def shard_indices(self, num_items: int) -> range:
        """Return this process's contiguous share of the items of a global batch.

        Raises:
            ConfigError: The items cannot be shared equally; unequal shares would weigh some items more than others.
        """
        if num_items % self.num_processes:
            fits = max(num_items // self.num_processes, 1) * self.num_processes
            raise ConfigError(
                f"A global batch of {num_items} cannot be shared equally by {self.num_processes} processes: use a "
                f"multiple of {self.num_processes}, for example {fits}."
            )
        share = num_items // self.num_processes
        return range(self.rank * share, (self.rank + 1) * share)

    def gather(self, tensor: Tensor) -> Tensor:
        """Return the tensors of all processes, joined along the first axis in rank order; shapes must be equal."""
        if self.num_processes == 1:
            return tensor
        tensor = tensor.contiguous()
        parts = [torch.empty_like(tensor) for _ in range(self.num_processes)]
        dist.all_gather(parts, tensor)
        return torch.cat(parts)

    def gather_objects(self, value: object) -> list[Any]:
        """Return the picklable values of all processes in rank order, on every process."""
        if self.num_processes == 1:
            return [value]
        values: list[Any] = [None] * self.num_processes
        dist.all_gather_object(values, value)
        return values

    def broadcast_object(self, value: object) -> Any:
        """Return the main process's value on every process."""
        return self.gather_objects(value)[0]

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.num_processes > 1:
            dist.barrier()

    def full_state(self, state: Any) -> Any:
        """Return a state with every sharded tensor gathered; call it on every process."""
        return fsdp2.full_tree(state)

    def full_adapter_state(self, backbone: Preparable) -> dict[str, Tensor]:
        """Return what `lora.adapter_state` returns, shards gathered; call it on every process."""
        named = named_adapter_parameters(backbone)
        return {name: fsdp2.full(parameter).detach().to("cpu", copy=True) for name, parameter in named}

    def load_adapter_state(self, backbone: Preparable, state: Mapping[str, Tensor]) -> None:
        """Set the adapter from what `full_adapter_state` returned.

        Raises:
            AdapterError: The names or shapes are not those of this adapter.
        """
        own = dict(named_adapter_parameters(backbone))
        fits = {name for name, value in state.items() if name in own and own[name].shape == value.shape}
        load_adapter_state(
            backbone, {name: fsdp2.like(value, own[name]) if name in fits else value for name, value in state.items()}
        )
        if self._engine is not None:
            deepspeed_engine.refresh_masters(self._engine)

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Return the optimiser's state, whole (one part per process under deepspeed); call it on every process."""
        if self._engine is not None:
            return {"parts": self.gather_objects(deepspeed_engine.optimizer_part(self._engine))}
        return dict(fsdp2.full_tree(optimizer.state_dict()))

    def load_optimizer_state(self, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
        """Restore what `optimizer_state` returned; after `load_adapter_state`.

        Raises:
            ConfigError: The state was saved by another kind of run, or by another number of DeepSpeed processes.
        """
        if ("parts" in state) != (self._engine is not None):
            raise ConfigError("The checkpoint was saved with another distributed_type: resume with the same one.")
        if self._engine is not None:
            parts = state["parts"]
            if len(parts) != self.num_processes:
                raise ConfigError(f"The checkpoint was saved by {len(parts)} DeepSpeed processes: resume with as many.")
            deepspeed_engine.load_optimizer_part(self._engine, parts[self.rank])
            return
        fsdp2.load_optimizer_state(optimizer, state)


def _kind(accelerator: Accelerator) -> Kind:
    if accelerator.mixed_precision == "fp16":
        raise ConfigError(
            "mixed_precision: fp16 is not supported, its loss scaling does not fit several backward passes; use bf16."
        )
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        return "deepspeed"
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true" and accelerator.num_processes > 1:
        return "fsdp2"
    return "data_parallel" if accelerator.num_processes > 1 else "single"


def _broadcast(parameters: list[nn.Parameter]) -> None:
    """Give every process the main process's parameters."""
    for parameter in parameters:
        dist.broadcast(parameter.data, src=0)
