"""Random weights and small tokenizers that the recording scripts made, too."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from rewards.random_weights import random_array


@pytest.fixture(scope="session")
def random_state() -> Callable[[Mapping[str, Sequence[int]]], dict[str, torch.Tensor]]:
    """Return weights by name and shape."""

    def make(shapes: Mapping[str, Sequence[int]]) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(random_array(name, shape)) for name, shape in shapes.items()}

    return make


@pytest.fixture(scope="session")
def clip_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Sequence[str]], Path]:
    """Return the folder of CLIP's tokenizer with a stand-in list of merges."""

    def make(merges: Sequence[str]) -> Path:
        letters = list(bytes_to_unicode().values())
        assert set(letters) == set(ByteLevel.alphabet())
        words = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(merge.split()) for merge in merges)]
        vocabulary = {word: i for i, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
        folder = tmp_path_factory.mktemp("clip-tokenizer")
        CLIPTokenizer(vocab=vocabulary, merges=[tuple(merge.split()) for merge in merges]).save_pretrained(folder)
        return folder

    return make
