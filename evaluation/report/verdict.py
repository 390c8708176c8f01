"""The top of a report: which system is better, and whether to believe it."""

import math
from collections.abc import Sequence
from typing import Literal

from evaluation.aggregation.comparison import SIGNIFICANT, DimensionChange, SystemComparison
from evaluation.aggregation.summary import Summary
from evaluation.report.pairs import label_of
from evaluation.report.tables import tone_of, write_p
from rlhf_video.report import GuardCard

_ENOUGH_PROMPTS = 20
_FINE_RESOLUTION = 0.5  # standard deviations: Cohen's medium effect

Trust = Literal["yes", "with care", "no"]


def headline(comparison: SystemComparison) -> str:
    """Return which system is better in one short sentence."""
    baseline, system, count = comparison.baseline, comparison.system, len(comparison.changes)
    if comparison.identical_share == 1.0:
        return f"{system} and {baseline} made the same clips, byte for byte."
    lost = list(comparison.uncompared)
    rest = f"; not compared: {', '.join(lost[:3])}" + (f" and {len(lost) - 3} more" if lost[3:] else "") if lost else ""
    tones = [tone_of(change) for change in comparison.changes]
    better, worse = tones.count("good"), tones.count("bad")
    if better and worse:
        names = _listed([label_of(change.column) for change in comparison.changes if tone_of(change) == "bad"][:3])
        more = f" and {worse - 3} more" if worse > 3 else ""
        return f"{system} beats {baseline} on {better} of {count} scores and loses on {worse}: {names}{more}{rest}."
    if better:
        return f"{system} is better than {baseline}: it gains on {better} of {count} scores and loses on none{rest}."
    if worse:
        return f"{system} is worse than {baseline}: it loses on {worse} of {count} scores and gains on none{rest}."
    return f"No clear difference between {system} and {baseline} on {count} scores{rest}."


def verdict_tone(comparison: SystemComparison) -> Literal["good", "bad", "calm"]:
    """Return the colour of the verdict: mixed results are calm, and gains beside a score that is lost."""
    tones = {tone_of(change) for change in comparison.changes} - {"calm"}
    if comparison.uncompared and tones == {"good"}:
        return "calm"
    return tones.pop() if len(tones) == 1 else "calm"


def trust_cards(
    comparison: SystemComparison, summaries: Sequence[Summary], deviations: dict[str, float]
) -> list[GuardCard]:
    """Return what a reader would ask before believing a comparison, each with its answer.

    Args:
        comparison: System against baseline.
        summaries: Of both, for their coverage; those of other systems do not matter here.
        deviations: Column -> standard deviation of the baseline's clips.
    """
    of_both = [summary for summary in summaries if summary.system in (comparison.baseline, comparison.system)]
    return [
        _size_card(comparison),
        _coverage_card(of_both),
        _chance_card(comparison),
        _resolution_card(comparison, deviations),
        _motion_card(comparison),
    ]


def trust_of(cards: Sequence[GuardCard]) -> tuple[Trust, str]:
    """Return whether to believe a comparison, and a sentence that says why."""
    tripped = [card for card in cards if card.state == "tripped"]
    if not tripped:
        return "yes", f"Believe it: {cards[0].value} {cards[0].limit}, and no check below speaks against it."
    names = _listed([card.name.lower() for card in tripped])
    if len(tripped) >= 3 or any(card.name == "Sample" for card in tripped):
        return "no", f"Do not rely on it yet: {names} {'speaks' if len(tripped) == 1 else 'speak'} against it, below."
    return "with care", f"Believe it with care: {names} {'needs' if len(tripped) == 1 else 'need'} a look, below."


def _size_card(comparison: SystemComparison) -> GuardCard:
    changes = comparison.changes
    prompts = min((change.difference.num_clusters for change in changes), default=0)
    pairs = min((change.num_pairs for change in changes), default=0)
    unpaired = max((change.num_unpaired for change in changes), default=0)
    few = prompts < _ENOUGH_PROMPTS
    how = "same noise" if comparison.paired_by == "seed" else "by number: the noise differs"
    return GuardCard(
        name="Sample",
        value=f"{pairs} pairs",
        limit=f"of clips on {prompts} prompts, "
        + how
        + (f"; {unpaired} clips without a partner or a value" if unpaired else ""),
        state="tripped" if few else "ok",
        alarm="look",
        advice=f"Fewer than {_ENOUGH_PROMPTS} prompts: intervals from so few are rough. Add prompts, not clips.",
    )


def _coverage_card(summaries: Sequence[Summary]) -> GuardCard:
    items = [(item.coverage, item, summary) for summary in summaries for item in summary.dimensions]
    if not items:
        advice = "No score of single clips was asked for."
        return GuardCard(name="Coverage", value=math.nan, limit="", state="not measured", advice=advice)
    worst, item, summary = min(items, key=lambda each: each[0])
    holes = [each for each in items if each[0] < 1.0]
    return GuardCard(
        name="Coverage",
        value=f"{100.0 * math.floor(1000.0 * worst) / 1000.0:.4g}%" if worst < 1.0 else "100%",
        limit="of the clips have a value in the least covered score" if holes else "of the clips have every value",
        state="tripped" if holes else "ok",
        alarm="look",
        advice=f"{label_of(item.column)} of {summary.system} has fewest. The clips left out may be the bad ones: see "
        "what is missing, below.",
    )


def _chance_card(comparison: SystemComparison) -> GuardCard:
    found = [change for change in comparison.changes if change.is_significant]
    best = min((change.p_holm for change in comparison.changes), default=math.nan)
    return GuardCard(
        name="Significance",
        value=f"{len(found)} of {len(comparison.changes)} scores",
        limit=f"differ beyond chance after Holm's correction at {SIGNIFICANT:g}; smallest p {write_p(best)}",
        state="ok",
        advice="",
    )


def _resolution_card(comparison: SystemComparison, deviations: dict[str, float]) -> GuardCard:
    sizes = sorted(
        change.minimum_detectable / deviations[change.column.name]
        for change in comparison.changes
        if deviations.get(change.column.name, 0.0) > 0.0 and math.isfinite(change.minimum_detectable)
    )
    if not sizes:
        return GuardCard(name="Resolution", value=math.nan, limit="", state="not measured", advice="No score varies.")
    middle = sizes[len(sizes) // 2]
    return GuardCard(
        name="Resolution",
        value=f"{middle:.2f} SD",
        limit="smallest difference found four times in five after Holm's correction (median over scores)",
        state="ok" if middle <= _FINE_RESOLUTION else "tripped",
        alarm="look",
        advice="Only large differences can be seen: 'no difference' means little here.",
    )


def _motion_card(comparison: SystemComparison) -> GuardCard:
    found = [change for change in comparison.changes if is_motion(change)]
    froze = [change for change in found if change.is_significant and change.difference.mean < 0.0]
    for change in (*froze, *found):
        baseline, system = change.baseline.mean, change.system.mean
        ratio = system / baseline if baseline > 0.0 else math.nan
        return GuardCard(
            name="Motion",
            value=f"{ratio:.2f}×" if math.isfinite(ratio) else f"{change.difference.mean:+.3f}",
            limit=f"of the baseline's {label_of(change.column)}",
            state="tripped" if froze else "ok",
            alarm="look",
            advice="It moves less. Scores of smoothness, consistency and flicker rise when a video freezes.",
        )
    return GuardCard(
        name="Motion",
        value=math.nan,
        limit="",
        state="not measured",
        advice="Add dynamic_degree or motion: scores of smoothness and consistency rise when a video freezes.",
    )


def is_motion(change: DimensionChange) -> bool:
    """Tell whether a score says how much moves (more when more moves)."""
    return bool({"dynamic_degree", "flow_motion", "frame_difference"} & set(change.column.name.split("/")))


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
