"""What every command shares: how it was started, for cards, and where its messages go."""

import logging
import shlex
import sys
from pathlib import Path


def command_line(num_processes: int = 1) -> str:
    """Return the command that started this run, fit for a shell.

    Args:
        num_processes: Above 1 a launcher started the workers; it is named with that number.
    """
    words = sys.argv
    if Path(sys.argv[0]).name in [Path(word).name for word in sys.orig_argv]:  # as typed, with `-m` where it was
        words = [word for word in sys.orig_argv[1:] if word != "-u"]
    launcher = ["python"] if num_processes == 1 else ["accelerate", "launch", "--num_processes", str(num_processes)]
    return shlex.join([*launcher, *words])


def start_logging(*, is_main: bool = True) -> None:
    """Print messages with their time on stderr; processes beside the main one print warnings alone."""
    level = logging.INFO if is_main else logging.WARNING
    logging.basicConfig(level=level, format="%(asctime)s %(levelname).1s %(message)s", datefmt="%H:%M:%S")
