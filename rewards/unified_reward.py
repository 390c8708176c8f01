"""UnifiedReward as a judge of one clip (Wang et al. 2025, arXiv:2503.05236; weights "CodeGoat24/UnifiedReward-2.0-*").

The model runs in a server of its own (docs/judges.md). Prompt and form of the answer are those it was trained on
(github.com/CodeGoat24/UnifiedReward, inference_qwen/UnifiedReward-2.0-inference), so the wording must not change.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from rewards.base import FramePolicy, RewardOutput, RewardSpec, parse_frame_policy
from rewards.errors import RewardError
from rewards.http_judge import Answer
from rewards.inputs import check_clips
from rewards.judge import Judge, Question
from rewards.judge_answers import json_scores, line_scores, number_in, whole_text
from rewards.judge_connection import JudgeUsage, connect
from rewards.judge_frames import FrameFormat, to_bytes

TEMPLATE_VERSION = "unified-reward-2.0/1"
LOWEST, HIGHEST = 1.0, 5.0

_VIDEO_AXES = {
    "alignment": "How well the video matches the caption in terms of content.",
    "physics": "How well the gravity, movements, collisions, and interactions make physical sense.",
    "style": "How visually appealing the video looks, regardless of caption accuracy.",
}
_IMAGE_AXES = {
    "alignment": "How well the image matches the caption in terms of content.",
    "coherence": "How logically consistent the image is (absence of visual glitches, object distortions, etc.).",
    "style": "How aesthetically appealing the image looks, regardless of caption accuracy.",
}
_NUMBER = r"([1-4](\.[0-9]{1,16})?|5(\.0{1,16})?)"

Constraint = Literal["none", "structured_outputs", "guided_regex", "regex", "json_schema"]


class UnifiedReward:
    """Alignment, physics (clips) or coherence (single frames), and style, each from 1 to 5; higher is better.

    Greedy decoding. An answer that is not exactly one number from 1 to 5 per dimension makes its clip invalid.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        form: Literal["video", "image"] = "video",
        frames: FramePolicy | str | Mapping[str, object] | None = None,
        encoding: Literal["jpeg", "png"] = "jpeg",
        jpeg_quality: int = 95,
        max_tokens: int = 256,
        constrain: Constraint = "none",
        cache: str | Path | None = None,
        connection: Mapping[str, object] | None = None,
        extra_body: Mapping[str, object] | None = None,
    ) -> None:
        """Prepare to ask; nothing is sent before the first clip.

        Args:
            base_url: Address of the server, for example "http://localhost:8080".
            model: The name under which it offers the model.
            form: `video` asks for alignment, physics, style; `image` for alignment, coherence, style of one frame.
            frames: Which frames are sent, none twice. By default 16 uniform ones for `video` (the authors' number), the
                middle one for `image`.
            encoding: `jpeg` (the authors' client) or `png`, which is lossless.
            jpeg_quality: 1 to 100.
            max_tokens: Longest answer; three lines need about 50.
            constrain: How the server is told to answer in form: `structured_outputs` (vLLM >= 0.12), `guided_regex`
                (older vLLM), `regex` (SGLang), `json_schema` (response_format of any server; the answer is then JSON,
                which this model was not trained on), or `none`.
            cache: SQLite file that keeps answers by content, None keeps none. One file per served weights: the key
                holds the model's name, which the server may give to other weights tomorrow.
            connection: Other fields of `Connection`, for example {concurrency: 16, api_key_env: JUDGE_KEY}.
            extra_body: More fields of the request, for example {chat_template_kwargs: {enable_thinking: false}}.

        Raises:
            RewardError: An option out of range, an unknown field, or a cache that cannot be used.
        """
        if form not in ("video", "image"):
            raise RewardError(f"form must be 'video' or 'image', got {form!r}.")
        if max_tokens < 1:
            raise RewardError(f"max_tokens must be 1 or more, got {max_tokens}.")
        self._form = form
        self._axes = _VIDEO_AXES if form == "video" else _IMAGE_AXES
        policy = parse_frame_policy(frames or FramePolicy("uniform", 16 if form == "video" else 1))
        if form == "image" and policy.count != 1:
            raise RewardError("The form 'image' judges one frame: use frames 'first' or {kind: uniform, count: 1}.")
        self._constrain = constrain
        self._judge = Judge(
            connect(base_url, model, connection),
            read=self._read,
            template_version=TEMPLATE_VERSION,
            form=FrameFormat(encoding, jpeg_quality),
            sampling={**greedy(max_tokens), **self._constraint()},
            extra_body=extra_body,
            cache=cache,
        )
        self.spec = RewardSpec(
            name="unified_reward",
            version=TEMPLATE_VERSION,
            dimensions=tuple(self._axes),
            range=(LOWEST, HIGHEST),
            higher_is_better=True,
            is_differentiable=False,
            frames=policy,
            resolution=None,
            licence="MIT (code and weights)",
            paper="arXiv:2503.05236",
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
        clips = check_clips(video, prompts, fps=fps)
        check_prompts(prompts)
        chosen = list(dict.fromkeys(self.spec.frames.select(clips.video.shape[1], fps=fps)))
        questions = {
            i: Question(to_bytes(clips.video[i, chosen]), self.question(prompts[i]))
            for i, valid in enumerate(clips.valid.tolist())
            if valid
        }
        return self._judge.score(clips, questions, self.spec.dimensions)

    def question(self, prompt: str) -> str:
        """Return what is asked beside the frames."""
        axes = "\n".join(f"- {name.capitalize()} Score: {meaning}" for name, meaning in self._axes.items())
        lines = "\n".join(f"{_label(name)} {letter}" for name, letter in zip(self._axes, "XYZ", strict=True))
        return (
            f"You are presented with a generated {self._form} and its associated text caption. "
            f"Your task is to analyze the {self._form} across multiple dimensions in relation to the caption. "
            f"Specifically:\nProvide overall assessments for the {self._form} along the following axes "
            f"(each rated from 1 to 5):\n{axes}\n\n"
            f"Output your evaluation using the format below:\n\n{lines}\n\n"
            f"Your task is provided as follows:\nText Caption: [{prompt}]"
        )

    def _read(self, answer: Answer) -> dict[str, float]:
        text = whole_text(answer)
        if self._constrain == "json_schema":
            return json_scores(answer, text, tuple(self._axes), LOWEST, HIGHEST)
        patterns = {
            name: (
                re.compile(rf"^[ \t]*{name} Score", re.MULTILINE | re.IGNORECASE),
                re.compile(rf"[ \t]*{re.escape(_label(name))}[ \t]*([0-9]+(?:\.[0-9]+)?)[ \t]*$", re.MULTILINE),
            )
            for name in self._axes
        }
        found = line_scores(answer, text, patterns)
        return {name: number_in(answer, name, float(match[1]), LOWEST, HIGHEST) for name, match in found.items()}

    def _constraint(self) -> dict[str, Any]:
        pattern = r"\n".join(f"{re.escape(_label(name))} {_NUMBER}" for name in self._axes).replace("\\ ", " ")
        number = {"type": "number", "minimum": LOWEST, "maximum": HIGHEST}
        schema = {
            "type": "object",
            "properties": dict.fromkeys(self._axes, number),
            "required": list(self._axes),
            "additionalProperties": False,
        }
        response_format = {"type": "json_schema", "json_schema": {"name": "scores", "strict": True, "schema": schema}}
        fields: dict[str, dict[str, Any]] = {
            "none": {},
            "structured_outputs": {"structured_outputs": {"regex": pattern}},
            "guided_regex": {"guided_regex": pattern},
            "regex": {"regex": pattern},
            "json_schema": {"response_format": response_format},
        }
        if self._constrain not in fields:
            raise RewardError(f"constrain must be one of {', '.join(fields)}, got {self._constrain!r}.")
        return fields[self._constrain]


def greedy(max_tokens: int) -> dict[str, Any]:
    """Return the request's fields for the one most likely answer."""
    return {"temperature": 0.0, "seed": 0, "max_tokens": max_tokens}


def check_prompts(prompts: Sequence[str]) -> None:
    """Refuse empty prompts.

    Raises:
        RewardError: One is empty.
    """
    if any(not prompt.strip() for prompt in prompts):
        raise RewardError("A reward that reads the prompt got an empty one.")


def _label(axis: str) -> str:
    return f"{axis.capitalize()} Score (1-5):"
