"""--dry-run of iterative preference optimisation: the rounds, and what building and training of a round print."""

import textwrap
from dataclasses import replace

from rlhf_video.algorithms.dpo_dry_run import describe as describe_training
from rlhf_video.algorithms.dpo_rounds import round_prompts
from rlhf_video.algorithms.dpo_rounds_config import DpoRoundsConfig
from rlhf_video.algorithms.pair_building_dry_run import describe as describe_pairs

_REFERENCES = {"previous": "the adapter that the round starts from", "base": "the base"}


def describe(config: DpoRoundsConfig) -> str:
    """Return what the rounds would do, as text; allocates nothing, needs no weights.

    Raises:
        BackboneError, ConfigError, DataError: As the two commands' own.
    """
    lines = [f"rounds           {config.rounds}, reference: {_REFERENCES[config.reference]}"]
    for number in range(1, config.rounds + 1):
        made = f"pairs in {config.pairs_folder(number)}" + ("" if config.generates(number) else ", given")
        start = config.start_of(number) or "the base"
        lines.append(f"round {number:<10} {made}; from {start}; seed of the clips {config.pairs_of(number).seed}")
    last = config.rounds
    if config.generates(last):
        pairs, prompts = config.pairs_of(last), round_prompts(config, last)
        if prompts is not None:
            pairs = replace(pairs, num_prompts=len(prompts))
        lines += ["", f"Pairs of round {last}:", textwrap.indent(describe_pairs(pairs), "  ")]
    lines += ["", f"Training of round {last}:", textwrap.indent(describe_training(config.train_of(last)), "  ")]
    return "\n".join(lines)
