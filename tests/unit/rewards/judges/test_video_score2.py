"""VideoScore2 behind a real local server: frames, thoughts, scores and their probabilities."""

import functools
import math
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rewards.base import FramePolicy
from rewards.errors import RewardError
from rewards.testing import RewardContract
from rewards.video_score2 import (
    FEWEST_PIXELS,
    MOST_PIXELS,
    VideoScore2,
    expected_score,
    patch_sides,
    soft_score,
    two_per_second,
)

DASH = "\N{EN DASH}"
THOUGHTS = (
    "<think>\nThe (1) visual quality is moderate \N{PANDA FACE}, I would say 2 of 5.\nvisual quality: 1\n</think>\n"
)
LIST = (
    f"(1) visual quality {DASH} clarity, smoothness, artifacts: 3\n"
    f"(2) text-to-video alignment {DASH} fidelity to the prompt: 4\n"
    f"(3) physical/common-sense consistency {DASH} naturalness and physics plausibility: 2"
)
ASKED_FORM = "visual quality: 3;\ntext-to-video alignment: 4,\nphysical/common-sense consistency: 2"
SHARES = (0.02, 0.15, 0.58, 0.20, 0.05)


def tokens_of(text: str, shares: tuple[float, ...] = SHARES, **change: Any) -> list[dict[str, Any]]:
    """Spell a text in words; each digit that ends a line is a token with these shares among 95% of the probability."""
    tokens = []
    for piece in [*re.findall(r"\d|[^\d\s]+|\s", text), "<|im_end|>"]:
        token = {"token": piece, "bytes": list(piece.encode()), "logprob": -0.1, "top_logprobs": []}
        if piece.isdigit() and int(piece) <= 5:
            logs = [{"token": str(i), "logprob": math.log(0.95 * share)} for i, share in enumerate(shares, 1) if share]
            token.update(top_logprobs=logs, logprob=math.log(max(1e-9, 0.95 * shares[int(piece) - 1])))
        tokens.append({**token, **change})
    return tokens


def clips(batch: int = 1, frames: int = 8) -> torch.Tensor:
    return torch.rand(batch, frames, 3, 12, 16, generator=torch.Generator().manual_seed(0))


def judge(server: Any, **options: Any) -> VideoScore2:
    return VideoScore2(server.url, "VideoScore2", connection=server.fast, **options)


def scores(server: Any, **options: Any) -> list[float]:
    output = judge(server, **options)(clips(), ["a red circle"], fps=8.0)
    assert output.reasons == (None,)
    return [float(value) for value in output.values.values()]


def reason(server: Any, **options: Any) -> str:
    output = judge(server, **options)(clips(), ["a red circle"], fps=8.0)
    assert output.valid.tolist() == [False]
    assert all(bool(value.isnan().all()) for value in output.values.values())
    assert output.reasons[0] is not None
    return output.reasons[0]


def seen_scores(server: Any, body: dict[str, Any]) -> Any:
    """Write 3 everywhere, surer the brighter the clip; how sure of the rest depends on the prompt."""
    brightness = float(np.mean([frame.mean() / 255 for frame in server.frames_of(body)]))
    prompt = re.search(r"Video prompt: (.*)\n", server.text_of(body))
    assert prompt is not None
    rest = 1 - (0.5 + brightness / 4)
    liking = zlib.crc32(prompt[1].encode()) / 2**32
    text = THOUGHTS + re.sub(r"\d$", "3", LIST, flags=re.MULTILINE)
    shares = (rest * liking, rest * (1 - liking), 1 - rest, 0.0, 0.0)
    return server.chat(text, logprobs=tokens_of(text, shares))


class TestVideoScore2(RewardContract):
    reward = "video_score2"
    bf16_tolerance = 0.05

    @pytest.fixture(autouse=True)
    def _server(self, module_server: Any) -> None:
        module_server.answer = functools.partial(seen_scores, module_server)
        type(self).options = {"base_url": module_server.url, "model": "VideoScore2", "score": "expected"}


@pytest.mark.parametrize("text", [THOUGHTS + LIST, LIST, LIST + "\n", THOUGHTS + ASKED_FORM, ASKED_FORM])
def test_hard_scores_are_the_digits_of_the_list_not_of_the_thoughts(server: Any, text: str) -> None:
    server.replies = [server.chat(text)]
    assert scores(server, score="hard") == [3.0, 4.0, 2.0]
    assert "logprobs" not in server.bodies[0]


def test_soft_score_is_the_published_formula_at_its_temperature(server: Any) -> None:
    text = THOUGHTS + LIST
    server.replies = [server.chat(text, logprobs=tokens_of(text))]
    weights = [(0.95 * share) ** (1 / 0.7) for share in SHARES]
    assert scores(server) == pytest.approx([3 * weights[2] / sum(weights)] * 3)
    body = server.bodies[0]
    assert (body["temperature"], body["logprobs"], body["top_logprobs"]) == (0, True, 20)


def test_expected_score_is_the_mean_digit(server: Any) -> None:
    text = THOUGHTS + LIST
    server.replies = [server.chat(text, logprobs=tokens_of(text))]
    assert scores(server, score="expected") == pytest.approx([0.02 + 0.3 + 1.74 + 0.8 + 0.25] * 3)


def test_formulas_on_hand_made_shares() -> None:
    # The example of a public explanation of vs2_inference.py: 3 x 0.58 = 1.74.
    assert soft_score(SHARES) == pytest.approx(1.74)
    assert soft_score((0.2,) * 5) == pytest.approx(0.2)
    assert soft_score((0, 0, 0, 0, 1)) == 5
    assert expected_score((0.2,) * 5) == pytest.approx(3.0)


def test_digits_are_found_behind_thoughts_that_tokens_spell_otherwise(server: Any) -> None:
    text = THOUGHTS + LIST
    tokens = tokens_of(text)
    panda = next(token for token in tokens if "\N{PANDA FACE}" in token["token"])
    panda.update(token="\N{REPLACEMENT CHARACTER}", bytes=[0xEF, 0xBF, 0xBD])
    server.replies = [server.chat(text, logprobs=tokens)]
    assert scores(server, score="expected") == pytest.approx([3.11] * 3)


def test_tokens_without_bytes_are_read_by_their_text(server: Any) -> None:
    server.replies = [server.chat(LIST, logprobs=tokens_of(LIST, bytes=None))]
    assert scores(server, score="expected") == pytest.approx([3.11] * 3)


def test_digit_that_the_server_does_not_list_counts_as_impossible(server: Any) -> None:
    text = re.sub(r"\d$", "3", LIST, flags=re.MULTILINE)
    server.replies = [server.chat(text, logprobs=tokens_of(text, (0.0, 0.0, 0.6, 0.4, 0.0)))]
    assert scores(server, score="expected") == pytest.approx([3.4] * 3)


def test_kept_answer_gives_the_same_scores_and_is_small(server: Any, tmp_path: Path) -> None:
    text = THOUGHTS.replace("moderate", "moderate, " * 500) + LIST
    alternatives = [{"token": f"word-{i}", "logprob": -float(i)} for i in range(20)]
    tokens = [{**token, "top_logprobs": token["top_logprobs"] or alternatives} for token in tokens_of(text)]
    server.replies = [server.chat(text, logprobs=tokens)]
    file = tmp_path / "judge.sqlite"
    assert scores(server, cache=file) == scores(server, cache=file)
    assert len(server.bodies) == 1
    assert file.stat().st_size < 200_000 < len(server.replies[0].body)


@pytest.mark.parametrize(
    ("tokens", "why"),
    [
        (None, "returned no log-probabilities"),
        ([], "returned no log-probabilities"),
        (tokens_of(LIST)[:-5], "do not spell it"),
        (tokens_of(LIST.replace("fidelity", "loyalty")), "do not spell it"),
        (tokens_of(LIST, top_logprobs=None), "not of the documented form"),
        (tokens_of(LIST, logprob="x"), "not of the documented form"),
        (tokens_of(LIST, logprob=float("nan")), "not of the documented form"),
        ([{"token": LIST, "logprob": -1.0, "top_logprobs": []}], "is part of the token"),
    ],
)
def test_probabilities_that_cannot_be_read_never_become_a_score(server: Any, tokens: Any, why: str) -> None:
    server.replies = [server.chat(LIST, logprobs=tokens)]
    assert why in reason(server)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("A lovely video of a circle.", "'visual_quality' is there 0 times"),
        ("<think>\n" + LIST, "thoughts do not end"),
        (THOUGHTS, "'visual_quality' is there 0 times"),
        (LIST.replace(": 4", ": 6"), "'text_alignment' is 6, outside [1, 5]"),
        (LIST.replace(": 4", ": 0"), "outside"),
        (LIST.replace(": 4", ": 3.5"), "not of the form"),
        (LIST.replace(": 4", ": 4/5"), "not of the form"),
        (LIST.replace(": 4", ": four"), "not of the form"),
        (LIST.replace("(2)", "(3)"), "'text_alignment' is there 0 times"),
        (LIST + "\n" + LIST, "'visual_quality' is there 2 times"),
        (LIST.rsplit("\n", 1)[0], "'physical_consistency' is there 0 times"),
    ],
)
def test_answer_that_is_no_verdict_never_becomes_a_number(server: Any, text: str, why: str) -> None:
    server.replies = [server.chat(text, logprobs=tokens_of(text))]
    for score in ("hard", "soft", "expected"):
        message = reason(server, score=score)
        assert why in message
        assert repr(text[:10])[1:-1] in message


def test_clip_is_sent_as_a_video_of_whole_patches(server: Any) -> None:
    server.replies = [server.chat(LIST)]
    judge(server, score="hard")(clips(frames=32), ["a {red} $circle"], fps=16.0)
    part, _ = server.bodies[0]["messages"][0]["content"]
    assert part["video_url"]["url"].startswith("data:video/jpeg;base64,")
    frames = server.frames_of(server.bodies[0])
    assert len(frames) == 4
    height, width = frames[0].shape[:2]
    assert height % 28 == width % 28 == 0
    assert FEWEST_PIXELS <= height * width <= MOST_PIXELS
    assert "\n\nVideo prompt: a {red} $circle\n\nPlease output in this format:\n" in server.text_of(server.bodies[0])


def test_clip_may_be_sent_as_images_of_chosen_frames(server: Any) -> None:
    server.replies = [server.chat(LIST)]
    reward = judge(server, score="hard", send_as="images", frames={"kind": "uniform", "count": 3})
    reward(clips(), ["a"], fps=8.0)
    parts = server.bodies[0]["messages"][0]["content"]
    assert [part["type"] for part in parts] == ["image_url"] * 3 + ["text"]
    assert reward.spec.frames == FramePolicy("uniform", 3)


@pytest.mark.parametrize(
    ("num_frames", "fps", "expected"),
    [(81, 16.0, 10), (16, 16.0, 4), (3, 8.0, 2), (2, 24.0, 2), (5, 1.0, 4), (2000, 10.0, 32), (49, 8.0, 12)],
)
def test_two_frames_per_second_as_qwen_counts_them(num_frames: int, fps: float, expected: int) -> None:
    assert two_per_second(num_frames, fps, most=32) == FramePolicy("uniform", expected)


@pytest.mark.parametrize(
    ("sides", "expected"),
    [((480, 832), (476, 840)), ((720, 1280), (560, 1008)), ((64, 64), (336, 336)), ((256, 256), (336, 336))],
)
def test_frames_get_the_sides_that_qwen_gives_them(sides: tuple[int, int], expected: tuple[int, int]) -> None:
    assert patch_sides(*sides) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score": "best"}, "'soft', 'expected' or 'hard'"),
        ({"max_frames": 1}, "max_frames 2"),
        ({"send_as": "audio"}, "images or video"),
    ],
)
def test_wrong_options_say_what_fits(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RewardError, match=message):
        VideoScore2("http://localhost:1", "m", **options)


def test_one_frame_is_no_clip(server: Any) -> None:
    with pytest.raises(RewardError, match=r"2 frame\(s\)"):
        judge(server)(clips(frames=1), ["a"], fps=8.0)
