"""The client against a real server that fails in every way a server fails."""

import datetime
import email.utils
import json
import logging
import pickle
import random
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from rewards.errors import RewardError
from rewards.http_judge import JudgeClient, JudgeError
from rewards.judge_connection import connect

KEY = "sk-very-secret-0123456789"
QUESTION = {"messages": [{"role": "user", "content": "?"}]}


def client(server: Any, **fields: object) -> JudgeClient:
    return JudgeClient(connect(server.url, "model", {**server.fast, **fields}))


def failure(server: Any, **fields: object) -> str:
    with pytest.raises(JudgeError) as caught:
        client(server, **fields).ask(QUESTION)
    return str(caught.value)


def test_answer_comes_with_its_tokens_and_cost(server: Any) -> None:
    server.replies = [server.chat("yes")]
    judge = client(server, prompt_price=2.0, completion_price=10.0)
    answer = judge.ask(QUESTION)
    judge.ask(QUESTION)
    assert (answer.text, answer.finish_reason, answer.prompt_tokens) == ("yes", "stop", 1000)
    usage = judge.usage
    assert (usage.answers, usage.requests, usage.retries) == (2, 2, 0)
    assert (usage.prompt_tokens, usage.completion_tokens) == (2000, 100)
    assert usage.cost == pytest.approx(2 * (1000 * 2 + 50 * 10) / 1e6)
    assert 0 < usage.slowest_seconds <= usage.seconds
    assert "2 answers" in str(usage)


@pytest.mark.parametrize("base", ["", "/", "/v1", "/v1/"])
def test_address_with_and_without_v1_is_the_same(server: Any, base: str) -> None:
    server.replies = [server.chat("yes")]
    JudgeClient(connect(server.url + base, "model")).ask(QUESTION)
    assert server.paths == ["/v1/chat/completions"]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_passing_failure_is_asked_again(server: Any, status: int) -> None:
    server.replies = [server.reply(status, b"busy"), server.reply(status, b"busy"), server.chat("yes")]
    judge = client(server)
    assert judge.ask(QUESTION).text == "yes"
    assert (judge.usage.requests, judge.usage.retries, judge.usage.answers) == (3, 2, 1)


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (b'{"choices": [{"message": {"content": "ye', "no chat completion"),
        (b"<html>proxy error</html>", "<html>proxy error"),
        (b'{"error": {"message": "engine died"}}', "engine died"),
        (b'{"choices": []}', "no chat completion"),
        (b'{"choices": [{"message": {"content": 3}}]}', "no chat completion"),
        (b"[]", "no chat completion"),
        (b"\xff\xfe\x00", "no chat completion"),
    ],
)
def test_half_or_foreign_reply_is_asked_again_and_then_given_up(server: Any, broken: bytes, why: str) -> None:
    server.replies = [server.reply(body=broken), server.chat("yes")]
    assert client(server).ask(QUESTION).text == "yes"
    server.replies, server.bodies = [server.reply(body=broken)], []
    message = failure(server, max_attempts=2)
    assert len(server.bodies) == 2
    assert why in message
    assert "after 2 attempts" in message


def test_peer_that_hangs_up_half_way_is_asked_again(server: Any) -> None:
    whole = server.chat("yes")
    server.replies = [server.reply(body=whole.body[:40], claims=len(whole.body)), whole]
    judge = client(server)
    # Content-Length promises more than comes: the connection closes when the handler returns.
    assert judge.ask(QUESTION).text == "yes"
    assert judge.usage.retries == 1


def test_retry_after_seconds_are_waited(server: Any) -> None:
    server.replies = [server.reply(429, b"slow down", {"Retry-After": "1"}), server.chat("yes")]
    start = time.monotonic()
    client(server).ask(QUESTION)
    assert 1.0 <= time.monotonic() - start < 5.0


def test_retry_after_date_beyond_the_deadline_gives_up_at_once(server: Any) -> None:
    moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    server.replies = [server.reply(429, b"quota", {"Retry-After": email.utils.format_datetime(moment, usegmt=True)})]
    start = time.monotonic()
    message = failure(server)
    assert time.monotonic() - start < 4.0
    assert "10 s are over" in message
    assert "quota" in message
    assert len(server.bodies) == 1


def test_unreadable_retry_after_is_ignored(server: Any) -> None:
    server.replies = [server.reply(503, b"", {"Retry-After": "soon"}), server.chat("yes")]
    assert client(server).ask(QUESTION).text == "yes"


def test_server_that_hangs_is_left_at_the_deadline(server: Any) -> None:
    server.replies = [server.reply(seconds=5.0)]
    start = time.monotonic()
    message = failure(server, attempt_seconds=0.2, deadline_seconds=1.0)
    assert time.monotonic() - start < 4.0
    assert "no whole answer within" in message
    assert len(server.bodies) >= 2


def test_server_that_drips_is_left_at_the_deadline(server: Any) -> None:
    server.replies = [server.reply(body=server.chat("yes").body, drip_seconds=0.003)]
    start = time.monotonic()
    failure(server, attempt_seconds=0.2, deadline_seconds=0.3)  # the whole takes about 1 s, no byte takes long
    assert time.monotonic() - start < 4.0


def test_nobody_there_is_an_error_for_everybody() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    judge = JudgeClient(connect(f"http://127.0.0.1:{port}", "m", {"backoff_seconds": 0.01, "max_attempts": 3}))
    with pytest.raises(RewardError, match=r"Nobody answers at .* after 3 attempts .*start the judge's server"):
        judge.ask(QUESTION)


def test_wrong_model_name_says_where_the_names_are(server: Any) -> None:
    server.replies = [server.reply(404, b'{"message": "The model `model` does not exist."}')]
    with pytest.raises(RewardError, match=r"no model 'model'.*/v1/models.*does not exist"):
        client(server).ask(QUESTION)
    assert len(server.bodies) == 1


@pytest.mark.parametrize("status", [301, 405, 501])
def test_foreign_status_is_an_error(server: Any, status: int) -> None:
    server.replies = [server.reply(status, b"?")]
    with pytest.raises(RewardError, match=f"answered {status}.*check base_url"):
        client(server).ask(QUESTION)


def test_refused_question_is_one_clips_problem_and_not_repeated(server: Any) -> None:
    server.replies = [server.reply(400, b"At most 1 image(s) may be provided")]
    assert "At most 1 image" in failure(server)
    assert len(server.bodies) == 1


def test_key_comes_from_the_environment_and_is_never_shown(
    server: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("JUDGE_KEY", KEY)
    echo = json.dumps({"error": f"bad key Bearer {KEY}"}).encode()
    server.replies = [server.reply(500, echo), server.reply(401, echo)]
    judge = client(server, api_key_env="JUDGE_KEY")
    with pytest.raises(RewardError, match="check the key in JUDGE_KEY") as caught:
        judge.ask(QUESTION)
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert "***" in caplog.text
    for text in (str(caught.value), caplog.text, repr(vars(judge)), pickle.dumps(judge).decode("latin-1")):
        assert KEY not in text


def test_missing_key_is_told_before_anything_is_sent(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with pytest.raises(RewardError, match=r"JUDGE_KEY .*is not set"):
        client(server, api_key_env="JUDGE_KEY").ask(QUESTION)
    monkeypatch.setenv("JUDGE_KEY", f"{KEY}\n{KEY}")
    with pytest.raises(RewardError, match="odd characters") as caught:
        client(server, api_key_env="JUDGE_KEY").ask(QUESTION)
    assert KEY not in str(caught.value)
    assert server.bodies == []


def test_refusal_without_a_key_names_the_option(server: Any) -> None:
    server.replies = [server.reply(401, b"who are you")]
    with pytest.raises(RewardError, match="with api_key_env"):
        client(server).ask(QUESTION)


def test_threads_never_open_more_questions_than_allowed(server: Any) -> None:
    both = threading.Barrier(2, timeout=5)

    def answer(_: object) -> Any:
        both.wait()
        return server.chat("yes")

    server.answer = answer
    judge = client(server, concurrency=2)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: judge.ask(QUESTION), range(8)))
    assert [one.text for one in answers] == ["yes"] * 8
    assert server.most_open == 2  # the barrier needs two at a time; a third would have been seen
    assert judge.usage.answers == 8


def test_client_pickles_as_its_connection(server: Any) -> None:
    server.replies = [server.chat("yes")]
    judge = client(server, concurrency=3)
    judge.ask(QUESTION)
    copy = pickle.loads(pickle.dumps(judge))
    assert copy.connection == judge.connection
    assert copy.ask(QUESTION).text == "yes"
    assert copy.usage.requests == 1


def test_waits_do_not_disturb_the_global_random_numbers(server: Any) -> None:
    random.seed(0)
    expected = random.Random(0).random()
    server.replies = [server.reply(500), server.chat("yes")]
    client(server).ask(QUESTION)
    assert random.random() == expected
