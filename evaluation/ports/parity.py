"""The same random weights for a port and for the original package, at the original's full size."""

from pathlib import Path

import torch

from evaluation.base import Metric
from evaluation.ports.aesthetic_quality import AestheticQuality
from evaluation.ports.appearance_style import AppearanceStyle
from evaluation.ports.background_consistency import BackgroundConsistency
from evaluation.ports.random_weights import (
    VIT_B_32,
    VIT_L_14,
    ClipSizes,
    aesthetic_state,
    clip_state,
    dino_state,
    write_torchscript,
)
from evaluation.ports.subject_consistency import SubjectConsistency
from evaluation.ports.temporal_flickering import TemporalFlickering
from rlhf_video.errors import ConfigError

DIMENSIONS = (
    "temporal_flickering",
    "subject_consistency",
    "background_consistency",
    "aesthetic_quality",
    "appearance_style",
)
"""What `parity_case` knows."""


def parity_case(dimension: str, cache: Path, *, tokenizer: Path | None = None) -> Metric:
    """Write random weights where VBench reads them, and return the port that reads the same files.

    Args:
        dimension: One of `DIMENSIONS`.
        cache: VBench's folder of weights (VBENCH_CACHE_DIR); a file that is there already is kept. DINO's goes to
            dino_model/; the original reads it from the checkpoints of torch.hub.
        tokenizer: Folder of CLIP's tokenizer with the full vocabulary, which appearance style needs.

    Raises:
        ConfigError: Another dimension, or no tokenizer where one is needed.
    """
    if dimension == "temporal_flickering":
        return TemporalFlickering()
    if dimension == "subject_consistency":
        dino = cache / "dino_model" / "dino_vitbase16_pretrain.pth"
        if not dino.is_file():
            dino.parent.mkdir(parents=True, exist_ok=True)
            torch.save(dino_state(), dino)
        return SubjectConsistency(dino)
    if dimension == "background_consistency":
        return BackgroundConsistency(_clip(cache, "ViT-B-32.pt", VIT_B_32))
    if dimension == "aesthetic_quality":
        head = cache / "aesthetic_model" / "emb_reader" / "sa_0_4_vit_l_14_linear.pth"
        head.parent.mkdir(parents=True, exist_ok=True)
        torch.save(aesthetic_state(), head)
        return AestheticQuality(head, clip_weights=_clip(cache, "ViT-L-14.pt", VIT_L_14))
    if dimension == "appearance_style" and tokenizer is not None:
        return AppearanceStyle(_clip(cache, "ViT-B-32.pt", VIT_B_32), tokenizer=tokenizer)
    raise ConfigError(
        f"There is no parity case for '{dimension}' (appearance_style needs a tokenizer). "
        f"Known: {', '.join(DIMENSIONS)}."
    )


def _clip(cache: Path, file: str, sizes: ClipSizes) -> Path:
    path = cache / "clip_model" / file
    if not path.is_file():
        write_torchscript(path, clip_state(sizes))
    return path
