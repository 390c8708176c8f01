"""Record what VBench's own code computes on random weights: writes tests/parity/golden/vbench_motion.json.

Run it in an environment of its own with the package vbench and what it asks for (setuptools<81; torchvision must
import), torch on the CPU:

    PYTHONPATH=. python tests/parity/record_vbench_motion.py

RAFT and AMT-S are the originals in full size, MUSIQ and ViCLIP the originals' classes with two narrow layers. Weights
and frames come from rewards/random_weights.py; the test makes the same from them.
"""

import gzip
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from recording import versions

from rewards.random_weights import random_array

GOLDEN = Path(__file__).parent / "golden" / "vbench_motion.json"
MERGES = ["r e", "c i", "r c", "l e</w>", "re d</w>", "ci rc", "circ le</w>", "a n", "o v", "ov i", "m ovi", "n g</w>"]
MUSIQ = {"hidden_size": 128, "mlp_dim": 96, "num_heads": 2, "num_layers": 2}
VISION = {"patch_size": 56, "width": 128, "layers": 2, "heads": 2}
TEXT = {"vocab_size": 512 + len(MERGES) + 2, "transformer_width": 64, "transformer_heads": 1, "transformer_layers": 2}
NUM_TOKENS, EMBED_DIM = 32, 20
PROMPTS = ["a red circle", "Moving  RED circle!", "a red circle moving left of a blue square, zooming in and out"]
CLIPS = {
    "dynamic_degree": {"whole": (2, 128, 144), "padded": (2, 131, 150)},
    "motion_smoothness": {"whole": (4, 128, 144), "padded": (3, 131, 150)},
    "imaging_quality": {"small": (1, 90, 70), "long": (1, 200, 600), "whole": (1, 64, 96)},
    "overall_consistency": {"landscape": (11, 60, 100), "short": (5, 100, 60)},
}
SPEEDS = {
    "one_pair": [0.0],
    "quarter_of_8": [9.0, 9.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    "one_of_8": [9.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    "at_the_threshold": [6.0, 6.0, 6.0, 6.0],
    "half_rounds_to_even": [9.0, 9.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
}


def main() -> None:
    """Record and write."""
    with tempfile.TemporaryDirectory() as folder:
        vocabulary = Path(folder) / "ViCLIP" / "bpe_simple_vocab_16e6.txt.gz"
        vocabulary.parent.mkdir()
        vocabulary.write_bytes(gzip.compress("\n".join(["#version", *MERGES]).encode()))
        os.environ["VBENCH_CACHE_DIR"] = folder
        golden = {
            "made_by": "tests/parity/record_vbench_motion.py",
            "versions": versions("torch", "torchvision", "pyiqa", "numpy", "opencv-python-headless"),
            "clips": CLIPS,
            "dynamic_degree": record_dynamic_degree(Path(folder)),
            "motion_smoothness": record_motion_smoothness(Path(folder)),
            "imaging_quality": record_imaging_quality(Path(folder)),
            "overall_consistency": record_overall_consistency(str(vocabulary)),
        }
    GOLDEN.write_text(json.dumps(golden, indent=1) + "\n")


def record_dynamic_degree(folder: Path) -> dict[str, Any]:
    """Return the speed of each pair, and the verdicts on speeds."""
    from easydict import EasyDict
    from vbench.dynamic_degree import DynamicDegree
    from vbench.third_party.RAFT.core.raft import RAFT

    settings = EasyDict(small=False, mixed_precision=False, alternate_corr=False, model=str(folder / "raft.pth"))
    torch.save({f"module.{name}": value for name, value in fill(RAFT(settings)).items()}, settings.model)
    metric = DynamicDegree(settings, "cpu")
    shapes = {name: list(value.shape) for name, value in metric.model.state_dict().items()}
    speeds: dict[str, list[float]] = {}
    decide = metric.check_move
    for name in CLIPS["dynamic_degree"]:

        def note(scores: list[float], name: str = name) -> bool:
            speeds[name] = scores
            return decide(scores)

        metric.check_move = note
        metric.infer(write_frames(folder, "dynamic_degree", name))
    verdicts = {}
    for name, listed in SPEEDS.items():
        metric.set_params(torch.zeros(1, 3, 256, 300), len(listed) + 1)
        verdicts[name] = {"speeds": listed, "is_dynamic": decide(listed)}
    return {"shapes": shapes, "speeds": speeds, "verdicts": verdicts}


def record_motion_smoothness(folder: Path) -> dict[str, Any]:
    """Return the score of each clip."""
    import vbench
    from omegaconf import OmegaConf
    from vbench.motion_smoothness import MotionSmoothness
    from vbench.third_party.amt.utils.build_utils import build_from_cfg

    config = Path(vbench.__file__).parent / "third_party" / "amt" / "cfgs" / "AMT-S.yaml"
    state = fill(build_from_cfg(OmegaConf.load(config).network))
    torch.save({"state_dict": state}, folder / "amt.pth")
    metric = MotionSmoothness(str(config), str(folder / "amt.pth"), "cpu")
    scores = {
        name: float(metric.motion_score(write_frames(folder, "motion_smoothness", name)))
        for name in CLIPS["motion_smoothness"]
    }
    return {"shapes": {name: list(value.shape) for name, value in state.items()}, "scores": scores}


def record_imaging_quality(folder: Path) -> dict[str, Any]:
    """Return the score of each picture, 0 to 100 for the published weights, and with each of the other sizings."""
    from pyiqa.archs.musiq_arch import MUSIQ as Original
    from vbench.imaging_quality import technical_quality

    model = Original(pretrained=False, num_class=1, **MUSIQ)
    state = fill(model)
    model.training = False  # as VBench does: the model alone, not what is in it
    scores: dict[str, dict[str, float]] = {}
    for name in CLIPS["imaging_quality"]:
        file = str(Path(write_frames(folder, "imaging_quality", name)) / "000.png")
        for sizing in ("longer", "shorter", "shorter_centercrop", "None"):
            options = {"imaging_quality_preprocessing_mode": sizing}
            if name == "long" and sizing == "shorter_centercrop":
                continue  # its short side is not cut
            _, results = technical_quality(model, [file], "cpu", **options)
            scores.setdefault(name, {})[sizing.lower()] = results[0]["video_results"]
    return {"shapes": {name: list(value.shape) for name, value in state.items()}, "scores": scores}


def record_overall_consistency(vocabulary: str) -> dict[str, Any]:
    """Return the tokens of each prompt, and its cosine with each clip, which temporal style records alike."""
    from vbench import overall_consistency, temporal_style
    from vbench.third_party.ViCLIP.simple_tokenizer import SimpleTokenizer
    from vbench.third_party.ViCLIP.viclip import ViCLIP
    from vbench.third_party.ViCLIP.viclip_text import CLIP_TEXT
    from vbench.third_party.ViCLIP.viclip_vision import VisionTransformer
    from vbench.utils import get_frame_indices

    class Small(ViCLIP):
        def build_vision_encoder(self) -> VisionTransformer:
            return VisionTransformer(input_resolution=224, num_frames=8, output_dim=EMBED_DIM, **VISION)

        def build_text_encoder(self) -> CLIP_TEXT:
            return CLIP_TEXT(embed_dim=EMBED_DIM, context_length=NUM_TOKENS, checkpoint_num=0, **TEXT)

    tokenizer = SimpleTokenizer(vocabulary)
    model = Small(tokenizer=tokenizer, pretrain="").eval()
    state = fill(model)
    scores: dict[str, list[float]] = {}
    indices = {}
    for name, (num_frames, *_) in CLIPS["overall_consistency"].items():
        indices[name] = [int(index) for index in get_frame_indices(8, num_frames, sample="middle")]
        chosen = torch.from_numpy(clip_array("overall_consistency", name)).movedim(-1, 1)[indices[name]]
        for module in (overall_consistency, temporal_style):
            module.read_frames_decord_by_fps = lambda *_, chosen=chosen, **__: chosen
        asked = [{"prompt": prompt, "video_list": [name]} for prompt in PROMPTS]
        _, results = overall_consistency.overall_consistency(model, asked, tokenizer, "cpu")
        _, others = temporal_style.temporal_style(model, asked, tokenizer, "cpu")
        assert results == others
        scores[name] = [result["video_results"] for result in results]
    tokens = model.text_encoder.tokenize(PROMPTS, context_length=NUM_TOKENS).tolist()
    shapes = {name: list(value.shape) for name, value in state.items()}
    return {
        "shapes": shapes,
        "merges": MERGES,
        "prompts": PROMPTS,
        "tokens": tokens,
        "indices": indices,
        "scores": scores,
    }


def fill(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Give a model the random weights of its names and shapes, and return them."""
    state = {
        name: torch.from_numpy(random_array(name, tuple(value.shape))).to(value.dtype)
        for name, value in model.state_dict().items()
    }
    model.load_state_dict(state)
    return state


def clip_array(metric: str, name: str) -> np.ndarray:
    """Return 8-bit frames (frames, height, width, 3): a smooth picture that drifts, so that there is motion to see."""
    num_frames, height, width = CLIPS[metric][name]
    coarse = random_array(f"clip {metric} {name}", (1, (height // 16 + 4) * (width // 16 + 4) * 3))
    unit = coarse[0] / np.abs(coarse).max() * 0.5 + 0.5
    picture = unit.reshape(height // 16 + 4, width // 16 + 4, 3).repeat(16, axis=0).repeat(16, axis=1)
    frames = [picture[3 * i : 3 * i + height, 5 * i : 5 * i + width] for i in range(num_frames)]
    return np.round(np.stack(frames) * 255).astype(np.uint8)


def write_frames(folder: Path, metric: str, name: str) -> str:
    """Write a clip as files without loss and return their folder; VBench takes BMP for clips and PNG for pictures."""
    target = folder / f"{metric}-{name}"
    target.mkdir(exist_ok=True)
    for number, frame in enumerate(clip_array(metric, name)):
        Image.fromarray(frame).save(target / f"{number:03}.{'png' if metric == 'imaging_quality' else 'bmp'}")
    return str(target)


if __name__ == "__main__":
    main()
