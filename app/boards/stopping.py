"""How many votes the stopping rule would still want."""

from app.boards.board import Match
from rlhf_video.stats import votes_needed

_NEAREST = 0.01  # to one half: nearer, the number of votes is beyond any plan


def votes_left(match: Match, num_pairs: int) -> int | None:
    """Return how many votes decide a match, if its points stay as they are.

    Args:
        match: Open or decided.
        num_pairs: Pairs of systems that share the chance of a false call.

    Returns:
        0 where it is decided, or about to be; None where the two are equal so far, or nobody preferred any.
    """
    if match.decision.winner:
        return 0
    decided = match.wins + match.losses
    if not decided:
        return None
    rate = min(max(match.wins / decided, 0.02), 0.98)
    if abs(rate - 0.5) < _NEAREST:
        return None
    needed = votes_needed(rate, tie_rate=min(match.ties / (decided + match.ties), 0.9), num_pairs=num_pairs)
    return max(0, needed.with_ties(needed.expected) - decided - match.ties)
