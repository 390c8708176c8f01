"""Keep prompts apart: training from validation pairs, and both from the prompts that results are measured on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rlhf_video.data import PromptSuite
from rlhf_video.errors import DataError
from rlhf_video.preferences.pair import PreferencePair
from rlhf_video.preferences.pairing.scored import Pairing
from rlhf_video.preferences.store import prompt_key, refuse_shared_prompts, split_by_prompt
from rlhf_video.settings import check_range

_SHOWN = 3  # leaking prompts that a message lists


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """How the pairs are divided, and what is done about prompts of the evaluation."""

    validation_share: float = 0.1
    """Share of the prompts whose pairs go to validation.jsonl, in [0, 1). 0.1 is ours."""
    seed: int = 0
    """Another seed deals the prompts anew."""
    leaks: Literal["error", "drop"] = "error"
    """What a pair whose prompt is in an evaluation suite does: end the command, or be dropped and counted."""

    def __post_init__(self) -> None:
        """Check the range."""
        check_range("validation_share", self.validation_share, least=0.0, below=1.0)


def split_pairs(pairs: Sequence[PreferencePair], config: SplitConfig) -> dict[str, tuple[PreferencePair, ...]]:
    """Return the parts "train" and "validation" (absent where its share is 0), no prompt in both.

    A hash of seed and prompt decides (`split_by_prompt`), so more pairs move no prompt; spellings that differ in case
    or white space are one prompt.

    Raises:
        DataError: There is no pair, or a part that was asked for got none.
    """
    shares = {"train": 1.0 - config.validation_share, "validation": config.validation_share}
    parts = split_by_prompt(pairs, {name: share for name, share in shares.items() if share > 0}, seed=config.seed)
    refuse_shared_prompts(parts)
    empty = [name for name, part in parts.items() if not part]
    if empty:
        count = len({prompt_key(pair.prompt) for pair in pairs})
        raise DataError(
            f"No pair of {len(pairs)} ({count} prompts) is left for {' and '.join(empty)}: loosen the rule, add "
            f"prompts, or change validation_share={config.validation_share:g} or seed={config.seed}."
        )
    return parts


def remove_leaks(pairing: Pairing, suites: Mapping[str, PromptSuite], policy: Literal["error", "drop"]) -> Pairing:
    """Refuse or drop pairs whose prompt is in an evaluation suite, case and white space aside.

    Args:
        pairing: What a rule made.
        suites: Evaluation suites by the name that counts and messages give them.
        policy: "error" or "drop"; dropped pairs are counted under the first suite, by name, that holds their prompt.

    Raises:
        DataError: A pair leaks and the policy is "error"; the message names prompts and suites.
    """
    owner = {prompt_key(prompt): name for name in sorted(suites, reverse=True) for prompt in suites[name].prompts}
    leaking = [pair for pair in pairing.pairs if prompt_key(pair.prompt) in owner]
    if leaking and policy == "error":
        prompts = sorted({pair.prompt for pair in leaking})
        counts = f"{len(leaking)} of {len(pairing.pairs)} pairs have {len(prompts)} prompts of an evaluation suite"
        shown = "; ".join(f"'{prompt}' (in {owner[prompt_key(prompt)]})" for prompt in prompts[:_SHOWN])
        raise DataError(
            f"{counts}: {shown}. Results on trained prompts prove nothing: set leaks=drop, or generate others."
        )
    dropped = dict(pairing.dropped)
    for pair in leaking:
        reason = f"its prompt is in the evaluation suite '{owner[prompt_key(pair.prompt)]}'"
        dropped[reason] = dropped.get(reason, 0) + 1
    kept = tuple(pair for pair in pairing.pairs if prompt_key(pair.prompt) not in owner)
    return replace(pairing, pairs=kept, dropped=dict(sorted(dropped.items())))
