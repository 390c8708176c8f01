"""Cards of the built-in checkpoints: what they are, how they were made, what was measured."""

import json
import platform
from pathlib import Path

import torch

_COMMAND = "python -m rlhf_video.sprites.pretrain"


def write_model_card(folder: Path, work: Path, device: str) -> None:
    """Write sprite-wan's card and the facts that `load_backbone` reads beside the pipeline."""
    records = {name: json.loads((work / f"{name}.json").read_text()) for name in ("vae", "decoder", "transformer")}
    rows = "\n".join(f"| {name} | {r['steps']} | {r['minutes']} | {_last(r)} |" for name, r in records.items())
    (folder / "README.md").write_text(
        f"""# sprite-wan

A text-to-video model of the real classes (`WanPipeline`), small enough for two CPU cores: 64x64 pixels, 21 frames, 8
fps, prompts of the sprite grammar such as "a red circle moving left on a navy background". Licence: Apache-2.0.

Data: clips rendered by `rlhf_video.sprites.renderer` of train combinations, captions with noise. Command: `{_COMMAND}`.
Hardware: {_hardware(device)}.

| stage | optimiser steps | minutes | at the end, on validation combinations |
|---|---|---|---|
{rows}
"""
    )
    facts = {"text_length": 32, "fps": 8, "default_shift": 3.0}
    (folder / "rlhf_video.json").write_text(json.dumps(facts) + "\n")


def _last(record: dict[str, object]) -> str:
    history = record["history"]
    assert isinstance(history, list)
    return ", ".join(f"{key} {value}" for key, value in history[-1].items() if key != "step")


def _hardware(device: str) -> str:
    if device != "cpu":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    return f"{platform.machine()} CPU, {torch.get_num_threads()} thread, torch {torch.__version__}"
