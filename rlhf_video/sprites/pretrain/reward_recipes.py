"""The sprite rewards: which `transformers` classes, how large, and what their voters are asked."""

from collections.abc import Callable
from dataclasses import dataclass

from transformers import CLIPConfig, CLIPModel, PreTrainedModel, XCLIPConfig, XCLIPModel

from rlhf_video.sprites.pretrain.text import sprite_tokenizer
from rlhf_video.sprites.renderer import NUM_FRAMES, SIZE
from rlhf_video.sprites.verifier import ATTRIBUTES

MOTION_SHARE = 0.6
"""Least share of the video reward's rendered groups that differ in motion alone: it is learned last."""
STILL_ATTRIBUTES = ("colour", "shape", "background")
"""What a vote on a still picture can be about; the image rewards learn from those votes, the video reward from all."""
TEXT_TOKENS = 32


@dataclass(frozen=True)
class RewardRecipe:
    """One sprite reward: its size, its seed and what its voters look at."""

    name: str
    build: Callable[[], PreTrainedModel]
    questions: tuple[tuple[str, ...], ...]
    """What its voters are asked to compare, a set of attributes each, the widest first; each gets as many votes."""
    seed: int
    num_clips: int
    """Clips per step of the warm-up, each against the captions of all."""
    frames: int | None
    """Random frames per clip in training; None for all."""
    pool: int
    """Seed of the generated clips it learns from; the held-out reward sees others than the trained ones."""

    @property
    def attributes(self) -> tuple[str, ...]:
        """Everything that its voters look at."""
        return self.questions[0]


MOTION_TOWER = {"width": 112, "layers": 3, "patch": 8}


def image_clip(width: int, layers: int, patch: int) -> CLIPModel:
    """Return an image reward with random weights: `width` and `layers` of its vision tower, `patch` pixels a token."""
    tokenizer = sprite_tokenizer()
    text = _text_tower() | {
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.pad_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = _vision_tower(width, layers, patch)
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=64))


def xclip(width: int, layers: int, patch: int) -> XCLIPModel:
    """Return a video reward with random weights, the sizes as in `image_clip`."""
    vision = _vision_tower(width, layers, patch) | {
        "num_frames": NUM_FRAMES,
        "mit_hidden_size": 64,
        "mit_intermediate_size": 192,
        "mit_num_hidden_layers": 2,
        "mit_num_attention_heads": 4,
    }
    return XCLIPModel(
        XCLIPConfig(
            text_config=_text_tower(),
            vision_config=vision,
            projection_dim=64,
            prompt_layers=1,
            prompt_num_attention_heads=4,
            prompt_alpha=0.1,
        )
    )


def _text_tower() -> dict[str, int]:
    return {
        "vocab_size": len(sprite_tokenizer()),
        "hidden_size": 64,
        "intermediate_size": 192,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": TEXT_TOKENS,
    }


def _vision_tower(width: int, layers: int, patch: int) -> dict[str, int]:
    return {
        "hidden_size": width,
        "intermediate_size": 3 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "image_size": SIZE,
        "patch_size": patch,
    }


RECIPES = (
    RewardRecipe(
        "sprite-clip",
        lambda: image_clip(128, 4, 8),
        questions=(STILL_ATTRIBUTES,),
        seed=11,
        num_clips=128,
        frames=1,
        pool=13,
    ),
    RewardRecipe(
        "sprite-clip-heldout",
        lambda: image_clip(96, 4, 8),
        questions=(STILL_ATTRIBUTES,),
        seed=23,
        num_clips=128,
        frames=1,
        pool=15,
    ),
    RewardRecipe(
        "sprite-motion",
        lambda: xclip(**MOTION_TOWER),
        questions=(ATTRIBUTES, ("motion",)),
        seed=37,
        num_clips=32,
        frames=None,
        pool=13,
    ),
)
