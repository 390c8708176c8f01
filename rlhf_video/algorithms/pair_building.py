"""Build preference pairs: make clips, score them, let a rule of `preferences.pairing` decide, write pairs and manifest.

Four sources: clips of a model paired by their scores; given clips against generated ones (GT-Pair of Reg-DPO); two
aligned copies of one clip by partial re-noising (DenseDPO, arXiv:2506.03517); and votes of an existing pairs file.

    clips/                the clips, lossless or as latents, never made twice
    work/                 what a killed run goes on from: records of finished batches, scores
    train.jsonl, validation.jsonl, manifest.json
"""

import functools
import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor

from rewards.errors import RewardError
from rlhf_video.algorithms.pair_building_clips import WORK, Batch, Records, Shelf
from rlhf_video.algorithms.pair_building_config import PairBuildingConfig
from rlhf_video.algorithms.pair_building_inputs import Inputs, read_inputs, start_folder
from rlhf_video.algorithms.pair_building_labels import aligned_pairs, counted, rated, real_pairs
from rlhf_video.algorithms.pair_building_model import load_model, make_batches
from rlhf_video.algorithms.pair_building_scores import ClipScores, Scorer
from rlhf_video.algorithms.pair_building_votes import pairs_of_votes
from rlhf_video.errors import DataError, RlhfVideoError
from rlhf_video.preferences.pairing import Pairing, ScoredClip, WrittenPairs, write_pairs
from rlhf_video.runtime import Distribution
from rlhf_video.settings import to_plain

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")

__all__ = ["PairBuildingConfig", "build"]


def build(config: PairBuildingConfig, *, accelerator: Accelerator, resume: bool = False) -> WrittenPairs:
    """Build pairs; call it on every process.

    Args:
        config: The run.
        accelerator: From `create_accelerator`.
        resume: Go on with what is in `config.output_dir`.

    Returns:
        The files and the counts.

    Raises:
        RlhfVideoError, RewardError: The user's input does not fit; no model ran, where that can be seen before.
    """
    distribution = Distribution(accelerator)
    if config.source == "votes":
        return _on_main(distribution, lambda: pairs_of_votes(config))
    inputs = _on_main(distribution, lambda: read_inputs(config))
    scorer = Scorer(config.rewards, config.sums)
    _check_scores(config, scorer)
    _on_main(distribution, lambda: start_folder(config, inputs, resume=resume))
    shelf, records = Shelf(config.output_dir, config.save), Records(config.output_dir / WORK / "clips")
    make_batches(config, inputs.batches, shelf=shelf, records=records, distribution=distribution)
    batches = [_finished(records, number) for number in range(len(inputs.batches))]
    spans = inputs.spans
    folder = config.output_dir / WORK / "scores"
    if config.rewards:
        decode = _decoder(config, accelerator.device)
        scorer.score_all(batches, spans, shelf=shelf, decode=decode, folder=folder, distribution=distribution)
    tables = [scorer.read(batch, spans, folder=folder) for batch in batches]
    return _on_main(distribution, lambda: _write(config, inputs, batches, tables))


def _check_scores(config: PairBuildingConfig, scorer: Scorer) -> None:
    """Refuse score names that no reward gives, before anything is generated."""
    names = {
        "rater.score": None if config.rater is None else config.rater.score,
        "renoising.score": config.renoising.score if config.source == "partial_renoising" else None,
    }
    if config.rule is not None:
        names |= {f"rule.{config.rule.chosen}": name for name in config.rule.scores}
    for field, name in names.items():
        if name is not None:
            scorer.check(name, field=field)


def _write(
    config: PairBuildingConfig,
    inputs: Inputs,
    batches: Sequence[Batch],
    tables: Sequence[Sequence[Sequence[ClipScores]]],
) -> WrittenPairs:
    """Turn clips and scores into pairs, and write them."""
    _tell_missing(tables)
    if config.source == "real_vs_generated":
        pairing = real_pairs(batches[: inputs.num_given], batches[inputs.num_given :])
    elif config.source == "partial_renoising":
        pairing = aligned_pairs(
            batches, tables, inputs.spans, config=config.renoising, rater=config.rater, seed=config.seed
        )
    else:
        pairing = _ruled(config, batches, tables)
    sources = {**inputs.sources, "made": _digest(batches), "scores": _digest(tables)}
    return write_pairs(
        config.output_dir,
        pairing,
        rule=config.source if config.rule is None else config.rule.chosen,
        settings=config.plain(),
        split=config.split,
        evaluation=inputs.evaluation,
        sources=sources,
    )


def _ruled(
    config: PairBuildingConfig, batches: Sequence[Batch], tables: Sequence[Sequence[Sequence[ClipScores]]]
) -> Pairing:
    """Apply the rule, then let the rater vote, then count the votes."""
    assert config.rule is not None
    found = {
        item.clip.path: (item, row[0])
        for batch, table in zip(batches, tables, strict=True)
        for item, row in zip(batch, table, strict=True)
    }
    pairing = config.rule.apply([ScoredClip(item.prompt, item.clip, scores.values) for item, scores in found.values()])
    if config.rater is None:
        return pairing
    scores = {path: entry for path, (_, entry) in found.items()}
    pairing = rated(pairing, scores, config.rater, seed=config.seed)
    return pairing if config.votes is None else counted(pairing, config.votes)


def _tell_missing(tables: Sequence[Sequence[Sequence[ClipScores]]]) -> None:
    """Log how many clips miss which score and why; refuse a score that no clip has.

    Raises:
        DataError: A reward scored no clip at all.
    """
    rows = [row[0] for table in tables for row in table]
    reasons = Counter((name, why) for row in rows for name, why in row.reasons.items())
    have = Counter(name for row in rows for name in row.values)
    for (name, why), count in sorted(reasons.items()):
        logger.warning("%d of %d clips have no score %s: %s", count, len(rows), name, why)
        if not have[name]:
            raise DataError(f"'{name}' scored none of the {len(rows)} clips ({why}): remove or mend that reward.")


def _finished(records: Records, number: int) -> Batch:
    batch = records.read(number)
    if batch is None:
        raise DataError(f"Clips of batch {number} are gone from '{records.folder}': go on with --resume.")
    return batch


def _decoder(config: PairBuildingConfig, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Return latents -> pixels; the model is loaded when the first latents come."""
    model = functools.cache(lambda: load_model(config, device))
    return lambda latents: model().decode(latents.to(device))


def _digest(values: object) -> str:
    """Return a hash of plain values: dataclasses, sequences, numbers."""
    return hashlib.sha256(json.dumps(to_plain(values), sort_keys=True).encode()).hexdigest()


def _on_main(distribution: Distribution, work: Callable[[], ResultT]) -> ResultT:
    """Run something on the main process; every process gets its result, or its error."""
    result: ResultT | None = None
    problem: Exception | None = None
    if distribution.is_main:
        try:
            result = work()
        except (RlhfVideoError, RewardError) as error:
            problem = error
    result, problem = distribution.broadcast_object((result, problem))
    if problem is not None:
        raise problem
    return result
