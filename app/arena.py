"""The human-preference arena: people watch two clips, say which is better, and training uses it.

Without arguments a demo opens on this machine: the built-in sprite model against its adapters.
"""

import sys

from app.needs_extra import needs_extra
from rlhf_video.command import start_logging
from rlhf_video.errors import exit_on_user_error


def main() -> None:
    """Run the command line."""
    with exit_on_user_error():
        with needs_extra():
            from app.command_line import parse_request
            from app.commands import execute
        request, config = parse_request(description=__doc__)
        start_logging()
        sys.exit(execute(request, config))


if __name__ == "__main__":
    main()
