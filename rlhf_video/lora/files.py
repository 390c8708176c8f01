"""Adapter files: `pytorch_lora_weights.safetensors`, which plain `WanPipeline.load_lora_weights` reads.

The header carries what diffusers needs to rebuild the adapter (rank and alpha: without them a loader takes
alpha = rank) and, under a key of our own, the base, the attention plan (plain values, read and compared by the
backbone; "full" where attention was dense) and where the adapter comes from.
A two-expert model has a second file, for
`load_lora_weights(folder, weight_name="pytorch_lora_weights_2.safetensors", load_into_transformer_2=True)`
(a subfolder would not do: for a local folder diffusers 0.42.1 takes the file of the same name above it).
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from rlhf_video.data import write_atomic
from rlhf_video.errors import AdapterError
from rlhf_video.lora.adapter import Adaptable, LoraConfig, attach, check_bare, load_adapter_state

WEIGHT_NAME = "pytorch_lora_weights.safetensors"
SECOND_WEIGHT_NAME = "pytorch_lora_weights_2.safetensors"
METADATA_KEY = "rlhf_video"
DENSE = "full"
"""Stands in the header for the attention plan of an adapter that was trained with dense attention."""
AttentionRule = Literal["check", "apply", "ignore"]
"""When an adapter was trained under another attention plan than the backbone runs: refuse, take its plan, or warn."""
_MAIN, _SECOND = "transformer", "transformer_2"


class Plannable(Adaptable, Protocol):
    """What saving and loading need of a backbone; plans are plain values in this room."""

    def attention_record(self) -> Mapping[str, object] | None:
        """Return the attention plan in use as JSON values; None where attention is dense."""
        ...

    def match_attention(self, recorded: Mapping[str, object] | None, rule: AttentionRule) -> None:
        """Compare an adapter's record with the plan in use and follow the rule; AdapterError where it refuses."""
        ...


def save_adapter(
    folder: Path,
    state: Mapping[str, Tensor],
    *,
    backbone: Plannable,
    config: LoraConfig,
    metadata: Mapping[str, object] | None = None,
) -> Path:
    """Write an adapter folder; each file appears complete or not at all.

    The attention plan that the backbone runs goes into the header.

    Args:
        folder: Where to write; made if missing.
        state: Weights as `adapter_state` names them.
        backbone: The model they belong to, as it was trained.
        config: Size and place of the adapter.
        metadata: Plain values for the header, for example {"base": "assets/sprite-wan"}.

    Returns:
        The path of the main weight file.
    """
    own: dict[str, object] = {
        "attention_plan": backbone.attention_record() or DENSE,
        **(metadata or {}),
        "rank": config.rank,
        "alpha": config.alpha,
        "targets": list(config.targets or backbone.spec.lora_targets),
        "format": 1,
    }
    for component, file_name in ((_MAIN, WEIGHT_NAME), (_SECOND, SECOND_WEIGHT_NAME)):
        part = {
            f"{_MAIN}.{name.removeprefix(f'{component}.')}": value
            for name, value in state.items()
            if name.startswith(f"{component}.")
        }
        if part:
            save_state(folder / file_name, part, {**own, "component": component})
    return folder / WEIGHT_NAME


def save_state(file: Path, state: Mapping[str, Tensor], metadata: Mapping[str, object]) -> None:
    """Write one transformer's adapter with the header that diffusers and this project read.

    Args:
        file: Target.
        state: Weights by names such as "transformer.blocks.0.attn1.to_q.lora_A.weight".
        metadata: Must hold rank, alpha and targets.
    """
    peft_settings = {
        f"{_MAIN}.r": metadata["rank"],
        f"{_MAIN}.lora_alpha": metadata["alpha"],
        f"{_MAIN}.target_modules": metadata["targets"],
        f"{_MAIN}.lora_dropout": 0.0,
        f"{_MAIN}.bias": "none",
    }
    header = {
        "format": "pt",
        LORA_ADAPTER_METADATA_KEY: json.dumps(peft_settings, sort_keys=True),
        METADATA_KEY: json.dumps(metadata, sort_keys=True),
    }
    write_safetensors(file, {name: value.contiguous() for name, value in state.items()}, header)


def write_safetensors(file: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> None:
    """Write a safetensors file, whole or not at all.

    Raises:
        OSError: The disk is full (errno ENOSPC, with the file name) or cannot be written; an older file is intact.
    """
    # Through memory: safetensors' own file writer turns a full disk into a SafetensorError without errno.
    write_atomic(file, save(dict(tensors), dict(header)))


def load_adapter(backbone: Plannable, folder: str | Path, *, attention: AttentionRule = "check") -> dict[str, Any]:
    """Attach the adapter of a folder to a backbone that has none.

    Args:
        backbone: The base model.
        folder: Adapter folder, or its main weight file.
        attention: Where the adapter was trained under another attention plan than the backbone runs (none is one of
            them): "check" refuses, "apply" puts the adapter's plan on the backbone, "ignore" logs a warning.

    Returns:
        The adapter's metadata (rank, alpha, targets, base, attention_plan, ...).

    Raises:
        AdapterError: The file is missing or damaged, has no metadata, or does not fit the backbone or its attention.
        ConfigError: The recorded attention plan does not fit the backbone.
    """
    state, metadata = read_adapter_folder(folder)
    check_bare(backbone)  # before the plan changes: the adapter that is there would run under the wrong one
    backbone.match_attention(recorded_attention(metadata), attention)
    attach(backbone, trained_size(metadata), seed=0)
    load_adapter_state(backbone, state)
    return metadata


def trained_size(metadata: Mapping[str, Any]) -> LoraConfig:
    """Return rank, alpha and targets of an adapter from its metadata."""
    return LoraConfig(rank=int(metadata["rank"]), alpha=float(metadata["alpha"]), targets=tuple(metadata["targets"]))


def read_adapter_folder(folder: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the weights of an adapter folder as `adapter_state` names them, both experts', and the metadata.

    Raises:
        AdapterError: As `load_adapter`, for the files alone.
    """
    main = adapter_file(folder)
    state, metadata = read_adapter(main)
    second = main.parent / SECOND_WEIGHT_NAME
    if second.is_file():
        state |= {
            f"{_SECOND}.{name.removeprefix(f'{_MAIN}.')}": value for name, value in read_adapter(second)[0].items()
        }
    return state, metadata


def adapter_file(folder: str | Path) -> Path:
    """Return the main weight file of an adapter folder.

    Raises:
        AdapterError: There is none.
    """
    path = Path(folder)
    file = path / WEIGHT_NAME if path.is_dir() else path
    if not file.is_file():
        raise AdapterError(f"There is no adapter at '{folder}': a folder with {WEIGHT_NAME} is needed.")
    return file


def adapter_sha256(folder: str | Path) -> str:
    """Return the sha256 of an adapter's weights, in hex: of its file, or of its two files one after the other."""
    main = adapter_file(folder)
    digest = hashlib.sha256(main.read_bytes())
    if (second := main.parent / SECOND_WEIGHT_NAME).is_file():
        digest.update(second.read_bytes())
    return digest.hexdigest()


def read_adapter_metadata(folder: str | Path) -> dict[str, Any]:
    """Return the metadata that `save_adapter` wrote.

    Raises:
        AdapterError: The file is missing, damaged, or was not written by this project.
    """
    return read_adapter(adapter_file(folder))[1]


def recorded_attention(metadata: Mapping[str, Any]) -> Mapping[str, object] | None:
    """Return the attention plan in an adapter's metadata, as JSON values; None where it was trained dense.

    Raises:
        AdapterError: The entry is neither a plan nor "full".
    """
    recorded = metadata.get("attention_plan", DENSE)
    if recorded == DENSE:
        return None
    if not isinstance(recorded, Mapping):
        raise AdapterError(f"The adapter names an attention plan {recorded!r} that is not known: 'full' or its values.")
    return recorded


def read_adapter(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the weights and the metadata of one adapter file.

    Raises:
        AdapterError: The file is damaged or carries no rank and alpha.
    """
    try:
        with safe_open(file, framework="pt") as handle:
            header = handle.metadata() or {}
            state = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise AdapterError(f"{file} is not a readable safetensors file: {error}") from error
    if METADATA_KEY not in header:
        raise AdapterError(
            f"{file} carries no rank and alpha of this project: convert it first (publish.py reads kohya files)."
        )
    return state, cast("dict[str, Any]", json.loads(header[METADATA_KEY]))
