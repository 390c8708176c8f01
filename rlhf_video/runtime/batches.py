"""Cutting a process's share of a batch."""

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
