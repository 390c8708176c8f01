"""Where a port finds its weights: a given path, a name of the ledger, or what VBench itself has downloaded."""

import os
from pathlib import Path

import torch
from huggingface_hub import try_to_load_from_cache

from rewards.errors import RewardError
from rewards.ledger import LEDGER
from rewards.weight_files import resolve, verify

CACHE_VARIABLE = "VBENCH_CACHE_DIR"
"""Environment variable: VBench's own folder of weights."""
CACHED: dict[str, tuple[str, ...]] = {
    "aesthetic_linear": ("vbench/aesthetic_model/emb_reader/sa_0_4_vit_l_14_linear.pth",),
    "dino_vit_b_16": ("vbench/dino_model/dino_vitbase16_pretrain.pth", "hub/checkpoints/dino_vitbase16_pretrain.pth"),
    "dinov2_vit_b_14": ("hub/checkpoints/dinov2_vitb14_pretrain.pth",),
    "openai_clip_vit_b_32": ("vbench/clip_model/ViT-B-32.pt", "clip/ViT-B-32.pt"),
    "openai_clip_vit_l_14": ("vbench/clip_model/ViT-L-14.pt", "clip/ViT-L-14.pt"),
    "raft_things": ("vbench/raft_model/models/raft-things.pth",),
}
"""Name in the ledger -> where VBench or the packages under it keep the file: below VBench's folder, torch.hub's, or
the folder of OpenAI's package clip."""


def find_weights(weights: str | Path) -> Path:
    """Return the file that `weights` means, its size and hash checked where a ledger's name is given.

    Args:
        weights: Path of a file, or a name of `rewards.ledger.LEDGER`. What is not on the Hub is looked for where VBench
            keeps it.

    Raises:
        RewardError: No such file or name, or size or hash differ from the ledger's.
    """
    name = str(weights)
    if name not in LEDGER or LEDGER[name].repository is not None:
        return resolve(weights)
    places = cached_places(name)
    for path in places:
        if path.is_file():
            verify(path, LEDGER[name])
            return path
    try:
        return resolve(weights)
    except RewardError as error:
        looked = " or ".join(str(path) for path in places)
        raise RewardError(f"{error} Or save it as {looked}, where it is found by itself.") from error


def cached_weights(name: str) -> Path | None:
    """Return a file of the ledger where the Hub's cache or VBench's own folder holds it, None where neither does."""
    entry = LEDGER[name]
    if entry.repository is None:
        return next((path for path in cached_places(name) if path.is_file()), None)
    found = try_to_load_from_cache(entry.repository, entry.file)
    return Path(found) if isinstance(found, str) else None


def cached_places(name: str) -> list[Path]:
    """Return where a file of the ledger is looked for; empty for those that VBench does not use."""
    folders = {
        "vbench": Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "vbench"),
        "hub": Path(torch.hub.get_dir()),
        "clip": Path.home() / ".cache" / "clip",
    }
    return [folders[folder] / rest for folder, _, rest in (name.partition("/") for name in CACHED.get(name, ()))]
