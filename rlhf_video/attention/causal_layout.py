"""Which latent frames a causal video model sees: chunks in order, a window over the past, and a sink.

A chunk is denoised at once and attends to itself and to what came before it (CausVid, arXiv:2412.07772; Self-Forcing,
arXiv:2506.08009). Beyond the window only the sink, the clip's first frames, stays visible (LongLive, arXiv:2509.22622).
Letters: F frames, P tokens of a frame, N = F * P tokens.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf_video.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class CausalLayout:
    """How a clip is cut into chunks, and what each of them sees; all counts are latent frames."""

    chunk_frames: int
    """Frames that are denoised together (3 in CausVid, Self-Forcing and ASD). A clip of another length than a multiple
    ends in a shorter chunk."""
    window_frames: int | None = None
    """Frames that a chunk attends to, itself and the sink included; None is all of the past. Positions never exceed it,
    so that a roll-out may be longer than any clip of the training."""
    sink_frames: int = 0
    """First frames of the clip that stay in the window for ever."""

    def __post_init__(self) -> None:
        """Check that window and sink leave room for a chunk.

        Raises:
            ConfigError: They do not.
        """
        if self.chunk_frames < 1 or self.sink_frames < 0:
            raise ConfigError(
                f"causal.chunk_frames={self.chunk_frames} must be at least 1, causal.sink_frames={self.sink_frames} at "
                "least 0."
            )
        if self.window_frames is None:
            return
        if self.window_frames < self.chunk_frames + self.sink_frames:
            raise ConfigError(
                f"causal.window_frames={self.window_frames} is shorter than a chunk of {self.chunk_frames} and a sink "
                f"of {self.sink_frames} frames: use at least {self.chunk_frames + self.sink_frames}."
            )

    def chunks(self, num_frames: int) -> list[slice]:
        """Return the frames of each chunk of a clip; the last one may be shorter.

        Raises:
            ConfigError: The clip is shorter than one chunk.
        """
        if num_frames < self.chunk_frames:
            raise ConfigError(
                f"A clip of {num_frames} latent frames is shorter than a chunk of {self.chunk_frames}: lower "
                f"causal.chunk_frames to at most {num_frames}, or make the clip longer."
            )
        starts = range(0, num_frames, self.chunk_frames)
        return [slice(start, min(start + self.chunk_frames, num_frames)) for start in starts]

    def num_past(self, chunk_length: int) -> int | None:
        """Return how many past frames, the sink included, a chunk of that length sees at most; None is all."""
        return None if self.window_frames is None else self.window_frames - chunk_length

    def kept(self, num_past_frames: int, next_chunk: int) -> list[int]:
        """Return which past frames the next chunk sees, ascending.

        Args:
            num_past_frames: Frames before the chunk.
            next_chunk: Length of the chunk.
        """
        room = self.num_past(next_chunk)
        if room is None or num_past_frames <= room:
            return list(range(num_past_frames))
        return [*range(self.sink_frames), *range(num_past_frames - room + self.sink_frames, num_past_frames)]

    def visible(self, num_frames: int) -> Tensor:
        """Return which frame (row) sees which frame (column) of a clip, bool (F, F)."""
        seen = torch.zeros(num_frames, num_frames, dtype=torch.bool)
        for chunk in self.chunks(num_frames):
            seen[chunk, chunk] = True
            seen[chunk, self.kept(chunk.start, chunk.stop - chunk.start)] = True
        return seen

    def visible_after_clean(self, num_frames: int) -> Tensor:
        """Return the same for teacher forcing, where the clip stands twice: clean frames, then noised ones.

        Clean frames see clean ones as in `visible`; a noised chunk sees itself and the clean chunks before it.

        Returns:
            bool (2 F, 2 F).
        """
        clean = self.visible(num_frames)
        own = torch.zeros_like(clean)
        for chunk in self.chunks(num_frames):
            own[chunk, chunk] = True
        return torch.cat([torch.cat([clean, torch.zeros_like(clean)], 1), torch.cat([clean & ~own, own], 1)])


def token_mask(frames: Tensor, tokens_per_frame: int) -> Tensor:
    """Return a mask of tokens from one of frames.

    Args:
        frames: bool (rows, columns).
        tokens_per_frame: P.

    Returns:
        bool (rows * P, columns * P).
    """
    return frames.repeat_interleave(tokens_per_frame, 0).repeat_interleave(tokens_per_frame, 1)
