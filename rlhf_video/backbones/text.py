"""Prompts to embeddings, exactly as `WanPipeline` does it, each distinct text once."""

import gc
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from diffusers import WanPipeline
from diffusers.pipelines.wan.pipeline_wan import prompt_clean
from torch import Tensor
from transformers import AutoTokenizer, UMT5EncoderModel
from transformers.utils import logging as transformers_logging

logger = logging.getLogger(__name__)


class PromptEncoder:
    """Loads the text encoder when a new text comes, keeps the embeddings on the CPU, frees the encoder on request."""

    def __init__(self, folder: Path, *, device: torch.device, dtype: torch.dtype, text_length: int) -> None:
        """Remember where the encoder lies; nothing is loaded yet.

        Args:
            folder: Pipeline folder with `tokenizer/` and `text_encoder/`.
            device: Where the encoder runs.
            dtype: Precision of the encoder.
            text_length: Tokens that texts are padded or cut to.
        """
        self._folder = folder
        self._device = device
        self._dtype = dtype
        self._text_length = text_length
        self._encoder: UMT5EncoderModel | None = None
        self._tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
        self._cache: dict[str, Tensor] = {}

    @property
    def is_loaded(self) -> bool:
        """Whether the encoder's weights are in memory."""
        return self._encoder is not None

    def release(self) -> None:
        """Free the encoder's weights; cached embeddings stay."""
        self._encoder = None
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Return the embeddings of texts, shape (batch, text_length, text_width), zero behind each text's last token.

        Texts are encoded one at a time, so an embedding does not depend on what else is asked for.
        """
        cleaned = [prompt_clean(text) for text in texts]
        for text in dict.fromkeys(cleaned):
            if text not in self._cache:
                self._cache[text] = self._encode_one(text)
        return torch.stack([self._cache[text] for text in cleaned]).to(self._device)

    @torch.no_grad()
    def _encode_one(self, text: str) -> Tensor:
        if self._encoder is None:
            self._encoder = self._load()
        tokens = self._tokenizer(
            [text],
            padding="max_length",
            max_length=self._text_length,
            truncation=True,
            add_special_tokens=True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        mask = tokens.attention_mask.to(self._device)
        hidden = self._encoder(tokens.input_ids.to(self._device), mask).last_hidden_state[0]
        length = int(mask.sum())
        return torch.cat([hidden[:length], hidden.new_zeros(self._text_length - length, hidden.shape[1])]).cpu()

    def _load(self) -> UMT5EncoderModel:
        logger.info("Loading the text encoder of %s", self._folder)
        bars = transformers_logging.is_progress_bar_enabled()
        transformers_logging.disable_progress_bar()
        encoder = UMT5EncoderModel.from_pretrained(self._folder / "text_encoder", dtype=self._dtype)
        if bars:
            transformers_logging.enable_progress_bar()
        return encoder.to(self._device).eval().requires_grad_(False)


class PipelinePrompts:
    """The text encoder of a loaded pipeline, in the same two methods; it stays the pipeline's own."""

    def __init__(self, pipe: WanPipeline, text_length: int) -> None:
        """Use a pipeline's tokenizer and encoder.

        Args:
            pipe: The pipeline.
            text_length: Tokens that texts are padded or cut to.
        """
        self._pipe, self._text_length = pipe, text_length

    def release(self) -> None:
        """Do nothing: who loaded the pipeline frees it."""

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Tensor:
        """Return embeddings as `PromptEncoder.encode` does."""
        distinct = {text: self._encode_one(text) for text in dict.fromkeys(texts)}
        return torch.cat([distinct[text] for text in texts])

    def _encode_one(self, text: str) -> Tensor:
        embeds, _ = self._pipe.encode_prompt(
            prompt=text, do_classifier_free_guidance=False, max_sequence_length=self._text_length
        )
        return cast(Tensor, embeds)
