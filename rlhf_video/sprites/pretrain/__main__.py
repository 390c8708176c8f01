"""Pre-train every built-in checkpoint from nothing, or one stage of it; a killed run goes on where it was.

The rewards' last stage is rlhf_video/train_reward_model.py with configs/reward_model/sprite-*.yaml.

python -m rlhf_video.sprites.pretrain [all|prompts|vae|decoder|transformer|warmup|votes] [--device cuda] [--work DIR]
"""

import argparse
import json
import logging
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from transformers import XCLIPModel

from rlhf_video.sprites.pretrain import cards
from rlhf_video.sprites.pretrain.clip_pool import rendered_groups
from rlhf_video.sprites.pretrain.generated import generated_pool
from rlhf_video.sprites.pretrain.reward_recipes import RECIPES, RewardRecipe
from rlhf_video.sprites.pretrain.rewards import (
    contrast,
    contrast_clips,
    save_reward,
    untrained,
)
from rlhf_video.sprites.pretrain.transformer import save_pipeline, train_transformer
from rlhf_video.sprites.pretrain.vae import sharpen_decoder, train_vae
from rlhf_video.sprites.pretrain.votes import write_votes
from rlhf_video.sprites.suites import write_suites

STAGES = ("prompts", "vae", "decoder", "transformer", "warmup", "votes")
VAE_STEPS, DECODER_STEPS, TRANSFORMER_STEPS, TRANSFORMER_CLIPS = 2100, 4500, 6000, 8_000
WARMUP_STEPS = {"sprite-clip": 800, "sprite-clip-heldout": 700, "sprite-motion": 2500}
CACHED_CLIPS = 9600
POOL_CLIPS, HELD_OUT_CLIPS = 512, 192


def main() -> None:
    """Run the stages asked for, in order."""
    parser = argparse.ArgumentParser(prog="python -m rlhf_video.sprites.pretrain", description=__doc__)
    parser.add_argument("stage", nargs="?", default="all", choices=("all", *STAGES))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/pretrain"), help="progress files, cached latents and clips"
    )
    parser.add_argument("--assets", type=Path, default=Path("assets"))
    parser.add_argument("--only", help="one reward of the stages warmup and votes, for example sprite-motion")
    flags = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    flags.work.mkdir(parents=True, exist_ok=True)
    run = {
        "prompts": _prompts,
        "vae": _vae,
        "decoder": _decoder,
        "transformer": _transformer,
        "warmup": _warmup,
        "votes": _votes,
    }
    for stage in STAGES if flags.stage == "all" else (flags.stage,):
        run[stage](flags)


def _prompts(flags: argparse.Namespace) -> None:
    write_suites(flags.assets / "prompts")


def _vae(flags: argparse.Namespace) -> None:
    vae, record = train_vae(flags.work, num_steps=VAE_STEPS, device=flags.device)
    vae.save_pretrained(flags.work / "vae-joint")
    _keep_record(flags, "vae", record)


def _decoder(flags: argparse.Namespace) -> None:
    vae = AutoencoderKLWan.from_pretrained(flags.work / "vae-joint").to(flags.device)
    record = sharpen_decoder(vae, flags.work, num_steps=DECODER_STEPS)
    vae.save_pretrained(flags.work / "vae")
    _keep_record(flags, "decoder", record)


def _transformer(flags: argparse.Namespace) -> None:
    joint = AutoencoderKLWan.from_pretrained(flags.work / "vae-joint").to(flags.device)
    model, record = train_transformer(
        flags.work, joint, num_steps=TRANSFORMER_STEPS, num_clips=TRANSFORMER_CLIPS, device=flags.device
    )
    _keep_record(flags, "transformer", record)
    vae = AutoencoderKLWan.from_pretrained(flags.work / "vae")
    save_pipeline(flags.assets / "sprite-wan", model.cpu(), vae)
    cards.write_model_card(flags.assets / "sprite-wan", flags.work, flags.device)


def _warmup(flags: argparse.Namespace) -> None:
    """Rewards match rendered clips with captions first; needs no generator."""
    held_out = rendered_groups(np.random.default_rng(12), "validation", 75)
    for recipe in _chosen(flags):
        model = untrained(recipe, held_out, flags.work, device=flags.device)
        steps, file = WARMUP_STEPS[recipe.name], flags.work / f"{recipe.name}-warmup.pt"
        if isinstance(model, XCLIPModel):
            contrast_clips(recipe, model, file, held_out=held_out, num_steps=steps, num_clips=CACHED_CLIPS)
        else:
            contrast(recipe, model, file, held_out=held_out, num_steps=steps)
        save_reward(flags.work / f"{recipe.name}-warmup", model)


def _votes(flags: argparse.Namespace) -> None:
    """Write the votes that train_reward_model.py learns; half is on generated clips, or rewards are fooled at once."""
    model, clips = flags.assets / "sprite-wan", flags.work / "clips"
    held_out = generated_pool(model, "validation", HELD_OUT_CLIPS, seed=14, work=clips, device=flags.device)
    for recipe in _chosen(flags):
        generated = generated_pool(model, "train", POOL_CLIPS, seed=recipe.pool, work=clips, device=flags.device)
        write_votes(recipe, flags.work / "votes" / recipe.name, generated=generated, held_out=held_out)


def _chosen(flags: argparse.Namespace) -> list[RewardRecipe]:
    return [recipe for recipe in RECIPES if flags.only in (None, recipe.name)]


def _keep_record(flags: argparse.Namespace, name: str, record: dict[str, object]) -> None:
    (flags.work / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
