"""How many votes the stopping rule would still want."""

from app.boards.board import Match
from rlhf_video.errors import ConfigError
from rlhf_video.stats import votes_needed


def votes_left(match: Match, num_pairs: int, *, error_rate: float = 0.05) -> int | None:
    """Return how many votes decide a match, if its points stay as they are.

    Foretold for independent votes: a rule that runs over prompts wants more, the more votes of one prompt agree.

    Args:
        match: Open or decided.
        num_pairs: Pairs of systems that share the chance of a false call.
        error_rate: That chance.

    Returns:
        0 where it is decided, or about to be; None where nobody preferred any, or the two are so equal so far that the
        number is beyond any plan.
    """
    if match.decision.winner:
        return 0
    decided = match.wins + match.losses
    if not decided:
        return None
    rate = min(max(match.wins / decided, 0.02), 0.98)
    if rate == 0.5:
        return None
    try:
        tie_rate = min(match.ties / (decided + match.ties), 0.9)
        needed = votes_needed(rate, tie_rate=tie_rate, level=1.0 - error_rate, num_pairs=num_pairs)
    except ConfigError:  # too near to one half
        return None
    return max(0, needed.with_ties(needed.expected) - decided - match.ties)
