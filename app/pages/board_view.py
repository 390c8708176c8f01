"""A leaderboard as HTML: who leads, how surely, who beats whom, and what is still open."""

import math
from collections.abc import Sequence

from app.boards.board import Board, Match
from app.boards.stopping import votes_left
from rlhf_video.report.page import Html, escape, join


def board_html(board: Board) -> str:
    """Return a leaderboard; names are escaped."""
    parts = [
        Html(f'<p class="verdict">{escape(verdict(board))}</p>'),
        *(Html(f'<p class="warning">{escape(warning)}</p>') for warning in board.warnings),
        Html("<h3>Ratings</h3>"),
        _whiskers(board),
        _table(board),
        Html("<h3>Who beats whom</h3>"),
        _matrix(board),
        Html("<h3>Is it decided?</h3>"),
        _decisions(board),
        Html("<h3>Can it be believed?</h3>"),
        _trust(board),
    ]
    return f'<div class="board">{join(parts)}</div>'


def verdict(board: Board) -> str:
    """Return the one sentence to remember."""
    first = board.rows[0]
    behind = [match for match in board.matches if match.decision.winner == first.system]
    others = len(board.rows) - 1
    if len(behind) == others:
        rest = "the other system" if others == 1 else f"each of the {others} other systems"
        return f"{first.system} is preferred to {rest}; the stopping rule has decided."
    if first.worst_rank == 1:
        return (
            f"{first.system} leads, and its lead is unlikely to be luck; the stopping rule has not decided everything."
        )
    return f"{first.system} is ahead, but places 1 to {first.worst_rank} are possible: collect more votes."


def _whiskers(board: Board) -> Html:
    width, left, right, line = 640, 150, 20, 30
    low, high = min(row.low for row in board.rows), max(row.high for row in board.rows)
    margin = 0.05 * (high - low) + 5.0

    def place(rating: float) -> float:
        return left + (rating - low + margin) / (high - low + 2 * margin) * (width - left - right)

    lines = []
    for index, row in enumerate(board.rows):
        y = 20 + line * index
        label = f"{row.system}: {row.rating:.0f} (95% interval {row.low:.0f} to {row.high:.0f})"
        lines.append(
            f'<g><title>{escape(label)}</title><text x="{left - 12}" y="{y + 4}" text-anchor="end">{escape(row.system)}'
            f'</text><line x1="{place(row.low):.1f}" x2="{place(row.high):.1f}" y1="{y}" y2="{y}" stroke="#2563eb" '
            f'stroke-width="3" stroke-linecap="round" opacity=".45"/>'
            f'<circle cx="{place(row.rating):.1f}" cy="{y}" r="6" '
            'fill="#2563eb"/></g>'
        )
    height = 24 + line * len(board.rows)
    middle = place(1000.0)
    mean = f'<line x1="{middle:.1f}" x2="{middle:.1f}" y1="4" y2="{height - 8}" stroke="currentColor" opacity=".25"/>'
    name = "Ratings with 95% intervals; the line is the mean of all systems"
    return Html(
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{name}" width="100%">{mean}{"".join(lines)}</svg>'
    )


def _table(board: Board) -> Html:
    head = ("System", "Place", "Rating", "95% interval", "P(best)", "Votes", "Unacceptable")
    rows = []
    for row in board.rows:
        places = (
            str(row.rank) if row.best_rank == row.worst_rank else f"{row.rank} ({row.best_rank} to {row.worst_rank})"
        )
        rows.append(
            (
                row.system,
                places,
                f"{row.rating:.0f}",
                f"{row.low:.0f} to {row.high:.0f}",
                f"{row.probability_best:.0%}",
                f"{row.num_votes}{' (preliminary)' if row.is_preliminary else ''}",
                f"{row.unacceptable.mean:.0%}",
            )
        )
    return _grid(head, rows)


def _matrix(board: Board) -> Html:
    names = [row.system for row in board.rows]
    matches = {(match.first, match.second): match for match in board.matches}
    lines = []
    for name in names:
        cells = "".join(_cell(name, other, matches) for other in names)
        lines.append(f'<tr><th scope="row" class="name">{escape(name)}</th>{cells}</tr>')
    head = "".join(f'<th scope="col" class="cell">{escape(name)}</th>' for name in names)
    lead = (
        '<p class="calm">Points of the row against the column: wins and half of the ties, with the number of votes.</p>'
    )
    return Html(f'{lead}<div class="wide"><table><tr><th></th>{head}</tr>{"".join(lines)}</table></div>')


def _cell(name: str, other: str, matches: dict[tuple[str, str], Match]) -> str:
    straight, swapped = matches.get((name, other)), matches.get((other, name))
    match = straight or swapped
    if match is None:
        return '<td class="cell">&middot;</td>'
    share = match.share.mean if straight else 1.0 - match.share.mean
    count = match.wins + match.ties + match.losses
    colour = f"rgba(37,99,235,{share - 0.5:.2f})" if share > 0.5 else f"rgba(180,83,9,{0.5 - share:.2f})"
    return f'<td class="cell" style="background:{colour}">{share:.0%}<br><span class="calm">{count}</span></td>'


def _decisions(board: Board) -> Html:
    rows = []
    for match in board.matches:
        winner = match.decision.winner
        share = match.share if math.isfinite(match.share.low) else None
        interval = f"{share.low:.0%} to {share.high:.0%}" if share else "too few votes"
        state = f"decided: {winner}" if winner else f"open{_left(match, board)}"
        counts = f"{match.wins} / {match.ties} / {match.losses}"
        rows.append((f"{match.first} against {match.second}", counts, f"{match.share.mean:.0%}", interval, state))
    return Html(
        f'<p class="calm">{escape(_promise(board))}</p>'
        + _grid(("Pair", "Win / tie / loss", "Points", "95% interval", "Stopping rule"), rows)
    )


def _promise(board: Board) -> str:
    """Return what the stopping rule holds for, and under which condition."""
    rate, count = board.settings.error_rate, board.settings.votes_per_prompt
    if count is None:
        held = " if every vote is of a prompt and a rater drawn anew; where votes share them, it errs more often."
    else:
        full = "its first vote" if count == 1 else f"its first {count} votes"
        held = (
            f" with prompts like these, each of which counts once, by {full}. It holds for these raters: their tastes "
            "are not accounted for, and the fewer they are and the more they differ, the more often it errs."
        )
    return (
        "The rule may be looked at after every vote: over all pairs of systems it calls equal ones different in at "
        f"most {rate:.0%} of studies{held}"
    )


def _left(match: Match, board: Board) -> str:
    """Return how many votes the rule would still want, in words."""
    if not match.wins + match.losses:
        return ""
    left = votes_left(match, board.num_pairs, error_rate=board.settings.error_rate)
    if left is None:
        return ", equal so far"
    if board.settings.votes_per_prompt is None:
        return f", about {left} more votes" if left else ", about to be decided"
    return f", at least {left} more votes" if left else ", more complete prompts are needed"


def _trust(board: Board) -> Html:
    alpha = (
        "No pair has two raters yet: agreement cannot be measured."
        if board.alpha is None
        else f"Krippendorff's alpha {board.alpha.mean:.2f} [{board.alpha.low:.2f}, {board.alpha.high:.2f}]: 0 is "
        "chance, 1 is full agreement; below 0.4 people hardly see the same thing."
    )
    flip = (
        "No removal of votes changes who leads."
        if math.isinf(board.votes_to_flip)
        else f"Without {board.votes_to_flip:.0f} of the {board.num_votes} votes somebody else would lead."
    )
    facts = (f"{board.num_votes} votes of {board.num_raters} raters, {board.tie_share:.0%} ties.", alpha, flip)
    return Html("<ul>" + "".join(f"<li>{escape(fact)}</li>" for fact in facts) + "</ul>")


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Html:
    first = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return Html(f'<div class="wide"><table><tr>{first}</tr>{body}</table></div>')
