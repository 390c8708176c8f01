"""Ballots for the sprite rewards: clips on disk, noisy votes on them as preference pairs; the verifier is the voter."""

import hashlib
import itertools
import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rlhf_video.data import sha256_file, write_lossless
from rlhf_video.preferences import OVERALL, ClipRecord, Label, PreferencePair, PreferenceStore
from rlhf_video.preferences.simulated_votes import simulated_votes
from rlhf_video.sprites.grammar import Scene
from rlhf_video.sprites.pretrain.clip_pool import GROUP, ClipPool, rendered_groups
from rlhf_video.sprites.pretrain.reward_recipes import MOTION_SHARE, RewardRecipe
from rlhf_video.sprites.renderer import FPS
from rlhf_video.sprites.verifier import judge_reading

logger = logging.getLogger(__name__)

VOTE_SHARPNESS = 10.0
"""How surely a vote follows a difference in verifier score: P(A wins) = sigmoid(sharpness x difference)."""
VOTE_FLIPS = 0.08
"""Share of votes that are simply wrong."""
VOTERS = 8
"""Voters of each train pair; their share is its soft label."""
ALIKE = 0.02
"""Differences of the verifier's scores below it get no vote."""
TRAIN_GROUPS = 320
"""Groups of rendered train clips, and as many of generated ones."""
PAIRS_PER_CLIP = 12
"""Comparisons under each train clip's prompt, most of them between clips that are alike."""
TOLD_APART = 0.08
"""Least difference of the verifier's scores that a validation pair needs for a winner; less is a tie."""
ONE_ATTRIBUTE = 0.2
"""Least difference in one attribute alone for a validation pair to be about that attribute."""
OTHER_CLIPS, OTHERS_PER_PROMPT = "other_clips", 8
"""Label of validation pairs whose clips were made for any prompt, easier only measured; and how many per prompt."""
_RENDERER, _GENERATOR = "rlhf_video.sprites.renderer", "assets/sprite-wan"


def write_votes(
    recipe: RewardRecipe, folder: Path, *, generated: ClipPool, held_out: ClipPool, num_groups: int = TRAIN_GROUPS
) -> None:
    """Write `train.jsonl`, `validation.jsonl` and `clips/`, replacing what was there.

    Train pairs carry noisy votes per question of the recipe: the share of A as soft label, and the majority. Validation
    pairs carry the verifier's opinion without noise: `overall` for two clips of one prompt, an attribute's name where
    they differ in that attribute alone.

    Args:
        recipe: Whose voters; its questions and its seed.
        folder: Target.
        generated: Generated clips of train combinations.
        held_out: Generated clips of validation combinations.
        num_groups: Groups of rendered clips, and of generated ones.
    """
    if folder.exists():
        shutil.rmtree(folder)
    rng = np.random.default_rng((recipe.seed, 5))
    share = MOTION_SHARE if "motion" in recipe.attributes else 0.0
    # Generated ones alone would not do: they are right too often in one attribute and too seldom in another.
    pool = rendered_groups(rng, "train", num_groups, motion_share=share) + generated.groups(rng, num_groups)
    models = [_RENDERER] * (num_groups * GROUP) + [_GENERATOR] * (num_groups * GROUP)
    num_train = PreferenceStore(folder / "train.jsonl").append(_voted(recipe, _Filed(pool, models, folder), rng))
    held = _Filed(held_out, [_GENERATOR] * len(held_out.scenes), folder)
    num_held = PreferenceStore(folder / "validation.jsonl").append(_judged(recipe, held, rng))
    logger.info("%s: %d train and %d validation pairs in %s", recipe.name, num_train, num_held, folder)


def vote(difference: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the share of `VOTERS` noisy voters who prefer A, for each difference of verifier scores (A minus B)."""
    return simulated_votes(difference, rng, voters=VOTERS, sharpness=VOTE_SHARPNESS, flips=VOTE_FLIPS)


def questions_by_label(recipe: RewardRecipe) -> dict[str, tuple[str, ...]]:
    """Return label -> attributes: `overall` for the widest question, then the attributes' names."""
    first, *others = recipe.questions
    return {OVERALL: first, **{"+".join(question): question for question in others}}


@dataclass
class _Filed:
    """A pool whose clips are written when a pair first names them, under the hash of their pixels."""

    pool: ClipPool
    models: list[str]
    """What made each clip."""
    folder: Path
    records: dict[int, ClipRecord] = field(default_factory=dict)

    def record(self, index: int) -> ClipRecord:
        """Return the record of a clip."""
        if index not in self.records:
            video = self.pool.videos[index]
            name = f"clips/{hashlib.sha256(video.numpy().tobytes()).hexdigest()[:20]}.mkv"
            if not (self.folder / name).exists():
                write_lossless(self.folder / name, video.float() / 255, FPS)
            digest = sha256_file(self.folder / name)
            self.records[index] = ClipRecord(path=name, sha256=digest, model=self.models[index])
        return self.records[index]

    def pair(self, prompt: str, a: int, b: int, **facts: Any) -> PreferencePair | None:
        """Return a pair with these labels, None where nothing was answered or both clips are the same."""
        first, second = self.record(a), self.record(b)
        if not facts.get("labels") or first.sha256 == second.sha256:
            return None
        return PreferencePair(prompt=prompt, a=first, b=second, source="synthetic", **facts)


def _voted(recipe: RewardRecipe, clips: _Filed, rng: np.random.Generator) -> Iterator[PreferencePair]:
    """Yield train pairs: under each clip's own prompt, 60% within its group, the rest from anywhere."""
    pool, num_clips = clips.pool, len(clips.pool.scenes)
    for anchor, scene in enumerate(pool.scenes):
        a, b = rng.integers(num_clips, size=(2, PAIRS_PER_CLIP))
        within = rng.random(PAIRS_PER_CLIP) < 0.6
        a[within], b[within] = anchor // GROUP * GROUP + rng.integers(GROUP, size=(2, within.sum()))
        shares: list[dict[str, float]] = [{} for _ in a]
        for label, attributes in questions_by_label(recipe).items():
            gaps = np.array([_gap(pool, scene, i, j, attributes) for i, j in zip(a, b, strict=True)])
            for answer, gap, share in zip(shares, gaps, vote(gaps, rng).tolist(), strict=True):
                if abs(gap) > ALIKE:
                    answer[label] = share
        for i, j, soft in zip(a.tolist(), b.tolist(), shares, strict=True):
            labels = {label: _opinion(share - 0.5, 1e-9) for label, share in soft.items()}
            pair = clips.pair(scene.prompt, i, j, labels=labels, soft=soft, num_votes=VOTERS)
            if pair is not None:
                yield pair


def _judged(recipe: RewardRecipe, clips: _Filed, rng: np.random.Generator) -> Iterator[PreferencePair]:
    """Yield every pair of clips of one prompt, and under each prompt a few pairs of clips of other prompts."""
    pool = clips.pool
    by_scene: dict[Scene, list[int]] = {}
    for index, scene in enumerate(pool.scenes):
        by_scene.setdefault(scene, []).append(index)
    for scene, own in by_scene.items():
        for i, j in itertools.combinations(own, 2):
            labels: dict[str, Label] = {OVERALL: _opinion(_gap(pool, scene, i, j, recipe.attributes), TOLD_APART)}
            single = {name: _gap(pool, scene, i, j, (name,)) for name in recipe.attributes}
            differing = [name for name, gap in single.items() if abs(gap) > ONE_ATTRIBUTE]
            if len(differing) == 1:
                labels[differing[0]] = _opinion(single[differing[0]], ONE_ATTRIBUTE)
            if (pair := clips.pair(scene.prompt, i, j, labels=labels)) is not None:
                yield pair
        for i, j in rng.integers(len(pool.scenes), size=(OTHERS_PER_PROMPT, 2)).tolist():
            label = _opinion(_gap(pool, scene, i, j, recipe.attributes), TOLD_APART)
            pair = clips.pair(scene.prompt, i, j, labels={OTHER_CLIPS: label})
            if label != "tie" and pair is not None:
                yield pair


def _gap(pool: ClipPool, scene: Scene, a: int, b: int, attributes: tuple[str, ...]) -> float:
    """Return the verifier's score of A minus that of B for a scene."""
    first, second = (judge_reading(pool.readings[index], scene).score(attributes) for index in (a, b))
    return first - second


def _opinion(gap: float, least: float) -> Label:
    return "tie" if abs(gap) < least else ("A" if gap > 0 else "B")
