"""Random weights for benchmarks/evaluation_speed.py, in the files that VBench and our ports read: one for all sides."""

import gzip
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import torch
from reward_speed import clip_tokenizer
from torch import Tensor, nn

from evaluation.ports.amt import AmtS
from evaluation.ports.musiq import Musiq, MusiqSizes
from evaluation.ports.random_weights import (
    VIT_B_32,
    VIT_L_14,
    ClipSizes,
    aesthetic_state,
    clip_state,
    dino_state,
    write_torchscript,
)
from evaluation.ports.viclip import ViClip, ViClipSizes
from rewards import random_weights
from rewards.raft import Raft
from rewards.workers.process import WorkerProcess
from rewards.workers.vbench_cache import DINO_CODE, FILES

MERGES = ["c a", "ca t</w>", "r u", "ru n", "run s</w>"]
"""Of the stand-in vocabulary, where the environment with OpenAI's is not there."""
FLOW_SCALE = 0.02
"""Of RAFT's last layer: brings the flow of random weights to VBench's threshold."""


def write_weights(
    cache: Path, dimensions: Collection[str], *, small: bool, python: Path | None, dino: Path | None
) -> Path:
    """Write the weight files of ported dimensions into a folder in VBench's layout; one that is there is kept.

    Args:
        cache: The folder.
        dimensions: Whose files are needed.
        small: Narrow networks (RAFT and AMT have one size) in place of the published sizes.
        python: Interpreter of the original's environment, whose own RAFT writes its file; None writes ours, which the
            ports read alike.
        dino: Checkout of DINO's code, which the original runs.

    Returns:
        Folder of CLIP's tokenizer.
    """
    vocabulary = cache / "ViCLIP" / "bpe_simple_vocab_16e6.txt.gz"
    vocabulary.parent.mkdir(parents=True, exist_ok=True)
    if python is None:
        vocabulary.write_bytes(gzip.compress("\n".join(["#version", *MERGES]).encode()))
    else:
        (packed,) = python.parents[1].glob(f"lib/python*/site-packages/clip/{vocabulary.name}")
        vocabulary.write_bytes(packed.read_bytes())
    num_words = 49408 if python else 512 + len(MERGES) + 2
    narrow = ClipSizes(width=128, layers=2, text_width=128, text_layers=2, embed_dim=768, num_words=num_words)
    musiq = MusiqSizes(width=128, inner=96, layers=2, grid=10) if small else MusiqSizes(384, 1152, 14, 10)
    writers: dict[str, Callable[[Path], None]] = {
        "openai_clip_vit_b_32": lambda path: write_torchscript(path, clip_state(narrow if small else VIT_B_32)),
        "openai_clip_vit_l_14": lambda path: write_torchscript(path, clip_state(narrow if small else VIT_L_14)),
        "aesthetic_linear": lambda path: torch.save(aesthetic_state(), path),
        "dino_vit_b_16": lambda path: torch.save(dino_state(width=128, depth=2) if small else dino_state(), path),
        "amt_s": lambda path: torch.save({"state_dict": _random_state(AmtS())}, path),
        "musiq_spaq": lambda path: torch.save(_random_state(Musiq(musiq)), path),
        "viclip_l_14": lambda path: torch.save({"model": _random_state(ViClip(_viclip(num_words, small=small)))}, path),
        "raft_things": lambda path: _write_raft(path, python),
    }
    for name, file in sorted({entry for dimension in dimensions for entry in FILES.get(dimension, ())}):
        if not (cache / file).is_file():
            (cache / file).parent.mkdir(parents=True, exist_ok=True)
            writers[name](cache / file)
    if dino is not None and not (cache / DINO_CODE).exists():
        (cache / DINO_CODE).parent.mkdir(exist_ok=True)
        (cache / DINO_CODE).symlink_to(dino.resolve())
    return clip_tokenizer(vocabulary, cache / "tokenizer")


def _viclip(num_words: int, *, small: bool) -> ViClipSizes:
    width, layers = (128, 2) if small else (1024, 24)
    text_width, text_layers = (128, 2) if small else (768, 12)
    return ViClipSizes(
        vision_width=width,
        vision_layers=layers,
        patch_size=14,
        grid=16,
        num_frames=8,
        text_width=text_width,
        text_layers=text_layers,
        num_tokens=32,
        vocabulary=num_words,
        embedding=768,
    )


def _write_raft(path: Path, python: Path | None) -> None:
    """Write RAFT's file, under the original's names where its own code is there to name them."""
    if python is None:
        torch.save(_random_state(Raft()), path)
    else:
        scorer = Path(random_weights.__file__).parent / "workers" / "vbench_scorer.py"
        with WorkerProcess(
            python, scorer=scorer, settings={"device": "cpu"}, worker="vbench", deadline_s=900.0
        ) as process:
            np.save(process.folder / "no_frames.npy", np.zeros(0))
            request = {
                "frames": str(process.folder / "no_frames.npy"),
                "prompts": [],
                "config": {"model": "raft_things"},
                "seed": 0,
                "random_weights": random_weights.__file__,
                "out": str(process.folder),
                "save_weights": str(path),
            }
            process.request("parity", request, deadline_s=900.0)
    state = torch.load(path, weights_only=True)
    for name in state:
        if ".flow_head.conv2." in name:
            state[name] *= FLOW_SCALE
    torch.save(state, path)


def _random_state(model: nn.Module) -> dict[str, Tensor]:
    return {
        name: torch.from_numpy(random_weights.random_array(name, tuple(value.shape))).to(value.dtype)
        for name, value in model.state_dict().items()
    }
