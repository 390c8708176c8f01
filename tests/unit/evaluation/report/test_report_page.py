"""The evaluation page of a realistic run that nobody made: two systems, many prompts, fifteen scores."""

import dataclasses
import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import torch

from evaluation.aggregation.comparison import compare_systems
from evaluation.aggregation.set_distances import SetDistance
from evaluation.aggregation.summary import summarise
from evaluation.base import ClipEntry
from evaluation.report import clips as report_clips
from evaluation.report.clips import ClipShelf
from evaluation.report.explorer import Explorer
from evaluation.report.figures import curve_charts, mean_ranks, win_bars
from evaluation.report.page import write_evaluation_report
from evaluation.report.pairs import match_clips, row_values, write_value
from evaluation.report.tables import comparison_table, system_table, tone_of, totals_table
from evaluation.report.verdict import headline, trust_cards, trust_of, verdict_tone
from evaluation.scores import Column, SystemScores
from rlhf_video.data import write_video
from rlhf_video.errors import DataError

# name, family, unit, higher is better, mean, spread, gain
COLUMNS = (
    ("sprite_judge/all_right", "reward", "share", True, 0.52, None, 0.17),
    ("hps_v2", "reward", "score", True, 0.262, 0.012, 0.006),
    ("clip_score", "reward", "score", True, 0.301, 0.02, 0.004),
    ("temporal_flickering", "vbench-port", "score", True, 0.968, 0.01, 0.004),
    ("subject_consistency", "vbench-port", "score", True, 0.942, 0.03, 0.012),
    ("background_consistency", "vbench-port", "score", True, 0.955, 0.02, 0.0),
    ("motion_smoothness", "vbench-port", "score", True, 0.981, 0.006, 0.003),
    ("dynamic_degree", "vbench-port", "share", True, 0.61, None, -0.14),
    ("aesthetic_quality", "vbench-port", "score", True, 0.513, 0.05, 0.012),
    ("imaging_quality", "vbench-port", "score", True, 0.604, 0.08, -0.002),
    ("frame_difference", "reward", "share of the range", True, 0.032, 0.012, -0.005),
    ("luminance_flicker", "measure", "grey levels", False, 2.1, 0.7, -0.2),
    ("blockiness", "measure", "ratio", False, 1.04, 0.03, 0.001),
    ("brightness", "measure", "share", None, 0.43, 0.1, 0.02),
    ("drift/sharpness", "measure", "log ratio", None, -0.08, 0.11, 0.05),
)
# Column -> clips without a value, and why; what failed, failed for systems with a gain alone.
HOLES: dict[str, tuple[tuple[int, ...], Any, str]] = {
    "aesthetic_quality": (
        (5, 40),
        "failed",
        "RuntimeError: the worker died (exit code -9), perhaps for want of memory",
    ),
    "drift/sharpness": ((3, 77, 101), "skipped", "the clip is flat: nothing to be sharp"),
}
SHAPES, COLOURS = ("circle", "square", "star"), ("red", "blue", "green", "yellow")
WAYS = ("moving left", "moving right", "standing still", "bouncing", "growing", "spinning")
NUM_PROMPTS, CLIPS_PER_PROMPT = 72, 2
# Run in the page once it is loaded: what the explorer shows after each turn of its controls, and what went wrong.
PROBE = """
<script>
window.problems = [];
addEventListener("error", (event) => problems.push(event.message || "resource"), true);
addEventListener("securitypolicyviolation", (event) => problems.push("blocked " + event.blockedURI));
addEventListener("load", async () => {
  const clips = [...document.querySelectorAll("video")].slice(0, 4);
  await Promise.race([
    Promise.all(clips.map((clip) => new Promise((done) => {
      clip.onloadedmetadata = done; clip.preload = "auto"; clip.load(); }))),
    new Promise((done) => setTimeout(done, 6000)),
  ]);
  const loaded = clips.filter((clip) => clip.videoWidth === 64).length;
  const box = document.querySelector(".explorer");
  const ask = (name) => box.querySelector("[data-" + name + "]");
  const turn = (name, value) => { ask(name).value = value; ask(name).dispatchEvent(new Event("input")); };
  const shown = () => [...box.querySelectorAll(".pair:not([hidden])")];
  const start = shown().length;
  turn("find", "SQUARE left"); const found = shown().length;
  turn("find", ""); turn("kind", "holes"); const holes = shown().length;
  turn("kind", "all"); turn("score", 8); turn("order", "down");
  const gaps = shown().map((node) => JSON.parse(node.dataset.gaps)[8]);
  const sorted = gaps.every((gap, place) => place === 0 || gaps[place - 1] >= gap);
  const wide = document.documentElement.scrollWidth > document.documentElement.clientWidth;
  const all = box.querySelectorAll(".pair").length;
  document.title = `loaded ${loaded} start ${start} of ${all} found ${found} holes ${holes} `
    + `sorted ${sorted} overflow ${wide} problems [${problems.join("; ")}]`;
});
</script></head>"""
HOSTILE = "<script>alert('x')</script> & \"quotes\""


def prompts(count: int) -> list[str]:
    every = [f"a {colour} {shape} {way}" for way in WAYS for shape in SHAPES for colour in COLOURS]
    return every[:count]


def draw_clip(path: Path, index: int, *, side: int = 64, speed: float = 1.0) -> Path:
    """Write a dot that moves, so that a person sees which clip is which."""
    frames = torch.full((13, 3, side, side), 0.15)
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    for frame in range(13):
        x = (10 + 3.1 * speed * frame + 7 * index) % side
        y = (14 + 1.7 * frame + 5 * index) % side
        disc = ((rows - y) ** 2 + (columns - x) ** 2) < 64
        frames[frame, index % 3][disc] = 0.95
        frames[frame, (index + 1) % 3][disc] = 0.1 + 0.2 * (index % 4)
    write_video(path, frames, 8.0)
    return path


def make_system(
    folder: Path, name: str, *, gain: float, num_prompts: int = NUM_PROMPTS, side: int = 64, first: str = ""
) -> SystemScores:
    rng, shared = np.random.default_rng(int(gain * 10)), np.random.default_rng(7)
    texts = prompts(num_prompts)
    texts[0] = first or texts[0]
    drawn = [
        draw_clip(folder / name / f"clip-{index}.mp4", index, side=side, speed=1.0 - 0.3 * gain) for index in range(6)
    ]
    entries = tuple(
        ClipEntry(
            file=drawn[(CLIPS_PER_PROMPT * number + sample) % len(drawn)],
            sha256=hashlib.sha256(f"{name}{number}{sample}".encode()).hexdigest(),
            prompt=text,
            sample=sample,
            seed=100 * number + sample,
        )
        for number, text in enumerate(texts)
        for sample in range(CLIPS_PER_PROMPT)
    )
    columns, values, statuses, reasons = [], {}, {}, {}
    for column, family, unit, better, mean, spread, change in COLUMNS:
        ease = np.repeat(shared.normal(size=num_prompts), CLIPS_PER_PROMPT)
        noise = 0.7 * ease + 0.7 * rng.normal(size=len(entries))
        if spread is None:
            held = (noise < 2.2 * (mean + gain * change - 0.5)).astype(np.float64)
        else:
            held = mean + gain * change + spread * noise
        columns.append(Column(name=column, family=family, unit=unit, higher_is_better=better))
        holes, status, reason = HOLES.get(column, ((), "ok", ""))
        gone = [index % len(entries) for index in holes] if gain or status == "skipped" else []
        held[gone] = np.nan
        values[column] = held
        statuses[column] = tuple(status if index in gone else "ok" for index in range(len(entries)))
        reasons[column] = dict.fromkeys(gone, reason + (HOSTILE if first else ""))
    return SystemScores(
        system=name, entries=entries, columns=tuple(columns), values=values, statuses=statuses, reasons=reasons
    )


def make_curves(scores: SystemScores, *, slope: float) -> dict[str, list[list[float]]]:
    rng = np.random.default_rng(3)
    return {"drift/sharpness": [list(1.0 - slope * np.arange(6) + 0.1 * rng.normal(size=6)) for _ in scores.entries]}


PROVENANCE = {
    "rlhf-video": "0.6.0, commit 204e672a",
    "suite": "sprite-held-out v2, 72 prompts, sha256 5f1c…9e",
    "seeds": "0 to 143, bootstrap 0",
    "clips": {"base": {"model": "assets/sprite-wan", "manifest": "sha256 9d01…aa"}, "adapter": {"scale": 1.0}},
    "environments": {"vbench": "lock 3e77b1, python 3.11, torch 2.13.0"},
    "commands": [
        "python evaluation/vbench_run.py generate --config sprite.yaml",
        "python evaluation/vbench_run.py run",
    ],
}


def write_page(
    folder: Path, *, first: str = "", names: tuple[str, str] = ("sprite-wan", "reward-bp"), **options: int
) -> Path:
    base = make_system(folder / "clips", names[0], gain=0.0, first=first, **options)
    adapter = make_system(folder / "clips", names[1], gain=1.0, first=first, **options)
    scores = [base, adapter]
    curves = {base.system: make_curves(base, slope=0.06), adapter.system: make_curves(adapter, slope=0.03)}
    summaries = [summarise(system, num_resamples=500) for system in scores]
    comparison = compare_systems(base, adapter, num_resamples=500, num_permutations=2000)
    return write_evaluation_report(folder / "report", summaries, [comparison], scores, PROVENANCE, curves=curves)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(tmp_path_factory.mktemp("report"), num_prompts=24)


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def pair_of(folder: Path, *, gain: float = 1.0, num_prompts: int = 24) -> tuple[SystemScores, SystemScores]:
    base = make_system(folder, "base", gain=0.0, num_prompts=num_prompts)
    return base, make_system(folder, "other", gain=gain, num_prompts=num_prompts)


def test_page_shows_every_part_in_reading_order(page: Path) -> None:
    titles = re.findall(r"<h2>([^<]*)</h2>", text_of(page))
    assert titles == [
        "Can it be believed?",
        "What changed",
        "VBench totals",
        "Profile",
        "Best and worst clips",
        "Every clip",
        "Over the length of the clip",
        "What is missing",
        "How it was made",
    ]


def test_page_is_one_file_that_loads_nothing(page: Path) -> None:
    text = text_of(page)
    sources = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert sources
    assert all(source.startswith("data:") for source in sources)
    assert "'self'" not in text
    assert sorted(file.name for file in page.parent.iterdir()) == ["index.html", "report.md"]


def test_prompts_names_and_reasons_are_escaped_everywhere(tmp_path: Path) -> None:
    path = write_page(
        tmp_path, first=HOSTILE, names=("base </script><b>", "<img src=x onerror=alert(1)>"), num_prompts=12
    )
    text, markdown = text_of(path), text_of(path.with_name("report.md"))
    assert text.count("<script>") == 1
    assert text.count("</script>") == 1
    assert "<img" not in text
    assert "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;" in text
    assert "<img" not in markdown
    assert "<script" not in markdown
    for data in re.findall(r'data-gaps="([^"]*)"', text):
        assert len(json.loads(data)) == len(COLUMNS)


def test_columns_of_another_version_are_set_beside_each_other_nowhere(tmp_path: Path) -> None:
    base, other = pair_of(tmp_path)
    name = "hps_v2"
    newer = tuple(dataclasses.replace(c, metric="v2" if c.name == name else "") for c in other.columns)
    other = dataclasses.replace(other, columns=newer)
    column, same = base.column(name), base.column("clip_score")
    bars = win_bars(base, other, [column, same])
    assert bars is not None and "clip score" in bars and "hps v2" not in bars
    rows = match_clips([base, other])
    assert np.isfinite(row_values([base, other], rows, column)).any(axis=0).tolist() == [True, False]
    assert np.isfinite(row_values([base, other], rows, same)).any(axis=0).tolist() == [True, True]
    summaries = [summarise(system, num_resamples=100) for system in (base, other)]
    assert system_table(summaries).count("measured otherwise") == 1
    curves = {system.system: {name: [[0.0, 1.0]] * len(system.entries)} for system in (base, other)}
    (chart,) = curve_charts([base, other], curves)
    assert "base" in chart and "other" not in chart


def test_only_what_survives_the_correction_is_marked(tmp_path: Path) -> None:
    base, other = pair_of(tmp_path)
    comparison = compare_systems(base, other, num_resamples=300, num_permutations=999)
    table = comparison_table(comparison, base, summarise(other, num_resamples=300))
    marked = sum(change.is_significant for change in comparison.changes)
    assert 0 < marked < len(comparison.changes)
    assert table.count(">significant<") == marked
    directed = sum(tone_of(change) != "calm" for change in comparison.changes)
    assert table.count("good-ink") + table.count("bad-ink") == directed < marked + 1


def test_counts_of_the_table_say_what_became_of_every_clip(tmp_path: Path) -> None:
    base, other = pair_of(tmp_path)
    table = comparison_table(
        compare_systems(base, other, num_resamples=200, num_permutations=200), base, summarise(other, num_resamples=200)
    )
    assert '46/48<span class="sub warn">2 failed</span>' in table
    assert '45/48<span class="sub warn">3 skipped</span>' in table


@pytest.mark.parametrize(
    ("gain", "words", "tone"), [(1.0, "other beats base on", "calm"), (0.0, "No clear difference", "calm")]
)
def test_headline_says_which_is_better(tmp_path: Path, gain: float, words: str, tone: str) -> None:
    base, other = pair_of(tmp_path, gain=gain, num_prompts=72)
    if gain == 0.0:
        noise = np.random.default_rng(5)
        values = {
            name: held + 1e-3 * noise.normal(size=held.size) * np.nanstd(held) for name, held in base.values.items()
        }
        other = dataclasses.replace(base, system="other", values=values, entries=other.entries)
    comparison = compare_systems(base, other, num_resamples=500, num_permutations=2000)
    assert words in headline(comparison)
    assert verdict_tone(comparison) == tone


def test_headline_names_scores_that_were_not_compared(tmp_path: Path) -> None:
    base, other = pair_of(tmp_path)
    lost = {name: np.full(held.size, np.nan) if name == "hps_v2" else held + 1.0 for name, held in base.values.items()}
    other = dataclasses.replace(other, values=lost)
    comparison = compare_systems(base, other, num_resamples=200, num_permutations=2000)
    assert headline(comparison).endswith("; not compared: hps_v2.")
    only = [change for change in comparison.changes if change.column.name == "clip_score"]
    gained = dataclasses.replace(comparison, changes=tuple(only))
    assert headline(gained).endswith("gains on 1 of 1 scores and loses on none; not compared: hps_v2.")
    assert verdict_tone(gained) == "calm"
    assert verdict_tone(dataclasses.replace(gained, uncompared={})) == "good"


def test_trust_is_withheld_for_few_prompts_and_questioned_for_holes_and_stillness(tmp_path: Path) -> None:
    base, other = pair_of(tmp_path, num_prompts=72)
    few = [
        make_system(tmp_path / "few", name, gain=gain, num_prompts=12) for name, gain in (("base", 0.0), ("other", 1.0))
    ]
    for first, second, trust in ((base, other, "with care"), (few[0], few[1], "no")):
        comparison = compare_systems(first, second, num_resamples=300, num_permutations=2000)
        summaries = [summarise(system, num_resamples=200) for system in (first, second)]
        cards = trust_cards(
            comparison, summaries, {name: float(np.nanstd(held)) for name, held in first.values.items()}
        )
        assert trust_of(cards)[0] == trust
        assert next(card for card in cards if card.name == "Coverage").state == "tripped"
        if trust == "with care":
            assert next(card for card in cards if card.name == "Motion").state == "tripped"


def test_totals_are_refused_with_the_reason_and_the_dynamic_degree_stands_beside_them(page: Path) -> None:
    part = text_of(page).split("<h2>VBench totals</h2>")[1].split("<section>")[0]
    assert "Refused: object_class was not measured" in part
    assert "aesthetic_quality has 46 of 48 values" in part
    assert "Dynamic degree" in part


def test_changes_of_totals_are_shown_with_their_label(tmp_path: Path) -> None:
    base, other = pair_of(tmp_path, num_prompts=24)
    refused = compare_systems(base, other, num_resamples=100, num_permutations=100)
    assert totals_table([refused]) is None
    comparison = compare_systems(base, other, partial=True, num_resamples=100, num_permutations=100)
    quality = next(total for total in comparison.totals if total.name == "quality")
    table = totals_table([comparison])
    assert table is not None
    assert "quality (partial)" in table
    assert quality.difference is not None
    assert f"{100.0 * quality.difference.mean:+.2f} (" in table


def test_large_clips_stay_beside_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_clips, "MAX_CLIP_BYTES", 10)
    path = write_page(tmp_path, num_prompts=4)
    sources = set(re.findall(r'<video src="([^"]*)"', text_of(path)))
    assert len(sources) == 12  # both systems show the six files that were drawn
    assert all((path.parent / unquote(source)).is_file() for source in sources)
    assert "media-src data: 'self' file:" in text_of(path)
    assert "move them along" in text_of(path)


def test_a_clip_that_is_gone_is_said_so(tmp_path: Path) -> None:
    base, other = pair_of(tmp_path, num_prompts=2)
    base.entries[0].file.unlink()
    shelf = ClipShelf(tmp_path, [base, other])
    assert "file is gone" in shelf.figures(match_clips([base, other])[0])
    assert "1 are gone" in shelf.note()


def test_one_system_alone_is_reported_with_its_means(tmp_path: Path) -> None:
    base = make_system(tmp_path, "base", gain=0.0, num_prompts=6)
    path = write_evaluation_report(tmp_path / "report", [summarise(base, num_resamples=200)], [], [base], {})
    assert "Nothing to compare with" in text_of(path)
    assert "<h2>All systems</h2>" in text_of(path)
    assert "temporal flickering" in text_of(path.with_name("report.md"))


def test_three_systems_stand_side_by_side(tmp_path: Path) -> None:
    base, other = pair_of(tmp_path, num_prompts=6)
    third = make_system(tmp_path, "third", gain=0.5, num_prompts=6)
    systems = [base, other, third]
    comparisons = [compare_systems(base, system, num_resamples=100, num_permutations=100) for system in systems[1:]]
    summaries = [summarise(system, num_resamples=100) for system in systems]
    text = text_of(write_evaluation_report(tmp_path / "report", summaries, comparisons, systems, {}))
    assert "<h2>other against base</h2>" in text
    assert "<h2>third against base</h2>" in text
    assert all(len(row.indices) == 3 and None not in row.indices for row in match_clips(systems))


def test_pairs_by_sample_number_are_not_said_to_share_their_noise(tmp_path: Path) -> None:
    pair = pair_of(tmp_path, num_prompts=4)
    unseeded = [
        dataclasses.replace(each, entries=tuple(dataclasses.replace(entry, seed=None) for entry in each.entries))
        for each in pair
    ]
    for systems, shared in ((pair, "the same prompt and noise"), (unseeded, "the same prompt and sample number")):
        comparison = compare_systems(*systems, num_resamples=100, num_permutations=100)
        summaries = [summarise(system, num_resamples=100) for system in systems]
        path = write_evaluation_report(tmp_path / "report", summaries, [comparison], systems, {})
        markdown = text_of(path.with_name("report.md"))
        assert f"pairs of {shared}" in markdown and f"clip by clip on {shared}" in text_of(path)
        assert ("is not shared" in markdown) is (systems is unseeded)  # the comparison's own warning is in both


def test_trust_of_a_comparison_leaves_other_systems_out(tmp_path: Path) -> None:
    base, other = pair_of(tmp_path, num_prompts=24)
    comparison = compare_systems(base, other, num_resamples=100, num_permutations=2000)
    summaries = [summarise(system, num_resamples=100) for system in (base, other)]
    texts = []
    for name in ("alone", "beside"):
        systems = [base, other]
        if name == "beside":  # a third one with holes
            values = {
                key: np.where(np.arange(len(column)) < 20, np.nan, column) for key, column in other.values.items()
            }
            statuses = {key: ("failed",) * 20 + held[20:] for key, held in other.statuses.items()}
            reasons = dict.fromkeys(values, dict.fromkeys(range(20), "no memory"))
            systems.append(
                dataclasses.replace(other, system="third", values=values, statuses=statuses, reasons=reasons)
            )
            summaries.append(summarise(systems[-1], num_resamples=100))
        path = write_evaluation_report(tmp_path / name, summaries, [comparison], systems, {})
        texts.append(text_of(path).split('<div class="trust">')[1].split("</section>")[0].split('class="card note"')[0])
    assert texts[0] == texts[1]


def test_metrics_of_whole_sets_alone_make_a_report_without_scores(tmp_path: Path) -> None:
    systems = [
        dataclasses.replace(system, columns=(), values={}, statuses={}, reasons={})
        for system in pair_of(tmp_path, num_prompts=4)
    ]
    comparison = compare_systems(systems[0], systems[1], num_resamples=100)
    distance = SetDistance(
        label="kernel",
        system="other",
        reference="base",
        value=0.25,
        unit="squares",
        num_clips=(8, 8),
        no_interval="none",
    )
    summaries = [summarise(system, num_resamples=100) for system in systems]
    path = write_evaluation_report(tmp_path / "report", summaries, [comparison], systems, {}, distances=[distance])
    assert "0.25" in text_of(path) and "<h2>Every clip</h2>" not in text_of(path)
    assert "kernel of other from base: 0.25" in text_of(path.with_name("report.md"))


def test_systems_without_their_summary_are_refused(tmp_path: Path) -> None:
    base, other = pair_of(tmp_path, num_prompts=2)
    with pytest.raises(DataError, match="summary of every system"):
        write_evaluation_report(tmp_path, [summarise(base, num_resamples=100)], [], [base, other], {})


def test_extremes_are_the_ends_of_the_lead_score(tmp_path: Path) -> None:
    base, other = pair_of(tmp_path, num_prompts=24)
    rows = match_clips([base, other])
    lower = base.column("luminance_flicker")
    worst, best = Explorer(ClipShelf(tmp_path, [base, other]), rows, base.columns, lead=lower).extremes()
    gaps = other.values[lower.name] - base.values[lower.name]
    assert worst[0] == int(np.argmax(gaps))  # lower is better: the largest rise is the worst
    assert best[0] == int(np.argmin(gaps))
    assert not set(worst) & set(best)


def test_mean_ranks_say_who_is_ahead_whatever_the_unit() -> None:
    column = Column(name="flicker", family="measure", unit="x", higher_is_better=False)
    ranks = mean_ranks(np.array([[5.0, 1.0], [6.0, 2.0], [np.nan, 3.0]]), column)
    np.testing.assert_allclose(ranks, [0.2, 0.7])
    assert np.isnan(mean_ranks(np.full((2, 1), np.nan), column)).all()


@pytest.mark.parametrize(
    ("value", "spread", "unit", "text"),
    [
        (0.51234, 0.004, "score", "0.5123"),
        (0.5, 0.05, "share", "50.0%"),
        (float("nan"), 1.0, "score", "—"),
        (812.4, 30.0, "ms", "812"),
    ],
)
def test_values_have_the_digits_that_their_spread_supports(value: float, spread: float, unit: str, text: str) -> None:
    assert write_value(value, Column(name="x", family="measure", unit=unit, higher_is_better=True), spread) == text


@pytest.mark.slow
@pytest.mark.parametrize(("width", "max_clip_bytes"), [(1200, 1 << 20), (500, 10)])
def test_page_works_in_a_browser_with_clips_inside_and_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int, max_clip_bytes: int
) -> None:
    monkeypatch.setattr(report_clips, "MAX_CLIP_BYTES", max_clip_bytes)
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    path = write_page(tmp_path, num_prompts=24)
    path.write_text(text_of(path).replace("</head>", PROBE, 1), encoding="utf-8")
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    flags += "--disable-component-update --disable-sync --virtual-time-budget=9000 --enable-logging=stderr --dump-dom"
    command = [browser, *flags.split(), f"--window-size={width},900", f"--user-data-dir={tmp_path / 'profile'}"]
    result = subprocess.run([*command, path.as_uri()], capture_output=True, text=True, timeout=90, check=True)
    assert [line for line in result.stderr.splitlines() if "CONSOLE" in line] == []
    title = re.search(r"<title>(.*?)</title>", result.stdout)
    assert title is not None
    assert title[1] == "loaded 4 start 24 of 48 found 8 holes 4 sorted true overflow false problems []"
