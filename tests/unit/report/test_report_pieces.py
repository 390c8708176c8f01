import math
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from rlhf_video.report import (
    ClipPair,
    EffectRow,
    GuardCard,
    Series,
    chart_file,
    clip_pairs,
    document,
    effect_table,
    folded,
    footer,
    format_difference,
    guard_cards,
    header,
    line_chart,
    markdown_table,
    section,
    table,
    write_report,
)
from rlhf_video.report.chart import nice_ticks
from rlhf_video.stats import Interval

HOSTILE = "<script>alert('x')</script> & \"quotes\""


def _row(low: float, mean: float, high: float, **options: object) -> EffectRow:
    return EffectRow(
        label="score",
        group="Judge",
        base=Interval(0.5, 0.4, 0.6, 40, 10),
        adapter=Interval(0.5 + mean, 0.4, 0.7, 40, 10),
        difference=Interval(mean, low, high, 40, 10),
        deviation=0.5,
        **options,  # type: ignore[arg-type]
    )


def test_every_piece_escapes_what_users_wrote() -> None:
    chart = line_chart(HOSTILE, [Series(HOSTILE, [0, 1], [1, 2])] * 2, x_label=HOSTILE, y_label=HOSTILE)
    pieces = [
        header(HOSTILE, HOSTILE, facts={HOSTILE: HOSTILE}),
        section(HOSTILE, [], lead=HOSTILE),
        folded(HOSTILE, HOSTILE),
        footer(HOSTILE),
        table([HOSTILE], [[HOSTILE]], align="l"),
        chart,
        clip_pairs([ClipPair(HOSTILE, b"", b"", scores={HOSTILE: (HOSTILE, HOSTILE)})]),
        guard_cards(
            [GuardCard(name=HOSTILE, value=1.0, limit=HOSTILE, state="tripped", is_ratio=True, advice=HOSTILE)]
        ),
    ]
    for piece in pieces:
        assert "<script" not in piece
        assert "alert(&#x27;x&#x27;)" in piece
    assert document(HOSTILE, pieces).count("<script>") == 1  # the page's own


def test_page_refers_to_nothing_outside_itself() -> None:
    page = document("title", [header("kicker", "verdict"), clip_pairs([ClipPair("a cat", b"mp4", b"mp4")])])
    assert "default-src 'none'" in page
    assert re.findall(r"(?:https?:)?//[a-z]", page.replace("data:video/mp4;base64,", "")) == []
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) == 3
    assert all(source.startswith("data:") for source in sources)


def test_report_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = write_report(tmp_path / "run" / "report.html", [footer("first")])
    write_report(path, [footer("second")])
    assert "second" in path.read_text(encoding="utf-8")
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


def test_chart_has_axes_units_hover_titles_and_bands() -> None:
    curves = [Series("judge", [0, 10, 20], [0.0, 1.0, 2.0], low=[0.0, 0.5, 1.0], high=[0.0, 1.5, 3.0], marked=2)]
    chart = line_chart("Gain", curves, x_label="step", y_label="points", zero_line=True)
    assert "points" in chart
    assert "<title>step 10: judge: 1 (95% interval 0.5 to 1.5)</title>" in chart
    for kind in ('class="zero"', 'class="grid"', 'class="band"', 'r="6.5"'):
        assert kind in chart
    ElementTree.fromstring(chart)  # well-formed


def test_chart_skips_points_that_are_not_finite() -> None:
    curve = Series("loss", [0, 1, 2], [1.0, math.nan, 3.0], low=[1.0, 1.0, -math.inf], high=[1.0, 1.0, math.inf])
    chart = line_chart("Loss", [curve], x_label="step", y_label="loss")
    assert chart.count("<circle") == 2
    assert "nan" not in chart
    assert "inf" not in chart


@pytest.mark.parametrize("curve", [Series("a", [], []), Series("a", [0], [math.nan])])
def test_chart_without_points_says_so(curve: Series) -> None:
    assert "Nothing was recorded yet" in line_chart("Loss", [curve], x_label="step", y_label="loss")


@pytest.mark.parametrize("values", [[5.0], [3.0, 3.0], [0.0, 0.0], [1e-7, 2e-7], [-1e6, 1e6]])
def test_chart_of_any_scale_is_drawn_inside_the_picture(values: list[float]) -> None:
    chart = line_chart("c", [Series("s", list(range(len(values))), values)], x_label="x", y_label="y")
    places = [float(place) for place in re.findall(r'c[xy]="([-\d.]+)"', chart)]
    assert all(0 <= place <= 460 for place in places)


def test_ticks_are_round_and_enclose_the_values() -> None:
    assert nice_ticks(0.0, 1.0) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    ticks = nice_ticks(-0.13, 0.48)
    assert ticks[0] <= -0.13
    assert ticks[-1] >= 0.48


def test_effects_are_coloured_only_when_the_interval_is_clear_of_zero() -> None:
    assert 'class="good-ink"' in effect_table([_row(0.1, 0.2, 0.3)])
    assert 'class="bad-ink"' in effect_table([_row(-0.3, -0.2, -0.1)])
    assert 'class="good-ink"' in effect_table([_row(-0.3, -0.2, -0.1, better="lower")])
    for row in (_row(-0.1, 0.1, 0.3), _row(0.1, 0.2, 0.3, better="neither")):
        assert "-ink" not in effect_table([row])


def test_shares_are_written_in_percent_and_points() -> None:
    assert "50.0%" in effect_table([_row(0.1, 0.2, 0.3, is_share=True)])
    interval = Interval(0.125, 0.041, 0.207, 40, 10)
    assert format_difference(interval, is_share=True) == ("+12.5 points", "+4.1 to +20.7")
    single = Interval(0.1, -math.inf, math.inf, 4, 1)
    assert format_difference(single, is_share=False) == ("+0.100", "one prompt: no interval")
    assert "one prompt" in effect_table([_row(-math.inf, 0.1, math.inf)])


def test_guard_that_was_not_measured_shows_no_number() -> None:
    card = GuardCard(name="motion", value=math.nan, limit="x", state="not measured", is_ratio=True, advice="add it")
    cards = guard_cards([card])
    assert "—" in cards
    assert "add it" in cards


def test_markdown_table_is_aligned_and_escapes_bars() -> None:
    text = markdown_table(("name", "n"), [("a|b", "1"), ("long\nname", "22")], align="lr")
    assert text == "| name      |    n |\n| :-------- | ---: |\n| a\\|b      |    1 |\n| long name |   22 |\n"
    with pytest.raises(ValueError, match="2 columns"):
        markdown_table(("a", "b"), [("1",)])


def test_a_chart_file_is_an_svg_of_its_own() -> None:
    text = chart_file("Accuracy <%>", [Series("overall", [1, 2], [0.5, 0.9], [0.4, 0.8], [0.6, 1.0])], x_label="steps")
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg" and root.get("aria-label") == "Accuracy <%>"
    assert len(list(root.iter("{http://www.w3.org/2000/svg}circle"))) == 2
