"""Studies and plans as HTML."""

from collections.abc import Sequence

from app.pages.html_parts import badge, code, lead, meter, number, page, panel, table
from app.studies.overview import StudyLine
from rlhf_video.report.page import Html, escape
from rlhf_video.stats import votes_needed

_TONES = {"open": "good", "paused": "wait", "closed": "calm"}


def studies_html(studies: Sequence[StudyLine]) -> str:
    """Return all studies as a table."""
    head = ("Study", "State", "Systems", "Prompts", "Pairs", "Gold", "Votes that count", "Decided", "Votes left")
    rows = [
        (
            Html(f"<b>{escape(line.name)}</b><br>{code(line.slug)}"),
            badge(line.status, _TONES[line.status]),
            number(line.num_systems),
            number(line.num_prompts),
            number(line.num_pairs),
            number(line.num_gold),
            Html(f"{meter(line.num_votes, line.num_wanted)}{_left_out(line)}"),
            Html(f'{line.num_decided} <span class="calm">of {line.num_matches} pairs of systems</span>'),
            _votes_left(line),
        )
        for line in studies
    ]
    return page(table(head, rows, empty="There is no study yet: import the clips of two systems below."))


def plan_html(*, win_rate: float, tie_rate: float, power: float, num_systems: int, error_rate: float) -> str:
    """Return how many votes a study needs.

    Args:
        win_rate: Chance that a decided vote goes to the better system of a pair.
        tie_rate: Share of ties.
        power: Chance of finding the difference.
        num_systems: All meet one another and share the chance of a false call.
        error_rate: That chance.

    Raises:
        ConfigError: A number is out of its range, or the win rate too near to one half.
    """
    num_pairs = num_systems * (num_systems - 1) // 2
    needed = votes_needed(win_rate, tie_rate=tie_rate, power=power, level=1.0 - error_rate, num_pairs=max(num_pairs, 1))
    counts = (
        ("Looking after every vote, on average", needed.with_ties(needed.expected)),
        (f"Looking after every vote, {power:.0%} of studies are done by", needed.with_ties(needed.with_power)),
        ("Looking once, at the end", needed.with_ties(needed.fixed)),
    )
    rows = [(escape(name), number(votes), number(votes * num_pairs)) for name, votes in counts]
    pairs = f"{num_pairs} pair{'s' if num_pairs != 1 else ''} of systems"
    return page(
        lead(
            f"To tell a system that wins {win_rate:.0%} of decided votes from an equal one, with {tie_rate:.0%} ties "
            f"and {pairs} sharing a chance of {error_rate:.0%} of a false call:"
        ),
        table(("Votes", "Each pair of systems", "In all"), rows, empty=""),
        lead("For independent votes; with k votes on each prompt that correlate by r, multiply by 1 + (k - 1) r."),
    )


def import_off_html() -> str:
    """Return why nothing can be imported here."""
    return page(
        panel(
            "Imports in the browser are off",
            Html(
                "<p>Set <code>import_folder</code> in the arena's config to a folder of this machine, or import with "
                "<code>python app/arena.py import STUDY SYSTEM FOLDER</code>.</p>"
            ),
        )
    )


def _left_out(line: StudyLine) -> Html:
    if not line.left_out:
        return Html("")
    why = "; ".join(f"{count} {reason}" for reason, count in line.left_out.items())
    return Html(f'<span class="calm small">not counted: {escape(why)}</span>')


def _votes_left(line: StudyLine) -> Html:
    if line.num_matches and line.num_decided == line.num_matches:
        return badge("decided", "good")
    if line.votes_left is None:
        return Html('<span class="calm">cannot be foreseen</span>')
    return Html(f"at least {line.votes_left:,}") if line.votes_left else Html("more complete prompts")
