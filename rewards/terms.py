"""Terms of a sum or an ensemble as a config writes them."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from rewards import registry
from rewards.composite import Normalisation, RewardTerm, WeightedReward
from rewards.errors import RewardError

FIELDS = ("name", "label", "weight", "dimension", "options", "normalisation")


def parse_terms(terms: Sequence[RewardTerm | Mapping[str, object]]) -> tuple[RewardTerm, ...]:
    """Build the rewards of a list of terms.

    Args:
        terms: Terms, or mappings {name, label, weight, dimension, options, normalisation: {mean, std, provenance}}, of
            which only `name` is required. The label is the term's key; the weight defaults to 1, or -1 where lower
            scores are better.

    Raises:
        RewardError: No list, an unknown field or reward, or a term that does not fit.
    """
    if isinstance(terms, str | Mapping) or not isinstance(terms, Sequence):
        raise RewardError(f"Terms are a list of {{name: ..., options: ...}}, got {terms!r}.")
    parsed = tuple(term if isinstance(term, RewardTerm) else _parse(term) for term in terms)
    keys = [term.key for term in parsed]
    if len(set(keys)) != len(keys):
        raise RewardError(f"Terms need distinct names, got {keys}: set `label` where one reward is used twice.")
    return parsed


def _parse(term: Mapping[str, object]) -> RewardTerm:
    if not isinstance(term, Mapping) or not isinstance(term.get("name"), str):
        raise RewardError(f"A term is a mapping with a `name`, got {term!r}.")
    if unknown := sorted(set(term) - set(FIELDS)):
        raise RewardError(f"A term has no field {unknown[0]!r}. Known: {', '.join(FIELDS)}.")
    fields = cast(Mapping[str, Any], term)
    reward = registry.build(fields["name"], **fields.get("options", {}))
    return RewardTerm(
        key=fields.get("label") or fields["name"].rsplit(":", 1)[-1],
        reward=reward,
        weight=fields.get("weight", 1.0 if reward.spec.higher_is_better else -1.0),
        dimension=fields.get("dimension"),
        normalisation=_parse_normalisation(fields.get("normalisation")),
    )


def _parse_normalisation(value: Mapping[str, Any] | None) -> Normalisation | None:
    if value is None:
        return None
    if not isinstance(value, Mapping) or not {"mean", "std"} <= set(value) <= {"mean", "std", "provenance"}:
        raise RewardError(f"A normalisation is {{mean: ..., std: ..., provenance: ...}}, got {value!r}.")
    return Normalisation(**value)


def weighted(terms: Sequence[RewardTerm | Mapping[str, object]]) -> WeightedReward:
    """Build a weighted sum from a config; every term needs its statistics before it scores.

    Raises:
        RewardError: As `parse_terms` and `WeightedReward`.
    """
    return WeightedReward(parse_terms(terms))
