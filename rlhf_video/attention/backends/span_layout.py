"""Index tables of span attention: which rows of q are queries together, and which rows of k and v they see.

A tensor (B, N, S, D) is read as rows, (B, N * runs, S / runs * D): `runs` is the smallest number of equal runs of
consecutive heads such that the heads of a run see the same windows. Row `token * runs + run` is one token of one run.
One index_select then gathers, for all heads, tokens that lie elsewhere for each head, as fast as a copy.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from rlhf_video.attention.grid import Grid
from rlhf_video.attention.problem import Problem
from rlhf_video.attention.window_spec import Spans, WindowSpec


class Slice(NamedTuple):
    """Groups of queries that are computed in one kernel call."""

    queries: Tensor
    """Rows of q, shape (groups, queries per group, runs)."""
    keys: Tensor
    """Rows of k and v, shape (groups, keys per group, runs)."""


class SpanLayout:
    """All slices of one call, for batch items with the same number of valid text tokens."""

    def __init__(self, problem: Problem, num_heads: int, *, num_valid: int, device: torch.device) -> None:
        """Look up the video's tables, and number the global tokens.

        Args:
            problem: Grid, window and text.
            num_heads: Heads of q, k and v.
            num_valid: Text tokens that are keys.
            device: Where the tables are needed.
        """
        self.runs = head_runs(problem.spec, num_heads)
        self.tables = _video_tables(problem.spec, problem.grid, num_heads, problem.first_video_token, device)

        def rows(first: int, count: int) -> Tensor:
            return torch.arange(first * self.runs, (first + count) * self.runs, device=device).view(count, self.runs)

        sink = rows(problem.first_video_token, problem.spec.num_global_frames * problem.grid.frame_tokens)
        text = rows(problem.first_text_token, problem.num_text)
        self._global_queries = torch.cat([sink, text])
        self._global_keys = torch.cat([sink, text[:num_valid]])
        self._all_keys = torch.cat([rows(problem.first_video_token, problem.grid.num_tokens), text[:num_valid]])

    @property
    def keys_are_shared(self) -> bool:
        """Whether any key is in more than one group, so that its gradient is a sum."""
        return len(self._global_queries) > 0 or any(keys is not queries for queries, keys in self.tables)

    def slices(self, max_keys: int) -> Iterator[Slice]:
        """Yield slices of at least one group and otherwise at most `max_keys` keys; each query is in one slice."""
        num_global = len(self._global_keys)
        for queries, keys in self.tables:
            step = max(1, max_keys // (keys.shape[1] + num_global))
            for some_queries, some_keys in zip(queries.split(step), keys.split(step), strict=True):
                if num_global:
                    everywhere = self._global_keys.expand(len(some_keys), -1, -1)
                    some_keys = torch.cat([everywhere, some_keys], dim=1)
                yield Slice(some_queries, some_keys)
        if len(self._global_queries):
            yield Slice(self._global_queries[None], self._all_keys[None])


def head_runs(spec: WindowSpec, num_heads: int) -> int:
    """Return the smallest number of equal runs of consecutive heads that share one axis order each."""
    orders = [spec.order_of_head(head, num_heads) for head in range(num_heads)]
    for runs in range(1, num_heads):
        length = num_heads // runs
        if num_heads % runs == 0 and all(order == orders[head // length * length] for head, order in enumerate(orders)):
            return runs
    return num_heads


@lru_cache(
    maxsize=16
)  # a plan has a few windows, training a few grids; one table is up to 27 numbers per token and run
def _video_tables(
    spec: WindowSpec, grid: Grid, num_heads: int, first_video_token: int, device: torch.device
) -> tuple[Spans, ...]:
    """Return the spans of the video as rows of the sequence; queries and keys are one object where they are equal."""
    runs = head_runs(spec, num_heads)
    orders = torch.tensor([spec.order_of_head(run * (num_heads // runs), num_heads) for run in range(runs)])

    def rows(tokens: Tensor) -> Tensor:
        return ((tokens[..., orders] + first_video_token) * runs + torch.arange(runs)).to(device)

    tables = []
    for spans in spec.spans(grid):
        queries = rows(spans.queries)
        tables.append(Spans(queries, queries if spans.keys is spans.queries else rows(spans.keys)))
    return tuple(tables)
