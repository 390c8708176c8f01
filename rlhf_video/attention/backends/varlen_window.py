"""Windows as sequences of torch's own variable-length flash attention (`torch.nn.attention.varlen`), on CUDA.

A band that slides token by token is one sequence for each clip, with a window inside the kernel; the boxes of local
windows are sequences of their own, of different lengths where a shift cuts them. No other package is needed.
"""

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rlhf_video.attention.backends.permutation import Permutation, per_head, permutation, permuted, restored
from rlhf_video.attention.band_window import Band
from rlhf_video.attention.box_windows import Local
from rlhf_video.attention.grid import Grid, tokens_in_order
from rlhf_video.attention.problem import Problem
from rlhf_video.attention.window_spec import WindowSpec

MAX_HEAD_DIM = 256
"""Largest head of the flash kernel; smaller ones are multiples of 8."""


class Sequences(NamedTuple):
    """One clip's tokens as packed sequences."""

    order: Permutation
    """Rows of shape (N, S)."""
    ends: Tensor
    """Token at which each sequence begins, and the last one ends, shape (sequences + 1,), int32."""
    longest: int
    """Tokens of the longest sequence."""
    halo: int | None
    """Keys on both sides of a query that it sees; None where it sees its whole sequence."""


class VarlenWindow:
    """Computes sliding bands and local windows in one call of `varlen_attn`."""

    name = "varlen"
    has_backward = True

    def unsuitable(self, query: Tensor, problem: Problem) -> str | None:
        """Refuse what flash attention's sequences cannot say, and machines without it."""
        return _unsuitable_window(problem) or _unsuitable_machine(query, problem)

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, problem: Problem) -> Tensor:
        """Return the output, (B, N, S, D)."""
        batch, num_tokens, num_heads, _ = query.shape
        packed = sequences(problem.spec, problem.grid, num_heads, query.device)
        starts = packed.ends[:-1] + torch.arange(batch, device=query.device, dtype=torch.int32)[:, None] * num_tokens
        ends = torch.nn.functional.pad(starts.flatten(), (0, 1), value=batch * num_tokens)
        # Arguments that an older torch lacks are given only where they say something: `_unsuitable_machine` has looked.
        options: dict[str, object] = {}
        if packed.halo is not None:
            options["window_size"] = (packed.halo, packed.halo)
        if problem.scale != query.shape[-1] ** -0.5:
            options["scale"] = problem.scale
        q_RSD, k_RSD, v_RSD = (permuted(tensor, packed.order).flatten(0, 1) for tensor in (query, key, value))
        attend = _varlen_attn()
        assert attend is not None  # `unsuitable` has looked
        out = attend(q_RSD, k_RSD, v_RSD, ends, ends, packed.longest, packed.longest, **options)
        return restored(out.unflatten(0, (batch, num_tokens)), packed.order, num_heads)


@torch.compiler.assume_constant_result
def sequences(spec: WindowSpec, grid: Grid, num_heads: int, device: torch.device) -> Sequences:
    """Return the order of tokens in which windows are sequences, for a sliding `Band` or a `Local` window."""
    return _sequences(spec, grid, num_heads, device)


@lru_cache(maxsize=8)
def _sequences(spec: WindowSpec, grid: Grid, num_heads: int, device: torch.device) -> Sequences:
    with torch.inference_mode(False):  # the tables outlive a roll-out, and training saves them
        if isinstance(spec, Band):
            tokens = torch.stack([tokens_in_order(grid, order) for order in spec.orders], dim=-1)
            lengths, halo = [grid.num_tokens], spec.tokens(grid)[1]
        else:
            boxes = [box.flatten() for spans in spec.spans(grid) for box in spans.queries]
            tokens, lengths, halo = torch.cat(boxes)[:, None], [len(box) for box in boxes], None
        ends = torch.tensor([0, *lengths]).cumsum(0).to(device, torch.int32)
        order = permutation(per_head(tokens, spec, num_heads), device)
        return Sequences(order, ends, max(lengths), halo)


def _unsuitable_window(problem: Problem) -> str | None:
    spec = problem.spec
    if problem.text is not None:
        return "its sequences hold no text tokens beside a window: use sdpa_span or flex for joint models"
    if isinstance(spec, Band) and not spec.slides:
        return "a band in chunks is not a window of flash attention: use sdpa_span, or chunk=0 to slide token by token"
    if isinstance(spec, Band) and spec.sink_frames:
        return "its sequences hold no sink frames beside a window: use flex, or sink_frames=0"
    if not isinstance(spec, Band | Local):
        return f"a {spec.kind} window is not a sequence: use sdpa_span or flex"
    return None


def _unsuitable_machine(query: Tensor, problem: Problem) -> str | None:
    if query.device.type != "cuda":
        return f"it runs on CUDA, the tensors are on {query.device.type}: use sdpa_span (or mask for a sliding band)"
    attend = _varlen_attn()
    if attend is None:
        return f"torch {torch.__version__} has no torch.nn.attention.varlen: use sdpa_span or flex, or torch 2.11"
    known = inspect.signature(attend).parameters
    if isinstance(problem.spec, Band) and "window_size" not in known:
        return f"varlen_attn of torch {torch.__version__} has no window_size: use flex, or a newer torch"
    if problem.scale != query.shape[-1] ** -0.5 and "scale" not in known:
        return f"varlen_attn of torch {torch.__version__} has no scale: use flex, or a newer torch"
    if query.dtype not in (torch.float16, torch.bfloat16):
        return f"it computes float16 and bfloat16, the tensors are {query.dtype}: use sdpa_span or flex"
    if query.shape[-1] % 8 or query.shape[-1] > MAX_HEAD_DIM:
        return f"heads of {query.shape[-1]} channels are not a multiple of 8 up to {MAX_HEAD_DIM}: use sdpa_span"
    if torch.cuda.get_device_capability(query.device) < (8, 0):
        return "flash attention needs a GPU of compute capability 8.0 (Ampere) or newer: use sdpa_span"
    return None


@lru_cache(maxsize=1)
def _varlen_attn() -> Callable[..., Any] | None:
    """Return torch's function, or None in a torch without it."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return varlen_attn
