"""A discriminator on the features of a video transformer that is not trained with it.

Register tokens read the hidden states of a few blocks by cross-attention (the GAN class of Self-Forcing,
arXiv:2506.08009; ASD, arXiv:2511.01419, appendix), a small network turns them into one logit for each number of steps.
The noise level is not an input. Letters: B batch, N tokens, D width of the transformer, W of the heads, R registers.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from rlhf_video.attention.families import find_transformer
from rlhf_video.errors import ConfigError
from rlhf_video.settings import check_range


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    """Which blocks are read, and the size of the heads."""

    blocks: tuple[int, ...] | None = None
    """Blocks whose hidden states are read, numbered from 0; null takes three at 3/7, 5/7 and the end (13, 21, 29 of Wan
    1.3B's 30, as Self-Forcing)."""
    num_registers: int = 3
    """Register tokens for each block (Self-Forcing: 3)."""
    width: int = 256
    """Width of the heads; FastGen's are about this small (50 M parameters for Wan)."""
    num_heads: int = 4
    """Attention heads of the registers."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("discriminator.num_registers", self.num_registers, least=1)
        check_range("discriminator.width", self.width, least=1)
        check_range("discriminator.num_heads", self.num_heads, least=1)
        if self.width % self.num_heads:
            raise ConfigError(
                f"discriminator.width={self.width} is not a multiple of discriminator.num_heads={self.num_heads}."
            )

    def chosen_blocks(self, num_blocks: int) -> tuple[int, ...]:
        """Return the blocks that are read.

        Raises:
            ConfigError: One of them does not exist.
        """
        blocks = tuple(sorted(self.blocks or ())) or tuple(
            sorted({num_blocks * 3 // 7, num_blocks * 5 // 7, num_blocks - 1})
        )
        if bad := [block for block in blocks if not 0 <= block < num_blocks]:
            raise ConfigError(f"discriminator.blocks names {bad}: this model has blocks 0 to {num_blocks - 1}.")
        return blocks


class Discriminator(nn.Module):
    """Hidden states of some blocks -> one logit for each number of steps."""

    def __init__(self, config: DiscriminatorConfig, *, num_blocks: int, width: int, num_logits: int, seed: int) -> None:
        """Make heads with weights that depend on the seed alone.

        Args:
            config: Size.
            num_blocks: Blocks of the transformer.
            width: Its width D.
            num_logits: Numbers of steps that are told apart.
            seed: Of the weights.
        """
        super().__init__()
        self.blocks = config.chosen_blocks(num_blocks)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.readers = nn.ModuleList(_RegisterReader(config, width) for _ in self.blocks)
            features = len(self.blocks) * config.num_registers * config.width
            self.head = nn.Sequential(
                nn.LayerNorm(features),
                nn.Linear(features, config.width),
                nn.SiLU(),
                nn.Linear(config.width, num_logits),
            )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return logits (B, num_logits) of hidden states (B, N, D), one for each of `blocks`, in float32."""
        read = [reader(state.float()) for reader, state in zip(self.readers, features, strict=True)]
        logits: Tensor = self.head(torch.cat(read, dim=1))
        return logits


class _RegisterReader(nn.Module):
    """Registers that read one block's tokens."""

    def __init__(self, config: DiscriminatorConfig, width: int) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.registers = nn.Parameter(torch.randn(1, config.num_registers, config.width) * config.width**-0.5)
        self.norm = nn.LayerNorm(width)
        self.to_key, self.to_value = nn.Linear(width, config.width), nn.Linear(width, config.width)
        self.feed = nn.Sequential(
            nn.LayerNorm(config.width),
            nn.Linear(config.width, 2 * config.width),
            nn.SiLU(),
            nn.Linear(2 * config.width, config.width),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (B, R * W) of tokens (B, N, D)."""
        tokens = self.norm(tokens)
        query = self.registers.expand(len(tokens), -1, -1)
        heads = [part.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for part in (query, *self._project(tokens))]
        read = functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        read = query + read
        return (read + self.feed(read)).flatten(1)

    def _project(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        return self.to_key(tokens), self.to_value(tokens)


@contextlib.contextmanager
def block_outputs(transformer: nn.Module, blocks: Sequence[int]) -> Iterator[list[Tensor]]:
    """Collect the hidden states behind some blocks of the forward pass inside; a recomputation adds nothing.

    Args:
        transformer: A Wan transformer, plain or wrapped.
        blocks: Their numbers, ascending.
    """
    model, _ = find_transformer(transformer)
    outputs: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        if len(outputs) < len(blocks):
            outputs.append(output)

    hooks = [model.blocks[number].register_forward_hook(keep) for number in blocks]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()
