"""Tokenizer, sizes and clips for the parity of Qwen2-VL's rewards: the same on both sides, in environments years apart.

Needs only NumPy, tokenizers and transformers (4.45 or 5). Qwen's own vocabulary is not at hand without a network; this
one splits text into words with the space before them, so a lost space or line of the instruction changes the ids.
"""

import re

import numpy as np
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PIECES = r"\s*\w+|\s*[^\w\s]|\s+"
SPECIAL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"),
    "<|video_pad|>",
)
PROMPTS = (
    "A red kite, flying over the sea.",
    "a very long prompt about two dogs that play with a blue ball in the snow",
)


def stand_in_tokenizer(*texts: str) -> PreTrainedTokenizerFast:
    """Return a tokenizer that knows the words of some texts and the prompts, and Qwen2-VL's special tokens."""
    chat = "system\nYou are a helpful assistant.\nuser\n\nassistant\n \n"
    pieces = sorted({piece for text in (chat, *texts, *PROMPTS) for piece in re.findall(PIECES, text)})
    tokenizer = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(["<unk>", *pieces])}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(PIECES), behavior="isolated")
    tokenizer.add_special_tokens(list(SPECIAL))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<|endoftext|>", eos_token="<|im_end|>"
    )


def tiny_config(vocab_size: int) -> dict[str, object]:
    """Return a flat config.json of two layers each, which transformers 4.45 and 5 both read."""
    return {
        "model_type": "qwen2_vl",
        "vocab_size": vocab_size,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
        "use_sliding_window": False,
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "vision_config": {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2},
    }


def clip(num_frames: int, height: int, width: int, seed: int) -> np.ndarray:
    """Return smooth moving colours with some noise, uint8 (frames, height, width, 3)."""
    noise = np.random.Philox(key=seed).random_raw(num_frames * height * width * 3) >> np.uint64(58)  # 0 to 63
    time, rows, columns, channel = np.ogrid[:num_frames, :height, :width, :3]
    # Whole numbers only: sines differ in the last digit between machines.
    waves = (7 * time * (1 + channel) + 5 * rows + 3 * columns * (channel + seed % 3)) % 384
    smooth = np.minimum(waves, 383 - waves)  # 0 to 191
    return (smooth + noise.reshape(num_frames, height, width, 3)).astype(np.uint8)
