"""From a model folder (or Hub id) to a backbone, by the class its `model_index.json` names."""

from pathlib import Path

import torch

from rlhf_video.backbones.base import VideoBackbone
from rlhf_video.backbones.folders import find_folder, read_json
from rlhf_video.backbones.wan import WanBackbone
from rlhf_video.errors import BackboneError

_FAMILIES: dict[str, type[WanBackbone]] = {"WanPipeline": WanBackbone}


def load_backbone(
    path: str | Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    vae_dtype: torch.dtype = torch.float32,
    text_length: int | None = None,
) -> VideoBackbone:
    """Load a frozen text-to-video model.

    Args:
        path: Folder in diffusers' layout, or a Hub id such as "Wan-AI/Wan2.1-T2V-1.3B-Diffusers".
        device: Where transformer, VAE and text encoder run.
        dtype: Precision of transformer and text encoder.
        vae_dtype: Precision of the VAE; Wan's authors keep it in float32.
        text_length: Tokens prompts are padded to; None takes the folder's own default, else 512.

    Raises:
        BackboneError: The folder is missing, is not a pipeline folder, or holds a class this project does not know.
    """
    folder = find_folder(path)
    family = _FAMILIES[_class_name(folder)]
    return family.from_folder(
        folder, device=torch.device(device), dtype=dtype, vae_dtype=vae_dtype, text_length=text_length
    )


def meta_backbone(
    path: str | Path, *, dtype: torch.dtype = torch.float32, text_length: int | None = None
) -> VideoBackbone:
    """Build a model without memory or weights, from the config files alone, to read shapes and counts.

    Args:
        path: Folder with `model_index.json` and the components' `config.json` files.
        dtype: Precision the parameters report.
        text_length: As for `load_backbone`.

    Raises:
        BackboneError: As for `load_backbone`.
    """
    folder = find_folder(path)
    return _FAMILIES[_class_name(folder)].from_config(folder, dtype=dtype, text_length=text_length)


def _class_name(folder: Path) -> str:
    index = folder / "model_index.json"
    if not index.is_file():
        raise BackboneError(
            f"{folder} is not a pipeline folder: model_index.json is missing. Give the folder that "
            "WanPipeline.save_pretrained wrote (or its Hub download)."
        )
    name = str(read_json(index).get("_class_name"))
    if name not in _FAMILIES:
        raise BackboneError(
            f"{folder} holds a {name}; a text-to-video model of class {', '.join(sorted(_FAMILIES))} is needed."
        )
    return name
