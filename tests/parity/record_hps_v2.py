"""Record what the original HPSv2 computes, on random weights of reduced depth: writes tests/parity/golden/hps_v2.json.

Run it in an environment of its own with torch, torchvision, ftfy, regex, and the packages hpsv2 (with its vocabulary
file, which the wheel lacks) and open_clip_torch; torchvision must import:

    PYTHONPATH=. python tests/parity/record_hps_v2.py

Weights and images come from rewards/random_weights.py and the seeds below; the test makes the same from them.
"""

import gzip
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from recording import samples, versions

from rewards.random_weights import random_array

GOLDEN = Path(__file__).parent / "golden" / "hps_v2.json"
MERGES = ["r e", "c i", "r c", "l e</w>", "re d</w>", "ci rc", "circ le</w>", "a n", "o v", "ov i", "m ovi", "n g</w>"]
VISION = {"image_size": 28, "layers": 2, "width": 32, "head_width": 16, "patch_size": 7}
TEXT = {"context_length": 16, "vocab_size": 512 + len(MERGES) + 2, "width": 24, "heads": 2, "layers": 2}
EMBED_DIM = 20
SIZES = {"landscape": (24, 40), "portrait": (50, 30), "small": (20, 20), "exact": (28, 28)}
PROMPTS = [
    "a red circle",
    "Moving  RED circle!",
    "it's a “red” circle",
    "a red circle moving left of a blue square and up",
]
NASTY = [
    "Caf\u0065\u0301 \u2018red\u2019 &amp;amp; &lt;b&gt;",
    "\ufb01re \uff21\uff22\u3000red",
    "red\u0007\tcircle\n\n moving",
    "\u00c9T\u00c9 \u4e2d\u6587 \U0001f600 12 don't I'LL",
    "\u201cred\u201d \u2014 circle\u2026",
]


def main() -> None:
    """Record and write."""
    from hpsv2.src.open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
    from hpsv2.src.open_clip.transform import image_transform

    model = CLIP(EMBED_DIM, CLIPVisionCfg(**VISION), CLIPTextCfg(**TEXT), output_dict=True).eval()
    shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
    state = {name: torch.from_numpy(random_array(name, shape)) for name, shape in shapes.items()}
    model.load_state_dict(state)
    transform = image_transform(VISION["image_size"], is_train=False, resize_longest_max=True)
    encode = short_tokenizer()
    token_ids = {prompt: encode(prompt) for prompt in PROMPTS + NASTY}
    images = {name: record_image(model, transform, name, encode) for name in SIZES}
    text = model.encode_text(torch.tensor([encode(prompt) for prompt in PROMPTS]), normalize=True)
    same = open_clip_difference(state, images)
    golden = {
        "made_by": "tests/parity/record_hps_v2.py",
        "versions": versions("hpsv2", "open_clip_torch", "torch", "torchvision", "ftfy"),
        "vision": VISION,
        "text": TEXT,
        "embed_dim": EMBED_DIM,
        "merges": MERGES,
        "shapes": shapes,
        "prompts": PROMPTS,
        "token_ids": token_ids,
        "text_features": text.tolist(),
        "images": images,
        "largest_difference_to_open_clip": same,
    }
    GOLDEN.write_text(json.dumps(golden, indent=1) + "\n")


def record_image(model: Any, transform: Any, name: str, encode: Any) -> dict[str, object]:
    """Return pixels, features, scores and the gradient of the first score with respect to the 8-bit image / 255."""
    array = image_array(name)
    official = transform(Image.fromarray(array))
    leaf = torch.from_numpy(array).movedim(-1, 0).float().div(255).requires_grad_()
    pixels = leaf
    for step in transform.transforms[2:]:  # after "convert to RGB" and ToTensor, which have no gradient
        pixels = step(pixels)
    assert torch.equal(official, pixels.detach())
    image_features = model.encode_image(pixels[None], normalize=True)
    text_features = model.encode_text(torch.tensor([encode(prompt) for prompt in PROMPTS]), normalize=True)
    scores = (image_features @ text_features.T)[0]
    (gradient,) = torch.autograd.grad(scores[0], leaf)
    return {
        "size": SIZES[name],
        "pixels": samples(pixels.detach()),
        "features": image_features[0].tolist(),
        "scores": scores.tolist(),
        "gradient": samples(gradient),
        "gradient_norm": float(gradient.norm()),
    }


def open_clip_difference(state: dict[str, torch.Tensor], images: Any) -> float:
    """Return the largest difference of image features between the package's own copy and open_clip itself."""
    from hpsv2.src.open_clip.transform import image_transform
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    model = CLIP(EMBED_DIM, CLIPVisionCfg(**VISION), CLIPTextCfg(**TEXT), output_dict=True).eval()
    model.load_state_dict(state)

    transform = image_transform(VISION["image_size"], is_train=False, resize_longest_max=True)
    differences = []
    for name, record in images.items():
        pixels = transform(Image.fromarray(image_array(name)))
        with torch.no_grad():
            features = model.encode_image(pixels[None], normalize=True)[0]
        differences.append(float((features - torch.tensor(record["features"])).abs().max()))
    return max(differences)


def image_array(name: str) -> np.ndarray:
    """Return an 8-bit image (height, width, 3): blocks of 4 pixels, so that the resize keeps contrast."""
    height, width = SIZES[name]
    coarse = random_array(f"image {name}", (1, -(-height // 4) * -(-width // 4) * 3))
    unit = coarse[0] / np.abs(coarse).max() * 0.5 + 0.5
    blocks = unit.reshape(-(-height // 4), -(-width // 4), 3).repeat(4, axis=0).repeat(4, axis=1)
    return np.round(blocks[:height, :width] * 255).astype(np.uint8)


def short_tokenizer() -> Any:
    """Return the package's own tokenizer with the stand-in vocabulary: prompt -> padded ids."""
    from hpsv2.src.open_clip import tokenizer

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "merges.txt.gz"
        path.write_bytes(gzip.compress("\n".join(["#version", *MERGES]).encode()))
        tokenizer._tokenizer = tokenizer.SimpleTokenizer(bpe_path=str(path))
    return lambda prompt: tokenizer.tokenize(prompt, context_length=TEXT["context_length"])[0].tolist()


if __name__ == "__main__":
    main()
