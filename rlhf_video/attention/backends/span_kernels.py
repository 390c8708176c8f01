"""Dense attention kernels whose backward pass can be called with a saved log-sum-exp, so that nothing else is kept.

They are what `scaled_dot_product_attention` runs itself; only the call is split in two. Tensors are
(batch, heads, tokens, head_dim), any strides with unit last stride; a log-sum-exp is (batch, heads, tokens).
"""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

MAX_SCORES = 2**26
"""Scores of one piece of `Recompute`'s backward pass: 256 MiB in float32, a few times."""

aten = torch.ops.aten


class Inputs(NamedTuple):
    """What the choice of a kernel depends on."""

    device: torch.device
    dtype: torch.dtype
    head_dim: int


class Kernel(Protocol):
    """Forward and backward of dense attention without a mask."""

    def unsuitable(self, inputs: Inputs) -> str | None:
        """Return why the kernel cannot take such tensors, or None where it can; it depends on nothing else."""
        ...

    def forward(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """Return the output, like the query, and the log-sum-exp."""
        ...

    def backward(
        self, grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor, scale: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of query, key and value."""
        ...


class CpuFlash:
    """PyTorch's tiled kernel for the CPU: float16, bfloat16, float32, float64."""

    def unsuitable(self, inputs: Inputs) -> str | None:
        """Accept every floating-point tensor on the CPU."""
        return None if inputs.device.type == "cpu" else f"it is for the CPU, not for {inputs.device.type}"

    def forward(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """Return output and log-sum-exp (the latter token-major in memory)."""
        out, lse = aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, scale=scale)
        return out, lse

    def backward(
        self, grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor, scale: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients."""
        dq, dk, dv = aten._scaled_dot_product_flash_attention_for_cpu_backward(
            grad, query, key, value, out, lse, 0.0, False, scale=scale
        )
        return dq, dk, dv


def _unsuitable_for_cuda(inputs: Inputs, *, max_head_dim: int) -> str | None:
    device, dtype, head_dim = inputs
    if device.type != "cuda" or torch.version.hip is not None:
        return f"it is for NVIDIA GPUs, the tensors are on {device.type}"
    if dtype not in (torch.float16, torch.bfloat16):
        return f"it computes in float16 or bfloat16, not in {str(dtype).removeprefix('torch.')}"
    if head_dim % 8 or head_dim > max_head_dim:
        return f"head_dim={head_dim} must be a multiple of 8 and at most {max_head_dim}"
    if (capability := _capability(device)) < (8, 0):
        return f"it needs compute capability 8.0, the device has {capability[0]}.{capability[1]}"
    return None


@torch.compiler.assume_constant_result
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


def _no_dropout_state(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the seed and offset that a backward pass without dropout asks for and does not read."""
    seed, offset = torch.zeros(2, dtype=torch.uint64, device=device), torch.zeros((), dtype=torch.uint64, device=device)
    return seed, offset


class CudaFlash:
    """FlashAttention-2 of PyTorch; FlashAttention-3 or 4 after `torch.nn.attention.activate_flash_attention_impl`."""

    def unsuitable(self, inputs: Inputs) -> str | None:
        """Refuse other devices, other types, and head dimensions that the kernel would have to pad."""
        if not torch.backends.cuda.is_flash_attention_available():
            return "this PyTorch is built without it"
        return _unsuitable_for_cuda(inputs, max_head_dim=256)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """Return output and log-sum-exp."""
        out, lse, *_ = aten._scaled_dot_product_flash_attention(query, key, value, scale=scale)
        return out, lse

    def backward(
        self, grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor, scale: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients; the kernel reads the log-sum-exp as contiguous."""
        lse, sizes = lse.contiguous(), (query.shape[2], key.shape[2])
        dq, dk, dv = aten._scaled_dot_product_flash_attention_backward(
            *(grad, query, key, value, out, lse, None, None, *sizes, 0.0, False, *_no_dropout_state(query.device)),
            scale=scale,
        )
        return dq, dk, dv


class CudaCudnn:
    """cuDNN's kernel, the fastest of PyTorch's own on Hopper; it plans each new shape, which takes a moment."""

    def unsuitable(self, inputs: Inputs) -> str | None:
        """Refuse other devices, other types, and head dimensions above 128."""
        if not torch.backends.cudnn.is_available():
            return "this PyTorch has no cuDNN"
        return _unsuitable_for_cuda(inputs, max_head_dim=128)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """Return output and log-sum-exp."""
        out, lse, *_ = aten._scaled_dot_product_cudnn_attention(query, key, value, None, True, scale=scale)
        return out, lse.view(out.shape[:3])  # some releases keep a last axis of one

    def backward(
        self, grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor, scale: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients; the kernel reads the log-sum-exp as contiguous."""
        lse, sizes = lse.contiguous(), (query.shape[2], key.shape[2])
        seed, offset = _no_dropout_state(query.device)
        dq, dk, dv = aten._scaled_dot_product_cudnn_attention_backward(
            *(grad, query, key, value, out, lse, seed, offset, None, None, None, *sizes, 0.0, False), scale=scale
        )
        return dq, dk, dv


class Recompute:
    """Whatever `scaled_dot_product_attention` picks, and a backward pass in plain matrix products.

    For CUDA in float32 or float64, for head dimensions that flash kernels refuse, and for all other devices. Backward
    makes the probabilities again, for as many groups and heads at once as fit into `MAX_SCORES`, or one.
    """

    def unsuitable(self, inputs: Inputs) -> str | None:
        """Accept everything."""
        return None

    def forward(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """Return the output, and zeros for the log-sum-exp, which is not needed."""
        out = functional.scaled_dot_product_attention(query, key, value, scale=scale)
        return out, torch.zeros(out.shape[:3], dtype=lse_dtype(query.dtype), device=out.device)

    def backward(
        self, grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor, scale: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients, computed in float32 or float64 (an operator has no autograd inside)."""
        at_once = max(1, MAX_SCORES // (query.shape[2] * key.shape[2]))
        pieces = zip(*(tensor.flatten(0, 1).split(at_once) for tensor in (grad, query, key, value, out)), strict=True)
        grads = zip(*(self._piece(*piece, scale=scale) for piece in pieces), strict=True)
        dq, dk, dv = (torch.cat(parts).unflatten(0, query.shape[:2]) for parts in grads)
        return dq, dk, dv

    @staticmethod
    def _piece(
        grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, *, scale: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of some groups and heads, each (pieces, tokens, head_dim), in the type of `query`."""
        exact, given = lse_dtype(query.dtype), query.dtype
        grad, query, key, value, out = (tensor.to(exact) for tensor in (grad, query, key, value, out))
        with torch.autocast(query.device.type, enabled=False):  # a backward pass may run inside the user's autocast
            weights = (query @ key.mT * scale).softmax(dim=-1)
            d_scores = weights * (grad @ value.mT - (grad * out).sum(dim=-1, keepdim=True)) * scale
            return (d_scores @ key).to(given), (d_scores.mT @ query).to(given), (weights.mT @ grad).to(given)


KERNELS: dict[str, Kernel] = {
    "cpu": CpuFlash(),
    "flash": CudaFlash(),
    "cudnn": CudaCudnn(),
    "recompute": Recompute(),
}
"""Name -> kernel."""

AUTOMATIC = ("cpu", "flash", "recompute")
"""Kernels in the order in which they are asked; cuDNN's only by name."""


def lse_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the type in which kernels keep the log-sum-exp of inputs of type `dtype`."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def kernel_for(name: str, query: Tensor) -> Kernel:
    """Return the kernel of this name; "auto" is the first of `AUTOMATIC` that takes such tensors.

    It depends on nothing that can change between the forward and the backward pass.
    """
    if name != "auto":
        return KERNELS[name]
    inputs = Inputs(query.device, query.dtype, query.shape[-1])
    return next(KERNELS[name] for name in AUTOMATIC if KERNELS[name].unsuitable(inputs) is None)
