"""What an optimiser step, or a measurement of held-out pairs, says: pure functions of gathered errors."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf_video.algorithms.dpo_beta import gradient_factor
from rlhf_video.algorithms.dpo_data import LabelledPair
from rlhf_video.algorithms.dpo_loss import DpoLossConfig, PairErrors
from rlhf_video.algorithms.dpo_rows import Rows
from rlhf_video.algorithms.kto_loss import kto_reference_point, pair_loss, pair_thumbs
from rlhf_video.errors import ConfigError
from rlhf_video.runtime import Distribution

NUM_BINS = 4
"""Equal parts of [0, 1] that noise levels are sorted into."""


@dataclass(frozen=True)
class Table:
    """Errors of rows of all processes."""

    pairs: Tensor
    """Index of each row's pair, shape (rows,)."""
    sigma: Tensor
    """Shape (rows,)."""
    weight: Tensor
    """Shape (rows,)."""
    preference: Tensor
    """Shape (rows, segments), NaN where nobody said."""
    both_bad: Tensor
    """Bool, shape (rows, segments)."""
    policy: PairErrors
    reference: PairErrors

    @classmethod
    def gather(
        cls, parts: list[tuple[Rows, PairErrors, PairErrors, Tensor]], distribution: Distribution, *, width: int
    ) -> "Table":
        """Join the micro-batches of all processes, each as many rows; call it on every process.

        Args:
            parts: (rows, policy's errors, reference's errors, which rows only fill a share up) of each micro-batch.
            distribution: The processes.
            width: Segments of a row.
        """
        tables = []
        for rows, policy, reference, is_fill in parts:
            columns = [rows.pairs.to(rows.sigma), rows.sigma, rows.weight, is_fill.to(rows.sigma)]
            blocks = [rows.preference, rows.both_bad.to(rows.sigma), *policy, *reference]
            tables.append(torch.cat([torch.stack(columns, dim=1), *blocks], dim=1).float())
        table = distribution.gather(torch.cat(tables)).cpu()
        table = table[table[:, 3] == 0]
        preference, both_bad, *errors = table[:, 4:].split(width, dim=1)
        policy, reference = PairErrors(*errors[:2]), PairErrors(*errors[2:])
        return cls(table[:, 0].long(), table[:, 1], table[:, 2], preference, both_bad > 0, policy, reference)

    def check_finite(self, pairs: tuple[LabelledPair, ...], step: int) -> None:
        """Refuse errors that are not numbers, before they reach the adapter.

        Raises:
            ConfigError: It names the first pair and whose error it is.
        """
        labelled = ~self.preference.isnan() | self.both_bad
        for name, errors in (("reference", self.reference), ("model", self.policy)):
            for error in errors:
                bad = (labelled & ~error.isfinite()).any(dim=1)
                if bad.any():
                    pair = pairs[int(self.pairs[bad][0])]
                    raise ConfigError(
                        f"The {name}'s error of the pair '{pair.chosen.path}', '{pair.rejected.path}' at step {step} "
                        f"is not finite ({int(bad.sum())} rows in all): look at these clips' latents, set "
                        "precision=float32 or lower optim.learning_rate, and start in another output_dir (the last "
                        "checkpoint is intact)."
                    )

    def terms(self, config: DpoLossConfig, beta: float) -> "Terms":
        """Return losses and margins, with the preferred clip of every segment where "chosen" stands."""
        point = self.reference_point(config, beta)
        terms = pair_loss(
            self.policy, self.reference, preference=self.preference, both_bad=self.both_bad, sigma=self.sigma,
            config=config, beta=beta, reference_point=point,
        )  # fmt: skip
        margin = torch.where(self.preference < 0.5, -terms.margin, terms.margin)
        unsaid = self.preference.isnan()
        margin = margin.masked_fill(unsaid, torch.nan)
        preferred, other = self.by_preference(PairErrors(terms.chosen_gain, terms.rejected_gain))
        is_right = (margin > 0).float() + 0.5 * (margin == 0)
        return Terms(
            loss=terms.loss,
            margin=margin,
            preferred_gain=preferred,
            other_gain=other,
            is_right=is_right.masked_fill(unsaid | (self.preference == 0.5), torch.nan),
            judged=self.clip_gains() if config.kind == "kto" else margin,
            reference_point=point,
        )

    def clip_gains(self) -> Tensor:
        """Return the gains of both members, shape (rows, 2 x segments), NaN where a clip has no thumb."""
        gain = torch.cat(self.reference, dim=1) - torch.cat(self.policy, dim=1)
        thumbs = torch.cat(pair_thumbs(self.preference, self.both_bad), dim=1)
        return gain.masked_fill(thumbs.isnan(), torch.nan)

    def reference_point(self, config: DpoLossConfig, beta: float) -> Tensor:
        """Return kto's z of these rows, scalar; 0 for any other kind."""
        if config.kind != "kto":
            return torch.zeros(())
        return kto_reference_point(self.clip_gains(), sigma=self.sigma, config=config, beta=beta)

    def by_preference(self, values: PairErrors) -> tuple[Tensor, Tensor]:
        """Return numbers of both members as those of the preferred clip and of the other, NaN where nobody said.

        In a segment the chosen clip of a pair may be the worse one.
        """
        flips, unsaid = self.preference < 0.5, self.preference.isnan()
        preferred = torch.where(flips, values.rejected, values.chosen)
        other = torch.where(flips, values.chosen, values.rejected)
        return preferred.masked_fill(unsaid, torch.nan), other.masked_fill(unsaid, torch.nan)


@dataclass(frozen=True)
class Terms:
    """Each (rows, segments) but the loss; NaN where nobody said."""

    loss: Tensor
    """Shape (rows,)."""
    margin: Tensor
    """Above 0 where the model improved more on the preferred clip."""
    preferred_gain: Tensor
    """Error of the reference minus error of the model on the preferred clip."""
    other_gain: Tensor
    """The same on the other clip."""
    is_right: Tensor
    """1 where the margin agrees with the label, 0.5 where it is exactly 0; NaN for ties too."""
    judged: Tensor
    """What the loss puts into its sigmoid: the margin; for kto the gains of both clips, shape (rows, 2 x segments)."""
    reference_point: Tensor
    """kto's z, scalar; 0 for any other kind."""


def step_metrics(table: Table, config: DpoLossConfig, beta: float) -> dict[str, float]:
    """Return the numbers of an optimiser step.

    Args:
        table: Of the global batch.
        config: Loss.
        beta: Of the step.
    """
    terms = table.terms(config, beta)
    point = float(terms.reference_point)
    factor = gradient_factor(terms.judged, sigma=table.sigma, config=config, beta=beta, reference_point=point)
    numbers = {
        "loss/dpo": float((table.weight * terms.loss).mean()),
        "dpo/accuracy": _mean(terms.is_right),
        "dpo/margin": _mean(terms.margin),
        "dpo/chosen_gain": _mean(terms.preferred_gain),
        "dpo/rejected_gain": _mean(terms.other_gain),
        "dpo/gradient_factor": _mean(factor),
        "dpo/beta": beta,
    }
    if config.kind == "kto":
        numbers["dpo/reference_point"] = point
    if table.both_bad.any():
        numbers["dpo/both_bad_gain"] = _mean(table.clip_gains()[torch.cat([table.both_bad] * 2, dim=1)])
    return numbers | margin_bins(terms.margin, table.sigma, prefix="dpo")


def margin_bins(margin: Tensor, sigma: Tensor, *, prefix: str) -> dict[str, float]:
    """Return the mean margin of each part of the noise levels; a part without a row is left out.

    Args:
        margin: Shape (rows, segments), NaN where nobody said.
        sigma: Shape (rows,).
        prefix: In front of "/margin_bin/1", ... (low noise first).
    """
    place = (sigma * NUM_BINS).long().clamp(max=NUM_BINS - 1)
    means = {f"{prefix}/margin_bin/{number + 1}": _mean(margin[place == number]) for number in range(NUM_BINS)}
    return {name: value for name, value in means.items() if value == value}


def _mean(values: Tensor) -> float:
    return float(values.double().nanmean())
