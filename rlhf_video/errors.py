"""Errors for mistakes a user can mend, and the one place where they end a program.

Each message says what was given, what fits and what to do. `assert` is for our own bugs.
"""

import contextlib
import errno
import sys
from collections.abc import Iterator

from rewards.errors import RewardError


class RlhfVideoError(ValueError):
    """Base of every error a user can mend."""


class ConfigError(RlhfVideoError):
    """A setting is unknown, of the wrong type, or does not fit another one."""


class BackboneError(RlhfVideoError):
    """A model folder is missing or holds another class than asked for."""


class DataError(RlhfVideoError):
    """Prompts, clips or manifests are missing, empty, duplicated or unreadable."""


class CheckpointError(RlhfVideoError):
    """A checkpoint is missing, corrupt, or belongs to another run."""


class AdapterError(RlhfVideoError):
    """An adapter does not fit its base, or is switched where a gradient is recorded."""


@contextlib.contextmanager
def exit_on_user_error() -> Iterator[None]:
    """End an entry script with one paragraph on stderr and exit code 2 when the user can mend the cause."""
    try:
        yield
    except (RlhfVideoError, RewardError) as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        sys.stderr.write(
            f"error: The disk is full while writing {error.filename or 'the run directory'}: free some space and start "
            "again with --resume; the last complete checkpoint is intact.\n"
        )
        sys.exit(2)
