"""UnifiedReward behind a real local server: the question, the answers it accepts, and everything that may go wrong."""

import functools
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rewards.errors import RewardError
from rewards.testing import RewardContract
from rewards.unified_reward import UnifiedReward

GOOD = "Alignment Score (1-5): 2.4036\nPhysics Score (1-5): 3.0987\nStyle Score (1-5): 3.3889"


def clips(batch: int = 1, frames: int = 4) -> torch.Tensor:
    return torch.rand(batch, frames, 3, 12, 16, generator=torch.Generator().manual_seed(0))


def judge(server: Any, **options: object) -> UnifiedReward:
    connection = {**server.fast, **options.pop("connection", {})}
    return UnifiedReward(server.url, "UnifiedReward", connection=connection, **options)


def reason(server: Any, **options: object) -> str:
    output = judge(server, **options)(clips(), ["a red circle"], fps=8.0)
    assert output.valid.tolist() == [False]
    assert all(bool(value.isnan().all()) for value in output.values.values())
    assert output.reasons[0] is not None
    return output.reasons[0]


def seen_scores(server: Any, body: dict[str, Any]) -> Any:
    """Score by brightness and caption: another clip or another caption gets another answer."""
    brightness = float(np.mean([frame.mean() / 255 for frame in server.frames_of(body)]))
    caption = re.search(r"Text Caption: \[(.*)\]$", server.text_of(body))
    assert caption is not None
    liking = zlib.crc32(caption[1].encode()) / 2**32
    axis = "Physics" if "Physics" in server.text_of(body) else "Coherence"
    scores = {"Alignment": 1 + 4 * liking, axis: 1 + 4 * brightness, "Style": 5 - 4 * brightness}
    return server.chat("\n".join(f"{name} Score (1-5): {value:.4f}" for name, value in scores.items()))


class TestUnifiedRewardOfClips(RewardContract):
    reward = "unified_reward"

    @pytest.fixture(autouse=True)
    def _server(self, module_server: Any) -> None:
        module_server.answer = functools.partial(seen_scores, module_server)
        type(self).options = {"base_url": module_server.url, "model": "UnifiedReward", "connection": module_server.fast}


class TestUnifiedRewardOfFrames(RewardContract):
    reward = "unified_reward"

    @pytest.fixture(autouse=True)
    def _server(self, module_server: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
        module_server.answer = functools.partial(seen_scores, module_server)
        cache = tmp_path_factory.getbasetemp() / "unified-frames.sqlite"
        type(self).options = {
            "base_url": module_server.url,
            "model": "UnifiedReward",
            "form": "image",
            "encoding": "png",
            "cache": cache,
        }


def test_scores_are_the_numbers_of_the_answer(server: Any) -> None:
    server.replies = [server.chat(GOOD)]
    reward = judge(server)
    output = reward(clips(), ["a red circle"], fps=8.0)
    got = {key: round(float(value), 4) for key, value in output.values.items()}
    assert got == {"alignment": 2.4036, "physics": 3.0987, "style": 3.3889}
    assert not reward.spec.is_differentiable


def test_request_is_the_authors_form_decoded_greedily(server: Any) -> None:
    server.replies = [server.chat(GOOD)]
    judge(server)(clips(frames=40), ["a [red] {circle}"], fps=8.0)
    (body,), (path,) = server.bodies, server.paths
    assert path == "/v1/chat/completions"
    assert body["model"] == "UnifiedReward"
    assert body["temperature"] == 0
    assert len(server.frames_of(body)) == 16
    assert server.text_of(body).startswith(
        "You are presented with a generated video and its associated text caption. Your task is"
    )
    assert "\n\nAlignment Score (1-5): X\nPhysics Score (1-5): Y\nStyle Score (1-5): Z\n\n" in server.text_of(body)
    assert server.text_of(body).endswith("Text Caption: [a [red] {circle}]")
    assert "Authorization" not in server.headers[0]


def test_png_frames_arrive_exactly_and_uniformly(server: Any) -> None:
    server.replies = [server.chat(GOOD)]
    video = clips(frames=9)
    judge(server, encoding="png", frames={"kind": "uniform", "count": 3})(video, ["a"], fps=8.0)
    expected = (video[0, [0, 4, 8]] * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(np.stack(server.frames_of(server.bodies[0])), expected)


def test_short_clip_sends_no_frame_twice(server: Any) -> None:
    server.replies = [server.chat(GOOD)]
    judge(server)(clips(frames=3), ["a"], fps=8.0)
    assert len(server.frames_of(server.bodies[0])) == 3


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("The weather is nice today, said nobody", "'alignment' is there 0 times"),
        ("", "it is empty"),
        (None, "it is empty"),
        (GOOD.replace("3.0987", "7.5"), r"'physics' is 7.5, outside \[1, 5\]"),
        (GOOD.replace("3.0987", "0"), "outside"),
        (GOOD.replace("3.0987", "-3"), "not of the form"),
        (GOOD.replace("3.0987", "nan"), "not of the form"),
        (GOOD.replace("3.0987", "three"), "not of the form"),
        (GOOD.replace("3.0987", "3 or 4"), "not of the form"),
        (
            GOOD.replace("Physics Score (1-5)", "Physics Score (1.0-10.0)"),
            r"Physics Score \(1.0-10.0\).* not of the form",
        ),
        (GOOD.replace("Physics", "Coherence"), "'physics' is there 0 times"),
        (GOOD + "\nStyle Score (1-5): 1", "'style' is there 2 times"),
        (GOOD + "\nStyle score is lower than it looks", "'style' is there 2 times"),
    ],
)
def test_answer_that_is_no_verdict_never_becomes_a_number(server: Any, text: str | None, why: str) -> None:
    server.replies = [server.chat(text)]
    message = reason(server)
    assert re.search(why, message)
    assert repr((text or "")[:20])[:-1] in message


def test_answer_cut_at_max_tokens_is_no_verdict(server: Any) -> None:
    server.replies = [server.chat(GOOD[:-3], finish="length")]
    assert "cut at max_tokens" in reason(server)


def test_one_bad_answer_masks_one_clip_and_batch_equals_singles(server: Any) -> None:
    server.answer = lambda body: (
        server.chat("no idea") if "square" in server.text_of(body) else seen_scores(server, body)
    )
    video, prompts = clips(3), ["a circle", "a square", "a star"]
    reward = judge(server)
    output = reward(video, prompts, fps=8.0)
    assert output.valid.tolist() == [True, False, True]
    for i in (0, 2):
        alone = reward(video[i : i + 1], [prompts[i]], fps=8.0)
        assert {key: float(value[i]) for key, value in output.values.items()} == {
            key: float(value) for key, value in alone.values.items()
        }
    assert reward.usage.invalid == 1
    assert reward.usage.answers == 5


def test_json_mode_asks_with_a_schema_and_reads_only_that_object(server: Any) -> None:
    server.replies = [server.chat('{"alignment": 2, "physics": 3.5, "style": 4}')]
    output = judge(server, constrain="json_schema")(clips(), ["a"], fps=8.0)
    assert [float(value) for value in output.values.values()] == [2.0, 3.5, 4.0]
    schema = server.bodies[0]["response_format"]["json_schema"]["schema"]
    assert schema["required"] == ["alignment", "physics", "style"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"alignment": 2, "physics": 3.5, "sty', "not JSON"),
        ('{"alignment": 2, "physics": 3.5}', "with the keys"),
        ('{"alignment": 2, "physics": 3.5, "style": 4, "x": 1}', "with the keys"),
        ('{"alignment": 2, "alignment": 3, "physics": 3.5, "style": 4}', "repeated"),
        ('{"alignment": 2, "physics": true, "style": 4}', "'physics' is no number"),
        ('{"alignment": 2, "physics": "3", "style": 4}', "'physics' is no number"),
        ('{"alignment": 2, "physics": 30, "style": 4}', "outside"),
        ('{"alignment": 2, "physics": NaN, "style": 4}', "outside"),
        ("[2, 3, 4]", "with the keys"),
    ],
)
def test_json_that_is_no_verdict_is_refused(server: Any, text: str, why: str) -> None:
    server.replies = [server.chat(text)]
    assert why in reason(server, constrain="json_schema")


@pytest.mark.parametrize("field", ["structured_outputs", "guided_regex", "regex"])
def test_regex_for_the_server_admits_what_the_reader_reads(server: Any, field: str) -> None:
    server.replies = [server.chat(GOOD)]
    judge(server, constrain=field)(clips(), ["a"], fps=8.0)
    sent = server.bodies[0][field]
    pattern = sent["regex"] if field == "structured_outputs" else sent
    assert re.fullmatch(pattern, GOOD)
    assert not re.fullmatch(pattern, GOOD.replace("3.0987", "5.5"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "sound"}, "must be 'video' or 'image'"),
        ({"form": "image", "frames": "all"}, "one frame"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"constrain": "xml"}, "structured_outputs, guided_regex"),
        ({"encoding": "gif"}, "jpeg or png"),
        ({"jpeg_quality": 0}, "from 1 to 100"),
        ({"connection": {"deadline_second": 3}}, "Did you mean 'deadline_seconds'"),
        ({"connection": {"concurrency": "8"}}, "a whole number, got '8'"),
        ({"connection": {"concurrency": 0}}, "above 0"),
        ({"connection": {"prompt_price": -1}}, "0 or more"),
        ({"connection": "fast"}, "must be fields"),
        ({"extra_body": "top_k"}, "must be fields"),
        ({"extra_body": {"stream": True}}, "cannot set stream"),
        ({"extra_body": {"x": {1, 2}}}, "must be JSON"),
    ],
)
def test_wrong_options_say_what_fits(options: dict[str, object], message: str) -> None:
    with pytest.raises(RewardError, match=message):
        UnifiedReward("http://localhost:1", "m", **options)


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://localhost", "http://", "http://me:secret@localhost:8000"])
def test_wrong_address_is_refused_without_showing_a_password(url: str) -> None:
    with pytest.raises(RewardError, match="base_url") as caught:
        UnifiedReward(url, "m")
    assert "secret" not in str(caught.value)


def test_cache_answers_without_a_request_and_knows_what_changed(server: Any, tmp_path: Path) -> None:
    server.answer = functools.partial(seen_scores, server)
    cache, video = tmp_path / "deep" / "judge.sqlite", clips()
    first = judge(server, cache=cache)(video, ["a circle"], fps=8.0)
    again = judge(server, cache=cache)
    second = again(video, ["a circle"], fps=8.0)
    assert len(server.bodies) == 1
    assert {k: float(v) for k, v in first.values.items()} == {k: float(v) for k, v in second.values.items()}
    assert (again.usage.cache_hits, again.usage.requests) == (1, 0)
    again(1 - video, ["a circle"], fps=8.0)
    again(video, ["a square"], fps=8.0)
    judge(server, cache=cache, max_tokens=99)(video, ["a circle"], fps=8.0)
    judge(server, cache=cache, encoding="png")(video, ["a circle"], fps=8.0)
    UnifiedReward(server.url, "Other", cache=cache, connection=server.fast)(video, ["a circle"], fps=8.0)
    assert len(server.bodies) == 6


def test_new_wording_forgets_old_answers(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.replies = [server.chat(GOOD)]
    for version in ("1", "1", "2"):
        monkeypatch.setattr("rewards.unified_reward.TEMPLATE_VERSION", version)
        judge(server, cache=tmp_path / "judge.sqlite")(clips(), ["a"], fps=8.0)
    assert len(server.bodies) == 2


def test_extra_fields_travel_with_the_request(server: Any) -> None:
    server.replies = [server.chat(GOOD)]
    extra = {"chat_template_kwargs": {"enable_thinking": False}, "seed": 7}
    judge(server, extra_body=extra)(clips(), ["a"], fps=8.0)
    assert server.bodies[0]["chat_template_kwargs"] == {"enable_thinking": False}
    assert server.bodies[0]["seed"] == 7


def test_nonsense_is_not_kept(server: Any, tmp_path: Path) -> None:
    server.replies = [server.chat("hm"), server.chat(GOOD)]
    reward = judge(server, cache=tmp_path / "judge.sqlite")
    assert not bool(reward(clips(), ["a"], fps=8.0).valid)
    assert bool(reward(clips(), ["a"], fps=8.0).valid)
