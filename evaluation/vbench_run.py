"""Evaluate video models: make clips, score each once by every metric, compare with intervals, write a report.

Without arguments the built-in sprite model is compared with its reward-backprop adapter on the test prompts.
"""

import sys

from evaluation.running.command_line import parse_request
from evaluation.running.commands import execute
from rlhf_video.command import start_logging
from rlhf_video.errors import exit_on_user_error


def main() -> None:
    """Run the command line."""
    with exit_on_user_error():
        request = parse_request(description=__doc__)
        start_logging()
        sys.exit(execute(request))


if __name__ == "__main__":
    main()
