"""A table of comparisons between systems: who met whom, what came out, for which prompt, and who judged."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlhf_video.errors import ConfigError, DataError

ClusterBy = Literal["prompt", "rater"]
"""What the comparisons that resemble each other have in common."""

_OUTCOMES = {"A": 1, "tie": 0, "B": -1}


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparisons:
    """n comparisons between m systems (models, checkpoints, settings).

    Raises:
        DataError: No comparison, columns of different lengths, an unknown system or outcome, a system against itself,
            or a weight that is negative or not finite.
    """

    systems: tuple[str, ...]
    """Names, at least two, all different; a system that never played may be among them."""
    first: NDArray[np.intp]
    """Index in `systems` of the one shown as A, shape (n,)."""
    second: NDArray[np.intp]
    """Index of the one shown as B, shape (n,)."""
    outcome: NDArray[np.int8]
    """1 where A won, -1 where B won, 0 for a tie, shape (n,)."""
    weight: NDArray[np.float64]
    """How often each comparison counts, >= 0, shape (n,); 1 for a plain vote."""
    prompt: NDArray | None = None
    """Label of each comparison's prompt (any sortable type), shape (n,)."""
    rater: NDArray | None = None
    """Label of who judged it, shape (n,)."""

    def __post_init__(self) -> None:
        num_systems, num_rows = len(self.systems), len(self.first)
        if num_systems < 2 or len(set(self.systems)) != num_systems:
            raise DataError(f"systems={self.systems} must be two or more different names: there is nothing to rank.")
        if num_rows == 0:
            raise DataError("There is no comparison to rank by: every one was dropped or none was given.")
        columns = (self.first, self.second, self.outcome, self.weight, self.prompt, self.rater)
        shapes = [column.shape for column in columns if column is not None]
        if any(shape != (num_rows,) for shape in shapes):
            raise DataError(f"The columns of the comparisons must all be ({num_rows},), got {shapes}.")
        players = np.concatenate((self.first, self.second))
        if players.min() < 0 or players.max() >= num_systems:
            raise DataError(f"Indices from {players.min()} to {players.max()} do not fit {num_systems} systems.")
        if (self.first == self.second).any():
            row = int(np.argmax(self.first == self.second))
            raise DataError(f"Comparison {row} is {self.systems[self.first[row]]!r} against itself: leave it out.")
        if not np.isin(self.outcome, (-1, 0, 1)).all():
            raise DataError("Outcomes must be 1 (A won), 0 (tie) or -1 (B won): drop invalid votes first.")
        if not (np.isfinite(self.weight) & (self.weight >= 0)).all():
            raise DataError("Weights must be finite and 0 or more.")

    @classmethod
    def from_labels(
        cls,
        a: Sequence[str],
        b: Sequence[str],
        labels: Sequence[str],
        *,
        weights: ArrayLike | None = None,
        prompts: ArrayLike | None = None,
        raters: ArrayLike | None = None,
    ) -> "Comparisons":
        """Build the table from names and words; the systems are sorted by name.

        Args:
            a: Name of the system shown as A, length n.
            b: Name of the system shown as B, length n.
            labels: "A", "B" or "tie", length n. "both-bad" is yours to count as a tie or to leave out.
            weights: How often each comparison counts, shape (n,); None for 1 each.
            prompts: Label of each prompt, shape (n,).
            raters: Label of each rater, shape (n,).

        Raises:
            DataError: A label is another word, or as for the class.
        """
        unknown = sorted({str(label) for label in labels} - set(_OUTCOMES))
        if unknown:
            raise DataError(f"Labels {unknown} are not A, B or tie: count them as a tie or leave them out.")
        systems = tuple(sorted({*a, *b}))
        number = {name: index for index, name in enumerate(systems)}
        return cls(
            systems=systems,
            first=np.array([number[name] for name in a], dtype=np.intp),
            second=np.array([number[name] for name in b], dtype=np.intp),
            outcome=np.array([_OUTCOMES[label] for label in labels], dtype=np.int8),
            weight=np.ones(len(labels)) if weights is None else np.asarray(weights, dtype=np.float64),
            prompt=None if prompts is None else np.asarray(prompts),
            rater=None if raters is None else np.asarray(raters),
        )

    def __len__(self) -> int:
        """Return the number of comparisons."""
        return len(self.first)

    def rows(self, keep: NDArray[np.bool_]) -> "Comparisons":
        """Return the comparisons where `keep`, shape (n,), is true, between the same systems.

        Raises:
            DataError: None is kept.
        """
        return replace(
            self,
            first=self.first[keep],
            second=self.second[keep],
            outcome=self.outcome[keep],
            weight=self.weight[keep],
            prompt=None if self.prompt is None else self.prompt[keep],
            rater=None if self.rater is None else self.rater[keep],
        )

    def cluster_index(self, by: ClusterBy) -> NDArray[np.intp]:
        """Return the number of each comparison's cluster, 0 to G - 1, shape (n,).

        Raises:
            ConfigError: `by` is neither word.
            DataError: The table does not say whose prompt or rater it is.
        """
        if by not in ("prompt", "rater"):
            raise ConfigError(f"Comparisons are clustered by 'prompt' or 'rater', not by {by!r}.")
        labels = self.prompt if by == "prompt" else self.rater
        if labels is None:
            raise DataError(f"The comparisons have no {by} column to cluster by: give {by}s with the table.")
        index: NDArray[np.intp] = np.unique(labels, return_inverse=True)[1]
        return index

    def tally(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the weights of wins and of ties as `tally_outcomes` does."""
        return tally_outcomes(self.first, self.second, self.outcome, self.weight, num_systems=len(self.systems))


def tally_outcomes(
    first: NDArray[np.intp],
    second: NDArray[np.intp],
    outcome: NDArray[np.int8],
    weight: NDArray[np.float64],
    *,
    num_systems: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the weight of wins of row over column and of ties between them, each (m, m); ties are symmetric.

    Args:
        first: Index of A, shape (n,).
        second: Index of B, shape (n,).
        outcome: 1, 0 or -1, shape (n,).
        weight: Shape (n,).
        num_systems: m.
    """
    wins, ties = np.zeros((2, num_systems, num_systems))
    a_won, b_won, tied = outcome == 1, outcome == -1, outcome == 0
    np.add.at(wins, (first[a_won], second[a_won]), weight[a_won])
    np.add.at(wins, (second[b_won], first[b_won]), weight[b_won])
    np.add.at(ties, (first[tied], second[tied]), weight[tied])
    return wins, ties + ties.T
