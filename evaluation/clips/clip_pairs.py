"""Which clip of one system belongs to which of another: same prompt and same noise."""

from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evaluation.base import ClipEntry
from evaluation.scores import SystemScores
from rlhf_video.errors import DataError

PairedBy = Literal["seed", "sample"]


@dataclass(frozen=True, kw_only=True, eq=False)
class ClipPairs:
    """n pairs of clips."""

    baseline: NDArray[np.intp]
    """Index of each pair's clip in the baseline's table, shape (n,)."""
    system: NDArray[np.intp]
    """Index in the system's table, shape (n,)."""
    prompts: NDArray[np.int64]
    """Number of each pair's prompt, shape (n,)."""
    paired_by: PairedBy
    """seed: same prompt and noise; sample: same prompt and number among its clips."""
    identical: NDArray[np.bool_]
    """Whether both clips are known to be the same file, byte for byte, shape (n,)."""
    warning: str | None
    """What is wrong with pairing by sample, None by seed."""

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.baseline)


def pair_clips(baseline: SystemScores, system: SystemScores) -> ClipPairs:
    """Pair clips by prompt and seed, or by prompt and sample number where seeds are missing or differ.

    Raises:
        DataError: No clip has a partner, or two clips of a system have the same prompt and sample number.
    """
    by: PairedBy = "seed"
    warning = None
    pairs = _match(baseline.entries, system.entries, by) if _have_seeds(baseline, system) else []
    if not pairs:
        by, known = "sample", _have_seeds(baseline, system)
        pairs = _match(baseline.entries, system.entries, by)
        reason = "no prompt has a seed in common" if known else "seeds are missing or repeated"
        warning = (
            f"Clips are paired by prompt and sample number because {reason}: chance in the noise is not shared, so "
            "differences are less sure than with equal seeds."
        )
    if not pairs:
        raise DataError(
            f"'{baseline.system}' and '{system.system}' have no prompt with a clip in common: compare systems that "
            "were made for the same prompts."
        )
    first, second = (np.array(side, dtype=np.intp) for side in zip(*pairs, strict=True))
    hashes = [(baseline.entries[a].sha256, system.entries[b].sha256) for a, b in pairs]
    same = [before == after != "" for before, after in hashes]  # empty: nobody hashed the file
    return ClipPairs(
        baseline=first,
        system=second,
        prompts=baseline.clusters[first],
        paired_by=by,
        identical=np.array(same, dtype=bool),
        warning=warning,
    )


def _have_seeds(*systems: SystemScores) -> bool:
    """Tell whether prompt and seed name each clip of each system."""
    keys = [[(entry.prompt, entry.seed) for entry in scores.entries] for scores in systems]
    return all(seed is not None for of_system in keys for _, seed in of_system) and all(
        len(set(of_system)) == len(of_system) for of_system in keys
    )


def _match(baseline: tuple[ClipEntry, ...], system: tuple[ClipEntry, ...], by: PairedBy) -> list[tuple[int, int]]:
    partner = _index(system, by)
    return [(index, partner[key]) for key, index in _index(baseline, by).items() if key in partner]


def _index(entries: tuple[ClipEntry, ...], by: PairedBy) -> dict[tuple[str, int | None], int]:
    keys = [(entry.prompt, entry.seed if by == "seed" else entry.sample) for entry in entries]
    (key, count), *_ = Counter(keys).most_common(1) or [((("", 0)), 0)]
    if count > 1:
        raise DataError(f"{count} clips share prompt {key[0]!r} and {by} {key[1]}: number the clips of a prompt.")
    return {key: index for index, key in enumerate(keys)}
