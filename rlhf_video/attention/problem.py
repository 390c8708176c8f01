"""One attention call, described by everything but its tensors.

Letters: B batch, N tokens (text and video), S heads, D channels of a head; tensors are (B, N, S, D), the layout
of diffusers.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from rlhf_video.attention.grid import Grid
from rlhf_video.attention.window_spec import WindowSpec
from rlhf_video.errors import ConfigError


@dataclass(frozen=True)
class Text:
    """Text tokens in the same sequence as the video's; they attend to everything, and everything attends to them."""

    length: int
    """Text tokens of the sequence, padding included."""
    position: Literal["first", "last"]
    """Before the video tokens (CogVideoX, EasyAnimate) or behind them (HunyuanVideo)."""
    valid: tuple[int, ...] | None = None
    """Real tokens of each batch item; the padding behind them is no key. None: all are real."""

    def __post_init__(self) -> None:
        """Check the counts.

        Raises:
            ConfigError: There is no text token, or an item has none or more than there are.
        """
        if self.position not in ("first", "last"):
            raise ConfigError(f"Text(position={self.position!r}): text is 'first' or 'last' in the sequence.")
        if self.valid is not None:
            object.__setattr__(self, "valid", tuple(self.valid))
        if self.length < 1:
            raise ConfigError(f"Text of {self.length} tokens: leave text=None where there is no text in the sequence.")
        for item, count in enumerate(self.valid or ()):
            if not 1 <= count <= self.length:
                raise ConfigError(
                    f"The text mask of batch item {item} keeps {count} of {self.length} tokens: at least 1 is needed "
                    "(an empty prompt has its end token)."
                )


@dataclass(frozen=True)
class Problem:
    """What a back-end is told beside query, key and value."""

    grid: Grid
    spec: WindowSpec
    text: Text | None
    scale: float
    """Factor on the scores."""
    needs_backward: bool = False
    """Whether gradients will be asked for."""

    @property
    def num_text(self) -> int:
        """Text tokens in the sequence."""
        return self.text.length if self.text is not None else 0

    @property
    def num_tokens(self) -> int:
        """Tokens of the sequence."""
        return self.grid.num_tokens + self.num_text

    @property
    def first_video_token(self) -> int:
        """Place of the first video token in the sequence."""
        return self.num_text if self.text is not None and self.text.position == "first" else 0

    @property
    def first_text_token(self) -> int:
        """Place of the first text token in the sequence."""
        return 0 if self.text is not None and self.text.position == "first" else self.grid.num_tokens

    def mask(self, num_heads: int) -> Tensor:
        """Return the definition of the whole call, shape (1 or B, 1 or S, N, N), True where a query may see a key."""
        video = self.spec.mask(self.grid)
        if len(video) > 1:
            video = video[[self.spec.order_of_head(head, num_heads) for head in range(num_heads)]]
        allowed = torch.ones(len(video), self.num_tokens, self.num_tokens, dtype=torch.bool)
        inside = slice(self.first_video_token, self.first_video_token + self.grid.num_tokens)
        allowed[:, inside, inside] = video
        if self.text is None or self.text.valid is None:
            return allowed[None]
        batch = allowed[None].repeat(len(self.text.valid), 1, 1, 1)
        for item, count in zip(batch, self.text.valid, strict=True):
            item[:, :, self.first_text_token + count : self.first_text_token + self.num_text] = False
        return batch


class Backend(Protocol):
    """One way to compute windowed attention."""

    name: str
    has_backward: bool
    """Whether it has a backward pass anywhere; one that has it on some devices looks at `Problem.needs_backward`."""

    def unsuitable(self, query: Tensor, problem: Problem) -> str | None:
        """Return why this back-end cannot compute this call, with what to do, or None where it can."""
        ...

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, problem: Problem) -> Tensor:
        """Return the attention's output, shape (B, N, S, D), in the type of `query`."""
        ...
