"""Batches of clips of mixed sizes and lengths: a fixed budget of tokens instead of a fixed number of clips.

Training with Token Length (EasyAnimate, arXiv:2405.18991): what a step costs is its tokens, so small or
short clips come in larger batches. Kept: the budget. Different: clips keep their own sizes, nothing is resized or cut.
"""

import itertools
import math
import random
from collections.abc import Sequence

from rlhf_video.errors import ConfigError

Shape = tuple[int, ...]

_MOST_NAMED = 20


class TokenBuckets:
    """Items grouped by shape; every batch holds items of one shape and at most `token_budget` tokens.

    An epoch deals each item exactly once. A bucket of n items that fit c to a batch gives ceil(n / c) batches whose
    sizes differ by one at most, so nothing is left over or repeated; all batches of an epoch come in a shuffled order.
    """

    def __init__(
        self,
        shapes: Sequence[Shape],
        token_budget: int,
        *,
        seed: int,
        names: Sequence[str] | None = None,
        field: str = "batch.token_budget",
    ) -> None:
        """Group items.

        Args:
            shapes: Of each item, for example its tokens along (frames, height, width); the product is its cost, so
                that of a pair of clips is (2, frames, height, width).
            token_budget: Most tokens of a batch.
            seed: Decides the order, with the step alone.
            names: Of each item, for messages; None counts them from 0.
            field: Config field of the budget, for messages.

        Raises:
            ConfigError: There is no item, or one alone exceeds the budget.
        """
        if not shapes:
            raise ConfigError(f"{field}={token_budget}: there is no clip to make batches of.")
        self._seed = seed
        self._members: dict[Shape, list[int]] = {}
        for index, shape in enumerate(shapes):
            self._members.setdefault(tuple(shape), []).append(index)
        large = [index for index, shape in enumerate(shapes) if math.prod(shape) > token_budget]
        if large:
            need = max(math.prod(shapes[index]) for index in large)
            named = [f"{names[index] if names else index} ({_cost(shapes[index])})" for index in large]
            raise ConfigError(
                f"{field}={token_budget} is less than {len(large)} of {len(shapes)} clips need alone: "
                f"{shortened(named)}. Set it to {need} or more, or take smaller or shorter clips."
            )
        self._capacity = {shape: token_budget // math.prod(shape) for shape in self._members}
        self._dealt: tuple[int, list[list[int]]] = (-1, [])

    @property
    def num_batches(self) -> int:
        """Batches of an epoch."""
        return sum(self._num_batches(shape) for shape in self._members)

    def batch(self, step: int) -> list[int]:
        """Return the items of one optimiser step, all of one shape.

        A pure function of seed and step, so resuming needs no state.

        Args:
            step: Optimiser step 0, 1, ...
        """
        epoch, place = divmod(step, self.num_batches)
        if self._dealt[0] != epoch:
            self._dealt = (epoch, self._deal(epoch))
        return self._dealt[1][place]

    def describe(self) -> str:
        """Return one line: each shape with its items and the most that share a batch, largest shape first."""
        parts = [
            f"{len(self._members[shape])} of {_cost(shape)}, up to {self._capacity[shape]} a step"
            for shape in sorted(self._members, key=math.prod, reverse=True)
        ]
        return f"{len(parts)} bucket(s), {self.num_batches} steps an epoch: {shortened(parts)}"

    def _num_batches(self, shape: Shape) -> int:
        return -(-len(self._members[shape]) // self._capacity[shape])

    def _deal(self, epoch: int) -> list[list[int]]:
        """Return the batches of an epoch."""
        order = random.Random(f"token buckets {self._seed} {epoch}")
        batches = []
        for shape in sorted(self._members):
            items = list(self._members[shape])
            order.shuffle(items)
            count = self._num_batches(shape)
            cuts = [len(items) * number // count for number in range(count + 1)]
            batches += [items[start:stop] for start, stop in itertools.pairwise(cuts)]
        order.shuffle(batches)
        return batches


def shortened(names: Sequence[str]) -> str:
    """Return names joined by semicolons, the first ones alone where there are very many."""
    more = len(names) - _MOST_NAMED
    return "; ".join(names[:_MOST_NAMED]) + (f"; and {more} more" if more > 0 else "")


def _cost(shape: Shape) -> str:
    return f"{' x '.join(map(str, shape))} = {math.prod(shape)} tokens"
