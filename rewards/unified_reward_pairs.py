"""UnifiedReward as a judge of two clips of one prompt: which is better, per dimension, and by how much.

Prompt and form of the answer are those that UnifiedReward 2.0 was trained on (github.com/CodeGoat24/UnifiedReward,
inference_qwen/UnifiedReward-2.0-inference/pair_score_video_generation.py), so the wording must not change.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from rewards.base import FramePolicy, RewardOutput, masked_output, parse_frame_policy
from rewards.errors import RewardError
from rewards.http_judge import Answer
from rewards.inputs import check_clips
from rewards.judge import Judge, Question, Verdict
from rewards.judge_answers import no_verdict, number_in, whole_text
from rewards.judge_connection import JudgeUsage, connect
from rewards.judge_frames import FrameFormat, to_bytes
from rewards.unified_reward import check_prompts, greedy

TEMPLATE_VERSION = "unified-reward-2.0-pair/1"
DIMENSIONS = ("alignment", "coherence", "style")
SUM_TOLERANCE = 0.011
"""The two shares must sum to 1 up to rounding to two digits each."""

_QUESTION = """\
You are presented with two generated videos (Video 1 and Video 2) along with a shared text caption. \
Your task is to comparatively evaluate the two videos across three specific dimensions:

- Alignment Score: How well each video matches the caption in terms of content.
- Coherence Score: How logically consistent and visually coherent each video is \
(absence of visual glitches, distorted objects, etc.).
- Style Score: How aesthetically appealing each video is, regardless of caption accuracy.

For each dimension, you must assign a relative score to Video 1 and Video 2, such that:
- Each score is a float between 0 and 1 (inclusive).
- The scores for Video 1 and Video 2 must sum to exactly 1.0 for each dimension.
- The higher the score, the better that video is in the corresponding dimension *relative to the other*.

This format emphasizes comparative quality rather than absolute evaluation.

Please provide your evaluation in the format below:

Alignment Score:
 Video 1: X
 Video 2: Y

Coherence Score:
 Video 1: X
 Video 2: Y

Style Score:
 Video 1: X
 Video 2: Y

Your task is provided as follows:
Text Caption: ["""

_BLOCK = (
    r"{name} Score:[ \t]*\n[ \t]*Video 1:[ \t]*([0-9]+(?:\.[0-9]+)?)[ \t]*\n[ \t]*Video 2:[ \t]*([0-9]+(?:\.[0-9]+)?)"
)
_ANSWER = re.compile(r"\s*" + r"\s*\n\s*".join(_BLOCK.format(name=name.capitalize()) for name in DIMENSIONS) + r"\s*")


class UnifiedRewardPairs:
    """Share of the first clip in each dimension, from 0 (second is better) to 1 (first is better), 0.5 a tie.

    Judges prefer a position. By default both orders are asked and averaged, so that swapping the clips gives exactly
    one minus the share; it costs two answers per pair. A pair is invalid when one of its answers is.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        frames: FramePolicy | str | Mapping[str, object] | None = None,
        both_orders: bool = True,
        encoding: Literal["jpeg", "png"] = "jpeg",
        jpeg_quality: int = 95,
        max_tokens: int = 256,
        cache: str | Path | None = None,
        connection: Mapping[str, object] | None = None,
        extra_body: Mapping[str, object] | None = None,
    ) -> None:
        """Prepare to ask; nothing is sent before the first pair.

        Args:
            base_url: Address of the server, for example "http://localhost:8080".
            model: The name under which it offers the model.
            frames: Which frames of each clip are sent, none twice; 8 uniform ones by default (the authors' number).
            both_orders: Whether each pair is asked in both orders.
            encoding: `jpeg` (the authors' client) or `png`, which is lossless.
            jpeg_quality: 1 to 100.
            max_tokens: Longest answer; nine lines need about 80.
            cache: SQLite file that keeps answers by content, None keeps none. One file per served weights.
            connection: Other fields of `Connection`, for example {concurrency: 16, api_key_env: JUDGE_KEY}.
            extra_body: More fields of the request.

        Raises:
            RewardError: An option out of range, an unknown field, or a cache that cannot be used.
        """
        if max_tokens < 1:
            raise RewardError(f"max_tokens must be 1 or more, got {max_tokens}.")
        self._policy = parse_frame_policy(frames or FramePolicy("uniform", 8))
        self._both_orders = both_orders
        self._judge = Judge(
            connect(base_url, model, connection),
            read=read_pair,
            template_version=TEMPLATE_VERSION,
            form=FrameFormat(encoding, jpeg_quality),
            sampling=greedy(max_tokens),
            extra_body=extra_body,
            cache=cache,
        )

    @property
    def usage(self) -> JudgeUsage:
        """What has been asked, and what it cost."""
        return self._judge.usage

    def compare(self, first: Tensor, second: Tensor, prompts: Sequence[str], *, fps: float) -> RewardOutput:
        """Compare clips pair by pair.

        Args:
            first: (batch, frames, 3, height, width), RGB in [0, 1].
            second: The same shape.
            prompts: One per pair.
            fps: Frames per second of both.

        Returns:
            Per dimension the share of the first clip, shape (batch,).

        Raises:
            RewardError: Input of the wrong form, an empty prompt, nobody answers, or the server refuses everybody.
        """
        one, two = check_clips(first, prompts, fps=fps), check_clips(second, prompts, fps=fps)
        check_prompts(prompts)
        if one.video.shape != two.video.shape:
            raise RewardError(
                f"Two clips of one pair need one shape, got {tuple(one.video.shape)} and {tuple(two.video.shape)}: the "
                "judge finds where Video 2 begins by halving the frames, and must not compare sizes."
            )
        asked = [i for i, valid in enumerate((one.valid & two.valid).tolist()) if valid]
        questions = []
        for i in asked:
            left, right = (self._frames(clip.video[i], fps) for clip in (one, two))
            questions += [_question(a, b, prompts[i]) for a, b in self._orders(left, right)]
        verdicts = self._judge.ask(questions)
        num_orders = 2 if self._both_orders else 1
        pairs = [_mean_of_orders(verdicts[k : k + num_orders]) for k in range(0, len(verdicts), num_orders)]
        found = dict(zip(asked, pairs, strict=True))
        skipped = [a or b for a, b in zip(one.reasons, two.reasons, strict=True)]
        merged = [found.get(i, Verdict({}, reason)) for i, reason in enumerate(skipped)]
        scores = {
            key: torch.tensor([verdict.values.get(key, float("nan")) for verdict in merged]).to(one.video)
            for key in DIMENSIONS
        }
        valid = torch.tensor([verdict.reason is None for verdict in merged], device=one.video.device)
        return masked_output(scores, valid, tuple(verdict.reason for verdict in merged))

    def _frames(self, clip: Tensor, fps: float) -> np.ndarray:
        return to_bytes(clip[list(dict.fromkeys(self._policy.select(clip.shape[0], fps=fps)))])

    def _orders(self, left: np.ndarray, right: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        return [(left, right), (right, left)] if self._both_orders else [(left, right)]


def _question(first: np.ndarray, second: np.ndarray, prompt: str) -> Question:
    return Question(np.concatenate([first, second]), f"{_QUESTION}{prompt}]")


def _mean_of_orders(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the first clip's share; the second verdict, where there is one, saw the clips swapped."""
    for verdict in verdicts:
        if verdict.reason is not None:
            return verdict
    if len(verdicts) == 1:
        return verdicts[0]
    straight, swapped = verdicts
    return Verdict({key: (straight.values[key] + 1 - swapped.values[key]) / 2 for key in DIMENSIONS})


def read_pair(answer: Answer) -> dict[str, float]:
    """Return the first video's share per dimension.

    Raises:
        JudgeError: The answer is not exactly three blocks of two shares in [0, 1] that sum to 1.
    """
    match = _ANSWER.fullmatch(whole_text(answer))
    if match is None:
        raise no_verdict(answer, "it is not the three blocks that were asked for")
    shares = {}
    for i, name in enumerate(DIMENSIONS):
        first, second = (number_in(answer, name, float(match[2 * i + k]), 0, 1) for k in (1, 2))
        if abs(first + second - 1) > SUM_TOLERANCE:
            raise no_verdict(answer, f"the shares of {name!r} sum to {first + second:g} instead of 1")
        shares[name] = first / (first + second)
    return shares
