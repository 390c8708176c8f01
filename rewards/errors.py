"""Errors a reward raises for mistakes its user can mend."""


class RewardError(ValueError):
    """A reward cannot be built or cannot score what it was given; the message says what to do."""
