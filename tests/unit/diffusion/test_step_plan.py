"""Step plans: levels of few-step roll-outs, First-Frame Enhancement, and their cost."""

import itertools

import pytest
import torch

from rlhf_video.diffusion.sigmas import shift_sigma
from rlhf_video.diffusion.step_plan import StepPlan, step_levels
from rlhf_video.errors import ConfigError


def test_four_steps_with_shift_5_are_the_published_list() -> None:
    timesteps = [1000 * level for level in step_levels(4, shift=5.0)]
    assert timesteps == pytest.approx([1000, 937.5, 833.3333, 625], abs=1e-3)


@pytest.mark.parametrize("shift", [0.7, 1.0, 3.0, 5.0])
@pytest.mark.parametrize("schedule", ["skip", "prefix"])
def test_every_list_starts_at_one_and_falls(shift: float, schedule: str) -> None:
    for num_steps in range(1, 9):
        levels = step_levels(num_steps, shift=shift, schedule=schedule, longest=8)  # type: ignore[arg-type]
        assert len(levels) == num_steps
        assert levels[0] == 1
        assert all(higher > lower > 0 for higher, lower in itertools.pairwise(levels))


def test_prefix_takes_all_chunks_levels_from_one_list() -> None:
    plan = StepPlan.of(2, shift=5.0, first_chunk_steps=4, schedule="prefix", longest=2)
    assert plan.first == step_levels(4, shift=5.0)
    assert plan.later == plan.first[:2]


def test_skip_spreads_over_the_range_and_prefix_takes_the_first() -> None:
    longest = step_levels(4, shift=5.0)
    assert step_levels(2, shift=5.0) == (longest[0], longest[2])
    assert step_levels(2, shift=5.0, schedule="prefix") == longest[:2]
    assert step_levels(1, shift=5.0) == step_levels(1, shift=5.0, schedule="prefix") == (1.0,)
    third = shift_sigma(torch.tensor([1.0, 2 / 3, 1 / 3], dtype=torch.float64), 3.0)
    assert step_levels(3, shift=3.0) == pytest.approx(third.tolist())


@pytest.mark.parametrize("schedule", ["skip", "prefix"])
def test_first_frame_enhancement_gives_the_first_chunk_more_steps(schedule: str) -> None:
    four = step_levels(4, shift=3.0)
    for num_steps in (1, 2, 3):
        later = step_levels(num_steps, shift=3.0, schedule=schedule)  # type: ignore[arg-type]
        plan = StepPlan.of(num_steps, shift=3.0, first_chunk_steps=4, schedule=schedule)  # type: ignore[arg-type]
        assert [plan.levels(chunk) for chunk in range(4)] == [four, later, later, later]
        assert StepPlan.of(num_steps, shift=3.0, schedule=schedule) == StepPlan(later, later)  # type: ignore[arg-type]


def test_with_enough_steps_the_enhancement_changes_nothing() -> None:
    for num_steps in (4, 5, 8):
        assert StepPlan.of(num_steps, shift=3.0, first_chunk_steps=4) == StepPlan.of(num_steps, shift=3.0)


@pytest.mark.parametrize(("num_steps", "denoising"), [(1, 10), (2, 16), (4, 28)])
def test_seven_chunks_cost_what_the_paper_counts(num_steps: int, denoising: int) -> None:
    plan = StepPlan.of(num_steps, shift=5.0, first_chunk_steps=4)
    assert plan.num_evaluations(7, recaches=0) == denoising == 4 + 6 * num_steps
    assert plan.num_evaluations(7, recaches=6) == denoising + 6
    assert plan.num_evaluations(1, recaches=0) == 4


def test_nonsense_steps_are_refused() -> None:
    with pytest.raises(ConfigError, match="num_steps=0: at least one step"):
        step_levels(0, shift=5.0)
    with pytest.raises(ConfigError, match="num_steps=5 is more than the 4 levels"):
        StepPlan.of(5, shift=5.0, schedule="prefix")
    with pytest.raises(ConfigError, match=r"shift=0\.0"):
        StepPlan.of(2, shift=0.0)


@pytest.mark.parametrize("levels", [(), (1.0, 1.0), (0.5, 1.0), (1.0, 0.0), (1.5, 0.5)])
def test_levels_that_do_not_fall_are_refused(levels: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="decreasing ones in"):
        StepPlan((1.0,), levels)
