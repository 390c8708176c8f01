"""OpenAI's CLIP from OpenAI's own files (TorchScript archives or state dicts) into `transformers` models.

The architecture is read off the shapes, as OpenAI's loader does: heads of width 64, the quick GELU. Where OpenAI's
loader runs in half precision on a GPU, this one computes in float32 everywhere, as theirs does on the CPU.
"""

import math
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPVisionModelWithProjection
from transformers.initialization import no_init_weights

from rewards.clip_towers import transformers_state
from rewards.errors import RewardError
from rewards.ledger import LEDGER
from rewards.open_clip_weights import to_transformers
from rewards.weight_files import file_hash, load_strictly, read_state

HEAD_WIDTH = 64
"""Width of an attention head in every CLIP of OpenAI's."""
NUMBERS = ("input_resolution", "context_length", "vocab_size")
"""What OpenAI's archives hold beside the weights."""
_TEXT_TOWER = ("text_model.", "text_projection.", "logit_scale")
_LAYER = re.compile(r"(vision|text)_model\.encoder\.layers\.(\d+)\.")


def load_clip_model(path: Path) -> CLIPModel:
    """Load both towers, frozen, in float32.

    Args:
        path: OpenAI's file, or the state dict of a `transformers.CLIPModel`.

    Raises:
        RewardError: Missing, corrupt or truncated weights, or those of another model.
    """
    state = read_clip_state(path)
    with no_init_weights():
        model = CLIPModel(clip_config(state, path))
    load_strictly(model, state, source=path)
    return model


def load_vision_tower(path: Path) -> CLIPVisionModelWithProjection:
    """Load the vision tower and its projection, frozen, in float32; see `load_clip_model`."""
    state = read_clip_state(path)
    config = clip_config(state, path)
    with no_init_weights():
        model = CLIPVisionModelWithProjection(config.vision_config)
    load_strictly(model, {k: v for k, v in state.items() if not k.startswith(_TEXT_TOWER)}, source=path)
    return model


def read_clip_state(path: Path) -> dict[str, Tensor]:
    """Return a state dict of `transformers.CLIPModel`.

    Args:
        path: OpenAI's file (a TorchScript archive, or its state dict), or one that `transformers` wrote.

    Raises:
        RewardError: Missing, corrupt or truncated, or no CLIP with a vision transformer.
    """
    state = read_torchscript(path) if is_torchscript(path) else read_state(path, key="state_dict")
    if any(name.startswith("vision_model.") for name in state):
        return transformers_state(state)
    try:
        return to_transformers({name: value for name, value in state.items() if name not in NUMBERS})
    except RewardError as error:
        raise RewardError(f"{path} is no CLIP with a vision transformer: {error}") from error


def is_torchscript(path: Path) -> bool:
    """Return whether a file is an archive with TorchScript code; a file that is missing or no archive is not."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Return the state dict of a TorchScript archive without running code of it.

    Loading compiles an archive's code; the only part that runs is a `__setstate__`. CLIP's archives need none: a file
    with one is refused, unless its hash is that of a published file.

    Raises:
        RewardError: It would run code, or cannot be read.
    """
    with zipfile.ZipFile(path) as archive:
        sources = [archive.read(name) for name in archive.namelist() if name.endswith(".py")]
    published = {entry.sha256 for entry in LEDGER.values() if entry.sha256 is not None}
    if any(b"__setstate__" in source for source in sources) and file_hash(path) not in published:
        raise RewardError(f"{path} runs code when it is loaded, which CLIP's weights do not need: it is not read.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit.load: nothing else reads these archives
            return dict(torch.jit.load(str(path), map_location="cpu").state_dict())
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise RewardError(f"Cannot read weights from {path}: {reason}. Delete the file and get it again.") from error


def clip_config(state: Mapping[str, Tensor], path: Path) -> CLIPConfig:
    """Read an OpenAI CLIP's architecture off the shapes of its weights.

    Args:
        state: Of a `transformers.CLIPModel`.
        path: For the message.

    Raises:
        RewardError: A weight that every CLIP has is missing, or a width that no head divides.
    """
    try:
        patches = state["vision_model.embeddings.patch_embedding.weight"]
        grid = math.isqrt(state["vision_model.embeddings.position_embedding.weight"].shape[0] - 1)
        num_positions = state["text_model.embeddings.position_embedding.weight"].shape[0]
        num_words = state["text_model.embeddings.token_embedding.weight"].shape[0]
        projection_dim = state["visual_projection.weight"].shape[0]
        vision = _tower(state, "vision") | {"patch_size": patches.shape[-1], "image_size": grid * patches.shape[-1]}
        text = _tower(state, "text") | {"vocab_size": num_words, "max_position_embeddings": num_positions}
    except KeyError as error:
        raise RewardError(f"{path} lacks {error}: it is no whole CLIP.") from error
    if vision["hidden_size"] % HEAD_WIDTH or text["hidden_size"] % HEAD_WIDTH:
        raise RewardError(f"{path}: the width of a CLIP of OpenAI's is a multiple of {HEAD_WIDTH}.")
    words = {"bos_token_id": num_words - 2, "eos_token_id": num_words - 1, "pad_token_id": num_words - 1}
    return CLIPConfig(
        projection_dim=projection_dim,
        vision_config=vision | {"projection_dim": projection_dim},
        text_config=text | words | {"projection_dim": projection_dim},
    )


def _tower(state: Mapping[str, Tensor], kind: str) -> dict[str, Any]:
    width = state[f"{kind}_model.encoder.layers.0.layer_norm1.weight"].shape[0]
    layers = {match[2] for name in state if (match := _LAYER.match(name)) and match[1] == kind}
    return {
        "hidden_size": width,
        "intermediate_size": state[f"{kind}_model.encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": len(layers),
        "num_attention_heads": max(width // HEAD_WIDTH, 1),
        "hidden_act": "quick_gelu",
    }
