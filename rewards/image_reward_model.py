"""The network of ImageReward 1.0 on `transformers`' BLIP, and the names of its published weights.

ViT, then a BERT whose layers also attend to the image's patches, then five linear layers on its first token. BLIP's
text model is built with `is_decoder=True` (that is what gives it cross-attention) and called as an encoder: every token
sees every other one.
"""

import itertools
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from transformers import BlipConfig, BlipTextModel, BlipVisionModel

PUBLISHED: dict[str, Any] = {
    "vision_config": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 224,
        "patch_size": 16,
        "layer_norm_eps": 1e-6,  # BlipVisionConfig's own 1e-5 is not what BLIP was trained with
    },
    "text_config": {
        "vocab_size": 30524,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "max_position_embeddings": 512,
        "is_decoder": True,
    },
}
"""Arguments of `BlipConfig`: ViT-L/16 at 224 pixels (the package's blip.py) and med_config.json of the repository."""

HEAD_WIDTHS = (1024, 128, 64, 16, 1)
"""Outputs of the head's layers; there is nothing between them but dropout."""

UNUSED = ("blip.vision_proj.", "blip.text_proj.", "blip.text_encoder.embeddings.position_ids")
"""What the file holds besides: two projections of BLIP's pre-training, and a counter 0, 1, 2, ..."""

_RENAMES = (
    (r"^blip\.visual_encoder\.cls_token$", "vision.embeddings.class_embedding"),
    (r"^blip\.visual_encoder\.pos_embed$", "vision.embeddings.position_embedding"),
    (r"^blip\.visual_encoder\.patch_embed\.proj\.", "vision.embeddings.patch_embedding."),
    (r"^blip\.visual_encoder\.norm\.", "vision.post_layernorm."),
    (r"^blip\.visual_encoder\.blocks\.", "vision.encoder.layers."),
    (r"^(vision\.encoder\.layers\.\d+)\.norm(\d)\.", r"\1.layer_norm\2."),
    (r"^(vision\.encoder\.layers\.\d+)\.attn\.qkv\.", r"\1.self_attn.qkv."),
    (r"^(vision\.encoder\.layers\.\d+)\.attn\.proj\.", r"\1.self_attn.projection."),
    (r"^blip\.text_encoder\.", "text."),
    (r"^mlp\.layers\.", "head."),
)
"""Names of the package -> names here, applied one after the other."""


class ImageRewardModel(nn.Module):
    """Pixels and token ids to features, and the head that reads the raw score off them."""

    def __init__(self, config: BlipConfig) -> None:
        """Make it with random weights.

        Args:
            config: Of both towers; the text tower must have cross-attention (`is_decoder`).
        """
        super().__init__()
        self.vision = BlipVisionModel(config.vision_config)
        self.text = BlipTextModel(config.text_config, add_pooling_layer=False)
        widths = (config.text_config.hidden_size, *HEAD_WIDTHS)
        linear = [nn.Linear(inputs, outputs) for inputs, outputs in itertools.pairwise(widths)]
        # The published names count the dropout layers, which do nothing here: 0, 2, 4, 6, 7.
        drop = nn.Identity()
        self.head = nn.Sequential(linear[0], drop, linear[1], drop, linear[2], drop, linear[3], linear[4])

    def features(self, pixels: Tensor, token_ids: Tensor, mask: Tensor) -> Tensor:
        """Return what the head reads, the first token after it has seen prompt and image: (n, width).

        Args:
            pixels: (n, 3, height, width), normalised.
            token_ids: (n, tokens), padded.
            mask: (n, tokens), 1 for a token, 0 for padding.
        """
        patches = self.vision(pixel_values=pixels).last_hidden_state
        encoded = self.text(input_ids=token_ids, attention_mask=mask, encoder_hidden_states=patches)
        first: Tensor = encoded.last_hidden_state[:, 0]
        return first


def rename_original(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict of the package's `ImageReward` under the names of `ImageRewardModel`, the unused left out."""
    return {_rename(name): value for name, value in state.items() if not name.startswith(UNUSED)}


def _rename(name: str) -> str:
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name
