"""What preference optimisation measures on held-out pairs, and when it raises an alarm."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlhf_video.algorithms.dpo_beta import ALARMING_SHARE, AutoBeta
from rlhf_video.algorithms.dpo_config import DpoConfig
from rlhf_video.algorithms.dpo_loss import PairErrors
from rlhf_video.algorithms.dpo_metrics import Table, Terms, margin_bins
from rlhf_video.algorithms.dpo_pairs import EncodedPairs
from rlhf_video.algorithms.dpo_reference import Reference
from rlhf_video.algorithms.dpo_rows import Draw, measured_draw, pair_errors
from rlhf_video.algorithms.draws import measured_sigmas
from rlhf_video.algorithms.held_out_error import measure_items
from rlhf_video.algorithms.watch import Further
from rlhf_video.algorithms.world import Validated, World
from rlhf_video.stats import Interval, bootstrap_mean
from rlhf_video.validation import Alarm, Comparison, Scores

PREFERRED_ERROR, OTHER_ERROR = "error on preferred clips", "error on the others"
"""Names in tables."""


@dataclass(frozen=True)
class HeldOutReading:
    """Held-out pairs under the model and the reference, means over the fixed draws of each pair."""

    accuracy: Interval
    """Pairs whose mean margin over their draws agrees with the label."""
    draw_accuracy: float
    """The same for single draws: lower, as one draw is noisier than their mean."""
    margin: Interval
    chosen_gain: Interval
    """Fall of the error on preferred clips."""
    rejected_gain: Interval
    loss: float
    bins: dict[str, float]
    errors: Comparison
    """Mean error on each pair's preferred and other clip: the reference as base, the model as adapter."""

    def metrics(self, prefix: str) -> dict[str, float]:
        """Return flat numbers for `Run.log`; infinite ends (a single prompt) are left out."""
        stem = f"{prefix}/dpo"
        numbers = {f"{stem}/draw_accuracy": self.draw_accuracy, f"{stem}/loss": self.loss}
        intervals = {
            f"{stem}/accuracy": self.accuracy,
            f"{stem}/margin": self.margin,
            f"{stem}/chosen_gain": self.chosen_gain,
            f"{stem}/rejected_gain": self.rejected_gain,
        }
        for name, interval in intervals.items():
            numbers[name] = interval.mean
            if math.isfinite(interval.low):
                numbers |= {f"{name}_low": interval.low, f"{name}_high": interval.high}
        return numbers | {name.replace("dpo/", f"{stem}/", 1): value for name, value in self.bins.items()}

    def displacement(self) -> Alarm | None:
        """Return an alarm where the errors of both clips rise: preferred clips become less likely too.

        Likelihood displacement (Razin et al. 2024, arXiv:2410.08847): the margin grows because the rejected error
        grows faster. It must be sure on the preferred clips: their whole interval lies below 0.
        """
        if not (self.chosen_gain.is_below_zero and self.rejected_gain.mean < 0):
            return None
        return Alarm(
            "displacement",
            self.chosen_gain.mean,
            0.0,
            f"Errors rise on both clips of held-out pairs: gain {self.chosen_gain} on the preferred, "
            f"{self.rejected_gain.mean:+.3g} on the others. The model leaves what was preferred too. Set "
            "loss.sft_weight, raise loss.beta, lower optim.learning_rate or stop earlier.",
        )


class HeldOutPairs:
    """Measures held-out pairs at fixed draws; the reference once."""

    def __init__(self, config: DpoConfig, world: World, reference: Reference, pairs: EncodedPairs) -> None:
        """Say what is measured; nothing is computed yet.

        Args:
            config: The run.
            world: Its model.
            reference: Of the gains.
            pairs: Encoded.
        """
        self._config, self._world, self._reference, self._pairs = config, world, reference, pairs
        count = config.pairs.validation_draws
        self._levels = measured_sigmas(config.noise_levels, count, shift=world.shift)
        self._draw: Draw = measured_draw(self._levels, seed=config.seed)
        index = {prompt: number for number, prompt in enumerate(dict.fromkeys(pair.prompt for pair in pairs.pairs))}
        self._clusters = np.array([index[pair.prompt] for pair in pairs.pairs], dtype=np.int64)
        self._known: NDArray[np.float64] | None = None

    def read(self, beta: float) -> HeldOutReading:
        """Measure the model as it is now; call it on every process."""
        if self._known is None:
            with self._reference.active():
                self._known = self._measure()
        table = self._table(self._measure(), self._known)
        table.check_finite(self._pairs.pairs, self._config.num_steps)
        return self._reading(table, table.terms(self._config.loss, beta))

    @torch.no_grad()
    def _measure(self) -> NDArray[np.float64]:
        """Return errors, shape (pairs, draws, 2, segments)."""

        def error(indices: Sequence[int]) -> Tensor:
            by_level = []
            for number in range(len(self._levels)):
                rows = self._pairs.rows([(index, number) for index in indices], self._draw)
                by_level.append(torch.stack(pair_errors(self._world.backbone, rows, self._config.loss), dim=1))
            return torch.stack(by_level, dim=1)

        distribution = self._world.distribution
        return measure_items(error, len(self._pairs), distribution=distribution, batch=self._config.validation.batch)

    def _table(self, policy: NDArray[np.float64], reference: NDArray[np.float64]) -> Table:
        """Return all rows, the draws of a pair next to one another."""
        count, draws = policy.shape[:2]
        errors = [torch.from_numpy(values).float().flatten(0, 1) for values in (policy, reference)]
        preference = torch.tensor([self._pairs.padded(pair.preference) for pair in self._pairs.pairs])
        return Table(
            torch.arange(count).repeat_interleave(draws),
            self._levels.repeat(count),
            torch.ones(count * draws),
            preference.repeat_interleave(draws, dim=0),
            torch.zeros_like(preference, dtype=torch.bool).repeat_interleave(draws, dim=0),
            *(PairErrors(value[:, 0], value[:, 1]) for value in errors),
        )

    def _reading(self, table: Table, terms: Terms) -> HeldOutReading:
        draws = len(self._levels)
        margin, preferred, other = (
            values.view(-1, draws, values.shape[-1]).double().nanmean(dim=(1, 2)).numpy()
            for values in (terms.margin, terms.preferred_gain, terms.other_gain)
        )
        decided = ~terms.is_right.view(len(margin), -1).isnan().all(dim=1).numpy()
        is_right = (margin > 0).astype(float) + 0.5 * (margin == 0)
        return HeldOutReading(
            accuracy=bootstrap_mean(is_right[decided], self._clusters[decided]),
            draw_accuracy=float(terms.is_right.double().nanmean()),
            margin=bootstrap_mean(margin, self._clusters),
            chosen_gain=bootstrap_mean(preferred, self._clusters),
            rejected_gain=bootstrap_mean(other, self._clusters),
            loss=float(terms.loss.double().mean()),
            bins=margin_bins(terms.margin, table.sigma, prefix="dpo"),
            errors=self._errors(table, draws),
        )

    def _errors(self, table: Table, draws: int) -> Comparison:
        base: Scores = {}
        adapter: Scores = {}
        for sides, errors in ((base, table.reference), (adapter, table.policy)):
            for name, values in zip((PREFERRED_ERROR, OTHER_ERROR), table.by_preference(errors), strict=True):
                by_pair = values.view(-1, draws * values.shape[-1]).double()
                sides[name] = by_pair.nanmean(dim=1).numpy()
        return Comparison(base, adapter, self._clusters)


class DpoMeasure:
    """Measures a validation's further numbers; `Watch` calls it."""

    def __init__(self, held_out: HeldOutPairs | None, beta: AutoBeta) -> None:
        """Prepare.

        Args:
            held_out: Held-out pairs, where there are some.
            beta: Of the run; its warning becomes an alarm.
        """
        self._held_out, self._beta = held_out, beta
        self.latest: HeldOutReading | None = None

    def __call__(self, _: Validated, prefix: str) -> Further:
        """Return the numbers and alarms; call it on every process, with the averaged adapter in place."""
        alarms = []
        if (warning := self._beta.saturation_warning()) is not None:
            alarms.append(Alarm("saturated-beta", self._beta.value, ALARMING_SHARE, warning))
        if self._held_out is None:
            return Further(alarms=tuple(alarms))
        self.latest = self._held_out.read(self._beta.value)
        if (displaced := self.latest.displacement()) is not None:
            alarms.append(displaced)
        return Further(self.latest.metrics(prefix), tuple(alarms))
