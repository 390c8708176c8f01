"""Measure the built-in model on validation combinations: `python -m rlhf_video.sprites.measure`.

Writes assets/sprite-wan/measured.json and the README's contact sheet, docs/images/sprite-wan.png.
"""

import json
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan

from rlhf_video.backbones import load_backbone
from rlhf_video.data import contact_sheet
from rlhf_video.sprites.grammar import Scene, parse_prompt
from rlhf_video.sprites.pretrain.generated import generate_clips
from rlhf_video.sprites.pretrain.vae import reconstruct
from rlhf_video.sprites.renderer import render
from rlhf_video.sprites.suites import suite
from rlhf_video.sprites.verifier import ATTRIBUTES, Verdict, judge_clips

MODEL = Path("assets/sprite-wan")
NUM_STEPS = 10
GUIDANCES = {"base": 1.0, "base, guidance 5": 5.0}
"""The sampler of configs/reward_bp/sprite.yaml, and WanPipeline's own guidance at twice the cost."""


def measure_vae(folder: Path = MODEL, *, clips_per_prompt: int = 3) -> dict[str, float]:
    """Return the round trip's PSNR in dB and the share of clips of the validation prompts that keep every attribute."""
    vae = AutoencoderKLWan.from_pretrained(folder, subfolder="vae")
    scenes = [parse_prompt(prompt) for prompt in suite("validation")] * clips_per_prompt
    video = render(scenes, range(len(scenes)))
    decoded = reconstruct(vae, video)
    psnr = -10 * (decoded - video).square().mean((1, 2, 3, 4)).log10()
    shares = _shares(judge_clips(decoded, scenes), scenes)
    return {"vae_psnr_db": round(float(psnr.mean()), 2), **{f"vae_round_trip/{k}": v for k, v in shares.items()}}


def measure_base(
    folder: Path = MODEL, *, name: str = "base", clips_per_prompt: int = 2, sheet: Path | None = None
) -> dict[str, float]:
    """Return the share of right clips per attribute on the validation prompts.

    Args:
        folder: The model.
        name: Which sampler, a key of `GUIDANCES`.
        clips_per_prompt: Clips per prompt.
        sheet: Where a contact sheet of a few of the clips goes; None draws none.
    """
    backbone = load_backbone(folder)
    scenes = tuple(parse_prompt(prompt) for prompt in suite("validation"))
    clips = torch.cat(
        [
            generate_clips(
                backbone, scenes[i : i + 15], seed=100 * k + i, guidance=GUIDANCES[name], num_steps=NUM_STEPS
            )
            for k in range(clips_per_prompt)
            for i in range(0, len(scenes), 15)
        ]
    )
    if sheet is not None:
        shown = range(0, len(scenes), len(scenes) // 7)[:8]
        contact_sheet([clips[i].float() / 255 for i in shown], sheet, labels=[scenes[i].prompt for i in shown])
    verdicts = judge_clips(clips.float() / 255, scenes * clips_per_prompt)
    return {f"{name}/{key}": share for key, share in _shares(verdicts, list(scenes) * clips_per_prompt).items()}


def _shares(verdicts: list[Verdict], scenes: list[Scene]) -> dict[str, float]:
    rows = {"all": [v.all_correct for v in verdicts]}
    for count, name in ((1, "all, one object"), (2, "all, two objects")):
        rows[name] = [v.all_correct for v, scene in zip(verdicts, scenes, strict=True) if len(scene.sprites) == count]
    rows |= {attribute: [v.correct[attribute] for v in verdicts] for attribute in ATTRIBUTES}
    return {key: round(float(np.mean(values)), 3) for key, values in rows.items()}


if __name__ == "__main__":
    measured = {**measure_vae(), **measure_base()}
    measured |= measure_base(name="base, guidance 5", sheet=Path("docs/images/sprite-wan.png"))
    (MODEL / "measured.json").write_text(json.dumps(measured, indent=1) + "\n")
