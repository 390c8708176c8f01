"""Settings of iterative preference optimisation, and the settings of each round that follow from them."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from rlhf_video.algorithms.dpo_config import DpoConfig
from rlhf_video.algorithms.pair_building_config import PairBuildingConfig
from rlhf_video.errors import ConfigError
from rlhf_video.runtime import generator_for
from rlhf_video.settings import check_range
from rlhf_video.settings.building import build_config


@dataclass(frozen=True, kw_only=True)
class DpoRoundsConfig:
    """Rounds of: generate with the newest adapter, label, pair, train on from that adapter."""

    backbone: str
    """Model folder, for example "assets/sprite-wan"; both sections use it."""
    pairs: dict[str, object]
    """How a round makes pairs: fields of configs/pairs/*.yaml (build_pairs.py --help lists them). Left out: `backbone`,
    `adapter`, `seed` and `output_dir`, which the rounds decide. The prompts of `train` are kept out always."""
    train: dict[str, object]
    """How a round trains: fields of configs/dpo/*.yaml (train_dpo.py --help lists them). Left out, as the rounds decide
    them: `backbone`, `seed`, `output_dir`; which pairs (`pairs.split` holds some back); kind and adapters of
    `reference`."""
    rounds: int = 3
    """How many (RLHF Workflow, arXiv:2405.07863: 3)."""
    reference: Literal["previous", "base"] = "previous"
    """What a round's gains are measured against: the adapter that it starts from (as Iterative RPO, arXiv:2404.19733),
    frozen; or the base in every round."""
    prompts: Literal["all", "rotate"] = "all"
    """all: each round makes clips for every prompt. rotate: the prompts are dealt out, each is used in one round."""
    carry_pairs: bool = False
    """Whether a round also trains on the pairs of all earlier rounds, which other adapters made."""
    start_adapter: Path | None = None
    """Adapter folder that round 1 starts from; null starts from the base."""
    first_pairs: Path | None = None
    """Folder of build_pairs.py with train.jsonl (and validation.jsonl), dealt as `pairs.split` says: round 1 trains on
    it and generates nothing. Null generates in every round."""
    seed: int = 0
    """Decides all. Clips and votes of every round have a seed of their own that follows from it; training has this one
    in every round, so that every round is validated at the same noise."""
    output_dir: Path = Path("runs/dpo-rounds")
    """Folder of round-1, round-2, ..., each with pairs/ and run/, and of summary.json."""

    def __post_init__(self) -> None:
        """Check the settings of every round."""
        check_range("rounds", self.rounds, least=1)
        if self.pairs.get("source") == "votes":
            raise ConfigError("pairs.source=votes makes no clips: use generated, real_vs_generated or "
                              "partial_renoising; pairs that exist already are `first_pairs`.")  # fmt: skip
        pairs = [self.pairs_of(number) for number in range(1, self.rounds + 1)]  # with train_of, which it asks
        if self.prompts == "rotate" and pairs[0].prompts is None:
            raise ConfigError("prompts=rotate deals out the prompts of pairs.prompts, which is not given: use all.")

    def folder(self, number: int) -> Path:
        """Return a round's folder; the first round is 1."""
        return self.output_dir / f"round-{number}"

    def start_of(self, number: int) -> Path | None:
        """Return the adapter folder that a round generates with and starts from; None is the base."""
        return self.start_adapter if number == 1 else self.folder(number - 1) / "run" / "adapter"

    def generates(self, number: int) -> bool:
        """Tell whether a round makes clips."""
        return number > 1 or self.first_pairs is None

    def pairs_folder(self, number: int) -> Path:
        """Return where a round's own pairs lie."""
        return self.folder(number) / "pairs" if self.first_pairs is None or number > 1 else self.first_pairs

    def pairs_of(self, number: int) -> PairBuildingConfig:
        """Return how a round makes its pairs, from all prompts.

        Raises:
            ConfigError: The section does not hold.
        """
        pairs, unseen = self._pairs(number), self.train_of(self.rounds).prompts
        files = (*pairs.evaluation, unseen.validation, *([unseen.test] if unseen.test else []))
        return replace(pairs, evaluation=tuple(dict.fromkeys(files)))

    def train_of(self, number: int) -> DpoConfig:
        """Return how a round trains; the last one alone has test prompts.

        Raises:
            ConfigError: The section does not hold.
        """
        start, own, is_carried = self.start_of(number), self.pairs_folder(number), self.carry_pairs and number > 1
        is_frozen = start is not None and self.reference == "previous"
        has_held_out = self._pairs(number).split.validation_share > 0
        decided: dict[str, object] = {
            "backbone": self.backbone,
            "seed": self.seed,
            "output_dir": str(self.folder(number) / "run"),
            "pairs.train": str((self.folder(number) if is_carried else own) / "train.jsonl"),
            "pairs.validation": str(own / "validation.jsonl") if has_held_out else None,
            "pairs.validation_share": 0.0,
            "reference.kind": "adapter" if is_frozen else "adapter_off",
            "reference.start_adapter": None if start is None else str(start),
            "reference.adapter": None,
        }
        config = build_config(DpoConfig, _with(self.train, "train", decided), path="train")
        if config.pairs.latents is None:  # what is carried is encoded once
            config = replace(config, pairs=replace(config.pairs, latents=self.output_dir / "latents"))
        return config if number == self.rounds else replace(config, prompts=replace(config.prompts, test=None))

    def _pairs(self, number: int) -> PairBuildingConfig:
        start = self.start_of(number)
        seed = torch.randint(2**31 - 1, (), generator=generator_for(self.seed, "round", number))
        decided: dict[str, object] = {
            "backbone": self.backbone,
            "adapter": None if start is None else str(start),
            "seed": int(seed),
            "output_dir": str(self.folder(number) / "pairs"),
        }
        return build_config(PairBuildingConfig, _with(self.pairs, "pairs", decided), path="pairs")


def _with(section: Mapping[str, object], name: str, decided: Mapping[str, object]) -> dict[str, object]:
    """Return a section's values and what the rounds decide.

    Raises:
        ConfigError: The section decides it too.
    """
    values = copy.deepcopy(dict(section))
    for dotted, value in decided.items():
        *parts, last = dotted.split(".")
        node = values
        for part in parts:
            inner = node.get(part) or {}
            if not isinstance(inner, dict):
                raise ConfigError(f"'{name}.{part}' expects 'key: value' lines, got {inner!r}.")
            node[part] = inner
            node = inner
        if last in node:
            raise ConfigError(
                f"{name}.{dotted} is decided by the rounds: leave it out; `backbone`, `seed`, `output_dir`, "
                "`start_adapter` and `reference` stand outside of the sections."
            )
        node[last] = value
    return values
