"""The `rlhf-video` command: questions about the installation. Training and generating have scripts of their own."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence

from rlhf_video import pair_commands, reward_commands
from rlhf_video.errors import exit_on_user_error

MARKS = {"ok": "+", "missing": "-", "info": " "}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, or 1 where something required is missing.

    Args:
        arguments: Command line without the program's name; None reads `sys.argv`.
    """
    parser = argparse.ArgumentParser(prog="rlhf-video", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    doctor = commands.add_parser(
        "doctor", help="versions, devices, kernels, extras, cached models, and what to install"
    )
    doctor.add_argument("--json", action="store_true", help="print the findings as JSON")
    doctor.set_defaults(run=run_doctor)
    rewards = commands.add_parser("rewards", help="the rewards: list, environments of originals, scores of clips")
    reward_commands.add_commands(rewards)
    pairs = commands.add_parser("pairs", help="preference pairs: import, export, check")
    pair_commands.add_commands(pairs)
    known = parser.parse_args(arguments)
    with exit_on_user_error():
        return int(known.run(known))
    return 1


def run_doctor(arguments: argparse.Namespace) -> int:
    """Print the doctor's findings, the commands for what is missing last."""
    from rlhf_video.doctor import examine, is_healthy

    sections = examine()
    if arguments.json:
        print(json.dumps([dataclasses.asdict(section) for section in sections], indent=2))
        return 0 if is_healthy(sections) else 1
    for section in sections:
        print(f"\n{section.title}")
        for finding in section.findings:
            print(f"  {MARKS[finding.status]} {finding.name:<24} {finding.detail}")
    remedies = [f for section in sections for f in section.findings if f.remedy is not None]
    print("\nTo get what is missing (each line only if you need it)" if remedies else "\nNothing is missing.")
    for finding in remedies:
        print(f"    {finding.name:<24} {finding.remedy}")
    return 0 if is_healthy(sections) else 1


if __name__ == "__main__":
    sys.exit(main())
