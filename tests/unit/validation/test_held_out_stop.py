import pytest

from rlhf_video.errors import ConfigError
from rlhf_video.validation import HeldOutStop, HeldOutStopConfig


def run(stop: HeldOutStop, history: list[tuple[float, float]], *, first_step: int = 10) -> list[int]:
    """Feed (held-out, trained) gains ten steps apart; return the steps that raised an alarm."""
    alarms = []
    for index, (held_out, trained) in enumerate(history):
        step = first_step + 10 * index
        if stop.update(step, held_out=held_out, trained=trained) is not None:
            alarms.append(step)
    return alarms


def test_both_rising_never_stops() -> None:
    assert run(HeldOutStop(), [(0.1, 0.2), (0.2, 0.5), (0.3, 0.9), (0.29, 1.2)]) == []


def test_held_out_falling_while_trained_rises_stops_after_patience() -> None:
    stop = HeldOutStop(HeldOutStopConfig(tolerance=0.1, patience=2))
    assert run(stop, [(0.3, 0.4), (0.1, 0.6), (0.0, 0.9)]) == [30]
    assert (stop.best_step, stop.best_held_out) == (10, 0.3)


def test_the_message_names_the_step_to_go_back_to() -> None:
    stop = HeldOutStop(HeldOutStopConfig(patience=1))
    stop.update(10, held_out=0.3, trained=0.4)
    alarm = stop.update(20, held_out=-0.3, trained=0.9)
    assert alarm is not None
    assert "adapter of step 10 was better" in alarm.message
    assert "checkpoint" not in alarm.message, "checkpoints may be deleted by then"
    assert "from +0.30 (step 10) to -0.30" in alarm.message


def test_an_adapter_that_only_hurts_is_measured_against_the_base() -> None:
    stop = HeldOutStop(HeldOutStopConfig(tolerance=0.1, patience=1))
    assert run(stop, [(-0.2, 0.5)]) == [10]
    assert stop.best_step == 0


def test_a_recovery_resets_the_patience() -> None:
    stop = HeldOutStop(HeldOutStopConfig(tolerance=0.1, patience=2))
    assert run(stop, [(0.3, 0.4), (0.1, 0.6), (0.25, 0.7), (0.1, 0.8)]) == []


def test_a_fall_of_both_is_not_exploitation() -> None:
    assert run(HeldOutStop(HeldOutStopConfig(patience=1)), [(0.5, 0.5), (-0.5, -0.5)]) == []


def test_resuming_continues_the_count() -> None:
    config = HeldOutStopConfig(tolerance=0.1, patience=2)
    first, second = HeldOutStop(config), HeldOutStop(config)
    assert run(first, [(0.3, 0.4), (0.1, 0.6)]) == []
    second.load_state_dict(first.state_dict())
    assert run(second, [(0.0, 0.9)], first_step=30) == [30]


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="tolerance"):
        HeldOutStopConfig(tolerance=-0.1)
    with pytest.raises(ConfigError, match="patience"):
        HeldOutStopConfig(patience=0)
