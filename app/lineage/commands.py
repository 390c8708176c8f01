"""The commands of `app/arena.py` around training: export, register, scores, lineage."""

import argparse
import sys

from app.arena_config import ArenaConfig
from app.arena_state import open_arena
from app.lineage.export import ExportConfig, export_votes
from app.lineage.head_to_head import HeadToHead
from app.lineage.lineage import LineageNode, lineage_of
from app.lineage.reward_alarm import RewardAgreement, reward_agreement, reward_readings
from app.lineage.reward_scores import import_scores
from app.lineage.systems import register_trained
from app.studies.study import find_study
from rlhf_video.data.prompts import PromptSuite, load_prompts
from rlhf_video.errors import ConfigError
from rlhf_video.report.markdown import markdown_table
from rlhf_video.settings import load_config
from rlhf_video.stats.bootstrap import Interval


def export(request: argparse.Namespace, config: ArenaConfig) -> int:
    """Write votes as training data."""
    rule = load_config(ExportConfig, request.rule, request.changes)
    suites: dict[str, PromptSuite] = {}
    for file in request.evaluation:
        suite = load_prompts(file)
        if suites.setdefault(suite.name, suite) is not suite:
            raise ConfigError(f"--evaluation names two files '{suite.name}': rename one of them.")
    with open_arena(config) as arena:
        written = export_votes(arena, request.study, rule, evaluation=suites)
    for part, count in written.num_pairs.items():
        sys.stdout.write(f"{count} pairs: {written.folder / f'{part}.jsonl'}\n")
    for reason, count in written.left_out.items():
        sys.stdout.write(f"left out: {count} ({reason})\n")
    return 0


def register(request: argparse.Namespace, config: ArenaConfig) -> int:
    """Take a trained adapter's clips in as a child system."""
    with open_arena(config) as arena:
        child = register_trained(
            arena,
            request.study,
            request.name,
            run=request.run,
            clips=request.clips,
            parent=request.parent,
            skip_bad=request.skip_bad,
        )
    sys.stdout.write(
        f"'{child.name}' comes from '{child.parent}': {child.new_clips} new clips, {child.new_pairs} new pairs.\n"
    )
    if child.trained_prompts:
        sys.stdout.write(f"It was trained on {child.trained_prompts} of its prompts: these do not count for it.\n")
    return 0


def scores(request: argparse.Namespace, config: ArenaConfig) -> int:
    """Take in a reward's scores."""
    with open_arena(config) as arena:
        report = import_scores(arena, request.study, request.file, clips=request.clips)
    sys.stdout.write(
        f"{report.new} new scores ({report.known} were there); {report.other_clips} of other clips, "
        f"{report.failed} clips without one.\n"
    )
    return 0


def lineage(request: argparse.Namespace, config: ArenaConfig) -> int:
    """Print the tree, and what rewards say of it; exit code 1 where an alarm is raised."""
    with open_arena(config) as arena, arena.reading() as session:
        study = find_study(session, request.study)
        nodes = lineage_of(session, study, config.data, question=request.question)
        readings = reward_readings(session, study, question=request.question)
        agreements = reward_agreement(session, study, question=request.question)
    columns = ("system", "votes", "pairs learned", "wins:ties:losses", "win rate against parent", "against the first")
    sys.stdout.write(markdown_table(columns, [_row(node) for node in nodes], align="lrrrrr") + "\n")
    for reading in readings:
        sys.stdout.write(f"\n{'ALARM' if reading.verdict == 'alarm' else reading.verdict}: {reading}\n")
    if agreements:
        header = ("reward", "votes", "agreement without ties", "with ties", "one rater with the others")
        table = markdown_table(header, [_agreement_row(line) for line in agreements], align="lrrrr")
        sys.stdout.write(f"\n{table}\n")
    return int(any(reading.verdict == "alarm" for reading in readings))


def _row(node: LineageNode) -> tuple[str, ...]:
    fight = node.against_parent
    learned = "" if node.trained_on is None else str(node.trained_on.num_pairs.get("train", "?"))
    counts = "" if fight is None else f"{fight.wins}:{fight.ties}:{fight.losses}"
    first = node.against_first if node.depth > 1 else fight
    return "  " * node.depth + node.name, str(node.num_votes), learned, counts, _win_rate(fight), _win_rate(first)


def _agreement_row(line: RewardAgreement) -> tuple[str, ...]:
    shares = (line.accuracy, line.accuracy_with_ties, line.ceiling)
    return str(line.reward), str(line.num_votes), *(_share(share) for share in shares)


def _win_rate(fight: HeadToHead | None) -> str:
    return _share(None if fight is None else fight.win_rate)


def _share(interval: Interval | None) -> str:
    return "" if interval is None else f"{interval.mean:.1%} [{interval.low:.1%}, {interval.high:.1%}]"


COMMANDS = {"export": export, "lineage": lineage, "register": register, "scores": scores}
