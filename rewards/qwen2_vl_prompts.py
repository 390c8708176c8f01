"""Prompts for Qwen2-VL's reward models: the chat around them, their reward tokens, each tokenised once."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from tokenizers import AddedToken
from torch import Tensor

from rewards.errors import RewardError
from rewards.pretrained import load_tokenizer
from rewards.prompt_cache import PromptCache

logger = logging.getLogger(__name__)

BEFORE_VISION = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>"
AFTER_VISION = "<|vision_end|>{text}<|im_end|>\n<|im_start|>assistant\n"
"""Around the visual tokens: chat_template.json of Qwen/Qwen2-VL-2B-Instruct for one user message of a picture or video
and a text, with the generation prompt, as both originals call it."""
_CHAT_TOKENS = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>")


class PromptTokens:
    """Token ids of prompts in a reward's instruction; each distinct prompt is tokenised once. Threads may share one."""

    def __init__(
        self,
        tokenizer: str | Path,
        *,
        instruct: Callable[[str], str],
        reward_tokens: Sequence[str],
        vocab_size: int,
        max_tokens: int,
        cache_size: int,
    ) -> None:
        """Load the tokenizer and add the reward tokens to it, as the originals do.

        Args:
            tokenizer: Folder or Hub id of Qwen2-VL's tokenizer, with or without the reward tokens.
            instruct: From a prompt to the whole instruction, which holds each reward token once.
            reward_tokens: In the order of the scores.
            vocab_size: Rows of the model's token embedding; the reward tokens are the last ones.
            max_tokens: Longer prompts are cut, with a warning.
            cache_size: Prompts kept; the least recently used leaves first. 0 keeps none.

        Raises:
            RewardError: A tokenizer of another model, or an option out of range.
        """
        if max_tokens < 1:
            raise RewardError(f"max_prompt_tokens must be 1 or more, got {max_tokens}.")
        self._tokenizer = load_tokenizer(tokenizer)
        vocabulary = self._tokenizer.get_vocab()
        if missing := [token for token in _CHAT_TOKENS if token not in vocabulary]:
            raise RewardError(f"The tokenizer of {tokenizer} lacks {', '.join(missing)}: it is not Qwen2-VL's.")
        self._tokenizer.add_tokens(
            [AddedToken(token, special=True, normalized=False) for token in reward_tokens if token not in vocabulary]
        )
        ids = self._tokenizer.convert_tokens_to_ids(list(reward_tokens))
        if ids != list(range(vocab_size - len(ids), vocab_size)):
            raise RewardError(
                f"The tokenizer of {tokenizer} gives the reward tokens {', '.join(reward_tokens)} the ids {ids}, but "
                f"the model keeps them in the last of its {vocab_size} rows: they do not belong together."
            )
        self._reserved = (*self._tokenizer.get_added_vocab(), *reward_tokens)
        self._instruct, self._max_tokens = instruct, max_tokens
        self._prefix, self._reward_ids = torch.tensor(self._encode(BEFORE_VISION)), torch.tensor(ids)
        self._cache = PromptCache[list[int]](cache_size)

    def __len__(self) -> int:
        """Return how many prompts are kept."""
        return len(self._cache)

    def prefix(self, device: torch.device) -> Tensor:
        """Return the token ids before the visual tokens, one row."""
        return self._prefix.to(device)

    def reward_ids(self, device: torch.device) -> Tensor:
        """Return the ids of the reward tokens, in the order of the scores."""
        return self._reward_ids.to(device)

    def __call__(self, prompts: Sequence[str], device: torch.device) -> Tensor:
        """Return the token ids after the visual tokens, (prompts, tokens), padded at the end.

        Attention is causal, so what stands behind the reward tokens changes nothing; the padding is the last token.

        Raises:
            RewardError: An empty prompt, or one with a reserved token.
        """
        rows = [self._cache.get(prompt, self._tokenise) for prompt in prompts]
        longest = max(len(row) for row in rows)
        return torch.tensor([row + row[-1:] * (longest - len(row)) for row in rows], device=device)

    def _tokenise(self, prompt: str) -> list[int]:
        return self._encode(AFTER_VISION.replace("{text}", self._instruct(self._checked(prompt))))

    def _checked(self, prompt: str) -> str:
        """Return the prompt, cut where it is too long; refuse one that the model would read as something else."""
        if not prompt.strip():
            raise RewardError("A reward that reads the prompt got an empty one.")
        if reserved := [token for token in self._reserved if token in prompt]:
            raise RewardError(
                f"The prompt {prompt[:60]!r} holds {reserved[0]}, which Qwen2-VL reads as a mark: take it out."
            )
        encoding = self._tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True)
        spans = encoding["offset_mapping"]
        if len(spans) <= self._max_tokens:
            return prompt
        logger.warning("Prompt of %d tokens is cut to %d for the reward: %.60s", len(spans), self._max_tokens, prompt)
        return prompt[: spans[self._max_tokens - 1][1]]

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])
