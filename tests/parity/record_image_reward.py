"""Record what the package image-reward 1.5 computes with regenerated random weights, into golden/image_reward.json.

Run it in an environment of the package (Python 3.11: image-reward 1.5 without its dependencies, transformers 4.55.4,
timm 0.6.13, fairscale 0.4.13, openai-clip 1.0.1, setuptools < 81, a torchvision that imports):

    PYTHONPATH=. python tests/parity/record_image_reward.py

`summarise` takes the arrays by name; whoever else runs the original (a worker) can compare by it with the same file.
"""

import json
import platform
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from rewards.random_weights import random_array

GOLDEN = Path(__file__).parent / "golden" / "image_reward.json"
SEED = 0
VISION = {"embed_dim": 64, "depth": 3, "num_heads": 4}
TEXT = {
    "model_type": "bert",
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "vocab_size": 32,
    "pad_token_id": 0,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "encoder_width": 64,
    "add_cross_attention": True,
}
"""The fields of med_config.json, smaller."""
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = ("a", "red", "blue", "green", "yellow", "circle", "square", "star", "moving", "left", "right", "up", "down")
WORDS = (*WORDS, "the", "of", "on", "and", "fast", "slow", "##s", "##ing", ",", ".", "big", "small")
"""A stand-in for BERT's vocabulary: with the special tokens and BLIP's two it has `vocab_size` entries."""
PROMPTS = (
    "A red circle moving left",
    "the big blue square, and a small star on the right.",
    "a green star moving up fast, a yellow circle moving down slow, the red circles on the left and the blue squares "
    "on the right moving right and left and up and down, fast and slow",  # more than 35 tokens
)
SIZES = {"square": (224, 224), "wide": (150, 260)}
"""Height and width: one that needs no resizing, one that is resized and cropped."""


def write_tokenizer(folder: Path) -> Path:
    """Write the stand-in tokenizer as `BertTokenizer` reads it, and return its folder."""
    folder.mkdir(exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join((*SPECIAL, *WORDS)) + "\n")
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def make_frames(case: str) -> np.ndarray:
    """Return the pictures of a case, (prompts, height, width, 3), 8 bit: coarse blocks under fine noise.

    The last one is nearly flat, so that a layer norm's epsilon shows.
    """
    height, width = SIZES[case]
    count, block = len(PROMPTS), 20
    rows, columns = -(-height // block), -(-width // block)
    coarse = _uniform(f"{case}/coarse", (count, rows, columns, 3)).repeat(block, axis=1).repeat(block, axis=2)
    fine = _uniform(f"{case}/fine", (count, height, width, 3))
    pictures = 0.7 * coarse[:, :height, :width] + 0.3 * fine
    pictures[-1] = 0.45 + 0.02 * pictures[-1]
    return np.round(255 * pictures).astype(np.uint8)


def _uniform(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return numbers in [0, 1], the same on every machine."""
    noise = random_array(key, (int(np.prod(shape)),), SEED).astype(np.float64)  # a vector: 0.2 times uniform
    return (noise / 0.4 + 0.5).reshape(shape)


def run_original(case: str) -> tuple[dict[str, np.ndarray], dict[str, tuple[int, ...]]]:
    """Build the package's model at reduced size and run it on the pictures of a case.

    Returns:
        Arrays: `tokens`, `tensor_preprocessed` (the package's transform of float tensors), `image_features`,
        `features` (what the head reads), `tensor_score`, `pixel_gradient` (of the sum of the scores),
        `preprocessed` and `package_score` (8-bit pictures, the package's `score`); and names and shapes of its state.
    """
    import torch
    from ImageReward.ImageReward import MLP, ImageReward
    from ImageReward.models.BLIP import blip, blip_pretrain
    from ImageReward.models.BLIP.vit import VisionTransformer
    from PIL import Image
    from transformers import BertTokenizer

    class StandIn:
        """Takes the place of the class whose vocabulary the package downloads."""

        @staticmethod
        def from_pretrained(_name: str) -> Any:
            return BertTokenizer.from_pretrained(folder)

    def create_vit(_vit: str, image_size: int, *_: Any) -> Any:
        return VisionTransformer(img_size=image_size, patch_size=16, **VISION), VISION["embed_dim"]

    with tempfile.TemporaryDirectory() as folder:
        write_tokenizer(Path(folder))
        Path(folder, "med_config.json").write_text(json.dumps(TEXT))
        blip_pretrain.create_vit, blip.BertTokenizer = create_vit, StandIn
        model = ImageReward(med_config=f"{folder}/med_config.json", device="cpu")
    model.mlp = MLP(TEXT["hidden_size"])  # the package fixes 768
    state = model.state_dict()
    drawn = {
        key: torch.from_numpy(random_array(key, value.shape, SEED))
        for key, value in state.items()
        if value.is_floating_point()
    }
    model.load_state_dict({**state, **drawn})
    model.eval()

    kept: dict[str, Any] = {}
    model.blip.visual_encoder.register_forward_hook(lambda _m, _i, output: kept.update(image_features=output))
    model.mlp.register_forward_pre_hook(lambda _m, inputs: kept.update(features=inputs[0]))
    frames = make_frames(case)
    pictures = [Image.fromarray(frame) for frame in frames]
    kept["package_score"] = torch.tensor([model.score(*pair) for pair in zip(PROMPTS, pictures, strict=True)])
    kept["preprocessed"] = torch.stack([model.preprocess(picture) for picture in pictures])
    text = model.blip.tokenizer(
        list(PROMPTS), padding="max_length", truncation=True, max_length=35, return_tensors="pt"
    )
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float().div(255).requires_grad_()
    resize, crop, _, _, normalise = model.preprocess.transforms
    kept["tensor_preprocessed"] = normalise(crop(resize(pixels)))
    score = model.score_gard(text.input_ids, text.attention_mask, kept["tensor_preprocessed"])[:, 0]
    kept |= {"tokens": text.input_ids, "tensor_score": score}
    (kept["pixel_gradient"],) = torch.autograd.grad(score.sum(), pixels)
    arrays = {name: value.detach().numpy() for name, value in kept.items()}
    return arrays, {key: tuple(value.shape) for key, value in state.items()}


def summarise(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return the numbers that are kept of a case: all scores and features, samples and norms of what is large."""
    kept: dict[str, Any] = {"tokens": arrays["tokens"].tolist()}
    kept |= {name: _rounded(arrays[name]) for name in ("tensor_score", "package_score", "features")}
    for name in ("preprocessed", "tensor_preprocessed", "image_features", "pixel_gradient"):
        kept[name] = {"norms": _rounded(norms(arrays[name])), "samples": _rounded(samples(arrays[name]))}
    return kept


def norms(array: np.ndarray) -> np.ndarray:
    """Return the Euclidean norm of each row."""
    return np.sqrt((array.reshape(len(array), -1).astype(np.float64) ** 2).sum(axis=1))


def samples(array: np.ndarray, count: int = 32) -> np.ndarray:
    """Return `count` entries of each row, evenly spread with an odd step so that all channels and columns occur."""
    flat = array.reshape(len(array), -1)
    step = flat.shape[1] // count | 1
    return flat[:, np.arange(count) * step % flat.shape[1]]


def _rounded(array: np.ndarray) -> Any:
    return [float(f"{value:.9g}") if np.ndim(value) == 0 else _rounded(value) for value in array]


def main() -> None:
    """Write the file."""
    from importlib.metadata import version

    packages = ("image-reward", "transformers", "timm", "torch", "torchvision", "numpy", "pillow")
    golden: dict[str, Any] = {
        "made_by": "tests/parity/record_image_reward.py",
        "packages": {name: version(name) for name in packages} | {"python": platform.python_version()},
        "cases": {},
    }
    for case in SIZES:
        arrays, state = run_original(case)
        golden["state"] = {key: list(shape) for key, shape in state.items()}
        golden["cases"][case] = summarise(arrays)
    GOLDEN.write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
