"""What a user can mend ends a program with one paragraph and exit code 2; our own bugs keep their traceback."""

import errno

import pytest

from rewards.errors import RewardError
from rlhf_video import errors


@pytest.mark.parametrize(
    "kind",
    [
        errors.ConfigError,
        errors.BackboneError,
        errors.DataError,
        errors.CheckpointError,
        errors.AdapterError,
        RewardError,
    ],
)
def test_user_mistake_ends_with_one_paragraph_and_exit_code_two(
    kind: type[ValueError], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended, errors.exit_on_user_error():
        raise kind("frames=20 does not fit: use 4k + 1, for example 21.")
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: frames=20 does not fit: use 4k + 1, for example 21.\n"


def test_every_error_of_the_hierarchy_is_a_value_error() -> None:
    assert issubclass(errors.RlhfVideoError, ValueError)
    assert issubclass(RewardError, ValueError)


def test_full_disk_is_the_users_to_mend_and_names_the_way_out(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, errors.exit_on_user_error():
        raise OSError(errno.ENOSPC, "No space left on device", "runs/a/metrics.jsonl")
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert "disk is full" in message and "runs/a/metrics.jsonl" in message and "--resume" in message


def test_other_system_errors_and_bugs_keep_their_traceback() -> None:
    with pytest.raises(PermissionError), errors.exit_on_user_error():
        raise PermissionError(errno.EACCES, "Permission denied")
    with pytest.raises(AssertionError), errors.exit_on_user_error():
        raise AssertionError("a bug")
