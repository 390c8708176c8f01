"""Identity over a long clip: what the last part shows against the first, by colour, shape and background."""

import pytest
import torch
from torch import Tensor

from rewards.errors import RewardError
from rlhf_video.sprites.grammar import parse_prompt
from rlhf_video.sprites.identity import SpriteIdentity
from rlhf_video.sprites.renderer import render

FIRST = "a red circle moving left on a navy background"


def _clip(*prompts: str) -> Tensor:
    return torch.cat([render([parse_prompt(prompt)], [0])[0] for prompt in prompts])


def _judge(clip: Tensor) -> dict[str, float]:
    output = SpriteIdentity(num_segments=2)(clip[None], ["anything"], fps=8)
    assert bool(output.valid[0])
    return {name: float(value[0]) for name, value in output.values.items()}


@pytest.mark.parametrize(
    ("last", "lost"),
    [
        (FIRST, set()),
        ("a red circle moving up on a navy background", set()),  # motion is no part of identity
        ("a blue circle moving left on a navy background", {"identity", "colour"}),
        ("a red square moving left on a navy background", {"identity", "shape"}),
        ("a red circle moving left on a black background", {"identity", "background"}),
    ],
)
def test_what_changed_is_named(last: str, lost: set[str]) -> None:
    values = _judge(_clip(FIRST, last))
    assert {name for name, value in values.items() if value == 0} == lost
    assert set(values.values()) <= {0.0, 1.0}


def test_a_sprite_that_vanishes_has_lost_its_identity() -> None:
    clip = _clip(FIRST, FIRST)
    clip[21:] = clip[0, :, 0, 0][None, :, None, None]
    assert _judge(clip) == {"identity": 0, "colour": 0, "shape": 0, "background": 1}


def test_a_clip_that_shows_nothing_at_first_is_masked() -> None:
    clips = torch.stack([torch.rand(42, 3, 64, 64, generator=torch.Generator().manual_seed(0)), _clip(FIRST, FIRST)])
    output = SpriteIdentity(num_segments=2)(clips, ["", ""], fps=8)
    assert output.valid.tolist() == [False, True]
    assert output.reasons[0] is not None and output.values["identity"][0].isnan()


def test_one_segment_cannot_be_compared() -> None:
    with pytest.raises(RewardError, match="num_segments=1"):
        SpriteIdentity(num_segments=1)
