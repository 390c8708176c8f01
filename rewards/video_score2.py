"""VideoScore2 as a judge of one clip (He et al. 2025, arXiv:2509.22799; weights "TIGER-Lab/VideoScore2").

Qwen2.5-VL-7B that thinks aloud, then writes three scores. It runs in a server of its own (docs/judges.md). Question and
soft score are those of the model's page (github.com/TIGER-AI-Lab/VideoScore2, vs2_inference.py), so the wording must
not change. Two departures: decoding is greedy (theirs samples at temperature 0.7, so the same clip scores differently
twice), and the scores are read from the numbered list that the model really writes, "(1) visual quality - ...: 3",
which the authors' own pattern misses.
"""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image
from torch import Tensor

from rewards.base import FramePolicy, RewardOutput, RewardSpec, parse_frame_policy
from rewards.errors import RewardError
from rewards.http_judge import Answer
from rewards.inputs import check_clips
from rewards.judge import Judge, Question
from rewards.judge_answers import line_scores, no_verdict, number_in, whole_text
from rewards.judge_connection import JudgeUsage, connect
from rewards.judge_frames import FrameFormat, SendAs, to_bytes
from rewards.judge_tokens import digit_probabilities
from rewards.unified_reward import check_prompts, greedy

TEMPLATE_VERSION = "video-score2/1"
QUESTION = """
You are an expert for evaluating AI-generated videos from three dimensions:
(1) visual quality \N{EN DASH} clarity, smoothness, artifacts;
(2) text-to-video alignment \N{EN DASH} fidelity to the prompt;
(3) physical/common-sense consistency \N{EN DASH} naturalness and physics plausibility.

Video prompt: $t2v_prompt

Please output in this format:
visual quality: <v_score>;
text-to-video alignment: <t_score>,
physical/common-sense consistency: <p_score>
"""
LABELS = {
    "visual_quality": "visual quality",
    "text_alignment": "text-to-video alignment",
    "physical_consistency": "physical/common-sense consistency",
}
FPS = 2.0
"""Frames per second that the model was trained on and that its page asks with."""
FEWEST_FRAMES, PATCH = 4, 28
"""Fewest frames of a clip (two of a shorter one), and the pixels of a merged patch (qwen_vl_utils)."""
FEWEST_PIXELS, MOST_PIXELS = 128 * PATCH**2, 768 * PATCH**2
"""Of one frame: smaller and larger ones are resized (qwen_vl_utils, which the model's page uses)."""
SAMPLING_TEMPERATURE = 0.7
"""The page reads probabilities after its sampling temperature; a server reports them before, at 1."""

ScoreKind = Literal["soft", "expected", "hard"]


class VideoScore2:
    """Visual quality, text alignment and physical consistency; higher is better.

    `soft`, the published score: the likeliest digit times its share of the probability of the digits 1 to 5, in
    (0.2, 5]. It falls where the model is unsure: 5 at 50% is 2.5, below a sure 3. `expected`: the mean over the five
    digits, in [1, 5]. `hard`: the digit that was written. The first two need a server that returns log-probabilities.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        score: ScoreKind = "soft",
        frames: FramePolicy | str | Mapping[str, object] | None = None,
        max_frames: int = 32,
        send_as: SendAs = "video",
        jpeg_quality: int = 95,
        max_tokens: int = 2048,
        cache: str | Path | None = None,
        connection: Mapping[str, object] | None = None,
        extra_body: Mapping[str, object] | None = None,
    ) -> None:
        """Prepare to ask; nothing is sent before the first clip.

        Args:
            base_url: Address of the server, for example "http://localhost:8000".
            model: The name under which it offers the model.
            score: `soft`, `expected` or `hard`, see the class.
            frames: Which frames are sent, none twice. None: about 2 per second, evenly spread, an even number.
            max_frames: Most frames of that rule. vLLM reads 32 of a video unless --media-io-kwargs says otherwise.
            send_as: `video`, as in training (vLLM only), or `images`, which any server takes and which costs twice the
                tokens, outside of what the model was trained on.
            jpeg_quality: 1 to 100.
            max_tokens: Longest answer, thoughts included; twice the page's 1,024, because a cut answer is no verdict.
            cache: SQLite file that keeps answers by content, None keeps none. One file per served weights: the key
                holds the model's name, which the server may give to other weights tomorrow.
            connection: Other fields of `Connection`, for example {concurrency: 16, api_key_env: JUDGE_KEY}.
            extra_body: More fields of the request, for example {mm_processor_kwargs: {fps: 2.0}}.

        Raises:
            RewardError: An option out of range, an unknown field, or a cache that cannot be used.
        """
        if score not in ("soft", "expected", "hard"):
            raise RewardError(f"score must be 'soft', 'expected' or 'hard', got {score!r}.")
        if max_tokens < 1 or max_frames < 2:
            raise RewardError(f"max_tokens must be 1 or more and max_frames 2, got {max_tokens} and {max_frames}.")
        self._score: ScoreKind = score
        self._policy = None if frames is None else parse_frame_policy(frames)
        self._max_frames = max_frames
        logprobs: dict[str, Any] = {} if score == "hard" else {"logprobs": True, "top_logprobs": 20}
        self._judge = Judge(
            connect(base_url, model, connection),
            read=self._read,
            template_version=TEMPLATE_VERSION,
            form=FrameFormat("jpeg", jpeg_quality, send_as),
            sampling={**greedy(max_tokens), **logprobs},
            extra_body=extra_body,
            cache=cache,
        )
        self.spec = RewardSpec(
            name="video_score2",
            version=f"{TEMPLATE_VERSION}/{score}",
            dimensions=tuple(LABELS),
            range=(0.2 if score == "soft" else 1.0, 5.0),
            higher_is_better=True,
            is_differentiable=False,
            frames=self._policy or FramePolicy("all"),
            resolution=None,
            licence="Apache-2.0 (weights)",
            paper="arXiv:2509.22799",
            uses_prompt=True,
        )

    @property
    def usage(self) -> JudgeUsage:
        """What has been asked, and what it cost."""
        return self._judge.usage

    def __call__(self, video: Tensor, prompts: Sequence[str], *, fps: float) -> RewardOutput:
        """Score a batch, see `Reward`.

        Raises:
            RewardError: Input of the wrong form, an empty prompt, nobody answers, or the server refuses everybody.
        """
        clips = check_clips(video, prompts, fps=fps, min_frames=2)
        check_prompts(prompts)
        policy = self._policy or two_per_second(clips.video.shape[1], fps, most=self._max_frames)
        chosen = list(dict.fromkeys(policy.select(clips.video.shape[1], fps=fps)))
        questions = {
            i: Question(resize_frames(to_bytes(clips.video[i, chosen])), QUESTION.replace("$t2v_prompt", prompts[i]))
            for i, valid in enumerate(clips.valid.tolist())
            if valid
        }
        return self._judge.score(clips, questions, self.spec.dimensions)

    def _read(self, answer: Answer) -> dict[str, float]:
        text = whole_text(answer)
        if "<think>" in text and "</think>" not in text:
            raise no_verdict(answer, "its thoughts do not end")
        verdict = text.rsplit("</think>", 1)[-1]
        found = line_scores(answer, verdict, _PATTERNS)
        hard = {name: number_in(answer, name, float(match[1]), 1, 5) for name, match in found.items()}
        if self._score == "hard":
            return hard
        scores = {}
        for name, match in found.items():
            probabilities = digit_probabilities(answer, verdict, match.start(1), temperature=self._temperature())
            scores[name] = soft_score(probabilities) if self._score == "soft" else expected_score(probabilities)
        return scores

    def _temperature(self) -> float:
        return SAMPLING_TEMPERATURE if self._score == "soft" else 1.0


_PATTERNS = {
    name: (
        re.compile(rf"^[ \t]*(?:\({number}\))?[ \t]*{re.escape(label)}", re.MULTILINE | re.IGNORECASE),
        re.compile(r"[^\n:]*:[ \t]*([0-9]+)[ \t]*[;,.]?[ \t]*$", re.MULTILINE),
    )
    for number, (name, label) in enumerate(LABELS.items(), start=1)
}


def soft_score(probabilities: Sequence[float]) -> float:
    """Return the likeliest digit times its share: the page's `ll_based_soft_score_normed`.

    Args:
        probabilities: Of the digits 1 to 5, summing to 1.
    """
    best = max(range(5), key=lambda i: probabilities[i])
    return (best + 1) * probabilities[best]


def expected_score(probabilities: Sequence[float]) -> float:
    """Return the mean of the digits 1 to 5 under these probabilities."""
    return sum(digit * probability for digit, probability in enumerate(probabilities, start=1))


def two_per_second(num_frames: int, fps: float, *, most: int) -> FramePolicy:
    """Return the frames of about 2 per second, as qwen_vl_utils counts them: at least 4, an even number."""
    wanted = min(max(num_frames / fps * FPS, FEWEST_FRAMES), most, num_frames)
    return FramePolicy("uniform", max(2, math.floor(wanted / 2) * 2))


def resize_frames(frames: np.ndarray) -> np.ndarray:
    """Resize frames (frames, height, width, 3), uint8, to sides of whole patches and an allowed number of pixels."""
    height, width = frames.shape[1:3]
    new_height, new_width = patch_sides(height, width)
    if (new_height, new_width) == (height, width):
        return frames
    size = (new_width, new_height)
    return np.stack([np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC)) for frame in frames])


def patch_sides(height: int, width: int) -> tuple[int, int]:
    """Return the sides that Qwen2.5-VL gives a frame: multiples of 28, pixels within bounds, aspect nearly kept."""
    sides = max(PATCH, round(height / PATCH) * PATCH), max(PATCH, round(width / PATCH) * PATCH)
    if sides[0] * sides[1] > MOST_PIXELS:
        shrink = math.sqrt(height * width / MOST_PIXELS) * PATCH
        return max(1, math.floor(height / shrink)) * PATCH, max(1, math.floor(width / shrink)) * PATCH
    if sides[0] * sides[1] < FEWEST_PIXELS:
        grow = math.sqrt(FEWEST_PIXELS / (height * width))
        return math.ceil(height * grow / PATCH) * PATCH, math.ceil(width * grow / PATCH) * PATCH
    return sides
