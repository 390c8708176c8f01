"""Cutting a process's share of a batch: of one that divides equally, and of one that does not."""

from typing import TypeVar

from rlhf_video.errors import ConfigError

ShareT = TypeVar("ShareT", list[int], range)


def cut_equally(share: ShareT, pieces: int, *, batch: str, items: str) -> list[ShareT]:
    """Cut one process's share of the global batch into equal pieces, for gradient accumulation.

    Args:
        share: What one process has of the batch, a list or a range.
        pieces: `batch.accumulation`.
        batch: The setting and its value, for the message.
        items: What the batch counts, for the message.

    Raises:
        ConfigError: The share is empty or cannot be cut equally.
    """
    if len(share) == 0 or len(share) % pieces:
        raise ConfigError(
            f"{batch} gives a process {len(share)} {items}, which batch.accumulation={pieces} does not divide: use a "
            "multiple of processes x accumulation."
        )
    size = len(share) // pieces
    return [share[start : start + size] for start in range(0, len(share), size)]


def cut_padded(count: int, *, rank: int, num_processes: int, pieces: int) -> list[list[int]]:
    """Cut a global batch of any size so that every process makes the same number of equally large passes.

    Args:
        count: Items of the global batch, at least 1.
        rank: This process.
        num_processes: All processes.
        pieces: Most passes of a process (`batch.accumulation`); a small share makes fewer.

    Returns:
        Places in the global batch, per pass of this process. Places from `count` up (fewer than `num_processes`) fill
        the last shares up: they stand for item place % count, computed but not counted.
    """
    share = -(-count // num_processes)
    size = -(-share // pieces)
    first = rank * share
    return [list(range(start, min(start + size, first + share))) for start in range(first, first + share, size)]
