"""Windows as FlexAttention's block masks: which 128 x 128 blocks of (query, key) are computed, and what is cut out.

Tokens are put in an order in which windows are contiguous (each head its own), with sink frames and then text at
the end, so that most blocks are whole or empty. In that order every window is an interval of keys along one axis
(bands: the order itself) or three (boxes: frames, rows, columns).
"""

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from rlhf_video.attention.backends.permutation import Permutation, per_head, permutation
from rlhf_video.attention.band_window import Band
from rlhf_video.attention.grid import Grid, tokens_in_order
from rlhf_video.attention.problem import Problem, Text
from rlhf_video.attention.window_spec import WindowSpec

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

BLOCK = 128
"""Queries and keys of a block: FlexAttention's default."""
MASK_ROWS = 1024
"""Queries whose mask is held at once while blocks are counted, a multiple of `BLOCK`."""

MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(batch item, head, query, key) -> may the query see the key; places in the permuted order."""


class Interval(NamedTuple):
    """Keys that each query sees along one axis; all of shape (tokens,), int32, in the permuted order."""

    place: Tensor
    """Of each key."""
    first: Tensor
    """First place that each query sees."""
    last: Tensor
    """Last place that each query sees."""


class FlexPlan(NamedTuple):
    """All that FlexAttention needs beside query, key and value."""

    order: Permutation
    """Rows of shape (S, N)."""
    block_mask: "BlockMask"
    """One for all heads; one for each batch item where the text's padding differs."""


@lru_cache(maxsize=8)
def flex_plan(spec: WindowSpec, grid: Grid, text: Text | None, num_heads: int, device: torch.device) -> FlexPlan:
    """Return the order and the block mask of a window.

    Raises:
        ConfigError: The window does not fit the grid.
    """
    with torch.inference_mode(False), torch.no_grad():  # the tables outlive a roll-out, and training saves them
        problem = Problem(grid, spec, text, scale=1.0)
        tokens, intervals = _windows(spec, grid)
        video = torch.cat([tokens, _sinks(spec, grid).expand(-1, tokens.shape[1])]) + problem.first_video_token
        words = (problem.first_text_token + torch.arange(problem.num_text))[:, None]
        tokens = torch.cat([video, words.expand(-1, tokens.shape[1])])
        order = permutation(per_head(tokens, spec, num_heads).T.contiguous(), device)
        mask_mod = _mask_mod(intervals, problem, device)
        return FlexPlan(order, _block_mask(mask_mod, problem, device))


def _windows(spec: WindowSpec, grid: Grid) -> tuple[Tensor, list[Interval]]:
    """Return the tokens that are not global in window order, shape (M, orders), and the keys they see."""
    if isinstance(spec, Band):
        banded = spec.banded(grid)
        first_token = spec.sink_frames * grid.frame_tokens
        tokens = torch.stack([tokens_in_order(banded, order) for order in spec.orders], dim=-1) + first_token
        return tokens, [_band_interval(spec, grid)]
    spans = list(spec.spans(grid))
    tokens = torch.cat([queries.flatten(0, 1) for queries, _ in spans])
    places = torch.stack(torch.unravel_index(tokens[:, 0], tuple(grid)))  # (3, M)
    boxes = []  # the keys of a group are a box of the grid: its corners say all
    for queries, keys in spans:
        along = torch.stack(torch.unravel_index(keys[..., 0], tuple(grid)))  # (3, groups, keys)
        boxes.append(torch.stack(along.aminmax(dim=-1)).repeat_interleave(queries.shape[1], dim=-1))
    first, last = torch.cat(boxes, dim=-1)
    return tokens, [Interval(*axis) for axis in zip(places, first, last, strict=True)]


def _band_interval(spec: Band, grid: Grid) -> Interval:
    chunk, halo, num_keys = spec.tokens(grid)
    count = spec.banded(grid).num_tokens
    place = torch.arange(count)
    if spec.slides:
        return Interval(place, place - halo, place + halo)
    first = (place // chunk * chunk - halo).clamp(0, count - num_keys)
    return Interval(place, first, first + num_keys - 1)


def _sinks(spec: WindowSpec, grid: Grid) -> Tensor:
    return torch.arange(spec.num_global_frames * grid.frame_tokens)[:, None]


def _mask_mod(intervals: list[Interval], problem: Problem, device: torch.device) -> MaskMod:
    """Return the mask as a function; all it captures are tensors, so that one compilation serves every window."""
    num_global = problem.num_tokens - len(intervals[0].place)

    def whole(table: Tensor, value: int) -> Tensor:
        return functional.pad(table, (0, num_global), value=value).to(device, torch.int32)

    # A global query sees every place; whether a key is global is asked apart.
    limit = problem.num_tokens
    axes = [Interval(whole(a.place, 0), whole(a.first, -limit), whole(a.last, limit)) for a in intervals]
    is_global = whole(torch.zeros_like(intervals[0].place), 1).bool()

    def near(query: Tensor, key: Tensor, axis: Interval) -> Tensor:
        place = axis.place[key]
        return (axis.first[query] <= place) & (place <= axis.last[query])

    def mask_band(item: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return near(query, key, axes[0]) | is_global[key]

    def mask_box(item: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        inside = near(query, key, axes[0]) & near(query, key, axes[1]) & near(query, key, axes[2])
        return inside | is_global[key]

    mask_window = mask_band if len(axes) == 1 else mask_box
    if problem.text is None or problem.text.valid is None:
        return mask_window
    end = torch.tensor(problem.text.valid, device=device, dtype=torch.int32) + problem.grid.num_tokens

    def mask_padding(item: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return mask_window(item, head, query, key) & (key < end[item])

    return mask_padding


def _block_mask(mask_mod: MaskMod, problem: Problem, device: torch.device) -> "BlockMask":
    """Count each block's allowed pairs, a strip of queries at a time (a whole mask of 75,600 tokens is 5.7 GB)."""
    from torch.nn.attention.flex_attention import BlockMask

    count = problem.num_tokens
    items = len(problem.text.valid) if problem.text is not None and problem.text.valid is not None else 1
    head = torch.zeros((), dtype=torch.int32, device=device)
    key = torch.arange(count, device=device)
    pairs = []
    for item in torch.arange(items, device=device):
        for rows in key.split(MASK_ROWS):
            allowed = mask_mod(item, head, rows[:, None], key[None])
            allowed = functional.pad(allowed, (0, -count % BLOCK, 0, -len(rows) % BLOCK))
            pairs.append(allowed.unflatten(1, (-1, BLOCK)).unflatten(0, (-1, BLOCK)).sum((1, 3)))
    blocks = torch.cat(pairs).unflatten(0, (items, -1))[:, None]  # (items, 1, query blocks, key blocks)
    is_full = blocks == BLOCK * BLOCK
    partial, full = _listed((blocks > 0) & ~is_full), _listed(is_full)
    return BlockMask.from_kv_blocks(*partial, *full, BLOCK_SIZE=BLOCK, mask_mod=mask_mod, seq_lengths=(count, count))


def _listed(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Return how many blocks each row has, and all block numbers with those first, both int32."""
    listed = blocks.int().argsort(dim=-1, descending=True, stable=True)
    return blocks.sum(-1, dtype=torch.int32), listed.to(torch.int32)
