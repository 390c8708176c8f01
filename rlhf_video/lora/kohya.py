"""The key layout of kohya's trainers, which ComfyUI, musubi-tuner and sd-webui read; both ways without a changed bit.

    transformer.blocks.0.attn1.to_q.lora_A.weight   <->   lora_unet_blocks_0_self_attn_q.lora_down.weight
    (rank and alpha in the file's header)           <->   lora_unet_blocks_0_self_attn_q.alpha

Module names are those of the original Wan code. diffusers' own reader takes a kohya file of Wan only when every
Linear of attention and feed-forward is in it, which is the default list of targets here (diffusers 0.42.1,
`_convert_musubi_wan_lora_to_diffusers`); ComfyUI also takes a part of them.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from rlhf_video.errors import AdapterError

_PREFIX = "lora_unet_"
_NATIVE_PREFIX = "transformer."
_ATTENTION = {"attn1": "self_attn", "attn2": "cross_attn"}
_PROJECTIONS = {"to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "o"}
_FEED_FORWARD = {"ffn.net.0.proj": "ffn_0", "ffn.net.2": "ffn_2"}
_OUTSIDE_BLOCKS = {
    "condition_embedder.text_embedder.linear_1": "text_embedding_0",
    "condition_embedder.text_embedder.linear_2": "text_embedding_2",
    "condition_embedder.time_embedder.linear_1": "time_embedding_0",
    "condition_embedder.time_embedder.linear_2": "time_embedding_2",
    "condition_embedder.time_proj": "time_projection_1",
    "proj_out": "head_head",
}
_IN_BLOCK = {
    **{
        f"{ours}.{projection}": f"{theirs}_{short}"
        for ours, theirs in _ATTENTION.items()
        for projection, short in _PROJECTIONS.items()
    },
    **_FEED_FORWARD,
}
_IN_BLOCK_BACK = {theirs: ours for ours, theirs in _IN_BLOCK.items()}
_OUTSIDE_BACK = {theirs: ours for ours, theirs in _OUTSIDE_BLOCKS.items()}
_MATRICES = {"lora_A.weight": "lora_down.weight", "lora_B.weight": "lora_up.weight"}
_MATRICES_BACK = {theirs: ours for ours, theirs in _MATRICES.items()}


def to_kohya(state: Mapping[str, Tensor], *, alpha: float) -> dict[str, Tensor]:
    """Return one transformer's adapter in kohya's layout.

    Args:
        state: Weights by names such as "transformer.blocks.0.attn1.to_q.lora_A.weight".
        alpha: The adapter's alpha, written beside every module.

    Returns:
        The same tensors under kohya's names, and one scalar float32 `.alpha` for each module.

    Raises:
        AdapterError: A module has no place in the Wan layout.
    """
    converted: dict[str, Tensor] = {}
    for name, value in state.items():
        module, matrix = _split(name, tuple(_MATRICES))
        theirs = f"{_PREFIX}{_to_original(module.removeprefix(_NATIVE_PREFIX))}"
        converted[f"{theirs}.{_MATRICES[matrix]}"] = value
        converted[f"{theirs}.alpha"] = torch.tensor(float(alpha))
    return converted


def from_kohya(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], int, float]:
    """Return an adapter in this project's layout, its rank and its alpha.

    Args:
        state: Weights in kohya's layout; VideoX-Fun's double underscore after "lora_unet" is read too.

    Returns:
        Weights by this project's names, rank, alpha.

    Raises:
        AdapterError: A key is unknown, a module lacks a matrix or its alpha, or modules differ in rank or alpha.
    """
    converted: dict[str, Tensor] = {}
    alphas: dict[str, float] = {}
    ranks: set[int] = set()
    for name, value in state.items():
        module, matrix = _split(name, (*_MATRICES_BACK, "alpha"))
        if not module.startswith(_PREFIX):
            raise AdapterError(f"'{name}' is not a key of a Wan adapter in kohya's layout (lora_unet_...).")
        ours = f"{_NATIVE_PREFIX}{_from_original(module.removeprefix(_PREFIX).removeprefix('_'))}"
        if matrix == "alpha":
            alphas[ours] = float(value)
            continue
        converted[f"{ours}.{_MATRICES_BACK[matrix]}"] = value
        ranks.add(value.shape[0] if matrix == "lora_down.weight" else value.shape[1])
    modules = {name.removesuffix(f".{matrix}") for name in converted for matrix in _MATRICES if name.endswith(matrix)}
    if len(converted) != 2 * len(modules) or set(alphas) != modules:
        raise AdapterError("The kohya file is incomplete: every module needs lora_down, lora_up and alpha.")
    if len(ranks) != 1 or len(set(alphas.values())) != 1:
        raise AdapterError(
            f"The kohya file mixes ranks {sorted(ranks)} or alphas {sorted(set(alphas.values()))}: one rank and one "
            "alpha for all modules are supported."
        )
    return converted, ranks.pop(), alphas.popitem()[1]


def targets_of(state: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Return the module name endings that an adapter in this project's layout attaches to."""
    endings = set()
    for name in state:
        module = _split(name, tuple(_MATRICES))[0].removeprefix(_NATIVE_PREFIX)
        inner = re.sub(r"^blocks\.\d+\.", "", module)
        endings.add(inner.split(".", 1)[1] if inner.startswith(("attn1.", "attn2.")) else inner)
    return tuple(sorted(endings))


def _split(name: str, suffixes: tuple[str, ...]) -> tuple[str, str]:
    """Return the module and which of its tensors a key names."""
    for suffix in suffixes:
        if name.endswith(f".{suffix}"):
            return name.removesuffix(f".{suffix}"), suffix
    raise AdapterError(f"'{name}' is not a LoRA weight: its name must end in one of {', '.join(suffixes)}.")


def _to_original(module: str) -> str:
    match = re.fullmatch(r"blocks\.(\d+)\.(.+)", module)
    if match is not None and match[2] in _IN_BLOCK:
        return f"blocks_{match[1]}_{_IN_BLOCK[match[2]]}"
    if module in _OUTSIDE_BLOCKS:
        return _OUTSIDE_BLOCKS[module]
    raise AdapterError(f"Module '{module}' has no name in the kohya layout of Wan text-to-video.")


def _from_original(module: str) -> str:
    match = re.fullmatch(r"blocks_(\d+)_(.+)", module)
    if match is not None and match[2] in _IN_BLOCK_BACK:
        return f"blocks.{match[1]}.{_IN_BLOCK_BACK[match[2]]}"
    if module in _OUTSIDE_BACK:
        return _OUTSIDE_BACK[module]
    raise AdapterError(f"Module '{module}' is not one of Wan text-to-video's.")
