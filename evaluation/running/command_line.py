"""The command line of `evaluation/vbench_run.py`."""

import argparse
import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.aggregation.gate import parse_rule
from evaluation.running.suite_config import EvaluationConfig
from rewards.factories import did_you_mean
from rlhf_video.errors import ConfigError
from rlhf_video.settings import StrictParser, load_config
from rlhf_video.settings.arguments import describe_fields

COMMANDS = {
    "all": "generate, run and report (what no command means)",
    "plan": "say what would be done: clips, weights, memory, time",
    "generate": "make the clips that are not there yet",
    "run": "score the clips that have no result yet",
    "status": "say what is done, failed and left of each metric",
    "report": "write the HTML page and Markdown, print the table",
    "compare": "compare two systems, of this run or of others: compare A B",
    "submit": "write VBench's result files and the leaderboard's archive of a system: submit SYSTEM",
}
_NAMES = {"compare": ("A", "B"), "submit": ("SYSTEM",)}
DEFAULT_CONFIG = Path(__file__).resolve().parents[2] / "configs" / "evaluation" / "sprite.yaml"


@dataclass(frozen=True)
class Request:
    """What one call is asked to do."""

    command: str
    config: EvaluationConfig
    names: tuple[str, ...]
    """Systems or runs that compare and submit name."""
    shard: tuple[int, int]
    retry_failed: bool
    measure: bool
    baseline_run: str | None
    """What a gate compares with, in place of the run's own baseline."""
    fail_if: tuple[str, ...]
    """Rules of the gate."""


def parse_request(arguments: Sequence[str] | None = None, *, description: str | None = None) -> Request:
    """Read the command line.

    Args:
        arguments: Without the program's name; None reads `sys.argv`.
        description: First paragraph of `--help`.

    Raises:
        ConfigError: An argument is unknown or malformed, or the config does not hold.
        SystemExit: `--help` was asked for.
    """
    parser = _parser(description)
    known = parser.parse_intermixed_args(arguments)
    words = list(known.words)
    command = words.pop(0) if words and "=" not in words[0] else "all"
    if command not in COMMANDS:
        raise ConfigError(
            f"There is no command '{command}'.{did_you_mean(command, COMMANDS)} Known: {', '.join(COMMANDS)}."
        )
    overrides = [word for word in words if "=" in word]
    names = tuple(word for word in words if "=" not in word)
    _check_names(command, names)
    for rule in known.fail_if:
        parse_rule(rule)  # a malformed one is told before anything is computed
    config = load_config(EvaluationConfig, known.config, overrides)
    if known.partial:
        config = dataclasses.replace(config, partial=True)
    return Request(
        command=command,
        config=config,
        names=names,
        shard=parse_shard(known.shard),
        retry_failed=known.retry_failed,
        measure=not known.no_measure,
        baseline_run=known.baseline,
        fail_if=tuple(known.fail_if),
    )


def parse_shard(text: str) -> tuple[int, int]:
    """Read "i/n", i from 0.

    Raises:
        ConfigError: It is no such text.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not int(match[1]) < int(match[2]):
        raise ConfigError(f"--shard {text}: give i/n with i from 0 to n - 1, for example --shard 0/2 and --shard 1/2.")
    return int(match[1]), int(match[2])


def _check_names(command: str, names: tuple[str, ...]) -> None:
    wanted = len(_NAMES.get(command, ()))
    if len(names) != wanted:
        usage = f"{command} {' '.join(_NAMES[command])}" if command in _NAMES else f"{command}, without names"
        raise ConfigError(
            f"'{command}' got {len(names)} names ({' '.join(names) or 'none'}): write {usage}. Fields of the config "
            "are given as key=value."
        )


class _Parser(StrictParser):
    """Lists the config's fields in its help."""

    def format_help(self) -> str:
        """Return the help; the fields are listed only when it is shown."""
        return f"{super().format_help()}\n{describe_fields(EvaluationConfig)}\n"


def _parser(description: str | None) -> _Parser:
    parser = _Parser(
        description=description,
        usage="%(prog)s [COMMAND] [--config FILE] [options] [key=value ...]",
        epilog="commands:\n" + "\n".join(f"  {name:<9} {text}" for name, text in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("words", nargs="*", metavar="COMMAND, names, key=value", help="see below")
    add("--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE", help=f"YAML file (default: {DEFAULT_CONFIG})")
    add("--shard", default="0/1", metavar="I/N", help="run: score every N-th clip; shards merge by themselves")
    add("--partial", action="store_true", help="go on where clips or weights are missing; numbers are labelled")
    add("--retry-failed", action="store_true", help="run: compute again what failed before")
    add("--no-measure", action="store_true", help="plan: measure no time: metrics are loaded, and none scores a clip")
    add("--baseline", metavar="RUN", help="report, run: compare with a system of another run (FOLDER or FOLDER:SYSTEM)")
    add("--fail-if", action="append", default=[], metavar="RULE", help="exit with 3 where a rule holds; repeatable")
    return parser
