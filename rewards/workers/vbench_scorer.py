"""Scores by the package vbench 0.1.5: loaded by child.py inside the environment, one clip and dimension at a time.

The package's own `compute_DIMENSION` runs, on a description of one clip that is written as its `build_full_info_json`
would, and its aggregate over that one clip is the score (imaging quality is thereby in [0, 1], as in its result files).
What is changed around it, and why:

* Weights are looked for in the cache folder alone and nothing is downloaded: files that are missing are an error.
* What it loads is kept, where it would load its model again for each call.
* Checkpoints are read without running code: amt-s.pth holds more than weights, which torch 2.6 and later refuse.
* Errors that it swallows are errors here: its `object_class` counts any exception as a frame without objects.
* No gradients are recorded (two of its dimensions forget that, which costs memory and changes no number).

`color` of a clip that shows its object in no colour at all has no score: VBench leaves such clips out of its mean.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

NAME = "vbench"
PACKAGES = (
    *("vbench", "torch", "torchvision", "transformers", "timm", "pyiqa", "openai-clip"),
    *("decord", "opencv-python", "numpy"),
)
GRIT = ("object_class", "multiple_objects", "color", "spatial_relationship")
DIMENSIONS = (
    *("subject_consistency", "background_consistency", "temporal_flickering", "motion_smoothness", "dynamic_degree"),
    *("aesthetic_quality", "imaging_quality", "object_class", "multiple_objects", "human_action", "color"),
    *("spatial_relationship", "scene", "appearance_style", "temporal_style", "overall_consistency"),
)
LOADERS = {
    **dict.fromkeys(("background_consistency", "appearance_style"), ("clip:load",)),
    "aesthetic_quality": ("clip:load", "vbench.aesthetic_quality:get_aesthetic_model"),
    "subject_consistency": ("torch.hub:load",),
    "motion_smoothness": ("vbench.motion_smoothness:MotionSmoothness",),
    "dynamic_degree": ("vbench.dynamic_degree:DynamicDegree",),
    "imaging_quality": ("vbench.imaging_quality:MUSIQ",),
    "human_action": ("vbench.human_action:create_model",),
    "scene": ("vbench.scene:tag2text_caption",),
    **dict.fromkeys(GRIT, ("vbench.third_party.grit_model:init_demo",)),
    **{
        name: (f"vbench.{name}:ViCLIP", f"vbench.{name}:SimpleTokenizer")
        for name in ("temporal_style", "overall_consistency")
    },
}
"""Dimension -> what its module calls to load models, "module:name": one result for equal arguments is kept."""


class Scorer:
    """The package, with the models of the dimensions that were asked for."""

    def __init__(self, settings: dict[str, Any]) -> None:
        """Import the package; models are loaded when their dimension is asked for.

        Args:
            settings: `cache` (folder of weights in VBench's layout), `device` ("auto" takes a GPU where there is one).
        """
        self._folder = tempfile.TemporaryDirectory(prefix="rlhf-video-vbench-")
        self.cache = Path(settings["cache"])
        os.environ["VBENCH_CACHE_DIR"] = str(self.cache)  # read when the package is imported
        os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"
        torch.hub.set_dir(self._folder.name)
        gpu_or_cpu = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(gpu_or_cpu if settings["device"] == "auto" else settings["device"])
        self.weight_files: list[str] = []  # many and large: the parent hashes those of its dimensions
        self._kept: dict[str, Any] = {}
        self._swallowed: list[Exception] = []
        self._speeds: list[float] = []
        self._modules: dict[str, Any] = {}

    def score_file(self, file: str, dimension: str, prompt: str, facts: Any) -> dict[str, Any]:
        """Return one clip's score in one dimension.

        Args:
            file: The clip.
            dimension: One of DIMENSIONS.
            prompt: Of the clip; human_action takes its label from it, as VBench does from the file's name.
            facts: VBench's auxiliary_info of this dimension, None for those that need none.

        Returns:
            `value`, and `curve` where the package has numbers per frame or pair; or `skipped`, the reason.
        """
        try:
            return self._score_file(file, dimension, prompt, facts)
        except Exception as error:  # decoders, picklers and downloaders raise classes of their own
            raise RuntimeError(f"{dimension}: {type(error).__name__}: {error}") from error

    def _score_file(self, file: str, dimension: str, prompt: str, facts: Any) -> dict[str, Any]:
        module = self._module(dimension)
        if dimension == "human_action" and (label := _label(prompt)) not in module.build_dict().values():
            return {"skipped": f"the prompt names no action of Kinetics-400 ({label!r})"}
        self._swallowed.clear()
        self._speeds.clear()
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            description = _describe(Path(folder), Path(file), dimension, prompt, facts)
            submodules = self._submodules(dimension)
            try:
                value, results = getattr(module, f"compute_{dimension}")(str(description), self.device, submodules)
            except ZeroDivisionError:  # its mean over no clip
                value, results = None, []
                if dimension != "color":
                    raise
        if self._swallowed:
            raise self._swallowed[0]
        if value is None:
            return {"skipped": "no frame shows the object in any colour; VBench leaves such clips out"}
        if len(results) != 1:
            raise RuntimeError(f"VBench gave {len(results)} results for one clip")
        curve = self._speeds or results[0].get("frame_results", ())
        return {"value": value, "curve": list(curve)}

    def _submodules(self, dimension: str) -> Any:
        utils = importlib.import_module("vbench.utils")
        found = utils.init_submodules([dimension], local=True)[dimension]
        for path in found.values() if isinstance(found, dict) else found:
            if str(path).endswith(".pth"):
                _ignore_settings(path)
        if dimension == "subject_consistency":
            # Its `path` is never read: DINO's code loads the file of this name from torch.hub's folder.
            target = Path(self._folder.name, "checkpoints", Path(found["path"]).name)
            if not target.exists():
                torch.load(found["path"], map_location="cpu", weights_only=True)  # torch.hub would run what it holds
                target.parent.mkdir(exist_ok=True)
                target.symlink_to(found["path"])
        return found

    def _module(self, dimension: str) -> Any:
        """Import the module of a dimension, once, and change what the module's docstring says."""
        if dimension in self._modules:
            return self._modules[dimension]
        if dimension not in DIMENSIONS:
            raise ValueError(f"unknown dimension, known: {', '.join(DIMENSIONS)}")
        if dimension in GRIT:
            _check_nms()
        if dimension in ("temporal_style", "overall_consistency"):
            _provide_vocabulary(self.cache)
        module = importlib.import_module(f"vbench.{dimension}")
        for place in LOADERS.get(dimension, ()):
            owner, _, name = place.partition(":")
            self._keep(importlib.import_module(owner), name)
        if dimension in GRIT:
            _spy(importlib.import_module("vbench.third_party.grit_model").DenseCaptioning, self._swallowed)
        if dimension == "dynamic_degree":
            self._note_speeds(module)
        self._modules[dimension] = module
        return module

    def _keep(self, owner: Any, name: str) -> None:
        """Let a loader answer from memory where it was called with equal arguments before."""
        load = getattr(owner, name)
        if not isinstance(load, _Remembering):
            setattr(owner, name, _Remembering(load, name, self._kept))

    def _note_speeds(self, module: Any) -> None:
        """Note the speed of each pair of frames, in units where 6 is VBench's threshold."""
        infer_score, speeds = module.DynamicDegree.__wrapped__.get_score, self._speeds

        def get_score(model: Any, image: Any, flow: Any) -> float:
            score: float = infer_score(model, image, flow)
            speeds.append(score * 6.0 / model.params["thres"])
            return score

        module.DynamicDegree.__wrapped__.get_score = get_score


class _Ignored(dict[str, Any]):
    """Stands for an object of a checkpoint that is no weight; a dict, so that items may be put into it."""

    def __init__(self, *_: object) -> None:
        super().__init__()

    def __setstate__(self, _state: object) -> None:
        """Take no notice."""


def _ignore_settings(path: str) -> None:
    """Let a checkpoint be read that holds settings as objects, as amt-s.pth does: none is built, no code is run."""
    if zipfile.is_zipfile(path):
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        torch.serialization.add_safe_globals([(_Ignored, name) for name in names])


def _describe(folder: Path, file: Path, dimension: str, prompt: str, facts: Any) -> Path:
    """Write the description of one clip, which lies under a name of VBench's form, and return its path."""
    name = prompt if dimension == "human_action" else "clip"
    # Its readers go by the ending, and those of mp4 files open whatever FFmpeg reads.
    clip = folder / f"{name}-0{'.gif' if file.suffix.lower() == '.gif' else '.mp4'}"
    clip.symlink_to(file)
    entry: dict[str, Any] = {"prompt_en": prompt, "dimension": [dimension], "video_list": [str(clip)]}
    if facts is not None:
        entry["auxiliary_info"] = {dimension: facts}
    description = folder / "clip_full_info.json"
    description.write_text(json.dumps([entry]), encoding="utf-8")
    return description


def _label(prompt: str) -> str:
    """Return the action that VBench reads from the name of a prompt's clip."""
    if "/" in prompt:
        raise ValueError(f"VBench reads the action from the file's name, and {prompt!r} can be none")
    return prompt.lower().split("-")[0].split("person is ")[-1].split("_")[0]


def _check_nms() -> None:
    """Check that boxes can be filtered.

    Raises:
        RuntimeError: torchvision's compiled part is missing.
    """
    importlib.import_module("torchvision")
    try:
        torch.ops.torchvision.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.ones(1), 0.5)
    except (AttributeError, RuntimeError) as error:
        raise RuntimeError(
            "torchvision has no working nms here, and VBench would call every clip empty: the package index has its "
            "CUDA build alone. Use a CUDA build of torch, or install torch's own CPU build of torchvision into "
            f"{sys.prefix}"
        ) from error


def _provide_vocabulary(cache: Path) -> None:
    """Put CLIP's vocabulary where two modules would download it to when they are imported."""
    target = cache / "ViCLIP" / "bpe_simple_vocab_16e6.txt.gz"
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        package = Path(str(importlib.import_module("clip").__file__)).parent
        shutil.copy(package / target.name, target)


class _Remembering:
    """A loader that answers equal arguments with the same object; `__wrapped__` is the loader itself."""

    def __init__(self, load: Callable[..., Any], name: str, kept: dict[str, Any]) -> None:
        self.__wrapped__, self._name, self._kept = load, name, kept

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        key = f"{self._name} {arguments!r} {sorted(named.items())!r}"
        if key not in self._kept:
            self._kept[key] = self.__wrapped__(*arguments, **named)
        return self._kept[key]


def _spy(detector: Any, swallowed: list[Exception]) -> None:
    """Note what a detector raises, whoever catches it."""
    run = detector.run_caption_tensor
    if hasattr(run, "__wrapped__"):
        return

    @functools.wraps(run)
    def noting(*arguments: Any) -> Any:
        try:
            return run(*arguments)
        except Exception as error:
            swallowed.append(error)
            raise

    detector.run_caption_tensor = noting
