"""What goes into a vision-and-language model's two towers: frames as normalised squares, prompts as token ids."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedConfig

from rewards.pretrained import TextEmbeddings, check_pooling, image_statistics, load_tokenizer, square_size
from rewards.video_ops import CLIP_MEAN, CLIP_STD, Fit, fit_square, normalise


@dataclass(frozen=True)
class SquareInput:
    """From a frame of any size to the input of a vision tower."""

    size: int
    """Side of the square, in pixels."""
    fit: Fit
    """How a frame becomes square, see `rewards.video_ops.Fit`."""
    mean: Sequence[float] = CLIP_MEAN
    """Per channel."""
    std: Sequence[float] = CLIP_STD
    """Per channel."""

    def __post_init__(self) -> None:
        """Refuse an unknown fit now, not at the first clip.

        Raises:
            RewardError: Unknown fit.
        """
        fit_square(torch.zeros(3, 2, 2), 2, self.fit)

    @classmethod
    def of(cls, image_size: int | Sequence[int], *, fit: Fit, folder: str | Path) -> "SquareInput":
        """Return the input of a model folder, with the image statistics that it states.

        Args:
            image_size: Of the vision tower's config.
            fit: How a frame becomes square.
            folder: Of the model, or a Hub id.

        Raises:
            RewardError: No square, an unknown fit, or statistics that cannot be read.
        """
        return cls(square_size(image_size, folder), fit, *image_statistics(folder))

    def __call__(self, frames: Tensor) -> Tensor:
        """Map frames (..., 3, height, width) in [0, 1] to (..., 3, size, size), normalised."""
        return normalise(fit_square(frames, self.size, self.fit), self.mean, self.std)


def text_embeddings(
    tokenizer: str | Path,
    encode: Callable[[Tensor], Tensor],
    *,
    config: PreTrainedConfig,
    pools_at: int | None,
    cache_size: int,
    trainable: bool = False,
) -> TextEmbeddings:
    """Return the text embeddings of a model, its tokenizer loaded and found to fit.

    Args:
        tokenizer: Folder or Hub id.
        encode: Token ids (1, tokens) -> embedding (1, ...).
        config: Of the text tower.
        pools_at: Token id at which the text tower reads, None for "the highest id".
        cache_size: Prompt embeddings kept.
        trainable: Whether the text tower may change.

    Raises:
        RewardError: No tokenizer, one of another model, or a negative cache size.
    """
    loaded = load_tokenizer(tokenizer)
    check_pooling(loaded, pools_at=pools_at, vocab_size=config.vocab_size, folder=tokenizer)
    return TextEmbeddings(
        loaded, encode, max_tokens=config.max_position_embeddings, cache_size=cache_size, trainable=trainable
    )
