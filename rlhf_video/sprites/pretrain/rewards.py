"""Warm up the sprite rewards on captions: two CLIP models see single frames, one X-CLIP model sees the clip.

What people vote on they learn afterwards, by rlhf_video/train_reward_model.py.
"""

import contextlib
import itertools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPModel, PreTrainedModel, XCLIPModel

from rewards.video_ops import CLIP_MEAN, CLIP_STD, normalise
from rlhf_video.data.fingerprint import weights_fingerprint
from rlhf_video.runtime.precision import bfloat16_linears
from rlhf_video.sprites.grammar import Scene
from rlhf_video.sprites.pretrain.clip_pool import GROUP, ClipPool, rendered_groups
from rlhf_video.sprites.pretrain.loop import fit
from rlhf_video.sprites.pretrain.reward_recipes import (
    MOTION_SHARE,
    MOTION_TOWER,
    STILL_ATTRIBUTES,
    TEXT_TOKENS,
    RewardRecipe,
    image_clip,
)
from rlhf_video.sprites.pretrain.text import sprite_tokenizer
from rlhf_video.sprites.renderer import FPS, NUM_FRAMES

logger = logging.getLogger(__name__)

MAP, PLACES_WEIGHT = 8, 8.0
"""Side of the maps of object places, and the weight of their error."""
IMAGE_STEPS = 600
"""Steps of the image tower that the video reward starts from."""
CACHED_GROUPS = 24
"""Groups per step on cached features."""
STILLS = 4
"""Moments of a clip that an image reward's pictures are drawn from."""


def contrast(
    recipe: RewardRecipe,
    model: PreTrainedModel,
    state_file: Path,
    *,
    held_out: ClipPool,
    num_steps: int,
    draws_places: bool = False,
) -> dict[str, object]:
    """Train an image reward in place to match rendered stills with their captions by CLIP's loss (arXiv:2103.00020).

    What people vote on is learned afterwards, as PickScore and HPS start from CLIP. Captions of one group differ in one
    attribute, so that shape counts as much as colour.

    Args:
        recipe: Which reward.
        model: What to train, on its device.
        state_file: Progress file.
        held_out: Clips of validation combinations.
        num_steps: Optimiser steps.
        draws_places: Whether a linear layer, thrown away afterwards, also draws from the features where the objects
            are. Captions of stills make a tower forget places, and motion is a change of place.
    """
    device = next(model.parameters()).device
    trained = nn.ModuleDict({"reward": model})
    if draws_places:
        trained["places"] = nn.Linear(model.config.projection_dim, MAP * MAP).to(device)
    seen: list[Tensor] = []

    def loss_at(step: int) -> Tensor:
        rng = np.random.default_rng((recipe.seed, 1, step))
        clips = _seen(recipe, rendered_groups(rng, "train", recipe.num_clips // GROUP, **_timing(recipe)), rng)
        video = clips.videos.to(device).float() / 255
        seen.clear()
        loss = _matching_loss(score_matrix(model, video, _token_ids(clips.scenes, device)))
        if draws_places:
            error = torch.sigmoid(trained["places"](seen[0])) - _object_map(video).flatten(0, 1).flatten(1)
            loss = loss + PLACES_WEIGHT * error.square().mean()
        return loss

    # The hook sees a frame's features before anything compares them with words.
    handle = model.visual_projection.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with bfloat16_linears(model):
        record = fit(
            trained, loss_at, num_steps=num_steps, muon_rate=5e-3, adamw_rate=1e-3, state_file=state_file,
            inputs=weights_fingerprint(model), validate=lambda: agreement(model, held_out, recipe.attributes),
            validate_every=200, ema_decay=0.99, autocast=False, warmup=50,
        )  # fmt: skip
    handle.remove()
    return record


def contrast_clips(
    recipe: RewardRecipe, model: XCLIPModel, state_file: Path, *, held_out: ClipPool, num_steps: int, num_clips: int
) -> dict[str, object]:
    """Train all but the vision tower of a video reward to match rendered clips with their captions.

    The order of frames is learned late: it takes thousands of steps, so the frames' features are computed once.
    """
    device, rng = next(model.parameters()).device, np.random.default_rng((recipe.seed, 2))
    scenes: list[Scene] = []
    features: list[tuple[Tensor, Tensor]] = []
    with torch.no_grad():
        for _ in range(num_clips // 32):
            clips = rendered_groups(rng, "train", 32 // GROUP, motion_share=MOTION_SHARE)
            pixels = normalise(clips.videos.to(device).float() / 255, CLIP_MEAN, CLIP_STD)
            tokens, frames = model.vision_model(pixels.flatten(0, 1), return_dict=True).to_tuple()[:2]
            features.append((tokens.unflatten(0, pixels.shape[:2]).half(), frames.unflatten(0, pixels.shape[:2])))
            scenes += clips.scenes
    all_tokens, all_frames = (torch.cat(parts) for parts in zip(*features, strict=True))
    model.vision_model.requires_grad_(False)

    def loss_at(step: int) -> Tensor:
        groups = np.random.default_rng((recipe.seed, 3, step)).permutation(num_clips // GROUP)[:CACHED_GROUPS]
        rows = (groups[:, None] * GROUP + np.arange(GROUP)).ravel()
        known = (all_tokens[rows].float().flatten(0, 1), all_frames[rows].flatten(0, 1))
        with _known_features(model, known):
            blank = torch.zeros(len(rows), NUM_FRAMES, 1, 1, 1, device=device)
            output = model(input_ids=_token_ids([scenes[row] for row in rows], device), pixel_values=blank)
        return _matching_loss(output.logits_per_video)

    record = fit(
        model, loss_at, num_steps=num_steps, muon_rate=5e-3, adamw_rate=2e-3, state_file=state_file,
        inputs=weights_fingerprint(model), validate=lambda: agreement(model, held_out, recipe.attributes),
        validate_every=500, ema_decay=0.995, autocast=False, warmup=50,
    )  # fmt: skip
    model.vision_model.requires_grad_(True)
    return record


@contextlib.contextmanager
def _known_features(model: XCLIPModel, known: tuple[Tensor, Tensor]) -> Iterator[None]:
    """Let the vision tower answer with features that were computed before."""
    model.vision_model.forward = lambda *_, **__: known
    yield
    del model.vision_model.forward


def _matching_loss(logits: Tensor) -> Tensor:
    own = torch.arange(len(logits), device=logits.device)
    return (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2


def _object_map(video: Tensor) -> Tensor:
    """Return where there is something, shape (clips, frames, MAP, MAP) in [0, 1]."""
    background = video.flatten(3).median(-1).values[..., None, None]
    differs = ((video - background).abs().amax(2) > 0.1).float()
    return functional.adaptive_avg_pool2d(differs, MAP)


def _timing(recipe: RewardRecipe) -> dict[str, Any]:
    """Return how its clips are rendered: whole, or as stills from beginning to end."""
    return {} if recipe.frames is None else {"num_frames": STILLS, "fps": STILLS * FPS / NUM_FRAMES}


def _seen(recipe: RewardRecipe, clips: ClipPool, rng: np.random.Generator) -> ClipPool:
    """Return the clips as the reward sees them in training: whole, or one random frame of each."""
    if recipe.frames is None:
        return clips
    count, num_frames = clips.videos.shape[:2]
    chosen = torch.from_numpy(rng.integers(num_frames, size=(count, recipe.frames)))
    return replace(clips, videos=clips.videos[torch.arange(count)[:, None], chosen])


def _token_ids(scenes: Sequence[Scene], device: torch.device) -> Tensor:
    prompts = [scene.prompt for scene in scenes]
    tokens = sprite_tokenizer()(prompts, padding="max_length", max_length=TEXT_TOKENS, return_tensors="pt")
    return tokens.input_ids.to(device)


def untrained(recipe: RewardRecipe, held_out: ClipPool, work: Path, *, device: str) -> PreTrainedModel:
    """Return the model of a recipe before its clips; an X-CLIP starts from an image CLIP, as its authors did.

    From nothing it does not leave chance level (docs/log.md; arXiv:2208.02816 starts from CLIP, too).
    """
    torch.manual_seed(recipe.seed)
    model = recipe.build().to(device)
    if isinstance(model, XCLIPModel):
        image = replace(
            recipe, questions=(STILL_ATTRIBUTES,), build=lambda: image_clip(**MOTION_TOWER), num_clips=128, frames=1
        )
        tower = image.build().to(device)
        contrast(
            image, tower, work / f"{recipe.name}-image.pt",
            held_out=held_out, num_steps=IMAGE_STEPS, draws_places=True,
        )  # fmt: skip
        renamed = {name.replace("pre_layrnorm", "pre_layernorm"): value for name, value in tower.state_dict().items()}
        own = model.state_dict()
        shared = {name: value for name, value in renamed.items() if name in own and own[name].shape == value.shape}
        logger.info("X-CLIP starts with %d tensors of an image CLIP", len(shared))
        model.load_state_dict(shared, strict=False)
    return model


def score_matrix(model: PreTrainedModel, video: Tensor, token_ids: Tensor) -> Tensor:
    """Return the score of every clip for every prompt, shape (prompts, clips).

    Args:
        model: A CLIPModel (mean over frames) or an XCLIPModel (all frames).
        video: (clips, frames, 3, 64, 64) in [0, 1].
        token_ids: (prompts, tokens).
    """
    pixels = normalise(video, CLIP_MEAN, CLIP_STD)
    if isinstance(model, XCLIPModel):
        output = model(input_ids=token_ids, pixel_values=pixels)
        return output.logits_per_video.T.float()
    assert isinstance(model, CLIPModel)
    images = functional.normalize(model.get_image_features(pixels.flatten(0, 1)).pooler_output, dim=-1)
    text = functional.normalize(model.get_text_features(input_ids=token_ids).pooler_output, dim=-1)
    cosine = text @ images.T
    return (cosine.unflatten(1, video.shape[:2]).mean(-1) * model.logit_scale.exp()).float()


@torch.no_grad()
def agreement(
    model: PreTrainedModel, pool: ClipPool, attributes: tuple[str, ...], *, num_batches: int = 8
) -> dict[str, float]:
    """Return how often the model orders same-prompt pairs as the verifier does, over all and per attribute.

    A pair counts for an attribute when the verifier tells the two clips apart in that attribute and in no other.
    """
    device, rng = next(model.parameters()).device, np.random.default_rng(0)
    agreed: dict[str, list[float]] = {"agreement": [], **{attribute: [] for attribute in attributes}}
    for _ in range(num_batches):
        clips = pool.groups(rng, 8)
        scenes = clips.scenes[::GROUP]
        video = clips.videos.to(device).float() / 255
        if not isinstance(model, XCLIPModel):
            video = video[:, ::4]
        score = score_matrix(model, video, _token_ids(scenes, device)).cpu().numpy()
        truth = clips.scores(scenes, attributes)
        single = {attribute: clips.scores(scenes, (attribute,)) for attribute in attributes}
        for prompt in range(len(scenes)):
            for a, b in itertools.combinations(range(len(clips.scenes)), 2):
                if abs(truth[prompt, a] - truth[prompt, b]) < 0.08:
                    continue
                right = float((score[prompt, a] > score[prompt, b]) == (truth[prompt, a] > truth[prompt, b]))
                agreed["agreement"].append(right)
                differing = [name for name, v in single.items() if abs(v[prompt, a] - v[prompt, b]) > 0.2]
                if len(differing) == 1:
                    agreed[differing[0]].append(right)
    return {key: round(float(np.mean(values)), 3) for key, values in agreed.items() if values}


def save_reward(folder: Path, model: PreTrainedModel) -> None:
    """Write the folder that `ClipPreference` or `VideoText` loads."""
    model.save_pretrained(folder)
    sprite_tokenizer().save_pretrained(folder)
