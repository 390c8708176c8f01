"""The word-level tokenizer that every sprite checkpoint shares, and the small UMT5 encoder."""

import itertools

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from rlhf_video.sprites.grammar import BACKGROUNDS, COLOURS, MOTIONS, SHAPES

TEXT_WIDTH = 96


def sprite_tokenizer() -> PreTrainedTokenizerFast:
    """Return a fast tokenizer with one token per word of the grammar: pad 0, unknown 1, `</s>` at the end.

    The end token has the highest id, where CLIP-type text towers look for it.
    """
    words = sorted(set(itertools.chain.from_iterable(v.split() for v in (*COLOURS, *SHAPES, *MOTIONS, *BACKGROUNDS))))
    tokens = ["<pad>", "<unk>", "a", "and", "background", "on", *words, "</s>"]
    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    end = len(tokens) - 1
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", end)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", eos_token="</s>", model_max_length=512
    )


def text_encoder(vocabulary_size: int) -> UMT5EncoderModel:
    """Return the untrained text encoder of the sprite model; it learns with the transformer."""
    return UMT5EncoderModel(
        UMT5Config(
            vocab_size=vocabulary_size,
            d_model=TEXT_WIDTH,
            d_kv=24,
            d_ff=192,
            num_layers=2,
            num_heads=4,
            dropout_rate=0.0,
        )
    )
