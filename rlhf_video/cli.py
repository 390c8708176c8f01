"""The `rlhf-video` command: questions about the installation. Training and generating have scripts of their own."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence

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
    commands.add_parser("rewards", help="the rewards that configs may name")
    known = parser.parse_args(arguments)
    with exit_on_user_error():
        return run_doctor(as_json=known.json) if known.command == "doctor" else list_rewards()
    return 1


def run_doctor(*, as_json: bool) -> int:
    """Print the doctor's findings, the commands for what is missing last."""
    from rlhf_video.doctor import examine, is_healthy

    sections = examine()
    if as_json:
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


def list_rewards() -> int:
    """Print each reward's short name, one per line."""
    from rewards.registry import available

    for name in available():
        print(name)
    print('Your own: "package.module:Class" of anything that can be imported.')
    return 0


if __name__ == "__main__":
    sys.exit(main())
