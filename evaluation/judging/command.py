"""The command line of `evaluation/judge_reward.py`, and one run of it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from evaluation.judging.benchmarks import BENCHMARKS, read_benchmark
from evaluation.judging.judgement import Resampling, judge
from evaluation.judging.matching import match_dimensions
from evaluation.judging.records import Benchmark
from evaluation.judging.report import Judgement, to_json, to_markdown
from evaluation.judging.score_store import RewardIdentity, ScoreStore
from evaluation.judging.scoring import score_clips
from rewards.registry import build
from rlhf_video.data import sha256_file, write_atomic
from rlhf_video.errors import ConfigError, DataError
from rlhf_video.settings import StrictParser
from rlhf_video.settings.overrides import apply_overrides

logger = logging.getLogger(__name__)

MISSING_LIST = "missing_clips.txt"
_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class JudgeRequest:
    """What one run is asked to do."""

    reward: str
    """Registry name or "package.module:Class"."""
    options: dict[str, object]
    """Options of the reward."""
    benchmark: str
    """One of `BENCHMARKS`."""
    root: Path
    """Folder that the clips' paths are relative to."""
    out: Path
    """Folder for judgement.json, judgement.md and the scores."""
    file: Path | None = None
    """Annotation file; None for the benchmark's own name inside `root`."""
    cache: Path | None = None
    """Score file; None for scores.jsonl inside `out`."""
    matching: tuple[str, ...] = ()
    """"LABEL=SCORE" wishes, see `match_dimensions`."""
    allow_missing: bool = False
    """Leave comparisons with a missing clip out, counted, instead of refusing to start."""
    drop_unknown_labels: bool = False
    """Leave labels of another spelling out, counted, instead of refusing the file."""
    device: str = "cpu"
    """torch device to score on."""
    resampling: Resampling = field(default_factory=Resampling)
    """Bootstrap draws and calibration splits."""


def run(request: JudgeRequest, *, show_progress: bool = False) -> Judgement:
    """Read, score, judge and write the report.

    Raises:
        RlhfVideoError: Files, options or labels do not fit, clips are missing, or nothing can be scored.
        RewardError: The reward cannot be built.
    """
    _check_device(request.device)
    _make_folder(request.out)
    benchmark = read_benchmark(
        request.benchmark, request.root, file=request.file, drop_unknown_labels=request.drop_unknown_labels
    )
    missing = _missing_clips(benchmark, request)
    reward = build(request.reward, **request.options)
    matching = match_dimensions(reward.spec, benchmark.dimensions, request.matching)
    identity = RewardIdentity.of(reward.spec.name, reward.spec.version, request.options)
    absent = set(missing)
    clips = benchmark.clips()
    with ScoreStore(request.cache or request.out / "scores.jsonl", identity) as store:
        scores, failures = score_clips(
            reward,
            [(path, prompt) for path, prompt in clips if path not in absent],
            store,
            device=request.device,
            show_progress=show_progress,
        )
    judgement = Judgement(
        benchmark=benchmark.name,
        benchmark_file=str(benchmark.file),
        benchmark_sha256=sha256_file(benchmark.file),
        reward=identity.reward,
        options=request.options,
        options_sha256=identity.options,
        num_comparisons=len(benchmark.comparisons),
        num_clips=len(clips),
        missing_clips=tuple(str(path) for path in missing),
        failures=failures,
        not_judged=tuple(name for name in benchmark.dimensions if name not in matching),
        resampling=request.resampling,
        dimensions=judge(benchmark, reward.spec, matching, scores, request.resampling),
    )
    write_atomic(request.out / "judgement.json", to_json(judgement).encode())
    write_atomic(request.out / "judgement.md", to_markdown(judgement).encode())
    return judgement


def parse_request(arguments: Sequence[str] | None = None, *, description: str | None = None) -> JudgeRequest:
    """Read the command line.

    Args:
        arguments: Without the program's name; None reads `sys.argv`.
        description: First paragraph of `--help`.

    Raises:
        ConfigError: An argument is missing, unknown or malformed.
        SystemExit: `--help` was asked for.
    """
    known = _parser(description).parse_args(arguments)
    options: dict[str, object] = {}
    apply_overrides(options, dict, known.option)
    return JudgeRequest(
        reward=known.reward,
        options=options,
        benchmark=known.benchmark,
        root=known.root,
        out=known.out,
        file=known.file,
        cache=known.cache,
        matching=tuple(known.map),
        allow_missing=known.allow_missing,
        drop_unknown_labels=known.drop_unknown_labels,
        device=known.device,
        resampling=Resampling(num_resamples=known.resamples, seed=known.seed),
    )


def _parser(description: str | None) -> StrictParser:
    parser = StrictParser(description=description, allow_abbrev=False)
    add = parser.add_argument
    add("--reward", required=True, metavar="NAME", help='reward by short name, or your own as "package.module:Class"')
    add("--option", action="append", default=[], metavar="KEY=VALUE", help="option of the reward, repeatable")
    add("--benchmark", required=True, choices=tuple(BENCHMARKS))
    add("--root", required=True, type=Path, metavar="DIR", help="folder that the clips' paths are relative to")
    add("--out", required=True, type=Path, metavar="DIR", help="folder for judgement.json, judgement.md, scores.jsonl")
    add("--file", type=Path, help="annotation file (default: the benchmark's own name inside --root)")
    add("--map", action="append", default=[], metavar="LABEL=SCORE", help="which score judges a label, or none")
    add("--cache", type=Path, metavar="FILE", help="score file to share between runs (default: OUT/scores.jsonl)")
    add("--allow-missing", action="store_true", help="leave comparisons with missing clips out, counted")
    add("--drop-unknown-labels", action="store_true", help="leave labels of another spelling out, counted")
    add("--device", default="cpu", help="torch device to score on (default: cpu)")
    add("--resamples", type=int, default=Resampling.num_resamples, help="bootstrap draws (default: %(default)s)")
    add("--seed", type=int, default=Resampling.seed, help="of bootstrap draws and splits (default: %(default)s)")
    return parser


def _check_device(device: str) -> None:
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise ConfigError(f"--device {device} is no torch device: use cpu or cuda.") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"--device {device}: torch sees no CUDA device here: use --device cpu.")


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {out} cannot be a folder ({error.strerror}): give another one.") from error


def _missing_clips(benchmark: Benchmark, request: JudgeRequest) -> tuple[Path, ...]:
    """Return the missing clips where they are allowed.

    Raises:
        DataError: There are some and they are not; the whole list is written into the output folder.
    """
    missing = benchmark.missing()
    if not missing:
        return ()
    listing = request.out / MISSING_LIST
    write_atomic(listing, "".join(f"{path}\n" for path in missing).encode())
    total = len({path for path, _ in benchmark.clips()})
    if request.allow_missing and len(missing) < total:
        logger.warning("%d of %d clips are missing and left out, see %s", len(missing), total, listing)
        return missing
    shown = ", ".join(str(path) for path in missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
    raise DataError(
        f"{len(missing)} of {total} clips are missing ({shown}; all in '{listing}'): unpack them under "
        f"'{request.root}', or leave their comparisons out, counted, with --allow-missing. Nothing was scored."
    )
