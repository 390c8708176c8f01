"""The command line of win rates: where comparisons are read from, and the table that is printed."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from evaluation.win_rates.win_rates import Standing, TiePolicy, comparisons_of_pairs, comparisons_of_scores, standing
from rlhf_video.data import write_atomic
from rlhf_video.errors import ConfigError, DataError
from rlhf_video.preferences import OVERALL, PreferenceStore
from rlhf_video.reward_scores import ScoredClip
from rlhf_video.settings import StrictParser
from rlhf_video.stats import Comparisons


@dataclass(frozen=True, kw_only=True)
class WinRateRequest:
    """What a user asks."""

    pairs: tuple[Path, ...]
    """Preference files; either these or scores."""
    scores: dict[str, Path]
    """System -> file of `rlhf-video rewards score`."""
    question: str
    dimension: str | None
    lower_is_better: bool
    margin: float
    ties: TiePolicy
    names: dict[str, str]
    """Recorded model or adapter -> name in the table."""
    out: Path | None


def parse_request(arguments: Sequence[str] | None = None, *, description: str | None = None) -> WinRateRequest:
    """Read the command line.

    Args:
        arguments: Without the program's name; None reads `sys.argv`.
        description: First paragraph of `--help`.

    Raises:
        ConfigError: Neither or both sources are given, or an argument is unknown or malformed.
        SystemExit: `--help` was asked for.
    """
    parser = StrictParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--pairs", type=Path, nargs="+", default=[], help="preference records, .jsonl or .parquet")
    parser.add_argument("--question", default=OVERALL, help="label of the records that counts (default: overall)")
    parser.add_argument("--name", nargs="*", default=[], metavar="RECORDED=NAME", help="call a model or adapter so")
    parser.add_argument("--scores", nargs="+", default=[], metavar="SYSTEM=FILE", help="output of `rewards score`")
    parser.add_argument("--dimension", help="score that counts, needed where a file has several")
    parser.add_argument("--lower-is-better", action="store_true", help="of the score")
    parser.add_argument("--margin", type=float, default=0.0, help="score differences up to this are ties (default: 0)")
    parser.add_argument(
        "--ties", choices=get_args(TiePolicy), default="half", help="what a tie is worth (default: half a win to each)"
    )
    parser.add_argument("--out", type=Path, help="JSON file of the result")
    known = parser.parse_args(arguments)
    if bool(known.pairs) == bool(known.scores):
        raise ConfigError("Give either --pairs FILE, or --scores A=FILE B=FILE: one source of comparisons.")
    return WinRateRequest(
        pairs=tuple(known.pairs),
        scores={name: Path(file) for name, file in _assignments("--scores", known.scores).items()},
        question=known.question,
        dimension=known.dimension,
        lower_is_better=known.lower_is_better,
        margin=known.margin,
        ties=known.ties,
        names=_assignments("--name", known.name),
        out=known.out,
    )


def run(request: WinRateRequest) -> Standing:
    """Read the comparisons, compute the standing and write it where asked.

    Raises:
        ConfigError: An unknown score, or several without --dimension.
        DataError: A file cannot be read, or nothing in it compares two systems.
    """
    comparisons, notes = _read(request)
    found = standing(comparisons, ties=request.ties)
    result = Standing(rates=found.rates, ranking=found.ranking, notes=notes + found.notes)
    if request.out is not None:
        request.out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(request.out, (json.dumps(to_record(result, request.ties), indent=2) + "\n").encode())
    return result


def to_record(result: Standing, ties: TiePolicy) -> dict[str, Any]:
    """Return the standing as plain JSON values."""
    return {"ties": ties, **asdict(result)}


def to_text(result: Standing, ties: TiePolicy) -> str:
    """Return the tables to print."""
    word = {"half": "ties half a win", "drop": "ties left out", "loss": "ties no win"}[ties]
    lines = [f"win rate with 95% interval over prompts, {word}"]
    for rate in result.rates:
        share, counts = rate.rate.scaled(100.0), (rate.num_wins, rate.num_ties, rate.num_losses)
        lines.append(
            f"  {rate.system} against {rate.opponent}: {share.mean:.1f}% [{share.low:.1f}, {share.high:.1f}]  "
            f"(won {counts[0]}, tied {counts[1]}, lost {counts[2]}; {share.num_clusters} prompts)"
        )
    if result.ranking:
        lines.append("Bradley-Terry ranking, ranks that hold together at 95%")
        lines += [
            f"  {line.rank}. {line.system}  strength {line.strength:+.2f} log-odds, rank {line.best_rank} to "
            f"{line.worst_rank}, best with probability {line.probability_best:.2f}"
            for line in result.ranking
        ]
    return "\n".join([*lines, *(f"note: {note}" for note in result.notes)])


def read_scores(path: Path) -> list[ScoredClip]:
    """Read the output of `rlhf-video rewards score`.

    Raises:
        DataError: The file is missing or holds no scored clips.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return [ScoredClip(clip["file"], clip["prompt"], clip["values"], clip["reason"]) for clip in content["clips"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"'{path}' holds no scores of clips: write it with `rlhf-video rewards score` ({error})."
        ) from error


def _read(request: WinRateRequest) -> tuple[Comparisons, tuple[str, ...]]:
    if request.pairs:
        pairs = [pair for path in request.pairs for pair in PreferenceStore(path).read()]
        return comparisons_of_pairs(pairs, question=request.question, names=request.names)
    if len(request.scores) < 2:
        raise ConfigError("--scores needs two systems or more: --scores base=base.json mine=mine.json")
    scores = {system: read_scores(path) for system, path in request.scores.items()}
    known = sorted({name for clips in scores.values() for clip in clips for name in clip.values or ()})
    if request.dimension is None and len(known) != 1:
        raise ConfigError(f"--dimension is needed: the files have {', '.join(known) or 'no score at all'}.")
    return comparisons_of_scores(
        scores,
        request.dimension or known[0],
        higher_is_better=not request.lower_is_better,
        margin=request.margin,
    )


def _assignments(option: str, texts: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (equals and name and value) or name in found:
            raise ConfigError(f"{option} {text!r} is not understood: give NAME=VALUE, each name once.")
        found[name] = value
    return found
