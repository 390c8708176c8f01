"""Windowed attention: one function, several back-ends, one result."""

from functools import lru_cache

import torch
from torch import Tensor

from rlhf_video.attention.backends.dense import dense_attention
from rlhf_video.attention.backends.mask_oracle import MaskOracle
from rlhf_video.attention.backends.sdpa_span import SdpaSpan
from rlhf_video.attention.grid import Grid
from rlhf_video.attention.problem import Backend, Problem, Text
from rlhf_video.attention.window_spec import WindowSpec
from rlhf_video.errors import ConfigError

BACKENDS: dict[str, Backend] = {
    backend.name: backend for backend in (SdpaSpan(), SdpaSpan("sdpa_span_cudnn", kernel="cudnn"), MaskOracle())
}
"""Name -> back-end, in the order in which "auto" asks them."""


def windowed_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    grid: Grid,
    spec: WindowSpec,
    *,
    text: Text | None = None,
    scale: float | None = None,
    backend: str = "auto",
) -> Tensor:
    """Return attention in which each video token sees the keys of its window, and all text.

    A window that covers the clip is computed as plain dense attention, whatever the back-end.

    Args:
        query: Shape (batch, tokens, heads, head_dim), any strides; video tokens are frame-major.
        key: The same shape.
        value: The same shape.
        grid: Video tokens along frames, height and width.
        spec: Which keys a video token sees.
        text: Text tokens in the sequence; None where there are none (cross-attention models).
        scale: Factor on the scores; None is head_dim ** -0.5.
        backend: A name of `BACKENDS`, or "auto": the first that can compute this call.

    Returns:
        Shape (batch, tokens, heads, head_dim), in the type of `query`.

    Raises:
        ConfigError: The shapes do not fit, the window does not fit the grid, or the back-end is unknown, not installed,
            or cannot compute this call (a missing backward pass under grad included).
    """
    problem = Problem(grid, spec, text, query.shape[-1] ** -0.5 if scale is None else scale)
    _check(query, key, value, problem)
    if _covers(spec, grid):
        return dense_attention(query, key, value, problem)
    return _chosen(backend, (query, key, value), problem)(query, key, value, problem)


@torch.compiler.assume_constant_result  # compiled code guards on the window and the grid and keeps the answer
def _covers(spec: WindowSpec, grid: Grid) -> bool:
    return _covers_once(spec, grid)


@lru_cache(maxsize=64)  # counting pairs makes the index tables of the window
def _covers_once(spec: WindowSpec, grid: Grid) -> bool:
    return spec.covers(grid)


def _check(query: Tensor, key: Tensor, value: Tensor, problem: Problem) -> None:
    if query.ndim != 4 or not query.shape == key.shape == value.shape:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in (query, key, value))
        raise ConfigError(f"query, key and value of shapes {shapes} must all be (batch, tokens, heads, head_dim).")
    if query.shape[1] != problem.num_tokens:
        raise ConfigError(
            f"{query.shape[1]} tokens do not fit the grid {problem.grid} = {problem.grid.num_tokens} tokens with "
            f"{problem.num_text} text tokens."
        )
    if problem.text is not None and problem.text.valid is not None and len(problem.text.valid) != len(query):
        raise ConfigError(f"The text mask counts {len(problem.text.valid)} items, the batch has {len(query)}.")
    problem.spec.check(problem.grid)


def _chosen(name: str, tensors: tuple[Tensor, Tensor, Tensor], problem: Problem) -> Backend:
    needs_backward = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)

    def reason(backend: Backend) -> str | None:
        if needs_backward and not backend.has_backward:
            return "it has no backward pass: use torch.no_grad() or another back-end, a gradient would be lost silently"
        return backend.unsuitable(tensors[0], problem)

    if name == "auto":
        reasons = {}
        for candidate in BACKENDS.values():
            reasons[candidate.name] = reason(candidate)
            if reasons[candidate.name] is None:
                return candidate
        listed = "; ".join(f"{candidate}: {why}" for candidate, why in reasons.items())
        raise ConfigError(f"No attention back-end can compute {problem.spec} on the grid {problem.grid}: {listed}.")
    if name not in BACKENDS:
        raise ConfigError(f"Unknown attention back-end '{name}'. Known: auto, {', '.join(BACKENDS)}.")
    if (why := reason(BACKENDS[name])) is not None:
        raise ConfigError(f"backend='{name}' cannot compute this attention: {why}.")
    return BACKENDS[name]
