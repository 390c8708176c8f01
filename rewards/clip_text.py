"""Prompts as CLIP's own tokenizer cleans them, so that a `transformers` tokenizer gives the same ids."""

import html
import unicodedata

_QUOTES = {**dict.fromkeys(map(ord, "\u02bc\u2018\u2019\u201a\u201b"), "'")}
_QUOTES |= dict.fromkeys(map(ord, "\u201c\u201d\u201e\u201f"), '"')


def clean_prompt(prompt: str) -> str:
    """Return a prompt as the tokenizers of OpenAI's CLIP, open_clip and HPSv2 clean it before they split it.

    They undo HTML entities, straighten quotes, take apart ligatures and full-width forms, drop control characters,
    compose accents, join white space and lower the case: `ftfy.fix_text` and a few lines. What is left out here is
    ftfy's repair of text that was decoded with the wrong character set.

    Args:
        prompt: As a user wrote it.
    """
    text = html.unescape(html.unescape(prompt)).translate(_QUOTES)
    text = unicodedata.normalize("NFC", "".join(_plain(character) for character in text))
    return " ".join(text.split()).lower()


def _plain(character: str) -> str:
    """Return what a ligature, a full-width form or a control character stands for."""
    if "\ufb00" <= character <= "\ufb06" or "\uff01" <= character <= "\uffef" or character == "\u3000":
        return unicodedata.normalize("NFKC", character)
    is_control = unicodedata.category(character) == "Cc" and not character.isspace()
    return "" if is_control or character == "\ufeff" else character
