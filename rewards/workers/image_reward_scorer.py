"""Scores by the package image-reward 1.5, and its model with random weights: loaded by child.py in the environment.

`parity` builds the package's `ImageReward` at the sizes of `config` and fills every floating-point entry of
`state_dict()` with `random_array(key, shape, seed)`.`config` is None for the published sizes, or
`{"vision": {"embed_dim", "depth", "num_heads"}, "text": {fields of med_config.json}, "tokenizer": X}`, where X is the
list of the vocabulary's words, a tokeniser's folder, or None for the Hub's bert-base-uncased. The head takes the text
encoder's width, 768 in the published model. Frame i is scored with prompt i. It returns as .npy files, n frames of
height x width:

* `preprocessed` (n, 3, 224, 224): the package's transform of the 8-bit picture (PIL's bicubic), after normalisation.
* `tokens`, `attention_mask` (n, 35); `image_features` (n, patches + 1, width): the vision tower's output.
* `features` (n, text width): the first token of the text encoder, which the head reads.
* `score` (n,), and `preprocessed_gradient` (n, 3, 224, 224): of the sum of the scores, to `preprocessed`.
* `tensor_preprocessed`, `tensor_score`, `pixel_gradient` (n, 3, height, width): the same from frames in [0, 1] through
  the transform's steps for tensors (float bicubic), so that the gradient reaches the pixels.
* `package_score` (n,): of the package's `score(prompt, picture)`, called per frame as its users do.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import hf_hub_download
from ImageReward.ImageReward import MLP, ImageReward
from ImageReward.models.BLIP import blip, blip_pretrain
from ImageReward.models.BLIP.vit import VisionTransformer
from PIL import Image

NAME = "image-reward"
PACKAGES = ("image-reward", "torch", "torchvision", "transformers", "timm", "numpy", "pillow")
DIMENSIONS = ("image_reward",)
MAX_TOKENS = 35


class Scorer:
    """The published checkpoint, resident."""

    def __init__(self, settings: dict[str, Any]) -> None:
        """Load weights.

        Args:
            settings: `weights` (checkpoint file, None to serve `parity` alone), `config` (JSON file in the layout of
                `parity`, None for the published sizes), `tokenizer` (folder, None for the config's), `device`,
                `frames_per_pass`.
        """
        gpu_or_cpu = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(gpu_or_cpu if settings["device"] == "auto" else settings["device"])
        self.frames_per_pass = settings["frames_per_pass"]
        self.weight_files = [settings["weights"]] if settings["weights"] else []
        self.model = None
        if settings["weights"]:
            config = json.loads(Path(settings["config"]).read_text()) if settings["config"] else {}
            self.model = _build({"tokenizer": settings["tokenizer"], **config}, self.device)
            state = torch.load(settings["weights"], map_location=self.device, weights_only=True)
            # The published file also holds an integer counter of positions that newer versions of BERT do not keep.
            found = self.model.load_state_dict(state, strict=False)
            unknown = [key for key in found.unexpected_keys if not key.endswith("position_ids")]
            missing = [key for key in found.missing_keys if not key.endswith("position_ids")]
            if unknown or missing:
                raise ValueError(f"{settings['weights']} does not fit: missing {missing[:3]}, unknown {unknown[:3]}.")

    def score(self, frames: np.ndarray, prompt: str, fps: float) -> dict[str, list[float]]:
        """Return one score per frame.

        Args:
            frames: (n, height, width, 3), uint8.
            prompt: Of the clip.
            fps: Not looked at.
        """
        if self.model is None:
            raise ValueError("This worker was started without weights: it answers parity requests only.")
        scores: list[float] = []
        tokens = _tokenize(self.model, [prompt]).to(self.device)
        with torch.no_grad():
            for start in range(0, len(frames), self.frames_per_pass):
                pictures = [Image.fromarray(frame) for frame in frames[start : start + self.frames_per_pass]]
                batch = torch.stack([self.model.preprocess(picture) for picture in pictures]).to(self.device)
                ids, mask = (part.expand(len(batch), -1) for part in (tokens.input_ids, tokens.attention_mask))
                scores += self.model.score_gard(ids, mask, batch)[:, 0].tolist()
        return {"image_reward": scores}

    def parity(
        self, frames: np.ndarray, prompts: list[str], config: Any, fill: Callable[[Any], None]
    ) -> dict[str, Any]:
        """Return the model with random weights and what it computes, see the module's docstring."""
        model = _build(config or {}, torch.device("cpu"))
        fill(model)
        kept: dict[str, torch.Tensor] = {}
        model.blip.visual_encoder.register_forward_hook(lambda _m, _i, output: kept.update(image_features=output))
        model.mlp.register_forward_pre_hook(lambda _m, inputs: kept.update(features=inputs[0]))
        tokens = _tokenize(model, prompts)
        pictures = [Image.fromarray(frame) for frame in frames]
        package_score = [model.score(prompt, picture) for prompt, picture in zip(prompts, pictures, strict=True)]
        pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float().div(255).requires_grad_()
        resize, crop, _, _, normalise = model.preprocess.transforms
        through_tensors = normalise(crop(resize(pixels)))
        tensor_score = model.score_gard(tokens.input_ids, tokens.attention_mask, through_tensors)[:, 0]
        (pixel_gradient,) = torch.autograd.grad(tensor_score.sum(), pixels)
        official = torch.stack([model.preprocess(picture) for picture in pictures]).requires_grad_()
        score = model.score_gard(tokens.input_ids, tokens.attention_mask, official)[:, 0]
        (gradient,) = torch.autograd.grad(score.sum(), official)
        arrays = {
            "preprocessed": official,
            "tokens": tokens.input_ids,
            "attention_mask": tokens.attention_mask,
            "score": score,
            "preprocessed_gradient": gradient,
            "tensor_preprocessed": through_tensors,
            "tensor_score": tensor_score,
            "pixel_gradient": pixel_gradient,
            "package_score": torch.tensor(package_score),
            **kept,  # of the last call, which made `score`
        }
        return {"arrays": {name: value.detach().numpy() for name, value in arrays.items()}, "model": model}

    def save(self, model: Any, path: str) -> None:
        """Write a checkpoint in the published layout."""
        torch.save(model.state_dict(), path)


def _build(config: dict[str, Any], device: torch.device) -> Any:
    """Return the package's model, with what `config` changes of it: any of vision, text, tokenizer."""
    with tempfile.TemporaryDirectory() as folder, _replaced(config, folder):
        if "text" in config:
            fields = str(Path(folder, "med_config.json"))
            Path(fields).write_text(json.dumps(config["text"]))
        else:
            fields = hf_hub_download("THUDM/ImageReward", "med_config.json")
        model = ImageReward(med_config=fields, device=str(device))
    if "text" in config:
        model.mlp = MLP(model.blip.text_encoder.config.hidden_size)
    return model.to(device).eval()


@contextlib.contextmanager
def _replaced(config: dict[str, Any], folder: str) -> Iterator[None]:
    """Let the package's constructor find other sizes and a local vocabulary, which it has no arguments for."""
    original_vit, original_tokenizer = blip_pretrain.create_vit, blip.BertTokenizer
    tokenizer = config.get("tokenizer")
    if isinstance(tokenizer, list):
        Path(folder, "vocab.txt").write_text("\n".join(tokenizer))
        tokenizer = folder

    class LocalTokenizer:
        @staticmethod
        def from_pretrained(_name: str) -> Any:
            return original_tokenizer.from_pretrained(tokenizer)

    def create_vit(_vit: str, image_size: int, *_: Any) -> Any:
        tower = VisionTransformer(img_size=image_size, patch_size=16, **config["vision"])
        return tower, config["vision"]["embed_dim"]

    try:
        if "vision" in config:
            blip_pretrain.create_vit = create_vit
        if tokenizer is not None:
            blip.BertTokenizer = LocalTokenizer
        yield
    finally:
        blip_pretrain.create_vit, blip.BertTokenizer = original_vit, original_tokenizer


def _tokenize(model: Any, prompts: list[str]) -> Any:
    """Tokenise as the package's `score`."""
    return model.blip.tokenizer(
        prompts, padding="max_length", truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
    )
