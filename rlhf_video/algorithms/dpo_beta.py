"""Beta that follows the margins, and the warning where a fixed beta saturates.

A pair's gradient is multiplied by the gradient factor sigmoid(-logit): 0.5 for a pair that the model is undecided on,
towards 0 once it is settled, towards 1 where the model is surely wrong. A clip's in kto is multiplied by the slope of
its sigmoid, at most 0.25, which vanishes on both sides of the reference point.

Auto-beta keeps the pair with the mean absolute margin at a target factor (as SimpleTuner's flow DPO does): beta =
-log(target / (1 - target)) / mean |h|, which is -2 logit(target) / mean |margin| where h is half the margin.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from rlhf_video.algorithms.dpo_loss import DpoLossConfig, logit_per_beta

SATURATED_BELOW, SATURATED_ABOVE = 0.05, 0.95
"""Gradient factors outside these no longer tell pairs apart."""

ALARMING_SHARE = 0.5
"""Share of saturated pairs from which on there is a warning."""


def gradient_factor(
    margin: Tensor, *, sigma: Tensor, config: DpoLossConfig, beta: float, reference_point: float = 0.0
) -> Tensor:
    """Return sigmoid(-logit) of every margin, for kto the sigmoid's slope; the shape of `margin`.

    Args:
        margin: `DpoTerms.margin` (kto: `KtoTerms.gain`), shape (rows, segments).
        sigma: Noise level of each row, shape (rows,).
        config: Conventions.
        beta: Pull to the reference.
        reference_point: kto's z.
    """
    factor = torch.sigmoid(reference_point - beta * logit_per_beta(margin, sigma, config))
    return factor * (1 - factor) if config.kind == "kto" else factor


class AutoBeta:
    """Running means over optimiser steps of |h| and of the share of saturated pairs; the same on every process."""

    def __init__(self, config: DpoLossConfig) -> None:
        """Start without having seen a margin.

        Args:
            config: With a fixed beta it is only watched.
        """
        self._config = config
        self._magnitude, self._saturated, self._num_updates = 0.0, 0.0, 0

    @property
    def value(self) -> float:
        """Beta of the next optimiser step."""
        if self._config.beta is not None:
            return self._config.beta
        auto = self._config.auto_beta
        if self._num_updates < auto.warmup:
            return auto.start
        return min(max(self.suggestion, auto.start / auto.span), auto.start * auto.span)

    @property
    def suggestion(self) -> float:
        """Beta that puts the mean |h| seen so far at the target factor; inf while every margin was 0."""
        magnitude = self._corrected(self._magnitude)
        target = self._config.auto_beta.target
        return math.log((1 - target) / target) / magnitude if magnitude > 0 else math.inf

    def update(self, margin: Tensor, *, sigma: Tensor, reference_point: float = 0.0) -> None:
        """Take in the margins of one optimiser step, after it; a step without any label changes nothing.

        Args:
            margin: `DpoTerms.margin` (kto: `KtoTerms.gain`) of the GLOBAL batch (gathered), shape (rows, segments); NaN
                where nobody said.
            sigma: Noise level of each row, shape (rows,).
            reference_point: kto's z of that batch: its h are counted from z / beta, which does not depend on beta.
        """
        factor = gradient_factor(
            margin, sigma=sigma, config=self._config, beta=self.value, reference_point=reference_point
        )
        ratio = logit_per_beta(margin, sigma, self._config) - reference_point / self.value
        labelled = ~ratio.isnan()
        if not bool(labelled.any()):
            return
        is_saturated = (factor < SATURATED_BELOW) | (factor > SATURATED_ABOVE)
        decay = self._config.auto_beta.decay
        magnitude, saturated = (float(x[labelled].double().mean()) for x in (ratio.abs(), is_saturated))
        self._magnitude = decay * self._magnitude + (1 - decay) * magnitude
        self._saturated = decay * self._saturated + (1 - decay) * saturated
        self._num_updates += 1

    def saturation_warning(self) -> str | None:
        """Return what to tell the user where most pairs are saturated; None where there is nothing to say.

        Kinds without a sigmoid between margin and gradient (hinge, ipo) and simpo, whose margin has no reference, are
        not judged.
        """
        share = self._corrected(self._saturated)
        config = self._config
        if config.kind not in ("sigmoid", "robust", "kto") or self._num_updates == 0 or share < ALARMING_SHARE:
            return None
        if config.kind == "kto":
            target = config.auto_beta.target
            return (
                f"Beta {self.value:.4g} saturates: {share:.0%} of the last clips have a gradient factor below "
                f"{SATURATED_BELOW} (at most 0.25): they no longer pull. At these gains beta {self.suggestion:.4g} "
                f"gives a factor of {target * (1 - target):.2g}: set loss.beta to it."
            )
        advice = "set loss.auto_beta.start to it"
        if config.beta is not None:
            advice = "set loss.beta to it, or to null to follow the margins"
        return (
            f"Beta {self.value:.4g} saturates: {share:.0%} of the last pairs have a gradient factor below "
            f"{SATURATED_BELOW} or above {SATURATED_ABOVE}: they pull with full force or not at all. At these margins "
            f"beta {self.suggestion:.4g} gives a factor of {config.auto_beta.target:g}: {advice}."
        )

    def state(self) -> dict[str, float]:
        """Return what a checkpoint holds."""
        return {"magnitude": self._magnitude, "saturated": self._saturated, "num_updates": self._num_updates}

    def load_state(self, state: Mapping[str, float]) -> None:
        """Restore what `state` returned, to the bit."""
        self._magnitude, self._saturated = state["magnitude"], state["saturated"]
        self._num_updates = int(state["num_updates"])

    def _corrected(self, running: float) -> float:
        """Return a running mean without the pull of its start at 0 (Adam's correction, arXiv:1412.6980)."""
        if self._num_updates == 0:
            return 0.0
        return running / (1 - self._config.auto_beta.decay**self._num_updates)
