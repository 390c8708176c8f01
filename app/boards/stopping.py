"""How many votes the stopping rule would still want."""

from app.boards.board import Match
from rlhf_video.errors import ConfigError
from rlhf_video.stats import votes_needed


def votes_left(match: Match, num_pairs: int) -> int | None:
    """Return how many votes decide a match, if its points stay as they are.

    Args:
        match: Open or decided.
        num_pairs: Pairs of systems that share the chance of a false call.

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
        needed = votes_needed(rate, tie_rate=min(match.ties / (decided + match.ties), 0.9), num_pairs=num_pairs)
    except ConfigError:  # too near to one half
        return None
    return max(0, needed.with_ties(needed.expected) - decided - match.ties)
