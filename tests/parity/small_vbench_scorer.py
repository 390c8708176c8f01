"""The scorer file of vbench, with the package's ViCLIP made small, and with random weights for four of its networks.

Loaded by child.py inside the environment in place of vbench_scorer.py. ViCLIP keeps its classes, vocabulary, 8 frames
and 224 pixels and loses width and depth: in the published size a clip costs 1.7 TFLOP (2,049 tokens through 24 layers
of width 1,024) and the weights 1.7 GB, in each of two processes.
"""

import functools
import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

_SCORER = Path(__file__).parents[2] / "rewards" / "workers" / "vbench_scorer.py"
_SPEC = importlib.util.spec_from_file_location("vbench_scorer", _SCORER)
assert _SPEC is not None and _SPEC.loader is not None
_real = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_real)

NAME, PACKAGES, DIMENSIONS = _real.NAME, _real.PACKAGES, _real.DIMENSIONS
VISION = {"patch_size": 56, "width": 128, "layers": 2, "heads": 2}
TEXT = {"transformer_width": 64, "transformer_heads": 1, "transformer_layers": 2}
LAYOUTS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "amt_s": lambda state: {"state_dict": state},
    "raft_things": lambda state: {f"module.{name}": value for name, value in state.items()},  # saved in DataParallel
    "musiq_spaq": lambda state: state,
    "viclip_l_14": lambda state: {"model": state},
}
"""Name of a weight file in the ledger -> its published layout."""


class Scorer(_real.Scorer):  # type: ignore[misc, name-defined]
    """The real one, over a small ViCLIP."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(settings)
        _real._provide_vocabulary(self.cache)  # before anything imports ViCLIP's tokenizer
        _make_viclip_small()

    def parity(
        self, frames: Any, prompts: list[str], config: dict[str, str], fill: Callable[[Any], None]
    ) -> dict[str, Any]:
        """Return one of the package's networks with random weights, for `save` to write.

        Args:
            frames: Not looked at.
            prompts: Not looked at.
            config: `{"model": a key of LAYOUTS}`.
            fill: Fills the floating-point entries of its state dict.
        """
        model = _build(config["model"])
        fill(model)
        model.layout = LAYOUTS[config["model"]]
        return {"arrays": {}, "model": model}

    def save(self, model: Any, path: str) -> None:
        """Write a checkpoint in the published layout."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        torch.save(model.layout(model.state_dict()), path)


def _build(name: str) -> Any:
    if name == "amt_s":
        build = importlib.import_module("vbench.third_party.amt.utils.build_utils").build_from_cfg
        omegaconf: Any = importlib.import_module("omegaconf")
        package = Path(str(importlib.import_module("vbench").__file__)).parent
        return build(omegaconf.OmegaConf.load(package / "third_party" / "amt" / "cfgs" / "AMT-S.yaml").network)
    if name == "raft_things":
        raft = importlib.import_module("vbench.third_party.RAFT.core.raft").RAFT
        options: Any = importlib.import_module("easydict").EasyDict
        return raft(options(small=False, mixed_precision=False, alternate_corr=False))
    if name == "musiq_spaq":
        return importlib.import_module("pyiqa.archs.musiq_arch").MUSIQ(pretrained=False)
    viclip: Any = importlib.import_module("vbench.third_party.ViCLIP.viclip").ViCLIP
    return viclip(pretrain="")


def _make_viclip_small() -> None:
    module: Any = importlib.import_module("vbench.third_party.ViCLIP.viclip")
    vision: Any = importlib.import_module("vbench.third_party.ViCLIP.viclip_vision")
    transformer = vision.VisionTransformer
    vision.VisionTransformer = lambda **sizes: transformer(**{**sizes, **VISION})
    module.clip_text_l14 = functools.partial(module.clip_text_l14, **TEXT)
