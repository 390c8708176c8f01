import dataclasses
import math
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from rlhf_video.errors import DataError
from rlhf_video.validation import (
    Alarm,
    Clips,
    Comparison,
    CurveView,
    GuardConfig,
    ScoreView,
    StrengthSweep,
    SweepRow,
    TrainingReport,
    read_guards,
    verdict_sentence,
    write_training_report,
)

NUM_PROMPTS, CLIPS_PER_PROMPT = 12, 2
MOTION = GuardConfig().motion_score
# Run in the page once it is loaded: how many clips know their size, and what went wrong.
PROBE = """
<script>
window.problems = [];
addEventListener("error", (event) => problems.push(event.message || "resource"), true);
addEventListener("securitypolicyviolation", (event) => problems.push("blocked " + event.blockedURI));
addEventListener("load", async () => {
  const clips = [...document.querySelectorAll("video")];
  await Promise.race([
    Promise.all(clips.map((clip) => clip.readyState > 0 || new Promise((done) => { clip.onloadedmetadata = done; }))),
    new Promise((done) => setTimeout(done, 8000)),
  ]);
  const loaded = clips.filter((clip) => clip.readyState > 0 && clip.videoWidth === 128 && clip.duration > 0);
  const wide = document.documentElement.scrollWidth > document.documentElement.clientWidth;
  document.title = `clips ${clips.length} loaded ${loaded.length} overflow ${wide} problems [${problems.join("; ")}]`;
});
</script></head>"""


def make_report(*, gain: float = 0.4, motion: float = 0.95) -> TrainingReport:
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(NUM_PROMPTS), CLIPS_PER_PROMPT)
    num_clips = clusters.size
    base = {
        "judge/all": (rng.random(num_clips) < 0.4).astype(float),
        "clip/score": rng.normal(size=num_clips),
        MOTION: 0.5 + 0.1 * rng.random(num_clips),
    }
    adapter = {
        "judge/all": np.where(rng.random(num_clips) < abs(gain), float(gain > 0), base["judge/all"]),
        "clip/score": base["clip/score"] + 1.0,
        MOTION: base[MOTION] * motion,
    }
    adapter["clip/score"][0] = math.nan
    comparison = Comparison(base, adapter, clusters)
    prompts = tuple(f"a <b>red</b> circle & square, number {index}" for index in clusters)
    clips = Clips(torch.rand(num_clips, 5, 3, 16, 16), prompts, tuple(range(num_clips)))
    rows = (SweepRow(0.0, 0.0, 0.0, {}, ()), SweepRow(1.0, 0.4, 1.0, {}, ()), SweepRow(1.25, 0.5, 1.2, {}, ("motion",)))
    stem = "validation/judge/all/difference"
    metrics = [{"step": float(step), "reward/clip": 0.1 * step} for step in range(6)]
    metrics += [{"step": step, stem: 0.1, f"{stem}_low": 0.0, f"{stem}_high": None} for step in (0.0, 5.0)]
    return TrainingReport(
        title="Reward backpropagation on <tiny>",
        comparison=comparison,
        views=(
            ScoreView(key="judge/all", label="Every attribute right", role="judge", is_share=True),
            ScoreView(key="clip/score", label="clip", role="trained"),
            ScoreView(key=MOTION, label="motion", role="guard", better="neither"),
        ),
        readings=read_guards(comparison),
        base_clips=clips,
        adapter_clips=clips,
        num_pairs=5,
        metrics=metrics,
        curves=(
            CurveView(title="Reward", y_label="score", metrics={"clip": "reward/clip"}),
            CurveView(title="Unlogged", y_label="nothing", metrics={"none": "none"}),
        ),
        sweep=StrengthSweep(rows, 1.0),
        facts={"seed": "0"},
        command="accelerate launch train.py --name '<x>'",
        config_yaml="backbone: a\n",
    )


def test_report_shows_every_part(tmp_path: Path) -> None:
    page = write_training_report(tmp_path / "report.html", make_report()).read_text(encoding="utf-8")
    for title in ("Before and after", "Clips, side by side", "Guards", "Curves", "Adapter strength", "How it was made"):
        assert f"<h2>{title}</h2>" in page
    assert page.count("<video") == 10
    assert "Recommended strength: 1," in page
    assert "a &lt;b&gt;red&lt;/b&gt; circle &amp; square" in page
    assert "clip (1 masked)" in page
    assert "<td>masked</td>" in page
    assert "Unlogged" not in page


def test_report_without_clips_curves_and_sweep_leaves_them_out(tmp_path: Path) -> None:
    bare = dataclasses.replace(
        make_report(), base_clips=None, metrics=(), sweep=None, readings=(), command="", config_yaml=""
    )
    page = write_training_report(tmp_path / "report.html", bare).read_text(encoding="utf-8")
    assert re.findall(r"<h2>([^<]*)</h2>", page) == ["Before and after"]


@pytest.mark.parametrize(
    ("report", "words", "tone"),
    [
        (make_report(gain=0.6), "got better", "good"),
        (make_report(gain=-0.8), "got worse", "bad"),
        (make_report(gain=0.02), "did not clearly change", "calm"),
        (make_report(gain=0.6, motion=0.3), "But guards tripped: motion", "bad"),
    ],
)
def test_verdict_follows_the_interval_and_the_guards(report: TrainingReport, words: str, tone: str) -> None:
    sentence, found = verdict_sentence(report)
    assert words in sentence
    assert found == tone
    assert "12 unseen prompts" in sentence


def test_repeated_alarms_are_shown_once_with_their_count(tmp_path: Path) -> None:
    alarms = tuple(Alarm("motion", value, 0.7, f"It froze to {value}.") for value in (0.6, 0.5, 0.4))
    page = write_training_report(
        tmp_path / "report.html", dataclasses.replace(make_report(), alarms=alarms)
    ).read_text()
    assert "raised at 3 validations" in page
    assert "It froze to 0.4." in page
    assert "It froze to 0.6." not in page


def test_a_view_of_an_unknown_score_is_refused(tmp_path: Path) -> None:
    views = (ScoreView(key="judge/none", label="x", role="judge"),)
    with pytest.raises(DataError, match="Unknown score 'judge/none'"):
        write_training_report(tmp_path / "report.html", dataclasses.replace(make_report(), views=views))


@pytest.mark.slow
@pytest.mark.parametrize("width", [1200, 500])
def test_report_opens_in_a_browser_without_errors_and_its_clips_load(tmp_path: Path, width: int) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    path = write_training_report(tmp_path / "report.html", make_report(motion=0.3))
    path.write_text(path.read_text(encoding="utf-8").replace("</head>", PROBE, 1), encoding="utf-8")
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    flags += "--disable-component-update --disable-sync --virtual-time-budget=9000 --enable-logging=stderr --dump-dom"
    command = [browser, *flags.split(), f"--window-size={width},900", f"--user-data-dir={tmp_path / 'profile'}"]
    result = subprocess.run([*command, path.as_uri()], capture_output=True, text=True, timeout=90, check=True)
    assert [line for line in result.stderr.splitlines() if "CONSOLE" in line] == []
    title = re.search(r"<title>(.*?)</title>", result.stdout)
    assert title is not None
    assert title[1] == "clips 10 loaded 10 overflow false problems []"
