"""Record what VBench-Long's own code and VBench's static filter compute: writes tests/parity/golden/vbench_long.json.

Run it in an environment of its own with the package vbench and what it asks for (as record_vbench_motion.py), scipy,
and scenedetect 0.6.7 (its ContentDetector alone is used). The package lacks VBench-Long's configs, and DINOv2 comes by
torch.hub in the original; both are given as checkouts of their repositories:

    PYTHONPATH=. python tests/parity/record_vbench_long.py VBENCH DINOV2

Modules that the original imports and that nothing here calls (moviepy, dreamsim) are replaced by empty ones.
"""

import json
import os
import sys
import tempfile
import types
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
import torch
import torchvision
from recording import versions

from evaluation.ports.random_weights import random_clip
from rewards.random_weights import random_array

GOLDEN = Path(__file__).parent / "golden" / "vbench_long.json"
SPLITS = [(81, 16.0, 2), (64, 16.0, 2), (49, 16.0, 2), (31, 16.0, 2), (32, 16.0, 2), (33, 16.0, 2), (121, 24.0, 2)]
SPLITS += [(120, 23.976, 2), (90, 8.0, 10), (79, 8.0, 10), (161, 16.0, 10)]
FUSIONS = [(0.9, 0.0), (0.9, 0.004), (0.9, 0.01), (0.95, 0.613), (0.8, 0.9999), (0.7, 1.0), (0.99, 0.777)]
DINOV2 = {"img_size": 56, "patch_size": 14, "embed_dim": 128, "depth": 2, "num_heads": 2, "mlp_ratio": 4}
FIRST_FRAMES = {"landscape": (4, 300, 420), "portrait": (3, 330, 270), "small": (2, 120, 130)}
FLOWS = {"whole": (3, 128, 144), "padded": (3, 131, 150)}
SPEEDS = {
    "still": [0.0] * 15 + [0.0, 0.0],
    "two_of_16_may": [9.0, 9.0] + [0.0] * 13 + [0.0, 0.0],
    "three_of_16_may_not": [9.0, 9.0, 9.0] + [0.0] * 12 + [0.0, 0.0],
    "at_the_threshold": [3.0] * 15 + [12.0, 12.0],
    "far_from_the_first": [0.0] * 15 + [12.5, 0.0],
    "far_from_the_last": [0.0] * 15 + [0.0, 12.5],
    "four_frames_may_not_move": [0.0] * 3 + [0.1, 0.0],
    "half_rounds_to_even_down": [9.0, 9.0] + [9.0] + [0.0] * 16 + [0.0, 0.0],
    "half_rounds_to_even_up": [9.0, 9.0] + [0.0] * 9 + [0.0, 0.0],
}
SCENES = {"grey": (6, 40, 60), "colourful": (5, 48, 50)}


def main(vbench: Path, dinov2: Path) -> None:
    """Record and write."""
    for name in ("moviepy", "moviepy.editor", "dreamsim"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["moviepy.editor"].VideoFileClip = None  # type: ignore[attr-defined]
    sys.modules["dreamsim"].dreamsim = None  # type: ignore[attr-defined]
    torchvision.io.write_video = None  # gone from torchvision, and replaced below where it is called
    sys.path.append(str(dinov2))
    os.environ["XFORMERS_DISABLED"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        golden = {
            "made_by": "tests/parity/record_vbench_long.py",
            "versions": versions("vbench", "torch", "torchvision", "scenedetect", "numpy"),
            "splits": record_splits(Path(folder)),
            "fusions": record_fusions(vbench / "vbench2_beta_long" / "configs"),
            "first_frames": record_first_frames(),
            "static_filter": record_static_filter(Path(folder)),
            "scenes": record_scenes(),
        }
    GOLDEN.write_text(json.dumps(golden, indent=1) + "\n")


def record_splits(folder: Path) -> list[dict[str, Any]]:
    """Return the first frame and the number of frames of each part."""
    from vbench2_beta_long import utils

    recorded = []
    for num_frames, fps, seconds in SPLITS:
        numbered = torch.arange(num_frames)[:, None, None, None].expand(-1, 3, 2, 2)
        written: list[list[int]] = []

        def note(_path: str, frames: torch.Tensor, written: list[list[int]] = written, **_: object) -> None:
            written.append([int(frames[0, 0, 0, 0]), len(frames)])

        with (
            mock.patch.object(utils, "load_video", lambda *_, shown=numbered, **__: shown),
            mock.patch.object(utils, "get_video_properties", lambda _, rate=fps: {"fps": int(rate)}),
            mock.patch.object(utils, "write_video", note),
        ):
            utils.split_video_into_clips("clip.mp4", str(folder), seconds)
        recorded.append({"num_frames": num_frames, "fps": fps, "seconds": seconds, "parts": written})
    return recorded


def record_fusions(configs: Path) -> dict[str, list[dict[str, float]]]:
    """Return what becomes of a consistency inside the parts and one between them."""
    from vbench2_beta_long.utils import fuse_inclip_clip2clip

    options = {
        "slow_fast_eval_config": str(configs / "slow_fast_params.yaml"),
        "sb_mapping_file_path": str(configs / "subject_mapping_table.yaml"),
        "bg_mapping_file_path": str(configs / "background_mapping_table.yaml"),
        "dev_flag": True,
    }
    recorded: dict[str, list[dict[str, float]]] = {}
    for dimension in ("subject_consistency", "background_consistency"):
        for in_clip, clip_to_clip in FUSIONS:
            one = [{"video_path": "clip.mp4", "video_results": in_clip}]
            other = [{"video_path": "clip.mp4", "video_results": clip_to_clip}]
            fused, _ = fuse_inclip_clip2clip(0.0, 0.0, one, other, dimension, **options)
            recorded.setdefault(dimension, []).append(
                {"in_clip": in_clip, "clip_to_clip": clip_to_clip, "fused": float(fused)}
            )
    return recorded


def record_first_frames() -> dict[str, Any]:
    """Return the consistency of first frames by a small DINOv2."""
    from dinov2.models.vision_transformer import DinoVisionTransformer
    from vbench2_beta_long import subject_consistency

    model = DinoVisionTransformer(**DINOV2, init_values=1.0, block_chunks=0, interpolate_offset=0.1).eval()
    state = {name: torch.from_numpy(random_array(name, tuple(v.shape))) for name, v in model.state_dict().items()}
    model.load_state_dict(state)
    scores = {}
    for name, size in FIRST_FRAMES.items():
        frames = torch.from_numpy(random_clip(name, *size)).permute(0, 3, 1, 2).float()
        with mock.patch.object(subject_consistency, "load_video", lambda _, shown=frames: shown):
            _, results = subject_consistency.subject_consistency_dinov2(model, ["clip.mp4"], "cpu", False)
        scores[name] = float(results[0]["video_results"])
    return {
        "shapes": {name: list(value.shape) for name, value in state.items()},
        "clips": FIRST_FRAMES,
        "scores": scores,
    }


def record_static_filter(folder: Path) -> dict[str, Any]:
    """Return the speed of each pair of frames, and the verdicts on speeds."""
    from easydict import EasyDict
    from vbench.cli.static_filter import StaticFilter
    from vbench.third_party.RAFT.core.raft import RAFT

    settings = EasyDict(small=False, mixed_precision=False, alternate_corr=False, model=str(folder / "raft.pth"))
    shapes = {name: tuple(value.shape) for name, value in RAFT(settings).state_dict().items()}
    state = {f"module.{name}": torch.from_numpy(random_array(name, shape)) for name, shape in shapes.items()}
    torch.save(state, settings.model)
    original = StaticFilter(settings, "cpu")
    decide, speeds = original.check_static, {}
    for name, size in FLOWS.items():
        pixels = torch.from_numpy(random_clip(name, *size)).permute(0, 3, 1, 2).float()
        original.get_frames = lambda _, shown=pixels: [frame[None] for frame in shown]

        def note(scores: list[float], name: str = name) -> bool:
            speeds[name] = [float(score) for score in scores]
            return True

        original.check_static = note
        original.infer("clip.mp4")
    verdicts = {}
    for name, listed in SPEEDS.items():
        original.set_params(torch.zeros(1, 3, 256, 300), len(listed) - 1)
        verdicts[name] = {"speeds": listed, "is_static": decide(listed)}
    return {
        "shapes": {name: list(shape) for name, shape in shapes.items()},
        "clips": FLOWS,
        "speeds": speeds,
        "verdicts": verdicts,
    }


def record_scenes() -> dict[str, Any]:
    """Return PySceneDetect's score of each frame but the first."""
    from scenedetect.detectors import ContentDetector

    scores = {}
    for name, size in SCENES.items():
        detector = ContentDetector(threshold=35.0)
        frames = random_clip(name, *size)
        if name == "grey":
            frames = np.repeat(frames[..., :1], 3, axis=-1)
        found = []
        for number, frame in enumerate(frames):
            detector.process_frame(number, cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
            found.append(float(detector._frame_score))
        scores[name] = found[1:]
    return {"clips": SCENES, "scores": scores}


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
