"""Reward models against people as HTML."""

from collections.abc import Sequence

from app.lineage.disagreements import Disagreement
from app.lineage.reward_alarm import RewardAgreement, RewardReading
from app.pages.html_parts import badge, change, clip, lead, number, page, panel, share, table
from app.studies.study import QUESTIONS
from rlhf_video.report.page import Html, escape

_TONES = {"alarm": "bad", "people agree": "good", "reward does not rise": "calm", "nobody compared them": "wait"}


def rewards_html(
    agreements: Sequence[RewardAgreement], readings: Sequence[RewardReading], differing: Sequence[Disagreement]
) -> str:
    """Return whether rewards say what people say.

    Args:
        agreements: Of every question and reward.
        readings: Of every trained system and reward, on one question.
        differing: Pairs to look at.
    """
    alarms = [reading for reading in readings if reading.verdict == "alarm"]
    return page(
        *(Html(f'<p class="problem" role="alert"><b>Alarm.</b> {escape(_alarm(reading))}</p>') for reading in alarms),
        panel("Do rewards rise where people agree?", _readings(readings)),
        panel("How often does a reward say what people say?", _agreements(agreements)),
        panel("Where they differ most", _disagreements(differing)),
    )


def _alarm(reading: RewardReading) -> str:
    return (
        f"{reading}. The reward rises and people do not see it: look at the clips before you train on "
        f"{reading.reward.reward} any further."
    )


def _readings(readings: Sequence[RewardReading]) -> Html:
    head = ("System", "Trained from", "Reward", "Reward changes by", "People prefer it", "Verdict")
    rows = [
        (
            escape(each.system),
            escape(each.parent),
            escape(str(each.reward)),
            change(each.reward_difference),
            share(each.win_rate, otherwise="no votes"),
            badge(each.verdict, _TONES[each.verdict]),
        )
        for each in readings
    ]
    return table(head, rows, empty="No trained system and its parent have scores of the same reward yet.")


def _agreements(agreements: Sequence[RewardAgreement]) -> Html:
    head = ("Reward", "Question", "Right, ties left out", "Right, ties included", "Human ceiling", "Votes")
    rows = [
        (
            escape(str(each.reward)),
            escape(QUESTIONS[each.question].title if each.question in QUESTIONS else each.question),
            share(each.accuracy, otherwise="only ties"),
            share(each.accuracy_with_ties, otherwise="needs two prompts"),
            share(each.ceiling, otherwise="no pair has two raters"),
            number(each.num_votes),
        )
        for each in agreements
    ]
    note = lead(
        "Chance is 50% without ties. The ceiling is how often one rater says what most others say, ties included: "
        "no reward can be expected above it."
    )
    return Html(note + table(head, rows, empty="No clip of this study has a reward's score yet."))


def _disagreements(differing: Sequence[Disagreement]) -> Html:
    head = ("Prompt", "People prefer", "The reward prefers", "Votes", "Reward", "Its margin")
    rows = [
        (
            Html(f'<span class="prompt">{escape(each.prompt)}</span>'),
            Html(f"{clip(each.preferred_video, each.preferred)}<br>{escape(each.preferred)}"),
            Html(f"{clip(each.other_video, each.other)}<br>{escape(each.other)}"),
            Html(f'{each.votes[0]} : {each.votes[2]} <span class="calm">and {each.votes[1]} ties</span>'),
            escape(str(each.reward)),
            Html(f"{each.margin:.1f}&times;"),
        )
        for each in differing
    ]
    note = lead("Margins are in units of the reward's usual one in this study.")
    return Html(note + table(head, rows, empty="There is no pair on which a reward contradicts most people."))
