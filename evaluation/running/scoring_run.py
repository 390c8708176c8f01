"""Make clips, then score this process's share of them: every step can be killed and started again."""

import contextlib
import errno
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

from tqdm import tqdm

from evaluation.prompt_suites import Suite
from evaluation.running.metric_building import BuiltMetrics, build_metrics
from evaluation.running.provenance import provenance
from evaluation.running.run_lock import run_lock, shared_run_lock
from evaluation.running.run_record import RecordedMetric, RunRecord, write_record
from evaluation.running.runner import Progress, score_clips
from evaluation.running.store import ResultStore
from evaluation.running.suite_config import EvaluationConfig
from evaluation.running.systems import SystemClips, clip_groups, generation, read_clips, read_suite
from rlhf_video.algorithms.generate import generate
from rlhf_video.errors import DataError
from rlhf_video.settings import to_plain

logger = logging.getLogger(__name__)

RESULTS = "results"
"""Folder of the stored results inside an evaluation's folder."""


def generate_clips(config: EvaluationConfig) -> None:
    """Make every clip that is not there yet; a killed call goes on where it stopped.

    Raises:
        RlhfVideoError: A model, an adapter or a prompt file does not fit, another process makes these clips, or the
            disk is full.
    """
    suite = read_suite(config)
    with (
        run_lock(config.output_dir / ".lock-generate", f"The clips of {config.output_dir}"),
        disk_errors(config.output_dir),
    ):
        for name in config.systems:
            for part in generation(config, name, suite):
                logger.info("Clips of %s in %s", name, part.output_dir)
                generate(part)


def score(config: EvaluationConfig, *, shard: tuple[int, int] = (0, 1), retry_failed: bool = False) -> RunRecord:
    """Score every clip of this shard that has no result yet.

    Args:
        config: The evaluation.
        shard: (index, count).
        retry_failed: Compute again what failed before.

    Returns:
        What was written to run.json.

    Raises:
        RlhfVideoError: Clips are missing or wrong, a metric cannot be built, another process runs this shard or other
            work on this folder, or the disk is full.
    """
    index, count = shard
    suite = read_suite(config)
    with (
        run_lock(config.output_dir / f".lock-{index}-of-{count}", f"Shard {index}/{count} of {config.output_dir}"),
        disk_errors(config.output_dir),
    ):
        clips = read_clips(config, suite)
        logger.info("Clips: %s", ", ".join(f"{name} {len(found.entries)}" for name, found in clips.items()))
        built = build_metrics(config)
        record = _record(config, suite, clips, built)
        with shared_run_lock(config.output_dir / ".lock-run", str(config.output_dir), _work(record, config, count)):
            write_record(config.output_dir, record)
            _score_share(clips, built, config.output_dir / RESULTS, shard, retry_failed=retry_failed)
    return record


def _work(record: RunRecord, config: EvaluationConfig, num_shards: int) -> Mapping[str, str]:
    """Return what all processes on one folder must agree on: they share its run.json, and divide its clips."""
    clips = {
        name: [[entry.sha256, entry.prompt, entry.sample] for entry in entries]
        for name, entries in record.systems.items()
    }
    parts = {
        "suite": record.suite,
        "systems or clips": [record.baseline, clips],
        "metrics": [[metric.label, metric.key] for metric in record.metrics],
    }
    digests = {name: hashlib.sha256(json.dumps(part).encode()).hexdigest() for name, part in parts.items()}
    return {**digests, "--partial": str(config.partial), "number of shards": str(num_shards)}


@contextlib.contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn a full disk into an error that says what stays.

    Raises:
        DataError: The disk is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise DataError(
            f"The disk is full while writing {error.filename or folder}: every clip and result stored so far stays. "
            "Free some space and give the same command again; it goes on from there."
        ) from error


def _score_share(
    clips: Mapping[str, SystemClips],
    built: BuiltMetrics,
    folder: Path,
    shard: tuple[int, int],
    *,
    retry_failed: bool,
) -> None:
    entries = [entry for of_system in clips.values() for entry in of_system.entries]
    with ResultStore(folder, shard) as store, tqdm(unit="clip", disable=None) as bar:

        def show(progress: Progress) -> None:
            bar.total = progress.num_clips
            bar.set_postfix(failed=progress.num_failed, refresh=False)
            bar.update(progress.num_done - bar.n)

        score_clips(entries, built.metrics, store, shard=shard, on_progress=show, retry_failed=retry_failed)


def _record(config: EvaluationConfig, suite: Suite, clips: Mapping[str, SystemClips], built: BuiltMetrics) -> RunRecord:
    folders = {name: tuple(clip_groups(config, name, suite)) for name in config.systems}
    return RunRecord(
        config=to_plain(config),
        suite={
            "name": suite.name,
            "version": suite.version,
            "sha256": suite.sha256,
            "num_prompts": len(suite.prompts),
        },
        baseline=config.baseline_name,
        systems={name: of_system.entries for name, of_system in clips.items()},
        left_out={name: of_system.left_out for name, of_system in clips.items()},
        metrics=tuple(
            RecordedMetric(
                label=metric.label,
                key=metric.key,
                name=source.name,
                options=dict(source.options),
                is_set_metric=metric.is_set_metric,
                spec=metric.spec,
            )
            for metric, source in zip(built.metrics, built.sources, strict=True)
        ),
        absent=built.absent,
        provenance=provenance(folders, built.metrics),
    )
