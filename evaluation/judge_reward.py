"""Judge a reward model: how often the difference of its scores agrees with people's choices between two clips.

Scores each clip of a benchmark once (run again to go on after a kill), then writes judgement.json and judgement.md.
"""

from evaluation.judging.command import parse_request, run
from evaluation.judging.report import summary_table
from rlhf_video.command import start_logging
from rlhf_video.errors import exit_on_user_error


def main() -> None:
    """Run the command line."""
    with exit_on_user_error():
        request = parse_request(description=__doc__)
        start_logging()
        judgement = run(request, show_progress=True)
        print(summary_table(judgement.dimensions), end="")
        print(f"\n{len(judgement.failures)} clips failed, {len(judgement.missing_clips)} missing")
        print(f"report           {request.out / 'judgement.md'}")


if __name__ == "__main__":
    main()
