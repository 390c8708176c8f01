"""The original's side of benchmarks/reward_speed.py, run by the interpreter of its worker environment.

Stand-alone: it imports the worker's scorer file by path, and nothing of this package. One JSON object of settings comes
as the argument, one JSON line of results is the last line of stdout.
"""

import importlib.util
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image


def load(path: str):  # noqa: ANN201
    """Import one file by path."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class HpsV2:
    """hpsv2's per-frame call: transform, tokenise and encode the prompt, and score, for every picture."""

    def __init__(self, scorer, settings: dict) -> None:  # noqa: ANN001
        """Build the published architecture on the device."""
        self.open_clip, self.device = scorer.open_clip, torch.device(settings["device"])
        self.model, self.transform = scorer._build(None, self.device)

    def frame(self, picture: Image.Image, prompt: str) -> torch.Tensor:
        """Score one picture as `hpsv2.score` does after loading."""
        image = self.transform(picture).unsqueeze(0).to(self.device)
        return self._product(image, prompt)

    def pixels(self, frame: torch.Tensor, prompt: str) -> torch.Tensor:
        """Score one picture (3, height, width) with a graph, by the transform's own steps for tensors."""
        for step in self.transform.transforms[2:]:
            frame = step(frame)
        return self._product(frame[None], prompt)

    def _product(self, image: torch.Tensor, prompt: str) -> torch.Tensor:
        found = self.model(image, self.open_clip.tokenize([prompt]).to(self.device))
        return (found["image_features"] @ found["text_features"].T)[0, 0]

    def reload(self, path: Path) -> None:
        """Do what the package's `score` does before every call: read the checkpoint."""
        self.model.load_state_dict(torch.load(path, map_location=self.device, weights_only=True)["state_dict"])


class ImageReward:
    """image-reward's per-frame call: tokenise, transform, both towers and the head, for every picture."""

    def __init__(self, scorer, settings: dict) -> None:  # noqa: ANN001
        """Build the published architecture on the device."""
        self.scorer, self.device = scorer, torch.device(settings["device"])
        config = json.loads(Path(settings["config"]).read_text())
        self.model = scorer._build(config | {"tokenizer": settings["tokenizer"]}, self.device)

    def frame(self, picture: Image.Image, prompt: str) -> torch.Tensor:
        """Score one picture as the package's `score` does."""
        return self._score(self.model.preprocess(picture)[None].to(self.device), prompt)

    def pixels(self, frame: torch.Tensor, prompt: str) -> torch.Tensor:
        """Score one picture (3, height, width) with a graph, by the transform's own steps for tensors."""
        resize, crop, _, _, normalise = self.model.preprocess.transforms
        return self._score(normalise(crop(resize(frame)))[None], prompt)

    def _score(self, image: torch.Tensor, prompt: str) -> torch.Tensor:
        tokens = self.scorer._tokenize(self.model, [prompt]).to(self.device)
        return self.model.score_gard(tokens.input_ids, tokens.attention_mask, image)[0, 0]

    def reload(self, path: Path) -> None:
        """Load the checkpoint, as `ImageReward.load` does once."""
        self.model.load_state_dict(torch.load(path, map_location=self.device, weights_only=True))


def clock(device: torch.device) -> float:
    """Return the process's own seconds on a CPU with one thread, wall-clock seconds elsewhere."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def memory(device: torch.device, name: str) -> int:
    """Return bytes: "VmRSS", what the process holds now, or "VmHWM", the most since `forget_peak`; or a GPU's."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated() if name == "VmRSS" else torch.cuda.max_memory_allocated()
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def forget_peak(device: torch.device) -> None:
    """Start a new peak."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")


def main() -> None:
    """Measure and print."""
    settings = json.loads(sys.argv[1])
    original = {"hpsv2": HpsV2, "image-reward": ImageReward}[settings["worker"]](load(settings["scorer"]), settings)
    generator, device = load(settings["random_weights"]), original.device
    for key, value in original.model.state_dict().items():
        if value.is_floating_point():
            value.copy_(value.new_tensor(generator.random_array(key, tuple(value.shape), 0)))
    checkpoint = Path(settings["checkpoint"])
    load(settings["scorer"]).Scorer.save(None, original.model, str(checkpoint))
    start = clock(device)
    original.reload(checkpoint)
    result = {"load_s": clock(device) - start}
    frames, prompt = np.load(settings["frames"]), settings["prompt"]
    forget_peak(device)
    resident = memory(device, "VmRSS")
    score_s, gradient_s, scores = [], [], []
    for _ in range(settings["repeats"]):
        start = clock(device)
        with torch.no_grad():
            scores = [float(original.frame(Image.fromarray(frame), prompt)) for frame in frames]
        score_s.append(clock(device) - start)
        leaf = torch.from_numpy(frames).to(device).permute(0, 3, 1, 2).float().div(255).requires_grad_()
        start = clock(device)
        gradient = torch.zeros_like(leaf)
        for index in range(len(leaf)):
            pixel = leaf[index].detach().requires_grad_()
            gradient[index] = torch.autograd.grad(original.pixels(pixel, prompt), pixel)[0]
        gradient_s.append(clock(device) - start)
    result |= {
        "score_s": min(score_s),
        "gradient_s": min(gradient_s),
        "score": float(np.mean(scores)),
        "gradient_norm": float(gradient.norm()) / len(frames),
        "bytes": memory(device, "VmHWM") - resident,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
