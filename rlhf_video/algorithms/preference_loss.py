"""Likelihoods of preference labels as differentiable losses; `rlhf_video.stats.tie_models` is their NumPy twin.

d is the difference of two scores, A minus B, and an outcome is A, tie or B. Where scores are Gaussian, the difference
is too, with variance s^2 = sigma_A^2 + sigma_B^2, and probabilities are averages over it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from rlhf_video.errors import ConfigError
from rlhf_video.preferences import PreferencePair
from rlhf_video.settings import check_range

TieModel = Literal["bradley_terry", "rao_kupper", "davidson"]


@dataclass(frozen=True, kw_only=True)
class PreferenceLossConfig:
    """What a label says about two scores."""

    model: TieModel = "bradley_terry"
    """bradley_terry (a tie pulls as half a win for each side), rao_kupper or davidson (ties have a probability)."""
    tie_parameter: float = 5.0
    """Rao-Kupper's k, > 1 (VideoAlign: 5), or Davidson's v, > 0."""
    learn_tie_parameter: bool = False
    """Fit it with the scores, k as 1 + softplus and v as softplus of a free number, starting at `tie_parameter`."""
    both_bad: Literal["drop", "tie"] = "drop"
    """What "both-bad" says: nothing about which is better, or a tie."""
    label_smoothing: float = 0.0
    """Share of every label that is spread evenly over all outcomes, for raters who err."""
    temperature: float = 1.0
    """Divides the difference of scores before the likelihood: scores of a pre-trained model may be too sharp to learn
    from noisy votes."""
    uncertainty: Literal["none", "closed_form", "sampled"] = "none"
    """Gaussian scores: probabilities by the probit approximation, or the loss averaged over draws as HPSv3 does."""
    num_draws: int = 1000
    """Draws per pair of the sampled loss (HPSv3: 1000)."""

    def __post_init__(self) -> None:
        """Check ranges and what does not go together."""
        least = 1.0 if self.model == "rao_kupper" else 0.0
        check_range("loss.tie_parameter", self.tie_parameter, above=least)
        check_range("loss.label_smoothing", self.label_smoothing, least=0.0, below=1.0)
        check_range("loss.temperature", self.temperature, above=0.0)
        check_range("loss.num_draws", self.num_draws, least=1)
        if self.model == "bradley_terry" and self.learn_tie_parameter:
            raise ConfigError("loss.learn_tie_parameter has nothing to learn: set loss.model=rao_kupper or davidson.")
        if self.model == "davidson" and self.uncertainty == "closed_form":
            raise ConfigError("loss.uncertainty=closed_form has no formula for davidson: use sampled, or rao_kupper.")


def outcome_log_probabilities(difference: Tensor, model: TieModel, tie_parameter: Tensor) -> Tensor:
    """Return the log-probabilities of A, tie and B, stacked in the last axis.

    Args:
        difference: Score of A minus score of B, any shape.
        model: Which likelihood. Bradley-Terry counts a tie as half a win for each side: the mean of both logs.
        tie_parameter: Rao-Kupper's k > 1 or Davidson's v > 0, scalar; unused by Bradley-Terry.
    """
    if model == "bradley_terry":
        log_a, log_b = functional.logsigmoid(difference), functional.logsigmoid(-difference)
        return torch.stack((log_a, (log_a + log_b) / 2, log_b), dim=-1)
    if model == "rao_kupper":
        threshold = tie_parameter.log()
        log_a, log_b = functional.logsigmoid(difference - threshold), functional.logsigmoid(-difference - threshold)
        return torch.stack((log_a, log_a + log_b + (tie_parameter**2 - 1).log(), log_b), dim=-1)
    weights = torch.stack((difference / 2, tie_parameter.log().expand_as(difference), -difference / 2), dim=-1)
    return weights.log_softmax(dim=-1)


def preference_loss(
    difference: Tensor,
    targets: Tensor,
    config: PreferenceLossConfig,
    *,
    tie_parameter: Tensor | None = None,
    deviation: Tensor | None = None,
    noise: Tensor | None = None,
) -> Tensor:
    """Return the negative log-likelihood of each label, unreduced; 0 where nothing is labelled.

    Args:
        difference: Score of A minus score of B (means, where scores are Gaussian), shape (pairs, questions).
        targets: Weights of A, tie and B from `label_targets`, shape (pairs, questions, 3).
        config: Likelihood, smoothing, temperature, uncertainty.
        tie_parameter: The learned one; None takes the config's.
        deviation: Standard deviation of the difference, like `difference`; needed where uncertainty is on.
        noise: Standard normal draws of the sampled loss, shape (draws, pairs, questions).

    Returns:
        Shape (pairs, questions).
    """
    tie = torch.as_tensor(config.tie_parameter).to(difference) if tie_parameter is None else tie_parameter
    targets = smooth(targets, config)
    if config.uncertainty == "sampled":
        assert deviation is not None and noise is not None
        logs = outcome_log_probabilities((difference + deviation * noise) / config.temperature, config.model, tie)
        logs = logs.mean(dim=0)
    else:
        shrink: Tensor | float = 1.0
        if config.uncertainty == "closed_form":
            assert deviation is not None
            # E[s(x)] for Gaussian x: MacKay 1992, "The evidence framework applied to classification networks".
            shrink = (1 + math.pi / 8 * (deviation / config.temperature) ** 2).rsqrt()
        logs = _shrunk_log_probabilities(difference / config.temperature, shrink, config.model, tie)
    return -(targets * logs).sum(dim=-1)


def _shrunk_log_probabilities(difference: Tensor, shrink: Tensor | float, model: TieModel, tie: Tensor) -> Tensor:
    """Scale the logits of Bradley-Terry or Rao-Kupper, threshold included: probabilities still sum to 1."""
    if model == "rao_kupper" and isinstance(shrink, Tensor):
        return outcome_log_probabilities(shrink * difference, model, tie**shrink)
    return outcome_log_probabilities(shrink * difference, model, tie)


def smooth(targets: Tensor, config: PreferenceLossConfig) -> Tensor:
    """Spread `label_smoothing` of every label's weight evenly over the outcomes that the model knows."""
    even = torch.tensor([0.5, 0.0, 0.5] if config.model == "bradley_terry" else [1 / 3] * 3).to(targets)
    share = config.label_smoothing
    return (1 - share) * targets + share * targets.sum(dim=-1, keepdim=True) * even


def label_targets(pairs: Sequence[PreferencePair], questions: Sequence[str], config: PreferenceLossConfig) -> Tensor:
    """Return the weights of A, tie and B of every label, shape (pairs, questions, 3); all 0 where there is none.

    A soft label counts before the label.

    Args:
        pairs: Pairs.
        questions: Names of labels.
        config: Says what "both-bad" means.
    """
    known = {"A": (1.0, 0.0, 0.0), "tie": (0.0, 1.0, 0.0), "B": (0.0, 0.0, 1.0)}
    known["both-bad"] = known["tie"] if config.both_bad == "tie" else (0.0, 0.0, 0.0)
    rows = []
    for pair in pairs:
        for question in questions:
            if question in pair.soft:
                rows.append((pair.soft[question], 0.0, 1.0 - pair.soft[question]))
            else:
                rows.append(known[pair.labels[question]] if question in pair.labels else (0.0, 0.0, 0.0))
    return torch.tensor(rows).reshape(len(pairs), len(questions), 3)


def free_number(tie_parameter: float, model: TieModel) -> float:
    """Return the number x whose softplus (plus 1 for Rao-Kupper) is the tie parameter."""
    value = tie_parameter - (1.0 if model == "rao_kupper" else 0.0)
    return value + math.log(-math.expm1(-value))


def from_free_number(number: Tensor, model: TieModel) -> Tensor:
    """Return the tie parameter of a learned number; above its bound whatever the number."""
    return functional.softplus(number) + (1.0 if model == "rao_kupper" else 0.0)
