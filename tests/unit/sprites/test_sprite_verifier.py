"""The verifier reads rendered truth, survives the VAE, and is not fooled by clips that only look right."""

from itertools import islice

import numpy as np
import pytest
import torch

from rlhf_video.errors import DataError
from rlhf_video.sprites.grammar import MOTIONS, Scene, Split, parse_prompt, random_scenes
from rlhf_video.sprites.judge import SpriteJudge
from rlhf_video.sprites.renderer import render
from rlhf_video.sprites.verifier import ATTRIBUTES, judge_clip, judge_clips, judge_reading, read_clip, reading_of
from rlhf_video.sprites.viewer import SpriteViewer


def _scenes(split: Split, count: int, two_object_share: float, seed: int = 0) -> list[Scene]:
    return list(islice(random_scenes(split, np.random.default_rng(seed), two_object_share=two_object_share), count))


@pytest.mark.parametrize("two_object_share", [0.0, 1.0])
def test_rendered_truth_is_read_back(two_object_share: float) -> None:
    scenes = _scenes("test", 100, two_object_share)
    verdicts = judge_clips(render(scenes, range(100)), scenes)
    for attribute in ATTRIBUTES:
        assert np.mean([v.correct[attribute] for v in verdicts]) >= 0.99
    assert np.mean([v.all_correct for v in verdicts]) >= 0.99
    assert np.mean([v.score() for v in verdicts]) > 0.85


def test_every_wrong_attribute_is_seen() -> None:
    video = render([parse_prompt("a red circle moving left on a navy background")], [0])[0]
    for wrong, attribute in (
        ("a blue circle moving left on a navy background", "colour"),
        ("a red square moving left on a navy background", "shape"),
        ("a red circle moving up on a navy background", "motion"),
        ("a red circle moving left on a black background", "background"),
    ):
        correct = judge_clip(video, parse_prompt(wrong)).correct
        assert [a for a in ATTRIBUTES if correct[a] == 0] == [attribute]


def test_a_static_clip_shows_no_motion_but_standing_still() -> None:
    for motion in MOTIONS:
        scene = parse_prompt(f"a yellow square {motion} on a brown background")
        frozen = render([scene], [2])[0, :1].expand(21, -1, -1, -1)
        assert judge_clip(frozen, scene).correct["motion"] == float(motion == "standing still")


def test_a_backwards_clip_shows_the_opposite_motion() -> None:
    scene = parse_prompt("a yellow square moving left on a brown background")
    verdict = judge_clip(render([scene], [2])[0].flip(0), scene)
    assert verdict.correct["motion"] == 0
    assert verdict.correct["shape"] == 1


def test_noise_and_a_colour_wash_have_nothing_right() -> None:
    scene = parse_prompt("a red circle moving left on a navy background")
    noise = torch.rand(21, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert judge_clip(noise, scene).score() == 0
    wash = torch.tensor([0.9, 0.15, 0.15]).view(1, 3, 1, 1).expand(21, 3, 64, 64)
    assert judge_clip(wash, scene).score() == 0
    tinted = 0.5 * render([scene], [0])[0] + 0.5 * wash
    assert judge_clip(tinted, scene).all_correct == 0


def test_a_jump_or_a_missing_object_is_not_a_glide() -> None:
    scene = parse_prompt("a red circle moving right on a navy background")
    video = render([scene], [0])[0]
    jump = torch.cat([video[:1].expand(10, -1, -1, -1), video[-1:].expand(11, -1, -1, -1)])
    assert judge_clip(jump, scene).correct["motion"] == 0
    gone = torch.cat(
        [video[:10], render([parse_prompt("a red circle moving right on a navy background")], [1])[0, 10:] * 0]
    )
    assert judge_clip(gone, scene).all_correct == 0


def test_an_extra_object_makes_colour_and_shape_wrong() -> None:
    two = parse_prompt("a red circle pulsing and a white cross pulsing on a navy background")
    one = parse_prompt("a red circle pulsing on a navy background")
    assert judge_clip(render([two], [0])[0], one).correct["colour"] == 0
    assert judge_clip(render([one], [0])[0], two).correct["shape"] == 0


def test_a_perfect_reading_earns_everything() -> None:
    scene = parse_prompt("a red circle pulsing and a white cross circling on a navy background")
    verdict = judge_reading(reading_of(scene), scene)
    assert verdict.all_correct == verdict.score() == 1


def test_an_empty_clip_reads_as_its_background() -> None:
    reading = read_clip(torch.full((21, 3, 64, 64), 0.05))
    assert reading.sprites == ()
    assert reading.background.value == "black"


def test_the_judge_is_a_reward_with_one_score_per_attribute() -> None:
    scenes = _scenes("test", 3, 0.5)
    output = SpriteJudge()(render(scenes, range(3)), [scene.prompt for scene in scenes], fps=8)
    assert set(output.values) == {"all", *ATTRIBUTES}
    assert output.values["all"].tolist() == [1, 1, 1]
    assert output.valid.all()
    with pytest.raises(DataError, match="not a sprite prompt"):
        SpriteJudge()(torch.zeros(1, 21, 3, 64, 64), ["a dog"], fps=8)


def test_viewer_sees_by_degrees_what_the_judge_calls_right_or_wrong() -> None:
    scenes = [scene for scene, _ in zip(random_scenes("train", np.random.default_rng(0)), range(6), strict=False)]
    clips, prompts = render(scenes, range(6)), [scene.prompt for scene in scenes]
    clear = SpriteViewer()(clips, prompts, fps=8).values["opinion"]
    faint = SpriteViewer()(0.5 + 0.35 * (clips - 0.5), prompts, fps=8).values["opinion"]
    wrong = SpriteViewer()(clips, prompts[1:] + prompts[:1], fps=8).values["opinion"]
    assert (clear > 0.8).all() and (faint < clear).all() and (wrong < clear - 0.1).all()
    assert clear.min() >= 0 and clear.max() <= 1
