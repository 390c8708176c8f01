"""The per-prompt explorer: every pair of clips with its scores, sorted and filtered in the page."""

import json
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evaluation.report.clips import ClipShelf
from evaluation.report.pairs import ClipRow, label_of, row_values, write_value
from evaluation.scores import Column, SystemScores
from rlhf_video.report import Html, escape

_NUM_EXTREMES = 3


class Explorer:
    """Draws rows of clips; every score is read once."""

    def __init__(self, shelf: ClipShelf, rows: Sequence[ClipRow], columns: Sequence[Column], *, lead: Column) -> None:
        """Set up.

        Args:
            shelf: Where clips come from.
            rows: All rows.
            columns: Scores to show, at least one.
            lead: The score on the face of each card, one of `columns`.
        """
        self.shelf, self.rows, self.columns = shelf, rows, columns
        self._lead = list(columns).index(lead)
        self._values = np.stack([row_values(shelf.scores, rows, column) for column in columns])
        self._spreads = [_spread(values) for values in self._values]

    def extremes(self) -> tuple[list[int], list[int]]:
        """Return the rows with the worst and with the best lead score, at most three each, never the same row.

        With several systems it is the last system's difference from the baseline that counts, else the score itself.
        """
        values = self._values[self._lead]
        gaps = values[:, -1] - values[:, 0] if values.shape[1] > 1 else values[:, 0]
        gaps = -gaps if self.columns[self._lead].higher_is_better is False else gaps
        order = [int(index) for index in np.argsort(gaps, kind="stable") if math.isfinite(gaps[index])]
        count = min(_NUM_EXTREMES, len(order) // 2)
        return order[:count], order[len(order) - count :][::-1]

    def cards(self, indices: Sequence[int]) -> Html:
        """Return rows as cards without the controls."""
        return Html(f'<div class="pairs">{"".join(self._card(index) for index in indices)}</div>')

    def controls_and_cards(self) -> Html:
        """Return all rows with search, sorting and filters."""
        options = []
        for index, column in enumerate(self.columns):
            picked = " selected" if index == self._lead else ""
            options.append(f'<option value="{index}"{picked}>{escape(label_of(column))}</option>')
        orders = "".join(f'<option value="{value}">{text}</option>' for value, text in self._orders())
        kinds = "".join(f'<option value="{value}">{text}</option>' for value, text in self._kinds())
        count = len(self.rows)
        bar = (
            '<div class="bar controls">'
            '<label class="grow">Prompt<input type="search" data-find placeholder="words of the prompt"></label>'
            f"<label>Score<select data-score>{''.join(options)}</select></label>"
            f"<label>Order<select data-order>{orders}</select></label>"
            f"<label>Show<select data-kind>{kinds}</select></label>"
            '<button type="button" data-replay>Restart clips</button></div>'
            f'<p class="count" data-count>{count} of {count} shown.</p>'
        )
        more = '<div class="bar more"><button type="button" data-more hidden>Show more</button></div>'
        return Html(f'<div class="explorer">{bar}{self.cards(range(count))}{more}</div>')

    def _orders(self) -> list[tuple[str, str]]:
        if len(self.shelf.scores) > 1:
            return [("suite", "as in the suite"), ("down", "largest gain first"), ("up", "largest loss first")]
        return [("suite", "as in the suite"), ("down", "best first"), ("up", "worst first")]

    def _kinds(self) -> list[tuple[str, str]]:
        kinds = [("all", "all clips"), ("holes", "skipped or failed")]
        if len(self.shelf.scores) > 1:
            kinds[1:1] = [("won", "gains"), ("lost", "losses")]
        return kinds

    def _card(self, index: int) -> str:
        row, values = self.rows[index], self._values[:, index]
        gaps = [_gain(self.columns[place], values[place]) for place in range(len(self.columns))]
        holes = self._holes(row)
        badge = f'<span class="hole">{len(holes)} without a value</span>' if holes else ""
        data = escape(json.dumps(gaps, separators=(",", ":")))
        return (
            f'<article class="card pair" data-gaps="{data}" data-holes="{len(holes)}">'
            f'<p class="prompt">{escape(row.prompt)}<span class="sub">{escape(row.label)}{badge}</span></p>'
            f"{self.shelf.figures(row)}{self._face(values)}"
            f"<details><summary>All scores</summary>{self._table(values, holes)}</details></article>"
        )

    def _face(self, values: NDArray[np.float64]) -> str:
        cells = "".join(f"<b>{escape(text)}</b>" for text in self._texts(self._lead, values))
        return f'<p class="face"><span>{escape(label_of(self.columns[self._lead]))}</span>{cells}</p>'

    def _table(self, values: NDArray[np.float64], holes: Sequence[str]) -> str:
        lines = []
        for place, column in enumerate(self.columns):
            cells = "".join(f"<td>{escape(text)}</td>" for text in self._texts(place, values))
            lines.append(f"<tr><td>{escape(label_of(column))}</td>{cells}</tr>")
        why = "".join(f"<li>{escape(hole)}</li>" for hole in holes)
        return f'<table class="scores">{"".join(lines)}</table>' + (f"<ul>{why}</ul>" if why else "")

    def _texts(self, place: int, values: NDArray[np.float64]) -> list[str]:
        return [write_value(float(value), self.columns[place], self._spreads[place]) for value in values[place]]

    def _holes(self, row: ClipRow) -> list[str]:
        """Say for each asked score without a value why it has none."""
        holes = []
        for system, entry in zip(self.shelf.scores, row.indices, strict=True):
            holes += [] if entry is None else _holes_of(system, entry)
        return holes


def _holes_of(system: SystemScores, entry: int) -> list[str]:
    holes = []
    for column in system.columns:
        status = system.statuses[column.name][entry]
        if status in ("skipped", "failed"):
            reason = system.reasons.get(column.name, {}).get(entry, "no reason was recorded")
            holes.append(f"{label_of(column)} of {system.system}: {status}, {reason}")
    return holes


def _gain(column: Column, values: NDArray[np.float64]) -> float | None:
    """Return what sorting goes by: the last system's gain over the first (or its value), larger is better."""
    gain = float(values[-1] - values[0]) if len(values) > 1 else float(values[0])
    if not math.isfinite(gain):
        return None
    return float(f"{-gain if column.higher_is_better is False else gain:.6g}")


def _spread(values: NDArray[np.float64]) -> float:
    """Return a tenth of the standard deviation: digits below it do not tell clips apart."""
    known = values[np.isfinite(values)]
    return float(known.std()) / 10.0 if known.size > 1 else 0.0
