"""Windows as batches of small dense attentions: exact, without a mask, on every device, with its own backward.

Queries that share keys are gathered into a group, their keys beside them, and one dense kernel computes all groups.
Kept for backward are q, k, v, the output and its log-sum-exp, as dense attention keeps them: backward gathers again.
It is one custom operator, so that torch.compile sees neither index tables nor loops.
Letters: B batch, N tokens, S heads, D head_dim; n groups, c tokens of a group (`span_layout` tells what rows are).
"""

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from rlhf_video.attention.backends.span_kernels import KERNELS, Inputs, kernel_for, lse_dtype
from rlhf_video.attention.backends.span_layout import SpanLayout
from rlhf_video.attention.band_window import Band
from rlhf_video.attention.grid import Grid
from rlhf_video.attention.problem import Problem, Text
from rlhf_video.attention.window_spec import WindowSpec
from rlhf_video.attention.windows import window_from_json
from rlhf_video.errors import ConfigError

CPU_SLICE_BYTES = 2**21
"""Keys gathered at once on the CPU: in its cache when the kernel reads them (whole tensors were 5-20% slower)."""


class SdpaSpan:
    """Computes each group of queries with its keys."""

    has_backward = True

    def __init__(self, name: str = "sdpa_span", *, kernel: str = "auto") -> None:
        """Name the back-end.

        Args:
            name: Its name in `BACKENDS`.
            kernel: A name of `KERNELS`; "auto" picks by device, type and head_dim.
        """
        self.name = name
        self.kernel = kernel

    def unsuitable(self, query: Tensor, problem: Problem) -> str | None:
        """Refuse windows that slide token by token, and what a kernel named by the user refuses."""
        if isinstance(problem.spec, Band) and problem.spec.slides:
            return (
                "chunk=0 slides token by token, so that no two queries share their keys: use a chunk (chunk=1, "
                "halo=0.5 has EasyAnimate's density), or one of the back-ends varlen, flex, mask"
            )
        if self.kernel == "auto":
            return None
        return KERNELS[self.kernel].unsuitable(Inputs(query.device, query.dtype, query.shape[-1]))

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, problem: Problem) -> Tensor:
        """Return the output, (B, N, S, D).

        Raises:
            ConfigError: Forward-mode differentiation is on; the operator would drop the tangent silently.
        """
        if not torch.compiler.is_compiling():
            _refuse_tangents(query, key, value)
        sizes, text = [*problem.grid], problem.text
        if text is not None:
            sizes += [text.length, int(text.position == "first"), *(text.valid or ())]
        out, _ = _forward(query, key, value, _describe(problem.spec), sizes, self.kernel, problem.scale)
        return out


def _refuse_tangents(*tensors: Tensor) -> None:
    if any(torch.autograd.forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors):
        raise ConfigError(
            "backend='sdpa_span' has no forward-mode derivative: use a backward pass, or backend='mask' on small grids."
        )


@torch.compiler.assume_constant_result  # compiled code guards on the window and keeps the text
def _describe(spec: WindowSpec) -> str:
    return _json_of(spec)


@lru_cache(maxsize=64)
def _json_of(spec: WindowSpec) -> str:
    return json.dumps(spec.to_json())


@lru_cache(maxsize=64)
def _window_of(text: str) -> WindowSpec:
    return window_from_json(json.loads(text))


def _problem(spec: str, sizes: Sequence[int], scale: float) -> Problem:
    """Read what `SdpaSpan` wrote: grid (3), and where there is text its length, whether it is first, valid counts."""
    text = None
    if len(sizes) > 3:
        text = Text(sizes[3], "first" if sizes[4] else "last", tuple(sizes[5:]) or None)
    return Problem(Grid(*sizes[:3]), _window_of(spec), text, scale)


def _layouts(query: Tensor, problem: Problem) -> Iterator[tuple[slice, SpanLayout]]:
    """Yield batch items of one layout: all at once, or one by one where their texts differ in length."""
    valid = problem.text.valid if problem.text is not None else None
    counts = [problem.num_text] if valid is None else list(valid)
    if len(set(counts)) == 1:
        counts = counts[:1]
    size = len(query) // len(counts)
    for first, count in zip(range(0, len(query), size), counts, strict=True):
        yield slice(first, first + size), SpanLayout(problem, query.shape[2], num_valid=count, device=query.device)


def _max_keys(query: Tensor) -> int:
    """Return how many keys to gather at once: on a GPU, which wants large batches, as many as there are.

    A window of boxes holds each key up to 27 times: gathered at once, k and v alone would be 54 tensors.
    """
    if query.device.type != "cpu":
        return query.shape[1]
    token_bytes = query.element_size() * query.numel() // query.shape[1]
    return min(query.shape[1], CPU_SLICE_BYTES // token_bytes)


def _flat(tensor: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return (B, N, S, ...) as rows (B * N * runs, numbers), and `rows` of all batch items in it, flat.

    Two axes: on the CPU, index_add_ takes a third of the time it takes with three.
    """
    batch, num_rows, index = len(tensor), tensor.shape[1] * rows.shape[-1], rows.flatten()
    if batch > 1:
        index = (torch.arange(batch, device=rows.device)[:, None] * num_rows + index).flatten()
    return tensor.view(batch * num_rows, -1), index


def _gather(tensor: Tensor, rows: Tensor) -> Tensor:
    """Return rows of (B, N, S, D) or (B, N, S), heads first: (B * n, S, c, D) or (B * n, S, c)."""
    flat, index = _flat(tensor, rows)
    return flat.index_select(0, index).view(-1, rows.shape[1], *tensor.shape[2:]).transpose(1, 2)


def _put(target: Tensor, rows: Tensor, source: Tensor) -> None:
    """Write what `_gather` would read; the tensors of a call are contiguous."""
    flat, index = _flat(target, rows)
    flat.index_copy_(0, index, source.transpose(1, 2).reshape(len(index), -1))


def _add(target: Tensor, rows: Tensor, source: Tensor) -> None:
    """Add to what `_gather` would read, in the type of `target`; rows may repeat."""
    flat, index = _flat(target, rows)
    flat.index_add_(0, index, source.transpose(1, 2).reshape(len(index), -1).to(target.dtype))


@torch.library.custom_op("rlhf_video::span_attention", mutates_args=())
def _forward(
    query: Tensor, key: Tensor, value: Tensor, spec: str, sizes: Sequence[int], kernel: str, scale: float
) -> tuple[Tensor, Tensor]:
    """Return the output, (B, N, S, D), and its log-sum-exp, (B, N, S)."""
    query, key, value = query.contiguous(), key.contiguous(), value.contiguous()  # once, not once per slice
    out = query.new_empty(query.shape)
    lse = query.new_empty(query.shape[:3], dtype=lse_dtype(query.dtype))
    for items, layout in _layouts(query, _problem(spec, sizes, scale)):
        for queries, keys in layout.slices(_max_keys(query)):
            gathered = _gather(query[items], queries), _gather(key[items], keys), _gather(value[items], keys)
            some_out, some_lse = kernel_for(kernel, query).forward(*gathered, scale)
            _put(out[items], queries, some_out)
            _put(lse[items], queries, some_lse)
    return out, lse


@torch.library.custom_op("rlhf_video::span_attention_backward", mutates_args=())
def _backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    spec: str,
    sizes: Sequence[int],
    kernel: str,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of query, key and value.

    A key's gradient is a sum over groups (up to 27 tiles; every group for text): half precision sums in float32, or
    each addition would round to 8 bits and small terms would be lost.
    """
    grad, query, key, value = grad.contiguous(), query.contiguous(), key.contiguous(), value.contiguous()
    layouts = list(_layouts(query, _problem(spec, sizes, scale)))
    shared = layouts[0][1].keys_are_shared
    dq = query.new_empty(query.shape)
    dk, dv = (t.new_zeros(t.shape, dtype=lse_dtype(t.dtype)) if shared else t.new_empty(t.shape) for t in (key, value))
    write = _add if shared else _put
    for items, layout in layouts:
        for queries, keys in layout.slices(_max_keys(query)):
            some_grad, some_q, some_out, some_lse = (_gather(t[items], queries) for t in (grad, query, out, lse))
            some_k, some_v = _gather(key[items], keys), _gather(value[items], keys)
            grads = kernel_for(kernel, query).backward(some_grad, some_q, some_k, some_v, some_out, some_lse, scale)
            _put(dq[items], queries, grads[0])
            write(dk[items], keys, grads[1])
            write(dv[items], keys, grads[2])
    return dq, dk.to(key.dtype), dv.to(value.dtype)


@_forward.register_fake
def _forward_fake(
    query: Tensor, key: Tensor, value: Tensor, spec: str, sizes: Sequence[int], kernel: str, scale: float
) -> tuple[Tensor, Tensor]:
    return query.new_empty(query.shape), query.new_empty(query.shape[:3], dtype=lse_dtype(query.dtype))


@_backward.register_fake
def _backward_fake(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    spec: str,
    sizes: Sequence[int],
    kernel: str,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    return query.new_empty(query.shape), key.new_empty(key.shape), value.new_empty(value.shape)


def _keep(
    ctx: torch.autograd.function.FunctionCtx,
    inputs: tuple[Tensor, Tensor, Tensor, str, Sequence[int], str, float],
    output: tuple[Tensor, Tensor],
) -> None:
    query, key, value, *ctx.settings = inputs  # type: ignore[attr-defined]
    ctx.save_for_backward(query, key, value, *output)
    ctx.mark_non_differentiable(output[1])


def _gradients(ctx: torch.autograd.function.FunctionCtx, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return *_backward(grad, *ctx.saved_tensors, *ctx.settings), None, None, None, None  # type: ignore[attr-defined]


_forward.register_autograd(_gradients, setup_context=_keep)
