"""Windowed attention: one function, several back-ends, one result."""

from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from rlhf_video.attention.backends.dense import dense_attention
from rlhf_video.attention.backends.flex_blocks import FlexBlocks
from rlhf_video.attention.backends.mask_oracle import MaskOracle
from rlhf_video.attention.backends.natten_tiles import NattenTiles
from rlhf_video.attention.backends.sdpa_span import SdpaSpan
from rlhf_video.attention.backends.varlen_window import VarlenWindow
from rlhf_video.attention.grid import Grid
from rlhf_video.attention.problem import Backend, Problem, Text
from rlhf_video.attention.window_spec import WindowSpec
from rlhf_video.errors import ConfigError

BACKENDS: dict[str, Backend] = {
    backend.name: backend
    for backend in (
        SdpaSpan(),
        VarlenWindow(),
        FlexBlocks(),
        NattenTiles(),
        SdpaSpan("sdpa_span_cudnn", kernel="cudnn"),
        MaskOracle(),
    )
}
"""Name -> back-end, in the order in which "auto" asks them."""
ONLY_BY_NAME = frozenset({"natten", "sdpa_span_cudnn"})
"""Back-ends that "auto" does not ask: a package whose presence should not change what a run computes, and a kernel that
nobody has measured yet."""


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
        backend: A name of `BACKENDS`, or "auto": the first that can compute this call and its gradient, asked for or
            not, so that a roll-out and the training pass after it use the same one.

    Returns:
        Shape (batch, tokens, heads, head_dim), in the type of `query`; under autocast in its type.

    Raises:
        ConfigError: The shapes do not fit, the window does not fit the grid, or the back-end is unknown, not installed,
            or cannot compute this call (a missing backward pass under grad included).
    """
    problem = Problem(grid, spec, text, query.shape[-1] ** -0.5 if scale is None else scale)
    _check(query, key, value, problem)
    if _covers(spec, grid):
        return dense_attention(_autocast(query), _autocast(key), _autocast(value), problem)
    return attend_in_windows(query, key, value, problem, backend=backend)


def _autocast(tensor: Tensor) -> Tensor:
    """Return the tensor as torch's own attention takes it: norms leave queries and keys in float32, not values."""
    device = tensor.device.type
    if tensor.dtype == torch.float64 or device == "meta" or not torch.is_autocast_enabled(device):
        return tensor
    return tensor.to(torch.get_autocast_dtype(device))


def attend_in_windows(query: Tensor, key: Tensor, value: Tensor, problem: Problem, *, backend: str) -> Tensor:
    """Do what `windowed_attention` does where the window is known to fit the grid and not to cover it.

    A model's layers ask that once for each grid, outside of code that torch.compile traces.
    """
    _check(query, key, value, problem)
    needs_backward = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (query, key, value))
    problem = replace(problem, needs_backward=needs_backward)
    query, key, value = _autocast(query), _autocast(key), _autocast(value)
    if not query.dtype == key.dtype == value.dtype:
        raise ConfigError(f"They are {query.dtype}, {key.dtype} and {value.dtype}: give them one type or use autocast.")
    return _chosen(backend, query, problem)(query, key, value, problem)


def check_backend(name: str) -> None:
    """Refuse a name that is neither "auto" nor in `BACKENDS`.

    Raises:
        ConfigError: Lists the names.
    """
    if name != "auto" and name not in BACKENDS:
        raise ConfigError(f"Unknown attention back-end '{name}'. Known: auto, {', '.join(BACKENDS)}.")


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
    if not len(query):
        raise ConfigError("An empty batch has nothing to attend to: leave such batches out.")
    if not query.device == key.device == value.device:
        raise ConfigError(
            f"query, key and value lie on {query.device}, {key.device} and {value.device}: put them on one."
        )
    if query.shape[1] != problem.num_tokens:
        raise ConfigError(
            f"{query.shape[1]} tokens do not fit the grid {problem.grid} = {problem.grid.num_tokens} tokens with "
            f"{problem.num_text} text tokens."
        )
    if problem.text is not None and problem.text.valid is not None and len(problem.text.valid) != len(query):
        raise ConfigError(f"The text mask counts {len(problem.text.valid)} items, the batch has {len(query)}.")


def _chosen(name: str, query: Tensor, problem: Problem) -> Backend:
    if name == "auto":
        reasons = {}
        for candidate in (backend for backend in BACKENDS.values() if backend.name not in ONLY_BY_NAME):
            reasons[candidate.name] = _reason(candidate, query, replace(problem, needs_backward=True))
            if reasons[candidate.name] is None:
                return candidate
        listed = "; ".join(f"{candidate}: {why}" for candidate, why in reasons.items())
        raise ConfigError(f"No attention back-end can compute {problem.spec} on the grid {problem.grid}: {listed}.")
    check_backend(name)
    if (why := _reason(BACKENDS[name], query, problem)) is not None:
        raise ConfigError(f"backend='{name}' cannot compute this attention: {why}.")
    return BACKENDS[name]


def _reason(backend: Backend, query: Tensor, problem: Problem) -> str | None:
    if problem.needs_backward and not backend.has_backward:
        return "it has no backward pass: use torch.no_grad() or another back-end, a gradient would be lost silently"
    return backend.unsuitable(query, problem)
