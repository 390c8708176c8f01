"""Windows of every kind in FlexAttention, torch's compiler for attention kernels (arXiv:2412.05496).

Compiled on CUDA, forward and backward. On the CPU it has no backward pass, whatever torch does with it, so it is for
reading and testing there.
"""

import importlib.util
import inspect
import shutil
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from rlhf_video.attention.backends.block_masks import flex_plan
from rlhf_video.attention.backends.permutation import permuted, restored
from rlhf_video.attention.problem import Problem

MAX_KERNELS = 64
"""Shapes, kinds of windows and grad modes that are compiled before a further one is an error."""
MIN_HEAD_DIM = 16
"""Smallest head that Triton multiplies."""


class FlexBlocks:
    """Computes blocks of (query, key) and skips those outside the window."""

    name = "flex"
    has_backward = True

    def __init__(self, eager_tokens: int = 2048) -> None:
        """Remember up to how many tokens the CPU computes all scores rather than compile a kernel (10 s and more)."""
        self.eager_tokens = eager_tokens

    def unsuitable(self, query: Tensor, problem: Problem) -> str | None:
        """Refuse a gradient on the CPU, and machines without a compiler."""
        if query.device.type == "cpu":
            return self._unsuitable_on_cpu(query, problem)
        if query.device.type != "cuda":
            return f"it runs on CUDA and, forward only, on the CPU, not on {query.device.type}: use sdpa_span"
        if importlib.util.find_spec("triton") is None:
            return "it compiles with triton, which is not installed: pip install triton, or use sdpa_span"
        if query.dtype not in (torch.float32, torch.float16, torch.bfloat16):
            return f"it computes float32, float16 and bfloat16 on CUDA, the tensors are {query.dtype}: use sdpa_span"
        if query.shape[-1] < MIN_HEAD_DIM:
            return f"heads of {query.shape[-1]} channels are less than the {MIN_HEAD_DIM} of its kernel: use sdpa_span"
        return None

    def _unsuitable_on_cpu(self, query: Tensor, problem: Problem) -> str | None:
        if problem.needs_backward:
            return "FlexAttention has no backward pass on the CPU: use torch.no_grad(), or sdpa_span or mask to train"
        if problem.num_tokens <= self.eager_tokens:
            return None
        if shutil.which("g++") is None and shutil.which("clang++") is None:
            return (
                f"beyond {self.eager_tokens} tokens it compiles a kernel, and there is no C++ compiler: "
                "apt install g++, or use sdpa_span"
            )
        if query.dtype not in (torch.float32, torch.float16, torch.bfloat16):
            return (
                f"beyond {self.eager_tokens} tokens it computes float32, float16 and bfloat16 on the CPU, the tensors "
                f"are {query.dtype}: use sdpa_span"
            )
        return None

    @torch.compiler.disable(reason="flex compiles its own kernel and builds its tables outside of the graph")
    def __call__(self, query: Tensor, key: Tensor, value: Tensor, problem: Problem) -> Tensor:
        """Return the output, (B, N, S, D)."""
        num_heads = query.shape[2]
        plan = flex_plan(problem.spec, problem.grid, problem.text, num_heads, query.device)
        q_BSND, k_BSND, v_BSND = (permuted(tensor, plan.order) for tensor in (query, key, value))
        is_eager = query.device.type == "cpu" and problem.num_tokens <= self.eager_tokens
        attend = _eager_flex() if is_eager else _compiled_flex()
        out = attend(q_BSND, k_BSND, v_BSND, block_mask=plan.block_mask, scale=problem.scale)
        return restored(out, plan.order, num_heads)


def _eager_flex() -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    return flex_attention


@lru_cache(maxsize=1)
def _compiled_flex() -> Callable[..., Tensor]:
    """Return the compiled function; `fullgraph` makes a failure an error instead of the eager form's N x N scores.

    Shapes are constants of a kernel: with shapes left open, torch 2.13 writes C++ that does not compile.
    """
    options: dict[str, Any] = {}
    if "recompile_limit" in inspect.signature(torch.compile).parameters:  # an older torch stops at 8
        options["recompile_limit"] = MAX_KERNELS
    return torch.compile(_eager_flex(), fullgraph=True, dynamic=False, **options)
