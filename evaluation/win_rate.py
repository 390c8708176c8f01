"""Win rates of systems with intervals over prompts: from preference records, or from a reward's scores of their clips.

python evaluation/win_rate.py --pairs pairs.jsonl --ties half
python evaluation/win_rate.py --scores base=base.json mine=mine.json --dimension overall --margin 0.1
"""

from evaluation.win_rates.command import parse_request, run, to_text
from rlhf_video.errors import exit_on_user_error


def main() -> None:
    """Run the command line."""
    with exit_on_user_error():
        request = parse_request(description=__doc__)
        print(to_text(run(request), request.ties))


if __name__ == "__main__":
    main()
