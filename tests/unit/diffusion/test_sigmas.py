import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from rlhf_video.diffusion.sigmas import flow_sigmas, shift_sigma
from rlhf_video.errors import ConfigError


@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0, 0.7])
@pytest.mark.parametrize("num_steps", [1, 4, 25, 50])
def test_sigmas_are_bit_equal_to_the_flow_match_euler_scheduler(num_steps: int, shift: float) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(num_steps)
    sigmas = flow_sigmas(num_steps, shift)
    torch.testing.assert_close(sigmas, scheduler.sigmas, rtol=0, atol=0)
    torch.testing.assert_close(sigmas[:-1] * 1000, scheduler.timesteps, rtol=0, atol=0)


def test_sigmas_fall_from_one_to_zero() -> None:
    sigmas = flow_sigmas(10, 3.0)
    assert sigmas[0] == 1
    assert sigmas[-1] == 0
    assert (sigmas.diff() < 0).all()
    assert sigmas.dtype == torch.float32


def test_shift_keeps_the_ends_and_moves_the_middle_up() -> None:
    torch.testing.assert_close(shift_sigma(torch.tensor([0.0, 0.5, 1.0]), 3.0), torch.tensor([0.0, 0.75, 1.0]))


@pytest.mark.parametrize(("num_steps", "shift"), [(0, 1.0), (5, 0.0), (5, -1.0)])
def test_nonsense_schedules_are_refused(num_steps: int, shift: float) -> None:
    with pytest.raises(ConfigError, match=r"num_steps=0|shift="):
        flow_sigmas(num_steps, shift)
