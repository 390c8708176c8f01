"""What the original VBench reads from its cache folder, dimension by dimension, and what of it is missing.

The package downloads what it misses in the middle of a run, some of it from addresses that are dead; here nothing is
downloaded, and what is missing is said before anything runs.
"""

import os
from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from rewards.ledger import LEDGER
from rewards.workers.environments import Environment

CACHE_VARIABLE = "VBENCH_CACHE_DIR"
CLIP_B = ("openai_clip_vit_b_32", "clip_model/ViT-B-32.pt")
GRIT = ("grit_b", "grit_model/grit_b_densecap_objectdet.pth")
VICLIP = ("viclip_l_14", "ViCLIP/ViClip-InternVid-10M-FLT.pth")
FILES: dict[str, tuple[tuple[str, str], ...]] = {
    "subject_consistency": (("dino_vit_b_16", "dino_model/dino_vitbase16_pretrain.pth"),),
    "background_consistency": (CLIP_B,),
    "temporal_flickering": (),
    "motion_smoothness": (("amt_s", "amt_model/amt-s.pth"),),
    "dynamic_degree": (("raft_things", "raft_model/models/raft-things.pth"),),
    "aesthetic_quality": (
        ("openai_clip_vit_l_14", "clip_model/ViT-L-14.pt"),
        ("aesthetic_linear", "aesthetic_model/emb_reader/sa_0_4_vit_l_14_linear.pth"),
    ),
    "imaging_quality": (("musiq_spaq", "pyiqa_model/musiq_spaq_ckpt-358bb6af.pth"),),
    "object_class": (GRIT,),
    "multiple_objects": (GRIT,),
    "human_action": (("umt_l_16", "umt_model/l16_ptk710_ftk710_ftk400_f16_res224.pth"),),
    "color": (GRIT,),
    "spatial_relationship": (GRIT,),
    "scene": (("tag2text_swin", "caption_model/tag2text_swin_14m.pth"),),
    "appearance_style": (CLIP_B,),
    "temporal_style": (VICLIP,),
    "overall_consistency": (VICLIP,),
}
"""Dimension -> (name in the ledger, path in the cache folder) of each file; the order is that of vbench_scorer.py."""
DINO_CODE = "dino_model/facebookresearch_dino_main"
"""Clone of github.com/facebookresearch/dino, which subject consistency runs."""
BERT = {
    "scene": ("vocab.txt", "config.json"),
    **{name: ("vocab.txt",) for name, files in FILES.items() if GRIT in files},
}
"""Dimension -> files of the Hub's bert-base-uncased that it reads besides; scene also its weights."""
DETECTORS = tuple(name for name, files in FILES.items() if GRIT in files)
"""Dimensions that need detectron2."""
_ABOUT_MB = {"amt_s": 12, "dino_vit_b_16": 343, "grit_b": 834, "musiq_spaq": 108, "raft_things": 21}
_ABOUT_MB |= {"tag2text_swin": 4500, "umt_l_16": 1230, "viclip_l_14": 1710}
"""Sizes where the ledger states none: the model's parameters times four bytes; Tag2Text's from memory."""


def vbench_cache(folder: str | Path | None = None) -> Path:
    """Return VBench's folder of weights: the given one, `VBENCH_CACHE_DIR`, or ~/.cache/vbench."""
    given = folder or os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "vbench"
    return Path(given).expanduser().absolute()


def missing(dimension: str, cache: Path, environment: Environment | None) -> list[str]:
    """Return what a dimension lacks, each with its size, where it comes from and where it goes; empty for nothing.

    Args:
        dimension: A key of `FILES`.
        cache: VBench's folder of weights.
        environment: The worker's; None leaves it out of the question.
    """
    lacks = [_absent_file(name, cache / path) for name, path in FILES[dimension] if not (cache / path).is_file()]
    code = cache / DINO_CODE
    if dimension == "subject_consistency" and not (code / "hubconf.py").is_file():
        lacks.append(f"DINO's code: `git clone https://github.com/facebookresearch/dino {code}`")
    bert = [file for file in BERT.get(dimension, ()) if not _is_cached(file)]
    if dimension == "scene" and not any(_is_cached(file) for file in ("model.safetensors", "pytorch_model.bin")):
        bert.append("its weights")
    if bert:
        size = "440 MB" if dimension == "scene" else "0.2 MB"
        lacks.append(f"{' and '.join(bert)} of bert-base-uncased ({size}): `hf download bert-base-uncased`")
    if dimension in DETECTORS and environment is not None and not environment.has("detectron2"):
        lacks.append("detectron2, which is built from source: `rlhf-video rewards env create vbench --with detectron2`")
    return lacks


def _absent_file(name: str, path: Path) -> str:
    entry = LEDGER[name]
    megabytes = f"{entry.size / 1e6:,.3g} MB" if entry.size else f"about {_ABOUT_MB[name]:,} MB"
    url = entry.url or f"https://huggingface.co/{entry.repository}/resolve/main/{entry.file}"
    if url.endswith(".zip"):
        archive = path.parents[1] / Path(url).name
        get = f"`curl -L --create-dirs -C - -o {archive} {url} && unzip -d {path.parents[1]} {archive}`"
    else:
        get = f"`curl -L --create-dirs -C - -o {path} {url}`"
    return f"{path.name} ({megabytes}, licence {entry.licence}): {get}"


def _is_cached(file: str) -> bool:
    return isinstance(try_to_load_from_cache("bert-base-uncased", file), str)
