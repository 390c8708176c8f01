"""Small pieces of markup that several pages share."""

import math
from collections.abc import Sequence
from datetime import datetime

from rlhf_video.errors import RlhfVideoError
from rlhf_video.report.page import Html, escape, join
from rlhf_video.stats import Interval

_TONES = ("good", "wait", "bad", "calm")


def table(head: Sequence[str], rows: Sequence[Sequence[Html]], *, empty: str) -> Html:
    """Return a table that scrolls on its own where it is wide.

    Args:
        head: Titles of the columns, plain text.
        rows: Cells of each line, markup.
        empty: Said where there is no line.
    """
    if not rows:
        return Html(f'<p class="calm">{escape(empty)}</p>')
    first = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return Html(f'<div class="wide"><table><thead><tr>{first}</tr></thead><tbody>{body}</tbody></table></div>')


def panel(title: str, *parts: Html) -> Html:
    """Return a titled section."""
    return Html(f"<section><h2>{escape(title)}</h2>{join(parts)}</section>")


def page(*parts: Html) -> str:
    """Return a whole view."""
    return f'<div class="admin">{join(parts)}</div>'


def lead(text: str) -> Html:
    """Return a sentence that explains what follows."""
    return Html(f'<p class="calm">{escape(text)}</p>')


def badge(text: str, tone: str) -> Html:
    """Return a word on a coloured ground.

    Args:
        text: The word, which says it without the colour too.
        tone: good, wait, bad or calm.
    """
    assert tone in _TONES, f"tones are {_TONES}"
    return Html(f'<span class="badge {tone}">{escape(text)}</span>')


def meter(there: int, wanted: int) -> Html:
    """Return how much of something is there, as numbers and as a bar."""
    share = min(there / wanted, 1.0) if wanted else 0.0
    return Html(
        f'{there:,} <span class="calm">of {wanted:,}</span>'
        f'<span class="meter" aria-hidden="true"><span style="width:{share:.0%}"></span></span>'
    )


def number(value: int | float) -> Html:
    """Return a number."""
    return Html(f"{value:,}" if isinstance(value, int) else f"{value:,.3g}")


def percent(value: float) -> Html:
    """Return a share."""
    return Html(f"{value:.0%}")


def share(interval: Interval | None, *, otherwise: str = "-") -> Html:
    """Return a share with its interval; `otherwise`, where there is none."""
    if interval is None:
        return Html(f'<span class="calm">{escape(otherwise)}</span>')
    if not math.isfinite(interval.low + interval.high):
        return Html(f'{interval.mean:.0%} <span class="calm">(too few for an interval)</span>')
    return Html(f'{interval.mean:.0%} <span class="calm">[{interval.low:.0%}, {interval.high:.0%}]</span>')


def change(interval: Interval | None, *, otherwise: str = "-") -> Html:
    """Return a signed number with its interval; `otherwise`, where there is none."""
    if interval is None:
        return Html(f'<span class="calm">{escape(otherwise)}</span>')
    if not math.isfinite(interval.low + interval.high):
        return Html(f'{interval.mean:+.3g} <span class="calm">(too few for an interval)</span>')
    return Html(f'{interval.mean:+.3g} <span class="calm">[{interval.low:+.3g}, {interval.high:+.3g}]</span>')


def code(text: str, *, shown: int | None = None) -> Html:
    """Return a hash or a path; the whole of it stands in the tooltip where only `shown` characters are."""
    return Html(f'<code title="{escape(text)}">{escape(text[:shown])}</code>')


def when(moment: datetime) -> Html:
    """Return a time, UTC."""
    return Html(f'<time datetime="{moment.isoformat()}">{moment:%Y-%m-%d %H:%M}</time>')


def clip(video_id: str, label: str) -> Html:
    """Return a small player of a clip for admins."""
    return Html(
        f'<video src="/admin/clips/{escape(video_id)}" aria-label="{escape(label)}" controls muted loop playsinline '
        'preload="metadata"></video>'
    )


def problem(error: RlhfVideoError) -> str:
    """Return a mistake of the user's."""
    return page(Html(f'<p class="problem" role="alert">{escape(str(error))}</p>'))


def done(sentence: str) -> str:
    """Return what was done."""
    return page(Html(f'<p class="done" role="status">{escape(sentence)}</p>'))
