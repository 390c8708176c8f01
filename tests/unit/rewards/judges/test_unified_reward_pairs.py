"""UnifiedReward on pairs: shares that sum to one, both orders, and no number from a bad answer."""

from typing import Any

import numpy as np
import pytest
import torch

from rewards.errors import RewardError
from rewards.unified_reward_pairs import UnifiedRewardPairs


def blocks(*shares: tuple[object, object]) -> str:
    names = ("Alignment", "Coherence", "Style")
    return "\n\n".join(f"{n} Score:\n Video 1: {a}\n Video 2: {b}" for n, (a, b) in zip(names, shares, strict=True))


GOOD = blocks((0.4736, 0.5264), (0.5981, 0.4019), (1.0, 0.0))


def clip(value: float) -> torch.Tensor:
    return torch.full((1, 9, 3, 8, 8), value)


def pairs(server: Any, **options: Any) -> UnifiedRewardPairs:
    return UnifiedRewardPairs(server.url, "UnifiedReward", connection=server.fast, encoding="png", **options)


def brighter_and_left(server: Any, body: dict[str, Any]) -> Any:
    """Prefer the brighter clip, and whichever is shown first by 0.1: a judge with a position bias."""
    frames = server.frames_of(body)
    half = len(frames) // 2
    first, second = (float(np.mean(part)) / 255 for part in (frames[:half], frames[half:]))
    share = min(1.0, 0.5 + (first - second) / 4 + 0.1)
    return server.chat(blocks(*[(f"{share:.4f}", f"{1 - share:.4f}")] * 3))


def test_one_order_gives_the_shares_as_written(server: Any) -> None:
    server.replies = [server.chat(GOOD)]
    output = pairs(server, both_orders=False).compare(clip(0.2), clip(0.8), ["a circle"], fps=8.0)
    got = {key: round(float(value), 4) for key, value in output.values.items()}
    assert got == {"alignment": 0.4736, "coherence": 0.5981, "style": 1.0}
    assert len(server.frames_of(server.bodies[0])) == 16
    assert server.text_of(server.bodies[0]).endswith("\nText Caption: [a circle]")


def test_both_orders_cancel_a_position_bias(server: Any) -> None:
    server.answer = lambda body: brighter_and_left(server, body)
    judge = pairs(server)
    dark, bright = clip(0.2), clip(0.8)
    straight = judge.compare(dark, bright, ["a"], fps=8.0).values["style"]
    swapped = judge.compare(bright, dark, ["a"], fps=8.0).values["style"]
    assert float(straight) == pytest.approx(0.35, abs=1e-3)
    assert float(straight + swapped) == pytest.approx(1.0)
    assert float(judge.compare(dark, dark, ["a"], fps=8.0).values["style"]) == pytest.approx(0.5)
    biased = pairs(server, both_orders=False).compare(dark, dark, ["a"], fps=8.0).values["style"]
    assert float(biased) == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("Video 1 is better.", "not the three blocks"),
        (GOOD + "\nVideo 1 wins", "not the three blocks"),
        (GOOD.replace("Coherence", "Physics"), "not the three blocks"),
        (GOOD.replace("0.4736", "-0.5"), "not the three blocks"),
        (blocks((0.4, 0.4), (0.5, 0.5), (0.5, 0.5)), "sum to 0.8 instead of 1"),
        (blocks((4, 6), (0.5, 0.5), (0.5, 0.5)), "outside [0, 1]"),
    ],
)
def test_bad_answer_in_either_order_masks_the_pair(server: Any, text: str, why: str) -> None:
    server.replies = [server.chat(GOOD), server.chat(text)]
    output = pairs(server).compare(clip(0.2), clip(0.8), ["a"], fps=8.0)
    assert output.valid.tolist() == [False]
    assert all(bool(value.isnan().all()) for value in output.values.values())
    assert output.reasons[0] is not None
    assert why in output.reasons[0]


def test_clip_with_nan_masks_its_pair_and_is_not_sent(server: Any) -> None:
    server.replies = [server.chat(GOOD)]
    first, second = torch.cat([clip(0.2), clip(0.3)]), torch.cat([clip(0.8), clip(0.7)])
    second[0, 0, 0, 0, 0] = float("nan")
    output = pairs(server, both_orders=False).compare(first, second, ["a", "b"], fps=8.0)
    assert output.valid.tolist() == [False, True]
    assert output.reasons == ("pixels are NaN or infinite", None)
    assert len(server.bodies) == 1


def test_clips_of_two_shapes_are_refused(server: Any) -> None:
    with pytest.raises(RewardError, match="need one shape"):
        pairs(server).compare(clip(0.2), clip(0.2)[:, :4], ["a"], fps=8.0)
