"""Limits and points of the risk score (risk.py)."""

from dataclasses import dataclass

Windows = tuple[tuple[float, int], ...]


@dataclass(frozen=True, kw_only=True)
class RiskPolicy:
    """Limits and points. [T]: TTS-Arena's anti-abuse code (repository TTS-AGI/TTS-Arena, 2026-06)."""

    shadow_at: float = 50.0
    """Points from which votes are left out [T]."""
    busy_windows: Windows = ((10.0, 3), (60.0, 12), (3600.0, 120))
    """Seconds and votes that are more than usual [T]; people on short clips do this."""
    busy_points: float = 10.0
    hasty_windows: Windows = ((10.0, 6), (60.0, 25), (3600.0, 300))
    """Seconds and votes that are more than people manage with several questions [T]."""
    hasty_points: float = 30.0
    early_share: float = 0.2
    """Of votes whose decision took less than CLOCK_SLACK of the minimum watch: a page cannot send one."""
    early_points: float = 60.0
    """As [T] gives for decisions below 1 s."""
    snap_s: float = 1.0
    """Decisions below this [T], or within `reaction_s` of the moment at which the page allows them, are snaps."""
    reaction_s: float = 0.15
    """Shorter than people react to what they see (about 0.25 s)."""
    snap_share: float = 0.6
    """Of snaps [T]."""
    snap_points: float = 30.0
    least_timed: int = 8
    """Votes before the pace is judged [T: 8 for rings]."""
    shared_raters: tuple[int, int] = (3, 6)
    """Raters of one network on one day that are noted, and that are many [T]; a class room or a lab has them too."""
    shared_points: tuple[float, float] = (10.0, 15.0)
    ring_share: float = 0.8
    """Points (wins and half of the ties) that the raters of one network together give to one system [T], and"""
    ring_z: float = 5.0
    """how many standard errors that is above what everybody else gives it, against the same systems. Networks, systems
    and looks are many: 5 leaves one in a million to chance each time."""
    ring_votes: int = 8
    """Votes on the system before that is asked [T]."""
    ring_points: float = 60.0
    gold_ceiling: float = 0.75
    """Gold pairs that an honest rater gets right at worst where the others do very well; below that, as they do."""
    gold_prior: tuple[float, float] = (6.0, 4.0)
    """Right and wrong ones added to the others': 0.6 before anybody answered, as identical clips tempt to choose."""
    gold_fails: int = 2
    """Wrong ones before any point; Prolific's policy for attention checks."""
    gold_soft: tuple[float, float] = (0.05, 20.0)
    """Chance of so few right ones, and its points."""
    gold_hard: tuple[float, float] = (0.002, 50.0)
    """The same; small, as it is looked at again and again."""
    outlier: tuple[float, float] = (0.01, 20.0)
    """Share of studies in which a rater who votes as the others do ever shows such evidence (Ville's inequality), and
    its points: few, as taste explains it."""
    side_alpha: float = 0.01
    """Chance, over all raters of the study (Holm), that fair ones lean so much to a side."""
    side_points: float = 20.0
    side_share: float = 0.85
    """Share of one side that no taste explains, as sides are drawn by a coin."""
    one_side_points: float = 60.0
    least_pair_votes: int = 40
    """Votes on two systems from which raters' votes on them are compared: fewer do not say what the others think."""
