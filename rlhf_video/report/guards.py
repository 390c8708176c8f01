"""One card per guard: what it measures, where it stands, what to do when it trips."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rlhf_video.report.page import Html, escape


@dataclass(frozen=True, kw_only=True)
class GuardCard:
    """A guard's reading, as texts."""

    name: str
    value: float | str
    """NaN when not measured; a text is written as it is."""
    limit: str
    """What is allowed, for example "at least 0.7 of the base"."""
    state: Literal["ok", "tripped", "not measured"]
    is_ratio: bool = False
    """Write the value as a multiple of the base ("0.93x") instead of a signed difference."""
    advice: str
    """Shown unless the guard holds."""
    alarm: str = "tripped"
    """The word for a guard that does not hold."""
    is_wide: bool = False
    """Take a whole row: for alarms whose advice is a paragraph."""


def guard_cards(cards: Sequence[GuardCard]) -> Html:
    """Return the cards in a row that wraps."""
    parts = []
    for card in cards:
        advice = "" if card.state == "ok" else f'<p class="advice">{escape(card.advice)}</p>'
        kind = card.state.replace(" ", "-") + (" wide" if card.is_wide else "")
        parts.append(
            f'<div class="card guard {kind}"><span class="state">{escape(_state(card))}</span>'
            f"<h3>{escape(card.name)}</h3>"
            f'<div class="value">{_value(card)}</div><p>{escape(card.limit)}</p>{advice}</div>'
        )
    return Html(f'<div class="guards">{"".join(parts)}</div>')


def _state(card: GuardCard) -> str:
    return {"ok": "holds", "tripped": card.alarm, "not measured": "not measured"}[card.state]


def _value(card: GuardCard) -> Html:
    if isinstance(card.value, str):
        return escape(card.value)
    if math.isnan(card.value):
        return Html("—")
    return Html(f"{card.value:.2f}×" if card.is_ratio else f"{card.value:+.3f}")
