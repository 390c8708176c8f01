"""What is missing from the numbers and why, and how a run can be made again."""

from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.aggregation.set_distances import SetDistance
from evaluation.report.pairs import label_of
from evaluation.scores import SystemScores
from rlhf_video.report import Html, escape, folded, join, table

_MAX_EXAMPLES = 3
_MAX_ROWS = 100
_SEVERITY = ("left out", "failed", "skipped")


def holes_table(scores: Sequence[SystemScores], distances: Sequence[SetDistance] = ()) -> Html | None:
    """Return every reason why a score is missing, clips that are left out of all first, then failures by frequency.

    Returns:
        A table; None where nothing is missing.
    """
    groups: dict[tuple[str, str, str, str], list[str]] = {}
    for system in scores:
        for lost in system.all_left_out:
            groups.setdefault(("left out", system.system, "every score that asks for it", lost.reason), []).append(
                lost.clip
            )
        for column in system.columns:
            for index, status in enumerate(system.statuses[column.name]):
                if status == "skipped" or status == "failed":
                    reason = system.reasons.get(column.name, {}).get(index, "no reason was recorded")
                    entry = system.entries[index]
                    clip = f"{entry.prompt} ({entry.file.name})"
                    groups.setdefault((status, system.system, label_of(column), reason), []).append(clip)
    without = dict.fromkeys((distance.label, clip) for distance in distances for clip in distance.lost)
    for label, found in without:
        groups.setdefault((found.status, found.system, label, found.reason), []).append(found.clip)
    if not groups:
        return None
    ranked = sorted(groups.items(), key=lambda item: (_SEVERITY.index(item[0][0]), -len(item[1]), item[0]))
    rows: list[tuple[str, ...]] = []
    for (kind, name, column_name, reason), clips in ranked[:_MAX_ROWS]:
        shown = "; ".join(clips[:_MAX_EXAMPLES]) + (f"; {len(clips) - _MAX_EXAMPLES} more" if len(clips) > 3 else "")
        rows.append((str(len(clips)), kind, name, column_name, reason, shown))
    if len(ranked) > _MAX_ROWS:
        rows.append(("", "", "", "", f"{len(ranked) - _MAX_ROWS} further reasons are in the store", ""))
    head = ("clips", "status", "system", "score", "reason", "which")
    return Html(f'<div class="stack">{table(head, rows, align="rlllll")}</div>')


def distance_table(distances: Sequence[SetDistance]) -> Html:
    """Return distances between sets of clips, or why there is none."""
    rows = []
    for distance in distances:
        value = f"{distance.value:.4g}" if distance.value is not None else f"none: {distance.refused}"
        sizes = " / ".join(str(number) for number in distance.num_clips)
        rows.append((distance.label, distance.system, distance.reference, value, distance.ends, distance.unit, sizes))
    head = ("distance", "of", "from", "value", "95% interval", "unit", "clips")
    return Html(f'<div class="stack">{table(head, rows, align="lllrllr")}</div>')


def provenance(facts: Mapping[str, Any]) -> Html:
    """Return how a run was made: plain facts as a table, groups of facts and lists of commands folded below it.

    Args:
        facts: Label -> text or number, mapping of such, or list of texts; others are written as Python prints them.
    """
    plain, below = [], []
    for name, value in facts.items():
        title = str(name).replace("_", " ")
        if isinstance(value, Mapping):
            below.append(folded(title, "\n".join(_lines(value))))
        elif isinstance(value, Sequence) and not isinstance(value, str):
            below.append(folded(title, "\n".join(str(item) for item in value)))
        elif "\n" in str(value):
            below.append(folded(title, str(value)))
        else:
            plain.append((title, str(value)))
    parts = []
    if plain:
        cells = "".join(
            f"<tr><td>{escape(title)}</td><td><code>{escape(value)}</code></td></tr>" for title, value in plain
        )
        parts.append(Html(f'<div class="card scroll stack facts-table"><table><tbody>{cells}</tbody></table></div>'))
    return join([*parts, *below])


def _lines(facts: Mapping[str, Any], *, indent: str = "") -> list[str]:
    lines = []
    for name, value in facts.items():
        if isinstance(value, Mapping):
            lines += [f"{indent}{name}:", *_lines(value, indent=indent + "  ")]
        elif isinstance(value, Sequence) and not isinstance(value, str):
            lines += [f"{indent}{name}:", *(f"{indent}  {item}" for item in value)]
        else:
            lines.append(f"{indent}{name}: {value}")
    return lines
