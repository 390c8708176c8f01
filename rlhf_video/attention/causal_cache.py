"""Keys and values of what a causal roll-out has made, as values that are never written to.

A cache is a tuple of detached chunks, and a longer one is a new object: no buffer that overflows, no gradient that
leaks through an in-place write, and a recomputed block reads what its forward pass read. Keys are kept before the
rotary embedding and rotated at their place in the window when they are read, so that positions stay those of training
however long the roll-out gets (LongLive, arXiv:2509.22622).
Letters: B batch, N tokens, S heads, D channels of a head.
"""

from dataclasses import dataclass, replace

from torch import Tensor

from rlhf_video.attention.causal_layout import CausalLayout
from rlhf_video.errors import ConfigError

KeyValue = tuple[Tensor, Tensor]
"""Keys before rotation and values, each (B, N, S, D)."""


@dataclass(frozen=True)
class CacheFacts:
    """What a cache was computed with; a roll-out may only read a cache of its own."""

    rows: int
    """Tokens of a frame's height."""
    columns: int
    """Tokens of a frame's width."""
    batch: int
    """Clips."""
    adapter: str
    """Which adapter computed it, at which strength."""

    @property
    def tokens_per_frame(self) -> int:
        """Tokens of one latent frame."""
        return self.rows * self.columns

    def check(self, other: "CacheFacts") -> None:
        """Refuse a cache that belongs elsewhere.

        Raises:
            ConfigError: It names what differs.
        """
        names = ("rows", "columns", "batch", "adapter")
        changed = [name for name in names if getattr(self, name) != getattr(other, name)]
        if changed:
            raise ConfigError(
                f"This key-value cache was computed with another {' and '.join(changed)}: start a new roll-out, a "
                "cache goes with one batch of prompts, one size and one adapter."
            )


@dataclass(frozen=True)
class KeyValueCache:
    """The past of one roll-out: for each layer the keys and values of the frames in the window."""

    facts: CacheFacts
    layout: CausalLayout
    chunks: tuple[tuple[KeyValue, ...], ...] = ()
    """For each kept run of frames, every layer's keys and values."""
    lengths: tuple[int, ...] = ()
    """Frames of each run."""
    num_made: int = 0
    """Frames that the roll-out has made so far, kept or not."""

    @property
    def num_frames(self) -> int:
        """Frames that are kept."""
        return sum(self.lengths)

    def extended(self, chunk: tuple[KeyValue, ...], *, next_chunk: int | None = None) -> "KeyValueCache":
        """Return the cache with one more chunk, without the frames that the next one will not see.

        Args:
            chunk: Every layer's keys and values.
            next_chunk: Frames of the next chunk; None takes the layout's.
        """
        per_frame = self.facts.tokens_per_frame
        length = chunk[0][0].shape[1] // per_frame
        detached = tuple((key.detach(), value.detach()) for key, value in chunk)
        longer = replace(
            self,
            chunks=(*self.chunks, detached),
            lengths=(*self.lengths, length),
            num_made=self.num_made + length,
        )
        return longer._evicted(self.layout.chunk_frames if next_chunk is None else next_chunk)

    def _evicted(self, next_chunk: int) -> "KeyValueCache":
        room = self.layout.num_past(next_chunk)
        surplus = 0 if room is None else self.num_frames - room
        if surplus <= 0:
            return self
        first_out, first_in = self.layout.sink_frames, self.layout.sink_frames + surplus
        chunks, lengths, start = [], [], 0
        for chunk, length in zip(self.chunks, self.lengths, strict=True):
            runs = ((start, min(start + length, first_out)), (max(start, first_in), start + length))
            for begin, end in runs:
                if begin >= end:
                    continue
                if end - begin == length:
                    chunks.append(chunk)
                else:
                    chunks.append(_frames(chunk, begin - start, end - start, self.facts.tokens_per_frame))
                lengths.append(end - begin)
            start += length
        return replace(self, chunks=tuple(chunks), lengths=tuple(lengths))


def _frames(chunk: tuple[KeyValue, ...], start: int, stop: int, per_frame: int) -> tuple[KeyValue, ...]:
    """Return a run of a chunk's frames in memory of its own, so that the rest is freed."""
    tokens = slice(start * per_frame, stop * per_frame)
    return tuple((key[:, tokens].clone(), value[:, tokens].clone()) for key, value in chunk)
