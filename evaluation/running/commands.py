"""What each command of `evaluation/vbench_run.py` does; exit codes are 0, and 3 where a gate fails."""

from pathlib import Path

from evaluation.aggregation.comparison import SystemComparison, compare_systems
from evaluation.aggregation.gate import EXIT_CODE, check_gate, has_failed, parse_rule
from evaluation.running.command_line import Request
from evaluation.running.outcome import conclude, named_system, num_pending, write_outcome
from evaluation.running.run_plan import plan
from evaluation.running.run_record import RunRecord, read_record
from evaluation.running.scoring_run import RESULTS, disk_errors, generate_clips, score
from evaluation.running.store import ResultStore
from evaluation.running.tables import comparison_table, outcome_table, status_table
from evaluation.vbench_compat.submission import write_submission
from rlhf_video.errors import ConfigError


def execute(request: Request) -> int:
    """Run a command and return the exit code.

    Raises:
        RlhfVideoError: See the commands.
        RewardError: A metric cannot be built.
    """
    if request.command == "plan":
        print(plan(request.config, measure=request.measure))
    elif request.command == "generate":
        generate_clips(request.config)
    elif request.command == "run":
        return run(request)
    elif request.command == "status":
        print_status(request.config.output_dir)
    elif request.command == "report":
        return report(request)
    elif request.command == "compare":
        return compare(request)
    elif request.command == "submit":
        submit(request)
    else:
        generate_clips(request.config)
        return run(request)
    return 0


def run(request: Request) -> int:
    """Score this process's share; where nothing is left then, write the report too."""
    record = score(request.config, shard=request.shard, retry_failed=request.retry_failed)
    folder = request.config.output_dir
    left = num_pending(record, ResultStore(folder / RESULTS, None))
    if left:
        print(f"left             {left} results, of other shards; then: vbench_run.py report")
        return 0
    return report(request, record)


def report(request: Request, record: RunRecord | None = None) -> int:
    """Write the report of a run (None: the one that run.json tells of), print the table, and hold the gate."""
    config, folder = request.config, request.config.output_dir
    baseline = None if request.baseline_run is None else named_system(request.baseline_run, folder)
    outcome = conclude(folder, record, partial=config.partial, num_resamples=config.num_resamples, baseline=baseline)
    with disk_errors(folder):
        page = write_outcome(folder, outcome)
    print(outcome_table(outcome))
    print(f"\nreport           {page}")
    return hold_gate(request.fail_if, outcome.comparisons)


def compare(request: Request) -> int:
    """Compare two systems and hold the gate."""
    config = request.config
    baseline, system = (named_system(name, config.output_dir) for name in request.names)
    comparison = compare_systems(
        baseline,
        system,
        partial=config.partial,
        num_resamples=config.num_resamples,
        num_permutations=config.num_resamples,
    )
    print(comparison_table(comparison))
    for warning in comparison.warnings:
        print(f"! {warning}")
    return hold_gate(request.fail_if, (comparison,))


def submit(request: Request) -> None:
    """Pack VBench's official results of a system for the leaderboard; what is missing is told."""
    config = request.config
    scores = named_system(request.names[0], config.output_dir)
    with disk_errors(config.output_dir):
        packed = write_submission(config.output_dir / "submission", scores, name=scores.system, partial=config.partial)
    print(f"archive          {packed.path}")
    for gap in packed.gaps:
        print(f"missing          {gap}")


def print_status(folder: Path) -> None:
    """Print what is done, failed and left."""
    record, store = read_record(folder), ResultStore(folder / RESULTS, None)
    print(status_table(record, store))
    for label, reason in record.absent.items():
        print(f"not measured     {label}: {reason}")


def hold_gate(rules: tuple[str, ...], comparisons: tuple[SystemComparison, ...]) -> int:
    """Print what came of every rule on every comparison; return 0, or the gate's exit code where one failed.

    Raises:
        ConfigError: A rule is malformed, or there is nothing to compare.
    """
    parsed = [parse_rule(rule) for rule in rules]
    if parsed and not comparisons:
        raise ConfigError("--fail-if needs two systems to compare: add one, or give --baseline RUN.")
    failed = False
    for comparison in comparisons:
        results = check_gate(comparison, parsed)
        for result in results:
            state = "FAILED" if result.has_failed else "passed"
            print(f"gate {state}      {comparison.system}: {result.rule} ({result.reason})")
        failed = failed or has_failed(results)
    return EXIT_CODE if failed else 0
