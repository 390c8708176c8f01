"""Token buckets: generous for people, 429 with Retry-After for scripts."""

import uuid

import pytest
from fastapi.testclient import TestClient

from app.quality.rate_limit import NETWORK_LIMITS, RATER_LIMITS, Bucket, RateLimiter
from tests.unit.app.conftest import ORIGIN


class Clock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def test_a_bucket_lets_its_burst_through_and_then_its_rate() -> None:
    clock = Clock()
    limiter, bucket = RateLimiter(clock=clock), Bucket(3, 0.5)
    assert [limiter.wait_s(("a",), bucket) for _ in range(5)] == [0, 0, 0, 2, 2]
    assert limiter.wait_s(("b",), bucket) == 0
    clock.now += 1.9
    assert limiter.wait_s(("a",), bucket) == 1
    clock.now += 0.1
    assert [limiter.wait_s(("a",), bucket) for _ in range(2)] == [0, 2]
    clock.now += 1e6
    assert [limiter.wait_s(("a",), bucket) for _ in range(4)] == [0, 0, 0, 2]


def test_forgotten_keys_do_not_fill_the_memory() -> None:
    limiter, bucket = RateLimiter(clock=Clock(), most_keys=10), Bucket(1, 1.0)
    for number in range(1000):
        assert limiter.wait_s((str(number),), bucket) == 0
    assert limiter.wait_s(("999",), bucket) == 1
    assert limiter.wait_s(("0",), bucket) == 0


def test_a_rater_who_votes_every_three_seconds_for_hours_never_waits() -> None:
    clock = Clock()
    limiter = RateLimiter(clock=clock)
    for _ in range(10_000):
        for action in ("vote", "assignment"):
            assert limiter.wait_s((action,), RATER_LIMITS[action]) == 0
        clock.now += 3.0


def test_a_class_of_a_hundred_behind_one_address_never_waits() -> None:
    clock = Clock()
    limiter = RateLimiter(clock=clock)
    for _ in range(100):
        assert limiter.wait_s(("consent",), NETWORK_LIMITS["consent"]) == 0
    for _ in range(1000):
        for _ in range(100):
            assert limiter.wait_s(("vote",), NETWORK_LIMITS["vote"]) == 0
        clock.now += 3.0


def test_a_script_gets_429_with_the_seconds_to_wait_and_others_go_on(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RATER_LIMITS, "assignment", Bucket(5, 0.5))
    replies = [client.post("/api/v1/assignments", json={"study": "demo"}) for _ in range(7)]
    assert [reply.status_code for reply in replies] == [201] + [200] * 4 + [429] * 2
    refused = replies[-1]
    assert refused.json()["error"]["code"] == "rate_limited"
    assert int(refused.headers["retry-after"]) in (1, 2)
    second = TestClient(client.app, headers={"origin": ORIGIN})
    assert second.post("/api/v1/consent", json={"version": "1"}).status_code == 200
    assert second.post("/api/v1/assignments", json={"study": "demo"}).status_code == 201


def test_cookies_made_up_for_every_request_do_not_help(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORK_LIMITS, "vote", Bucket(5, 0.5))
    codes = []
    for _ in range(7):
        client.cookies.set("arena_session", uuid.uuid4().hex)
        codes.append(client.post("/api/v1/votes", json={}).status_code)
    assert codes[-2:] == [429, 429]
