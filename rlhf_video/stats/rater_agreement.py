"""How well one person predicts what the others say: the ceiling for any model that imitates people."""

import numpy as np
from numpy.typing import ArrayLike

from rlhf_video.errors import DataError
from rlhf_video.stats.bootstrap import Interval, bootstrap_mean


def leave_one_rater_out(
    items: ArrayLike,
    raters: ArrayLike,
    labels: ArrayLike,
    clusters: ArrayLike,
    *,
    num_resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Return how often a rater says what most of the other raters of the same item say.

    Every answer to an item that somebody else answered too is compared with the most frequent answer of the others;
    where two or three answers are equally frequent, each earns its share of the credit. Compare a model's accuracy
    against single answers with this number, never with 1: people disagree.

    Args:
        items: Label of what was judged (a pair of clips), shape (n,).
        raters: Label of who judged it, shape (n,); one answer per rater and item.
        labels: 1 (A), -1 (B) or 0 (tie), A and B the same clips for every rater of an item, shape (n,).
            Leave ties out beforehand for the agreement without ties.
        clusters: Label of what is resampled, the prompt, shape (n,).
        num_resamples: Bootstrap draws.
        seed: Seed of the draws.
        level: Confidence level in (0, 1).

    Raises:
        DataError: The shapes differ, a rater answered an item twice, a label is another number, no item has two
            raters, or the level is not in (0, 1).
    """
    names = [np.asarray(column) for column in (items, raters, labels, clusters)]
    if any(column.ndim != 1 or column.shape != names[0].shape for column in names):
        raise DataError(f"Columns of shapes {[column.shape for column in names]} must all be (n,).")
    item, rater = (np.unique(column, return_inverse=True)[1] for column in names[:2])
    label, cluster = names[2], names[3]
    if not np.isin(label, (-1, 0, 1)).all():
        raise DataError("Labels must be 1 (A), 0 (tie) or -1 (B): drop invalid votes first.")
    if len(np.unique(np.stack((item, rater)), axis=1).T) < len(item):
        raise DataError("A rater answered an item twice: keep one answer per rater and item.")
    code = label.astype(np.intp) + 1
    answers = np.zeros((int(item.max(initial=-1)) + 1, 3))
    np.add.at(answers, (item, code), 1.0)
    others = answers[item]
    others[np.arange(len(item)), code] -= 1.0
    judged_twice = others.sum(axis=1) > 0
    if not judged_twice.any():
        raise DataError("No item was judged by two raters, so that nobody can be compared with the others.")
    is_top = others == others.max(axis=1, keepdims=True)
    credit = is_top[np.arange(len(item)), code] / is_top.sum(axis=1)
    return bootstrap_mean(
        credit[judged_twice], cluster[judged_twice], num_resamples=num_resamples, seed=seed, level=level
    )
