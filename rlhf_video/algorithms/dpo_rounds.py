"""Iterative Video-DPO: every round generates with the newest adapter, labels, builds pairs and trains on from there.

As Iterative RPO (arXiv:2404.19733) and, for video, IPO, now Dual-IPO (arXiv:2502.02088): pairs of the model's own
current clips teach it more than those of the base. Kept: fresh pairs in each round, which starts from the previous one
and is measured against it. Different: a LoRA, so that each round's result is one adapter of the base; and what labels
stays as it is. This joins build_pairs.py and train_dpo.py, and adds nothing to what either does.

    round-1/pairs, round-1/run, round-2/...    what the two commands leave; round-N/train.jsonl: carried pairs
    config.yaml, summary.json                  settings; table of the rounds
"""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from rlhf_video.algorithms.dpo import train
from rlhf_video.algorithms.dpo_rounds_config import DpoRoundsConfig
from rlhf_video.algorithms.outcome import Outcome
from rlhf_video.algorithms.pair_building import PairBuildingConfig, build
from rlhf_video.algorithms.suites import Suites, first_prompts
from rlhf_video.data import PromptSuite, load_prompts
from rlhf_video.data.files import write_atomic
from rlhf_video.errors import ConfigError
from rlhf_video.preferences import ClipRecord, PreferenceStore
from rlhf_video.preferences.pair import pair_to_json
from rlhf_video.preferences.pairing import split_pairs
from rlhf_video.report.markdown import markdown_table
from rlhf_video.runtime import Distribution, read_metrics
from rlhf_video.settings import changed_fields, dump_yaml, read_tree, to_plain

logger = logging.getLogger(__name__)

__all__ = ["DpoRoundsConfig", "RoundsOutcome", "round_prompts", "train_rounds"]


@dataclass(frozen=True)
class RoundsOutcome:
    """What the rounds leave behind."""

    last: Outcome
    """Of the last round: its adapter is the result."""
    table: str
    """Markdown: validation scores of the base and of each round's adapter, at the same noise."""
    summary: Path
    """JSON: per round its adapter, number of pairs and validation scores."""


def train_rounds(config: DpoRoundsConfig, *, accelerator: Accelerator, resume: bool = False) -> RoundsOutcome:
    """Run all rounds; call it on every process.

    Args:
        config: The rounds.
        accelerator: From `create_accelerator`.
        resume: Go on in `config.output_dir` wherever the last call ended: finished rounds are not touched.

    Raises:
        RlhfVideoError, RewardError: The user's input does not fit.
    """
    distribution = Distribution(accelerator)
    _check(config, resume=resume)
    distribution.barrier()  # every process has looked before one writes
    if distribution.is_main:
        write_atomic(config.output_dir / "config.yaml", dump_yaml(config).encode())
    for number in range(1, config.rounds + 1):
        training = config.train_of(number)
        is_finished = (training.output_dir / "card.json").is_file()
        logger.info("Round %d of %d%s", number, config.rounds, ": finished before" if is_finished else "")
        if not is_finished:
            _make_pairs(config, number, distribution, resume=resume)
        if not is_finished or number == config.rounds:
            last = train(training, accelerator=accelerator, resume=resume)
            accelerator.free_memory()
    rounds = [_measured(config, number) for number in range(1, config.rounds + 1)]
    summary = config.output_dir / "summary.json"
    if distribution.is_main:
        write_atomic(summary, (json.dumps({"rounds": rounds}, indent=2) + "\n").encode())
    distribution.barrier()
    return RoundsOutcome(last, _table([entry["validation"] for entry in rounds]), summary)


def round_prompts(config: DpoRoundsConfig, number: int) -> tuple[str, ...] | None:
    """Return the prompts that a round makes clips for; None where it takes all that `pairs` names.

    Raises:
        DataError: The prompts cannot be read.
        ConfigError: There are fewer prompts than rounds.
    """
    pairs = config.pairs_of(number)
    if config.prompts == "all" or pairs.prompts is None:
        return None
    rounds = [n for n in range(1, config.rounds + 1) if config.generates(n)]
    prompts = first_prompts(load_prompts(pairs.prompts), pairs.num_prompts, "pairs.num_prompts").prompts
    if len(prompts) < len(rounds):
        raise ConfigError(f"prompts=rotate has {len(prompts)} prompts for {len(rounds)} rounds: add prompts.")
    return prompts[rounds.index(number) :: len(rounds)]


def _check(config: DpoRoundsConfig, *, resume: bool) -> None:
    """Refuse what would end a later round, and another run's folder, before anything is made."""
    training, pairs = config.train_of(config.rounds), config.pairs_of(config.rounds)
    validation = first_prompts(
        load_prompts(training.prompts.validation), training.validation.num_prompts, "train.validation.num_prompts"
    )
    test = None
    if training.prompts.test is not None:
        test = first_prompts(load_prompts(training.prompts.test), training.test.num_prompts, "train.test.num_prompts")
    Suites(PromptSuite("pairs", "1", (), ""), validation, test).check_disjoint()
    for number in filter(config.generates, range(1, config.rounds + 1)):
        round_prompts(config, number)
    if config.first_pairs is not None:
        _check_split(config.first_pairs, pairs)
    file = config.output_dir / "config.yaml"
    if not file.is_file():
        return
    if not resume:
        raise ConfigError(f"{config.output_dir} holds rounds: go on with --resume, or choose another output_dir.")
    if changed := changed_fields(read_tree(file), to_plain(config)):
        raise ConfigError(
            f"The rounds in {config.output_dir} had other settings; changed: {', '.join(changed)}. Go on with those of "
            f"{file}, or choose another output_dir."
        )


def _check_split(folder: Path, pairs: PairBuildingConfig) -> None:
    """Refuse given pairs that train on a prompt which later rounds hold out."""
    names = ("train", "validation") if pairs.split.validation_share > 0 else ("train",)
    given = {name: PreferenceStore(folder / f"{name}.jsonl").read() for name in names}
    dealt = split_pairs([pair for part in given.values() for pair in part], pairs.split)
    moved = {pair.prompt for pair in given["train"]} - {pair.prompt for pair in dealt["train"]}
    if moved:
        raise ConfigError(
            f"first_pairs={folder} trains on {len(moved)} prompts that pairs.split (validation_share="
            f"{pairs.split.validation_share:g}, seed={pairs.split.seed}) holds out, for example '{min(moved)}': set "
            "pairs.split as in that folder's manifest.json."
        )


def _make_pairs(config: DpoRoundsConfig, number: int, distribution: Distribution, *, resume: bool) -> None:
    """Build a round's pairs, and put those of earlier rounds before them."""
    if config.generates(number):
        pairs, prompts = config.pairs_of(number), round_prompts(config, number)
        if prompts is not None:
            file = config.folder(number) / "prompts.jsonl"
            if distribution.is_main:
                write_atomic(file, "".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts).encode())
            distribution.barrier()
            pairs = replace(pairs, prompts=file, num_prompts=None)
        build(pairs, accelerator=distribution.accelerator, resume=resume)
    if config.carry_pairs and number > 1:
        if distribution.is_main:
            lines = [line for earlier in range(1, number + 1) for line in _lines(config, earlier, number)]
            write_atomic(config.folder(number) / "train.jsonl", "".join(lines).encode())
        distribution.barrier()


def _lines(config: DpoRoundsConfig, earlier: int, number: int) -> list[str]:
    """Return the training pairs of an earlier round, clips named relative to a later round's folder."""
    store = PreferenceStore(config.pairs_folder(earlier) / "train.jsonl")
    way = Path(os.path.relpath(store.path.parent, config.folder(number)))

    def moved(clip: ClipRecord) -> ClipRecord:
        return replace(clip, path=(way / clip.path).as_posix())

    return [pair_to_json(replace(pair, a=moved(pair.a), b=moved(pair.b))) + "\n" for pair in store.read()]


def _measured(config: DpoRoundsConfig, number: int) -> dict[str, Any]:
    """Return a round's entry of summary.json, from what its run logged last."""
    training = config.train_of(number)
    numbers = [line for line in read_metrics(training.output_dir) if "guard/alarms" in line][-1]
    scores = {name.removeprefix("validation/"): value for name, value in numbers.items() if "validation/" in name}
    return {
        "round": number,
        "adapter": str(training.output_dir / "adapter"),
        "pairs": len(PreferenceStore(training.pairs.train).read()),
        "validation": scores,
    }


def _table(rounds: Sequence[Mapping[str, float | None]]) -> str:
    """Return the validation scores of the base and, with the paired difference, of every round's adapter."""

    def cell(scores: Mapping[str, float | None], name: str) -> str:
        low, high = scores.get(f"{name}/difference_low"), scores.get(f"{name}/difference_high")
        interval = f" [{low:+.3f}, {high:+.3f}]" if low is not None and high is not None else ""
        return f"{scores[f'{name}/adapter']:.3f} ({scores[f'{name}/difference']:+.3f}{interval})"

    names = [name.removesuffix("/base") for name in rounds[0] if name.endswith("/base")]
    rows = [(name, f"{rounds[0][f'{name}/base']:.3f}", *(cell(scores, name) for scores in rounds)) for name in names]
    header = ("score", "base", *(f"round {number}" for number in range(1, len(rounds) + 1)))
    return markdown_table(header, rows, align="l" + "r" * (len(rounds) + 1))
