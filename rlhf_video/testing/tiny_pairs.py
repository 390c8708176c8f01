"""Tiny real CLIP and X-CLIP folders, and preference pairs that they can learn, written in a second."""

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, PreTrainedModel, PreTrainedTokenizerFast, XCLIPConfig, XCLIPModel

from rlhf_video.data import sha256_file, write_lossless
from rlhf_video.preferences import ClipRecord, Label, PreferencePair, PreferenceStore

COLOURS = {"red": (0.9, 0.1, 0.1), "green": (0.1, 0.9, 0.1), "blue": (0.1, 0.1, 0.9), "white": (0.9, 0.9, 0.9)}
_WORDS = ("<pad>", "<unk>", "<bos>", "a", "one", "two", "big", "small", "wall", *COLOURS, "<eos>")
_SIZE, _FRAMES, _FPS = 12, 5, 8.0


def tiny_clip(folder: Path, *, seed: int = 0) -> Path:
    """Write a CLIPModel folder of 12-pixel images with a word tokenizer; return it."""
    torch.manual_seed(seed)
    return _save(CLIPModel(CLIPConfig(text_config=_text(), vision_config=_vision(), projection_dim=8)), folder)


def tiny_xclip(folder: Path, *, seed: int = 0) -> Path:
    """Write an XCLIPModel folder of five 12-pixel frames with a word tokenizer; return it."""
    torch.manual_seed(seed)
    mit = {"mit_hidden_size": 8, "mit_intermediate_size": 16, "mit_num_hidden_layers": 1, "mit_num_attention_heads": 2}
    config = XCLIPConfig(
        text_config=_text(),
        vision_config={**_vision(), **mit, "num_frames": _FRAMES},
        projection_dim=8,
        prompt_layers=1,
        prompt_num_attention_heads=2,
        prompt_alpha=1.0,
    )
    return _save(XCLIPModel(config), folder)


def tiny_pairs(file: Path, *, adjectives: tuple[str, ...] = ("big", "small"), every_tie: int = 0) -> PreferenceStore:
    """Write pairs of walls in the prompt's colour and in another one; who shows the colour wins.

    Args:
        file: Target .jsonl; clips go to `clips` beside it.
        adjectives: Words that tell prompts apart; one prompt per colour, number word and adjective.
        every_tie: Every n-th pair is a tie instead; 0 for none.
    """
    store, generator = PreferenceStore(file), torch.Generator().manual_seed(0)
    pairs: list[PreferencePair] = []
    for adjective in adjectives:
        for number in ("a", "one", "two"):
            for colour in COLOURS:
                for other in COLOURS:
                    if other == colour:
                        continue
                    index = len(pairs)
                    shown = [colour, other] if index % 2 == 0 else [other, colour]
                    a, b = (_clip(file.parent, f"{adjective}-{index}-{side}", name, generator)
                            for side, name in zip("ab", shown, strict=True))  # fmt: skip
                    label: Label = "A" if index % 2 == 0 else "B"
                    if every_tie and index % every_tie == 0:
                        label = "tie"
                    prompt = f"{number} {adjective} {colour} wall"
                    pairs.append(PreferencePair(prompt=prompt, a=a, b=b, labels={"overall": label}, source="synthetic"))
    store.append(pairs)
    return store


def tiny_clip_pairs(file: Path, prompts: Sequence[str], *, per_prompt: int = 2) -> PreferenceStore:
    """Write pairs of noise clips of 5 frames of 16 x 16 pixels, a bright one preferred to a dark one.

    Args:
        file: Target .jsonl; clips go to `clips` beside it.
        prompts: Of the pairs.
        per_prompt: Pairs of each prompt; the bright clip is A in every second one.
    """
    store, generator = PreferenceStore(file), torch.Generator().manual_seed(len(prompts))
    pairs = []
    for index, prompt in enumerate(prompt for prompt in prompts for _ in range(per_prompt)):
        clips = []
        for level in (0.7, 0.0):
            path = file.parent / "clips" / f"{file.stem}-{index}-{'bright' if level else 'dark'}.mkv"
            write_lossless(path, level + 0.3 * torch.rand(5, 3, 16, 16, generator=generator), 8)
            clips.append(ClipRecord(path=f"clips/{path.name}", sha256=sha256_file(path)))
        label: Label = "A" if index % 2 == 0 else "B"
        a, b = clips if label == "A" else reversed(clips)
        pairs.append(PreferencePair(prompt=prompt, a=a, b=b, labels={"overall": label}, source="synthetic"))
    store.append(pairs)
    return store


def _clip(folder: Path, name: str, colour: str, generator: torch.Generator) -> ClipRecord:
    noise = 0.1 * torch.rand(_FRAMES, 3, _SIZE, _SIZE, generator=generator)
    video: Tensor = (torch.tensor(COLOURS[colour])[:, None, None] + noise).clamp(0, 1)
    path = folder / "clips" / f"{name}.mkv"
    write_lossless(path, video, _FPS)
    return ClipRecord(path=f"clips/{name}.mkv", sha256=sha256_file(path))


def _text() -> dict[str, int]:
    return {
        "vocab_size": len(_WORDS),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 12,
        "pad_token_id": 0,
        "bos_token_id": _WORDS.index("<bos>"),
        "eos_token_id": _WORDS.index("<eos>"),
    }


def _vision() -> dict[str, int]:
    return {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": _SIZE,
        "patch_size": 6,
    }


def _save(model: PreTrainedModel, folder: Path) -> Path:
    # Deviations of 0.02 leave a model blind to its pixels, and whatever it is trained on changes nothing.
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2:
                nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
            elif name.endswith("bias"):
                nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    return folder


def _tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(_WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [(word, _WORDS.index(word)) for word in ("<bos>", "<eos>")]
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A <eos>", special_tokens=special)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", bos_token="<bos>", eos_token="<eos>"
    )
