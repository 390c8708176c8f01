"""Render clips of the sprite world with their prompts, for fine-tuning: `python -m rlhf_video.sprites.clips FOLDER`."""

import argparse
import json
from pathlib import Path

import numpy as np

from rlhf_video.data import write_atomic, write_lossless
from rlhf_video.errors import exit_on_user_error
from rlhf_video.sprites.grammar import Split, random_scenes
from rlhf_video.sprites.renderer import FPS, NUM_FRAMES, render

COUNTS: dict[Split, int] = {"train": 400, "validation": 64}


def write_clips(folder: Path, split: Split, count: int, *, seed: int = 0, num_frames: int = NUM_FRAMES) -> Path:
    """Write lossless clips of random scenes of a split, and their manifest.json.

    Args:
        folder: Target, made if missing.
        split: Combinations of attributes that the scenes are drawn from; the three share none.
        count: Clips.
        seed: Decides the scenes and where their objects start.
        num_frames: Frames of each clip.

    Returns:
        The manifest, as `generate.py` writes it: {"clips": [{"file": ..., "prompt": ...}, ...]}.
    """
    rng = np.random.default_rng((seed, len(split)))
    scenes = [scene for scene, _ in zip(random_scenes(split, rng, two_object_share=0.2), range(count), strict=False)]
    clips = []
    for number, scene in enumerate(scenes):
        video = render([scene], [int(rng.integers(2**31))], num_frames=num_frames)[0]
        name = f"{number:04d}.mkv"
        write_lossless(folder / name, video, FPS)
        clips.append({"file": name, "prompt": scene.prompt})
    write_atomic(folder / "manifest.json", (json.dumps({"clips": clips}, indent=1) + "\n").encode())
    return folder / "manifest.json"


def main() -> None:
    """Write train and validation clips."""
    parser = argparse.ArgumentParser(prog="python -m rlhf_video.sprites.clips", description=__doc__)
    parser.add_argument("folder", type=Path, help="target, for example runs/sprite-clips")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-frames", type=int, default=NUM_FRAMES, help="frames of each clip, 4k + 1")
    arguments = parser.parse_args()
    with exit_on_user_error():
        for split, count in COUNTS.items():
            print(
                write_clips(
                    arguments.folder / split, split, count, seed=arguments.seed, num_frames=arguments.num_frames
                )
            )


if __name__ == "__main__":
    main()
