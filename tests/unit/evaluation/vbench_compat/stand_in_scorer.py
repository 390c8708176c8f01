"""The real scorer file of vbench over a stand-in for the package, which does what the prompt says.

Loaded by child.py in place of vbench_scorer.py. The stand-in has the package's modules and function names; each notes
what it was given in the cache folder.
"""

import importlib.util
import json
import os
import sys
import types
from pathlib import Path
from typing import Any

import torch

_SCORER = Path(__file__).parents[4] / "rewards" / "workers" / "vbench_scorer.py"
_SPEC = importlib.util.spec_from_file_location("vbench_scorer", _SCORER)
assert _SPEC is not None and _SPEC.loader is not None
_real = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_real)

NAME = _real.NAME
PACKAGES = ("numpy",)
DIMENSIONS = _real.DIMENSIONS


class Scorer(_real.Scorer):  # type: ignore[misc, name-defined]
    """The real one, which will find the stand-in."""

    def __init__(self, settings: dict[str, Any]) -> None:
        _install(Path(settings["cache"]))
        super().__init__(settings)


def _module(name: str, **members: Any) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__file__ = __file__
    vars(module).update(members)
    sys.modules[name] = module
    return module


def _install(cache: Path) -> None:
    def load(path: str, **_: object) -> str:
        with (cache / "loaded.txt").open("a") as file:
            file.write(Path(path).name + "\n")
        return path

    class DenseCaptioning:
        def run_caption_tensor(self, prompt: str) -> list[Any]:
            if prompt == "out of memory":
                raise RuntimeError("CUDA out of memory")
            return []

    (cache / "ViCLIP" / "bpe_simple_vocab_16e6.txt.gz").touch()
    _module("clip", load=load)
    _module("torchvision")
    if not (cache / "no-nms").exists():
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.impl("nms", lambda boxes, _scores, _threshold: torch.arange(len(boxes)), "CPU")
        _kept.append(library)
    _module("vbench")
    _module("vbench.third_party")
    grit = _module("vbench.third_party.grit_model", init_demo=load, DenseCaptioning=DenseCaptioning)
    submodules = {"subject_consistency": {"path": str(cache / "dino_model" / "dino_vitbase16_pretrain.pth")}}
    torch.save({"weight": torch.zeros(1)}, submodules["subject_consistency"]["path"])
    _module("vbench.utils", init_submodules=lambda names, local: {name: submodules.get(name, {}) for name in names})
    for dimension in DIMENSIONS:
        places = [place.partition(":") for place in _real.LOADERS.get(dimension, ())]
        own = {name: _Model for owner, _, name in places if owner == f"vbench.{dimension}"}
        compute = _compute(dimension, cache, grit)
        _module(
            f"vbench.{dimension}", build_dict=lambda: {"0": "riding a bike"}, **own, **{f"compute_{dimension}": compute}
        )


_kept: list[object] = []


class _Model:
    def get_score(self) -> float:
        return 0.0


def _compute(dimension: str, cache: Path, grit: Any) -> Any:
    weights = {"aesthetic_quality": "ViT-L-14.pt", "background_consistency": "ViT-B-32.pt"}
    weights["appearance_style"] = weights["background_consistency"]

    def compute(description: str, _device: object, _submodules: object, **_: object) -> tuple[float, list[Any]]:
        text = Path(description).read_text()
        (cache / f"{dimension}.json").write_text(text)
        (info,) = json.loads(text)
        (path,) = info["video_list"]
        (cache / f"{dimension}.txt").write_text(Path(path).read_text())
        prompt = info["prompt_en"]
        if dimension in weights:
            sys.modules["clip"].load(weights[dimension], device="cpu")
        if prompt == "die" and dimension != "subject_consistency":
            os.kill(os.getpid(), 11)
        if prompt in ("division", "colourless"):
            raise ZeroDivisionError("division by zero")
        if prompt == "unreadable":
            return float("nan"), []
        if dimension == "object_class":
            try:
                grit.DenseCaptioning().run_caption_tensor(prompt)
            except RuntimeError:
                return 0.0, [{"video_path": path, "video_results": 0.0}]
        return float("nan") if prompt == "nan" else 0.25, [{"video_path": path, "video_results": 0.25}]

    return compute
