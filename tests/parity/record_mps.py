"""Record what the original MPS computes, on random weights of reduced size: writes tests/parity/golden/mps.json.

Run it with a checkout of github.com/Kwai-Kolors/MPS, in an environment with torch, einops and transformers 4.47:

    PYTHONPATH=. python tests/parity/record_mps.py path/to/MPS

The original casts to half precision in the middle of its forward pass; here that is a cast to float, so that its sums
can be compared closely. Weights and images come from rewards/random_weights.py; the test makes the same from them.
"""

import importlib
import json
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image
from recording import samples, versions

from rewards.random_weights import random_array

GOLDEN = Path(__file__).parent / "golden" / "mps.json"
MERGES = ["r e", "c i", "r c", "l e</w>", "re d</w>", "ci rc", "circ le</w>", "g h", "gh t</w>", "l i", "li ght</w>"]
EMBED_DIM = 24
LOGIT_SCALE = 2.0
SIZE = 28
PROMPTS = ["a red circle", "light, red circle moving", "a blue square up"]
CONDITION = "light"
IMAGES = ("first", "second")
NUM_TOKENS = 12
TOKEN_SCALE = 8.0
"""Of the token embeddings: otherwise all tokens resemble the condition alike, and the mask would hide none."""
EVALUATION_THRESHOLD = 0.3
"""Of the authors' evaluation scripts; the forward pass of their model has 0.01."""


def main(checkout: Path) -> None:
    """Record and write."""
    torch.Tensor.half = torch.Tensor.float  # see the top of this file
    sys.path.insert(0, str(checkout))
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = write_tokenizer(Path(folder))
        model = build(Path(folder), tokenizer, load_model_module(checkout))
        strict = build(Path(folder), tokenizer, load_model_module(checkout, threshold=EVALUATION_THRESHOLD))
    prompts = {prompt: tokenize(tokenizer, prompt) for prompt in [*PROMPTS, CONDITION]}
    golden = {
        "made_by": "tests/parity/record_mps.py",
        "versions": versions("transformers", "torch", "einops"),
        "config": config_values(tokenizer),
        "merges": MERGES,
        "token_scale": TOKEN_SCALE,
        "logit_scale": LOGIT_SCALE,
        "shapes": {name: list(value.shape) for name, value in model.state_dict().items()},
        "prompts": PROMPTS,
        "condition": CONDITION,
        "token_ids": {prompt: ids[0].tolist() for prompt, ids in prompts.items()},
        "alone": [alone(model, prompts, prompt) for prompt in PROMPTS],
        "in_batch": scores(strict, prompts, PROMPTS, [pixels_of(name) for name in IMAGES])[0].tolist(),
        "evaluation_script": evaluation_scores(tokenizer, model),
    }
    GOLDEN.write_text(json.dumps(golden, indent=1) + "\n")


def alone(model: Any, prompts: dict[str, torch.Tensor], prompt: str) -> dict[str, object]:
    """Return scores of both images, features and the gradient of the first score, at batch size 1."""
    leaf = pixels_of(IMAGES[0]).requires_grad_()
    values, text, image = scores(model, prompts, [prompt], [leaf, pixels_of(IMAGES[1])])
    (gradient,) = torch.autograd.grad(values[0, 0], leaf)
    return {
        "scores": values[0].tolist(),
        "text_features": text[0].tolist(),
        "image_features": image[0].tolist(),
        "gradient": samples(gradient),
        "gradient_norm": float(gradient.norm()),
    }


def scores(
    model: Any, ids: dict[str, torch.Tensor], prompts: list[str], images: list[torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return scores (prompts, 2) as the authors' README computes them, text features and the first image's."""
    text_ids = torch.cat([ids[prompt] for prompt in prompts])
    condition = ids[CONDITION].repeat(len(prompts), 1)
    both = torch.stack([normalised(image) for image in images for _ in prompts])
    text, *image_features = model(text_ids, both, condition)
    text = text / text.norm(dim=-1, keepdim=True)
    units = [features / features.norm(dim=-1, keepdim=True) for features in image_features]
    columns = [model.logit_scale.exp() * torch.diag(torch.einsum("bd,cd->bc", text, unit)) for unit in units]
    return torch.stack(columns, dim=-1), text, units[0]


def evaluation_scores(tokenizer: Any, model: Any) -> list[float]:
    """Return the first image's scores by the authors' evaluation script (which masks at 0.3)."""
    from transformers import CLIPImageProcessor

    for name in ("fire", "cv2", "matplotlib", "matplotlib.pyplot", "tqdm.auto"):
        sys.modules.setdefault(name, ModuleType(name))
    vars(sys.modules["fire"])["Fire"] = None
    script = importlib.import_module("eval_overall_mps_on_imagereward")
    processor = CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size=SIZE)
    image = Image.fromarray(np.round(pixels_of(IMAGES[0]).movedim(0, -1).numpy() * 255).astype(np.uint8))
    official = processor(image, return_tensors="pt")["pixel_values"][0]
    assert (official - normalised(pixels_of(IMAGES[0]))).abs().max() < 1e-6
    arguments = (model, processor, tokenizer, "cpu", CONDITION)
    return [float(script.infer_one_sample(image, prompt, *arguments)) for prompt in PROMPTS]


def load_model_module(checkout: Path, *, threshold: float = 0.01) -> dict[str, Any]:
    """Return the names of the authors' clip_model.py, with the threshold that is written into it or another one.

    The forward pass takes the largest of the whole batch, the evaluation script one prompt at a time; at the script's
    threshold the difference shows in the scores of a small batch.
    """
    source = (checkout / "trainer" / "models" / "clip_model.py").read_text()
    assert source.count("> 0.01") == 1
    names: dict[str, Any] = {"__name__": "trainer.models.clip_model"}
    exec(compile(source.replace("> 0.01", f"> {threshold}"), "clip_model.py", "exec"), names)
    return names


def build(folder: Path, tokenizer: Any, original: dict[str, Any]) -> Any:
    """Return the original model, smaller, with random weights."""
    from trainer.models.cross_modeling import Cross_model
    from transformers import CLIPConfig
    from transformers import CLIPModel as Towers

    Towers(CLIPConfig(**config_values(tokenizer))).save_pretrained(folder)
    model = original["CLIPModel"](folder)
    heads = config_values(tokenizer)["text_config"]["num_attention_heads"]
    model.cross_model = Cross_model(dim=EMBED_DIM, layer_num=4, heads=heads)
    state = {}
    for name, value in model.state_dict().items():
        is_constant = name.endswith("inv_freq")
        state[name] = value if is_constant else torch.from_numpy(random_array(name, value.shape))
    state["model.logit_scale"] = torch.tensor(LOGIT_SCALE)
    state["model.text_model.embeddings.token_embedding.weight"] *= TOKEN_SCALE
    model.load_state_dict(state)
    return model.eval()


def config_values(tokenizer: Any) -> dict[str, Any]:
    """Return the small architecture."""
    tower = {"intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_act": "gelu"}
    text = {"hidden_size": 16, "vocab_size": len(tokenizer), "max_position_embeddings": NUM_TOKENS}
    end = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    vision = {"hidden_size": 32, "image_size": SIZE, "patch_size": 7}
    return {
        "model_type": "clip",
        "projection_dim": EMBED_DIM,
        "text_config": {**tower, **text, **end, "pad_token_id": tokenizer.pad_token_id, "projection_dim": EMBED_DIM},
        "vision_config": {**tower, **vision, "projection_dim": EMBED_DIM},
    }


def write_tokenizer(folder: Path) -> Any:
    """Return CLIP's tokenizer with a stand-in vocabulary."""
    from transformers import CLIPTokenizerFast
    from transformers.models.clip.tokenization_clip import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(merge.split()) for merge in MERGES)]
    vocabulary = {word: i for i, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES]) + "\n")
    return CLIPTokenizerFast(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=NUM_TOKENS)


def tokenize(tokenizer: Any, caption: str) -> torch.Tensor:
    """Return padded ids (1, 12) as the authors' scripts make them."""
    return tokenizer(
        caption, max_length=tokenizer.model_max_length, padding="max_length", truncation=True, return_tensors="pt"
    ).input_ids


def pixels_of(name: str) -> torch.Tensor:
    """Return an image (3, 28, 28) of 8-bit values / 255."""
    noise = random_array(f"image {name}", (1, 3 * SIZE * SIZE))[0]
    unit = noise / np.abs(noise).max() * 0.5 + 0.5
    return torch.from_numpy(np.round(unit * 255) / 255).float().reshape(3, SIZE, SIZE)


def normalised(pixels: torch.Tensor) -> torch.Tensor:
    """Return pixels as CLIP's processor leaves them."""
    mean, std = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])
    return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
