"""Scores by the package hpsv2 1.2.0, and its model with random weights: loaded by child.py inside the environment.

The package's own `score` re-reads 4 GB for every call and first downloads the 4 GB of another model that it then
overwrites. Here the same model, transform, tokeniser and product of features are called once loaded; `parity` also
calls the package's `score`, so a test can compare the two.

`parity` builds the package's ViT at the sizes of `config` (open_clip's layout: embed_dim, vision_cfg, text_cfg; None is
the published ViT-H-14) and fills every floating-point entry of `state_dict()` with `random_array(key, shape, seed)`.
Frame i is scored with prompt i. It returns as .npy files, n frames of height x width, d = embed_dim:

* `preprocessed` (n, 3, size, size): output of the package's transform, after normalisation.
* `tokens` (n, 77); `image_features`, `text_features` (n, d), both normalised; `score` (n,), their products.
* `pixel_gradient` (n, 3, height, width): of the sum of the scores, to the frames in [0, 1] before any resize.
* `package_score` (n,): of `hpsv2.img_score.score` itself, called per frame as its users do.
"""

from __future__ import annotations

import json
import sys
import tempfile
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

# The package imports a name it never uses from turtle, which needs a Tk that servers lack.
_turtle: Any = types.ModuleType("turtle")
_turtle.forward = None
sys.modules["turtle"] = _turtle

import torch
from hpsv2 import img_score
from hpsv2.src import open_clip
from PIL import Image

NAME = "hpsv2"
PACKAGES = ("hpsv2", "torch", "torchvision", "open_clip_torch", "numpy", "pillow")
DIMENSIONS = ("hps_v2",)
PUBLISHED = "ViT-H-14"


class Scorer:
    """The published checkpoint, resident."""

    def __init__(self, settings: dict[str, Any]) -> None:
        """Load weights.

        Args:
            settings: `weights` (checkpoint file, None to serve `parity` alone), `config` (JSON file in open_clip's
                layout, None for ViT-H-14), `device` ("auto" takes a GPU where there is one),
                `frames_per_pass`.
        """
        gpu_or_cpu = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(gpu_or_cpu if settings["device"] == "auto" else settings["device"])
        self.frames_per_pass = settings["frames_per_pass"]
        self.weight_files = [settings["weights"]] if settings["weights"] else []
        self.model = None
        if settings["weights"]:
            self.model, self.transform = _build(settings["config"], self.device)
            checkpoint = torch.load(settings["weights"], map_location=self.device, weights_only=True)
            self.model.load_state_dict(checkpoint["state_dict"])

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
        text = open_clip.tokenize([prompt]).to(self.device)
        with torch.no_grad(), torch.autocast("cuda", enabled=self.device.type == "cuda"):  # as the package's score
            for start in range(0, len(frames), self.frames_per_pass):
                pictures = [Image.fromarray(frame) for frame in frames[start : start + self.frames_per_pass]]
                found = self.model(torch.stack([self.transform(p) for p in pictures]).to(self.device), text)
                scores += (found["image_features"] @ found["text_features"].T)[:, 0].float().tolist()
        return {"hps_v2": scores}

    def parity(
        self, frames: np.ndarray, prompts: list[str], config: Any, fill: Callable[[Any], None]
    ) -> dict[str, Any]:
        """Return the model with random weights and what it computes, see the module's docstring."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "parity.json")
            path.write_text(json.dumps(config))
            model, transform = _build(None if config is None else str(path), torch.device("cpu"))
            fill(model)
            checkpoint = Path(folder, "checkpoint.pt")
            self.save(model, str(checkpoint))
            package_score = _package_score(model, transform, checkpoint, frames, prompts)
        pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float().div(255).requires_grad_()
        steps = transform.transforms[2:]  # before it: to RGB, and to a tensor in [0, 1], as `pixels` is
        resized = torch.stack([_apply(steps, frame) for frame in pixels])
        tokens = open_clip.tokenize(prompts)
        found = model(resized, tokens)
        score = (found["image_features"] * found["text_features"]).sum(-1)
        (gradient,) = torch.autograd.grad(score.sum(), pixels)
        official = torch.stack([transform(Image.fromarray(frame)) for frame in frames])
        arrays = {
            "preprocessed": official,
            "tokens": tokens,
            "image_features": found["image_features"],
            "text_features": found["text_features"],
            "score": score,
            "pixel_gradient": gradient,
            "package_score": torch.tensor(package_score),
        }
        return {"arrays": {name: value.detach().numpy() for name, value in arrays.items()}, "model": model}

    def save(self, model: Any, path: str) -> None:
        """Write a checkpoint in the published layout."""
        torch.save({"state_dict": model.state_dict()}, path)


def _build(config: str | None, device: torch.device) -> tuple[Any, Any]:
    """Return model and transform from the package's factory, called with the arguments of its `score`."""
    name = PUBLISHED
    if config is not None:
        if not {"embed_dim", "vision_cfg", "text_cfg"} <= set(json.loads(Path(config).read_text())):
            raise ValueError(f"{config} is no model of open_clip: it needs embed_dim, vision_cfg and text_cfg.")
        open_clip.add_model_config(config)
        name = Path(config).stem
    model, _, transform = open_clip.create_model_and_transforms(
        name, None, precision="amp", device=device, light_augmentation=True, output_dict=True
    )
    return model.eval(), transform


def _apply(steps: list[Any], value: torch.Tensor) -> torch.Tensor:
    for step in steps:
        value = step(value)
    return value


def _package_score(model: Any, transform: Any, checkpoint: Path, frames: np.ndarray, prompts: list[str]) -> list[float]:
    """Call the package's own entry point, which takes its model from `model_dict` when it is there."""
    img_score.model_dict.update(model=model, preprocess_val=transform)
    img_score.device = "cpu"  # parity is computed on the CPU, also where there is a GPU
    try:
        pairs = zip(frames, prompts, strict=True)
        return [float(img_score.score(Image.fromarray(f), p, cp=str(checkpoint))[0]) for f, p in pairs]
    finally:
        img_score.model_dict.clear()
