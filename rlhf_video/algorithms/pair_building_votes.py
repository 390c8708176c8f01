"""Pairs from the votes of an existing pairs file; their clips are copied, so that the new folder stands alone."""

from dataclasses import replace
from pathlib import Path

from rlhf_video.algorithms.pair_building_clips import CLIPS
from rlhf_video.algorithms.pair_building_config import PairBuildingConfig
from rlhf_video.algorithms.pair_building_inputs import read_evaluation
from rlhf_video.data import sha256_file, write_atomic
from rlhf_video.preferences import ClipRecord, PreferenceStore
from rlhf_video.preferences.pairing import VotesConfig, WrittenPairs, pairs_from_votes, remove_leaks, write_pairs


def pairs_of_votes(config: PairBuildingConfig) -> WrittenPairs:
    """Add up the votes of `config.pairs`, copy the clips of the pairs that they decide, and write both.

    Raises:
        DataError: The file or a clip is missing, damaged or changed, or nothing was decided.
    """
    assert config.pairs is not None
    evaluation, store = read_evaluation(config.evaluation), PreferenceStore(config.pairs)
    votes = store.read()
    store.check_clips(votes)
    rule = config.votes or VotesConfig()
    pairing = remove_leaks(pairs_from_votes(votes, rule), evaluation, config.split.leaks)
    pairs = tuple(
        replace(pair, a=_copied(pair.a, store, config.output_dir), b=_copied(pair.b, store, config.output_dir))
        for pair in pairing.pairs
    )
    return write_pairs(
        config.output_dir,
        replace(pairing, pairs=pairs),
        rule="votes",
        settings={**config.plain(), "votes": rule},
        split=config.split,
        evaluation=evaluation,
        sources={"votes": sha256_file(config.pairs)},
    )


def _copied(clip: ClipRecord, store: PreferenceStore, folder: Path) -> ClipRecord:
    """Copy a clip under the name of its hash, and return its record there."""
    source = store.clip_path(clip)
    name = f"{CLIPS}/{clip.sha256[:20]}{source.suffix}"
    if not (folder / name).is_file():
        write_atomic(folder / name, source.read_bytes())
    return replace(clip, path=name)
