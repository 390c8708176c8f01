"""Record what the original VBench computes, on random weights: writes tests/parity/golden/vbench_clip.json.

Run it with a checkout of github.com/facebookresearch/dino, in an environment with torch, torchvision, decord, opencv
and the packages vbench and openai-clip (which needs setuptools<81); torchvision must import:

    PYTHONPATH=. python tests/parity/record_vbench_clip.py path/to/dino

Five dimensions by VBench's own functions, on frames that bypass its decoders: small models on clips of several shapes,
and one clip with the full models. Weights and clips come from evaluation/ports/random_weights.py; the test makes the
same from them.
"""

import gzip
import importlib
import json
import sys
import tempfile
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import clip
import numpy as np
import torch
from recording import samples, versions

from evaluation.ports.random_weights import (
    VIT_B_32,
    VIT_L_14,
    ClipSizes,
    aesthetic_state,
    clip_state,
    dino_state,
    random_clip,
    write_torchscript,
)

GOLDEN = Path(__file__).parent / "golden" / "vbench_clip.json"
SHAPES = {"landscape": (4, 300, 534), "portrait": (3, 400, 260), "square": (3, 224, 224), "small": (3, 48, 85)}
"""Frames, height, width. DINO drops columns of all but the square; 300x534 is reduced, 48x85 enlarged."""
FULL = "landscape"
MERGES = ["s t", "st y", "sty l", "styl e</w>", "o i", "oi l</w>", "p a", "pa i", "pai n", "i n", "in g</w>", "v a"]
STYLES = ["Van Gogh style", "oil  painting &amp; “Ukiyo”"]
DINO = {"width": 128, "depth": 2}
CLIP = {"width": 128, "layers": 2, "text_width": 128, "text_layers": 2, "num_words": 512 + len(MERGES) + 2}
CLIP_B = ClipSizes(**CLIP, embed_dim=64)
CLIP_L = ClipSizes(**CLIP, embed_dim=768, patch_size=14)
"""LAION's head is 768 wide."""


def main(dino: Path) -> None:
    """Record and write."""
    sys.path.insert(0, str(dino))
    clips = {name: random_clip(name, *shape) for name, shape in SHAPES.items()}
    feed(clips)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        # The full models first: their styles need the package's own vocabulary.
        full = dimensions(Path(folder), [FULL], full=True)
        token_ids = {style: clip.tokenize([style])[0].tolist() for style in STYLES}
        use_short_vocabulary(Path(folder))
        golden = {
            "made_by": "tests/parity/record_vbench_clip.py",
            "versions": versions("vbench", "openai-clip", "torch", "torchvision", "opencv-python-headless", "pillow"),
            "shapes": SHAPES,
            "merges": MERGES,
            "styles": STYLES,
            "dino": DINO,
            "clip_b": asdict(CLIP_B),
            "clip_l": asdict(CLIP_L),
            "inputs": {name: inputs(frames) for name, frames in clips.items()},
            "small": dimensions(Path(folder), list(clips), full=False),
            "full": {"clip": FULL, "token_ids": token_ids, "dimensions": full},
        }
    GOLDEN.write_text(json.dumps(golden, indent=1) + "\n")


def feed(clips: dict[str, np.ndarray]) -> None:
    """Give VBench's functions frames where they ask for a file."""

    def load_video(name: str, return_tensor: bool = True) -> Any:
        return torch.Tensor(clips[name]).permute(0, 3, 1, 2) if return_tensor else clips[name]

    for module in ("subject_consistency", "background_consistency", "aesthetic_quality", "appearance_style"):
        importlib.import_module(f"vbench.{module}").load_video = load_video
    flickering = importlib.import_module("vbench.temporal_flickering")
    flickering.get_frames = lambda name: [np.ascontiguousarray(frame[..., ::-1]) for frame in clips[name]]  # BGR


def dimensions(folder: Path, names: list[str], *, full: bool) -> dict[str, Any]:
    """Return the values of all clips, by dimension and clip."""
    from vbench.aesthetic_quality import get_aesthetic_model, laion_aesthetic
    from vbench.background_consistency import background_consistency
    from vbench.subject_consistency import subject_consistency
    from vbench.temporal_flickering import temporal_flickering

    torch.save(aesthetic_state(), folder / "sa_0_4_vit_l_14_linear.pth")
    head = get_aesthetic_model(str(folder))
    tower_b, _ = load_clip(folder, VIT_B_32 if full else CLIP_B)
    tower_l, _ = load_clip(folder, VIT_L_14 if full else CLIP_L)
    backbone = load_dino(full)
    found = {
        "temporal_flickering": temporal_flickering(names)[1],
        "subject_consistency": subject_consistency(backbone, names, "cpu", False)[1],
        "background_consistency": background_consistency(tower_b, None, names, "cpu", False)[1],
        "aesthetic_quality": laion_aesthetic(head, tower_l, names, "cpu")[1],
    }
    values = {dimension: by_clip(results) for dimension, results in found.items()}
    return {
        **values,
        "appearance_style": styles(tower_b, names),
        "features": features(backbone, tower_b, tower_l, names),
    }


def features(backbone: Any, tower_b: Any, tower_l: Any, names: list[str]) -> dict[str, Any]:
    """Return the features of each clip's first frame, by model and clip: random models see scores that lie close."""
    from vbench.utils import clip_transform, dino_transform

    def first(name: str) -> torch.Tensor:
        return torch.Tensor(random_clip(name, *SHAPES[name])[:1]).permute(0, 3, 1, 2)

    return {
        "dino": {name: samples(backbone(dino_transform(224)(first(name)))[0]) for name in names},
        "clip_b": {name: samples(tower_b.encode_image(clip_transform(224)(first(name)))[0]) for name in names},
        "clip_l": {name: samples(tower_l.encode_image(clip_transform(224)(first(name)))[0]) for name in names},
    }


def styles(tower: Any, names: list[str]) -> dict[str, Any]:
    """Return the frames' scores of each style, by clip."""
    from vbench.appearance_style import appearance_style

    values: dict[str, Any] = {}
    for style in STYLES:
        info = [{"auxiliary_info": {"appearance_style": style}, "video_list": names}]
        for result in appearance_style(tower, info, "cpu")[1]:
            values.setdefault(result["video_path"], {})[style] = result["frame_results"]
    return values


def by_clip(results: list[dict[str, Any]]) -> dict[str, float]:
    """Return the value of each clip."""
    return {result["video_path"]: float(result["video_results"]) for result in results}


def load_clip(folder: Path, sizes: ClipSizes) -> Any:
    """Return the original CLIP, read from an archive by its own loader."""
    path = folder / f"{sizes.patch_size}-{sizes.layers}.pt"
    write_torchscript(path, clip_state(sizes))
    return clip.load(str(path), device="cpu")


def load_dino(full: bool) -> Any:
    """Return the original DINO: its ViT-B/16, or a smaller one."""
    import vision_transformer

    if full:
        model = vision_transformer.vit_base(patch_size=16, num_classes=0)
        model.load_state_dict(dino_state())
        return model.eval()
    norm = partial(torch.nn.LayerNorm, eps=1e-6)
    sizes = {"embed_dim": DINO["width"], "depth": DINO["depth"], "num_heads": DINO["width"] // 64}
    model = vision_transformer.VisionTransformer(patch_size=16, qkv_bias=True, norm_layer=norm, **sizes)
    model.load_state_dict(dino_state(**DINO))
    return model.eval()


def inputs(frames: np.ndarray) -> dict[str, Any]:
    """Return what the models are given of the first frame."""
    from PIL import Image
    from vbench.utils import clip_transform, clip_transform_Image, dino_transform

    tensor = torch.Tensor(frames[:1]).permute(0, 3, 1, 2)
    made = {
        "clip_input": clip_transform(224)(tensor)[0],
        "clip_input_by_pillow": clip_transform_Image(224)(Image.fromarray(frames[0])),
        "dino_input": dino_transform(224)(tensor)[0],
    }
    return {name: {"shape": list(value.shape), **samples(value)} for name, value in made.items()}


def use_short_vocabulary(folder: Path) -> None:
    """Give the package's tokenizer a stand-in vocabulary."""
    from clip.simple_tokenizer import SimpleTokenizer

    path = folder / "merges.txt.gz"
    path.write_bytes(gzip.compress("\n".join(["#version", *MERGES]).encode()))
    clip.clip._tokenizer = SimpleTokenizer(bpe_path=str(path))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
