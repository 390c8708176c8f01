"""From the names of open_clip's ViT models to those of `transformers.CLIPModel`.

open_clip keeps query, key and value in one matrix and multiplies its projections from the left; transformers keeps
three matrices and transposes.
"""

from collections.abc import Mapping

from torch import Tensor

from rewards.errors import RewardError

_WHOLE = {
    "logit_scale": "logit_scale",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
}
_TRANSPOSED = {"text_projection": "text_projection.weight", "visual.proj": "visual_projection.weight"}
_NORMS = {
    "ln_final": "text_model.final_layer_norm",
    "visual.ln_pre": "vision_model.pre_layrnorm",  # transformers' own spelling
    "visual.ln_post": "vision_model.post_layernorm",
}
_LAYERS = {
    "transformer.resblocks": "text_model.encoder.layers",
    "visual.transformer.resblocks": "vision_model.encoder.layers",
}
_IN_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def to_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename, split and transpose a state dict.

    Args:
        state: Of an open_clip `CLIP` with a ViT, for example ViT-H-14.

    Raises:
        RewardError: A name that such a model does not have.
    """
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        renamed.update(_translate(name, value))
    return renamed


def _translate(name: str, value: Tensor) -> dict[str, Tensor]:
    if name in _WHOLE:
        return {_WHOLE[name]: value}
    if name in _TRANSPOSED:
        return {_TRANSPOSED[name]: value.T}
    stem, _, kind = name.rpartition(".")
    if stem in _NORMS:
        return {f"{_NORMS[stem]}.{kind}": value}
    for prefix, target in _LAYERS.items():
        if name.startswith(prefix + "."):
            number, _, part = name.removeprefix(prefix + ".").partition(".")
            return _translate_layer(f"{target}.{number}", part, value, name)
    raise _unknown(name)


def _translate_layer(layer: str, part: str, value: Tensor, name: str) -> dict[str, Tensor]:
    if part in ("attn.in_proj_weight", "attn.in_proj_bias"):
        kind = part.rpartition("_")[2]
        parts = zip("qkv", value.chunk(3), strict=True)
        return {f"{layer}.self_attn.{letter}_proj.{kind}": rows for letter, rows in parts}
    stem, _, kind = part.rpartition(".")
    if stem not in _IN_LAYER:
        raise _unknown(name)
    return {f"{layer}.{_IN_LAYER[stem]}.{kind}": value}


def _unknown(name: str) -> RewardError:
    return RewardError(f"{name!r} is no weight of an open_clip ViT: this is the file of another model.")
