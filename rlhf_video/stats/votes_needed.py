"""How many votes a study of two systems needs: with a confidence sequence, and with a number fixed beforehand."""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from rlhf_video.errors import ConfigError
from rlhf_video.settings import check_range
from rlhf_video.stats.bootstrap import check_level
from rlhf_video.stats.confidence_sequence import deciding_lead

_MOST_VOTES = 5_000  # of the fixed test: a win rate of 0.52; below it the walk takes many seconds
_UNDECIDED = 1e-3  # studies left when the walk ends; they would add about 0.1% to the mean


@dataclass(frozen=True)
class VotesNeeded:
    """Votes until the better of two systems is called; ties are needed too, as they come before it is known."""

    fixed: int
    """Decided votes of a study that looks once, at its end, with the power asked for."""
    expected: float
    """Mean decided votes until the confidence sequence stops."""
    with_power: int
    """Decided votes by which that share of the studies with a confidence sequence has stopped."""
    tie_rate: float

    def with_ties(self, decided_votes: float) -> int:
        """Return how many votes hold so many decided ones, on average and rounded up."""
        return math.ceil(decided_votes / (1.0 - self.tie_rate))


def votes_needed(
    win_rate: float, *, tie_rate: float = 0.0, power: float = 0.8, level: float = 0.95, num_pairs: int = 1
) -> VotesNeeded:
    """Return the votes that a true win rate needs to be told from 1/2, for independent votes.

    The confidence sequence stops early when luck is with it: on average it needs about a fifth more than the fixed
    number although it may be looked at after every vote; 80% of its studies stop within less than twice that number.
    Votes of one prompt resemble each other: multiply by 1 + (k - 1) r for k votes per prompt with intraclass
    correlation r (Kish 1965).

    Args:
        win_rate: Chance that a decided vote goes to one of the systems, in (0, 1), not 1/2.
        tie_rate: Share of ties, in [0, 1); ties move neither test.
        power: Chance of finding the difference, in [1/2, 0.995).
        level: One minus the chance of a false call.
        num_pairs: Pairs of systems that share that chance (Bonferroni).

    Raises:
        ConfigError: A number is out of its range, or the win rate so near to 1/2 that the fixed number is above 5,000.
        DataError: The level is not in (0, 1).
    """
    check_level(level)
    check_range("win_rate", win_rate, above=0.0, below=1.0)
    check_range("tie_rate", tie_rate, least=0.0, below=1.0)
    check_range("power", power, least=0.5, below=0.995)
    check_range("num_pairs", num_pairs, least=1)
    pair_level = 1.0 - (1.0 - level) / num_pairs
    fixed = fixed_votes_needed(win_rate, power=power, level=pair_level)
    if fixed > _MOST_VOTES:
        raise ConfigError(
            f"win_rate={win_rate} is too near to 1/2 to plan for: even a study that looks once needs {fixed:,} decided "
            f"votes, more than {_MOST_VOTES:,}."
        )
    running = _share_running(max(win_rate, 1.0 - win_rate), pair_level)
    return VotesNeeded(
        fixed=fixed,
        expected=float(running.sum()),
        with_power=int(np.argmax(running <= 1.0 - power)),
        tie_rate=tie_rate,
    )


def fixed_votes_needed(win_rate: float, *, power: float = 0.8, level: float = 0.95) -> int:
    """Return the decided votes of a two-sided test of 1/2 that looks once (normal approximation of the binomial).

    Args:
        win_rate: In (0, 1), not 1/2.
        power: In [1/2, 1).
        level: In (0, 1).

    Raises:
        ConfigError: The win rate is 1/2: no number of votes tells equal systems apart.
    """
    if win_rate == 0.5:
        raise ConfigError("win_rate=0.5 means equal systems: no number of votes tells them apart.")
    normal = NormalDist()
    spread = normal.inv_cdf((1.0 + level) / 2.0) / 2.0 + normal.inv_cdf(power) * math.sqrt(win_rate * (1.0 - win_rate))
    return math.ceil((spread / (win_rate - 0.5)) ** 2)


def _share_running(win_rate: float, level: float) -> NDArray[np.float64]:
    """Return the exact chance that a study has not stopped after 0, 1, 2, ... decided votes, until hardly any runs."""
    horizon = 3 * fixed_votes_needed(win_rate, power=0.999, level=level) + 200
    lead = deciding_lead(horizon, level=level)
    finite = lead[np.isfinite(lead)]
    width = int(finite.max()) + 1
    chance = np.zeros(2 * width + 1)  # of each lead, from -width to width
    chance[width] = 1.0
    running = [1.0]
    leads = np.abs(np.arange(-width, width + 1))
    for limit in lead:
        moved = np.zeros_like(chance)
        moved[1:] = win_rate * chance[:-1]
        moved[:-1] += (1.0 - win_rate) * chance[1:]
        moved[leads >= limit] = 0.0
        chance = moved
        running.append(float(chance.sum()))
        if running[-1] < _UNDECIDED:
            break
    return np.array(running)
