"""The duel in Debian's Chromium, against a stand-in server: what a rater does, and what the server then has."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.app.duel.conftest import NUM_FRAMES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

OpenDuel = Callable[..., Any]
ALL_LEFT = dict.fromkeys(("overall", "visual_quality", "motion_quality", "text_alignment"), "left")

CONTRASTS = """() => {
  const linear = (value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const parse = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const isOpaque = (color) => color.length === 3 || color[3] > 0.99;
  const ground = (node) => {
    const color = node ? parse(getComputedStyle(node).backgroundColor) : [255, 255, 255];
    return isOpaque(color) ? color : ground(node.parentElement);
  };
  const hasText = (node) => [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
  const isSeen = (node) => node.checkVisibility() && !node.closest('svg, .unseen, option') && hasText(node);
  return [...document.querySelectorAll('.duel *')].filter(isSeen).map((node) => {
    const pair = [light(parse(getComputedStyle(node).color)), light(ground(node))];
    return [node.textContent.trim().slice(0, 30), (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05)];
  });
}"""
"""The texts in view with their contrast to the ground they stand on (WCAG 2.2, 1.4.3)."""


def test_a_duel_by_mouse_is_stored_with_everything_the_rater_did(open_duel: OpenDuel, stand_in: Any) -> None:
    duel = open_duel()
    duel.wait_until_both_play()
    duel.wait_until_watched()
    assert duel.state("currentSrc")[0].endswith("blue.mp4?assignment-1")
    assert duel.text("gate") == "To submit, answer 4 questions"
    duel.act("submit").click(force=True)  # closed: nothing is sent
    assert stand_in.attempts == []

    duel.act("mark-right").click()
    duel.page.get_by_label("Flicker").check()
    duel.page.get_by_role("button", name="Mark", exact=True).click()
    frame = int(duel.text("frame").split(" / ")[0]) - 1
    duel.act("forward").click()
    duel.choose("overall", "left")
    duel.choose("visual_quality", "right")
    duel.choose("motion_quality", "same")
    duel.choose("text_alignment", "same")
    duel.act("both").click()
    duel.page.get_by_text("Add a comment").click()
    duel.page.get_by_label("Comment (optional)").fill("the boat melts")
    duel.shot("desktop-light")
    duel.act("submit").click()
    duel.wait_for("duel", "assignment-2")

    (vote,) = stand_in.votes.values()
    assert vote["answers"] == ALL_LEFT | {"visual_quality": "right", "motion_quality": "same", "text_alignment": "same"}
    assert (vote["assignment"], vote["revision"], vote["withdrawn"]) == ("assignment-1", 1, False)
    assert vote["both_unacceptable"] is True
    assert vote["moments"] == [{"side": "right", "frame": frame, "tag": "flicker"}]
    assert vote["comment"] == "the boat melts"
    assert vote["steps"] == 1 and vote["plays"] >= 1
    assert vote["decision_ms"] >= min(vote["watched_ms"].values()) >= 500
    assert "Saved" in duel.text("saved")
    assert duel.text("progress-text") == "1 of 8"


def test_a_duel_needs_no_mouse(open_duel: OpenDuel, stand_in: Any) -> None:
    duel = open_duel(color_scheme="dark")
    duel.wait_until_watched()
    duel.keys(" ", ".", ".", ",", "]", "w", "w", "+", "0", "l")
    duel.page.wait_for_selector(".duel:not([data-playing])")
    assert duel.page.locator("[data-el=speed]").input_value() == "1.5"
    assert duel.page.locator("[data-el=loop]").get_attribute("aria-pressed") == "false"
    duel.keys("1", "3", "ArrowUp", "ArrowUp", "2", "1", "1", "b", "b")  # 3 goes to the second, 2 to the first
    duel.keys("m", "2", "1", "Enter")
    duel.page.wait_for_selector(".marks li")
    duel.shot("desktop-dark")
    duel.keys("Enter")
    duel.wait_for("duel", "assignment-2")
    (vote,) = stand_in.votes.values()
    assert vote["answers"] == ALL_LEFT | {"overall": "same", "visual_quality": "right"}
    assert vote["both_unacceptable"] is False and vote["steps"] == 3
    assert [(moment["side"], moment["tag"]) for moment in vote["moments"]] == [("right", "distortion")]

    duel.keys("s", "1", "Enter")
    duel.wait_for("duel", "assignment-3")
    duel.keys("p", "2", "Enter")
    duel.wait_for("duel", "assignment-4")
    left_behind = [(name, kind, sent["reason"]) for name, kind, sent in stand_in.left_behind]
    assert left_behind == [("assignment-2", "skip", "cannot_judge"), ("assignment-3", "report", "broken")]
    duel.keys("h")
    assert duel.page.get_by_role("heading", name="Keys").is_visible()
    duel.shot("help-dark")


def test_a_question_is_one_stop_of_the_tab_key_and_arrows_choose_in_it(open_duel: OpenDuel) -> None:
    duel = open_duel()
    first = duel.page.locator("[data-question=overall] [data-value=left]")
    first.focus()
    duel.keys("ArrowRight", "ArrowRight")
    focused = duel.page.evaluate("document.activeElement.dataset.value")
    checked = duel.page.get_by_role("radiogroup", name="Overall").get_by_role("radio", checked=True)
    assert (focused, checked.count(), checked.inner_text()[:5]) == ("right", 1, "Right")
    duel.keys("Tab")
    inside = "document.activeElement.closest('[data-question]').dataset.question"
    assert duel.page.evaluate(inside) == "visual_quality"


def test_both_unacceptable_needs_no_other_answer(open_duel: OpenDuel, stand_in: Any) -> None:
    duel = open_duel()
    duel.wait_until_watched()
    duel.keys("1", "b", "Enter")
    duel.wait_for("duel", "assignment-2")
    (vote,) = stand_in.votes.values()
    assert vote["both_unacceptable"] is True and vote["answers"] == {"overall": "left"}


@pytest.mark.parametrize("is_on_its_side", [False, True])
def test_a_phone_has_everything_in_reach(open_duel: OpenDuel, stand_in: Any, is_on_its_side: bool) -> None:
    size = {"width": 839, "height": 412} if is_on_its_side else {"width": 412, "height": 839}
    duel = open_duel(viewport=size, device_scale_factor=2, is_mobile=True, has_touch=True, color_scheme="light")
    assert duel.page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    boxes = [duel.page.locator(f".clip[data-side={side}] .screen").bounding_box() for side in ("left", "right")]
    assert (boxes[0]["y"] == boxes[1]["y"]) == is_on_its_side  # side by side, or one above the other
    bar = duel.page.locator(".votebar").bounding_box()
    assert bar["y"] + bar["height"] <= size["height"]
    duel.wait_until_watched()
    duel.shot(f"phone-{'landscape' if is_on_its_side else 'portrait'}")
    for _ in ALL_LEFT:
        option = duel.page.locator(".question[data-current] [data-value=left]")
        assert option.bounding_box()["height"] >= 44
        option.tap()
    duel.act("submit").tap()
    duel.wait_for("duel", "assignment-2")
    assert [vote["answers"] for vote in stand_in.votes.values()] == [ALL_LEFT]


def test_both_clips_show_the_same_frame_after_steps_and_after_loops(open_duel: OpenDuel) -> None:
    duel = open_duel()
    duel.keys(" ")
    duel.page.wait_for_selector(".duel:not([data-playing])")
    rng, frame = random.Random(7), duel.settled_frame()
    for _ in range(10):
        for key in rng.choices(",.", weights=(1, 2), k=rng.randint(1, 5)):
            duel.keys(key)
            frame = min(max(frame + (1 if key == "." else -1), 0), NUM_FRAMES - 1)
        assert duel.settled_frame() == frame
    duel.keys("r", " ")
    plays = duel.draft()["plays"]
    duel.page.wait_for_function(f"JSON.parse(localStorage.getItem('{duel.DRAFT}')).plays >= {plays + 3}")
    samples = duel.sample_until(lambda samples: len({left for left, _ in samples}) > 5)
    assert [(left, right) for left, right in samples if left != right] == []
    duel.keys(" ")
    duel.page.wait_for_selector(".duel:not([data-playing])")
    duel.settled_frame()


def test_the_shorter_clip_holds_its_last_frame_until_both_start_again(open_duel: OpenDuel, stand_in: Any) -> None:
    stand_in.pairs = [("short", "blue")]
    duel = open_duel()
    samples = duel.sample_until(lambda samples: any(left == 14 and right >= 22 for left, right in samples))
    assert max(left for left, _ in samples) == 14
    assert [(left, right) for left, right in samples if left != min(right, 14)] == []


def test_a_vote_waits_in_the_outbox_until_the_server_has_it(open_duel: OpenDuel, stand_in: Any) -> None:
    stand_in.num_failures = 2
    duel = open_duel()
    duel.expected_statuses = {503}
    duel.wait_until_watched()
    duel.keys("1", "1", "1", "1", "Enter")
    duel.page.wait_for_selector(".banner:not([hidden])")
    assert "will retry" in duel.text("banner")
    duel.shot("will-retry")
    duel.wait_for("duel", "assignment-2")
    assert len({vote["vote_id"] for vote in stand_in.attempts}) == 1 and len(stand_in.attempts) == 3
    assert len(stand_in.votes) == 1
    assert duel.page.locator(".banner").is_hidden()


def test_an_answer_lost_on_its_way_back_and_a_reload_make_one_vote(open_duel: OpenDuel, stand_in: Any) -> None:
    stand_in.num_lost_answers = 1
    duel = open_duel()
    duel.expected_statuses = {503}
    duel.wait_until_watched()
    duel.keys("3", "3", "3", "3", "Enter")
    duel.page.wait_for_selector(".banner:not([hidden])")
    duel.page.reload()
    duel.wait_for("duel", "assignment-2")
    assert len(stand_in.votes) == 1 and len(stand_in.attempts) >= 2
    assert duel.page.evaluate("localStorage.getItem('rlhf-video.duel.rater-1.outbox')") == "[]"


def test_a_reload_resumes_the_pair_with_its_answers_and_marks(open_duel: OpenDuel, stand_in: Any) -> None:
    duel = open_duel()
    duel.wait_until_watched()
    duel.keys("2", "3", "m", "1", "1", "Enter")
    duel.page.wait_for_selector(".marks li")
    duel.page.reload()
    duel.wait_for("duel", "assignment-1")
    assert duel.page.locator("[role=radio][aria-checked=true]").count() == 2
    assert duel.page.locator(".marks li").count() == 1
    assert duel.page.locator(".duel[data-watched]").count() == 1
    assert list(stand_in.leases) == ["assignment-1"]


def test_undo_withdraws_the_vote_and_the_new_answer_counts(open_duel: OpenDuel, stand_in: Any) -> None:
    duel = open_duel()
    duel.wait_until_watched()
    duel.keys("1", "1", "1", "1", "Enter")
    duel.wait_for("duel", "assignment-2")
    duel.keys("z")
    duel.wait_for("duel", "assignment-1")
    assert duel.page.locator("[data-value=left][aria-checked=true]").count() == 4
    assert duel.text("gate") == "Ready to submit"  # what was watched stays watched
    duel.choose("overall", "right")
    duel.keys("Enter")
    duel.wait_for("duel", "assignment-2")
    assert [(vote["revision"], vote["withdrawn"]) for vote in stand_in.votes.values()] == [
        (1, False),
        (2, True),
        (3, False),
    ]
    assert [vote["answers"]["overall"] for vote in stand_in.current_votes()] == ["right"]


def test_a_clip_that_does_not_play_is_said_and_can_be_reported(open_duel: OpenDuel, stand_in: Any) -> None:
    stand_in.pairs = [("broken", "blue"), ("blue", "green")]
    duel = open_duel()
    duel.page.get_by_text("The left clip does not play").wait_for()
    duel.shot("unplayable")
    duel.page.get_by_role("button", name="Report and go on").click()
    duel.wait_for("duel", "assignment-2")
    assert stand_in.left_behind[0][:2] == ("assignment-1", "report")
    assert stand_in.left_behind[0][2]["reason"] == "does_not_play"


def test_vp9_plays_where_the_first_source_does_not(open_duel: OpenDuel, stand_in: Any) -> None:
    (stand_in.clips / "webm-only.mp4").write_bytes(b"no video")
    (stand_in.clips / "webm-only.webm").write_bytes((stand_in.clips / "blue.webm").read_bytes())
    stand_in.pairs = [("webm-only", "green")]
    duel = open_duel()
    duel.wait_until_watched()
    assert ".webm" in duel.state("currentSrc")[0] and ".mp4" in duel.state("currentSrc")[1]


def test_markup_in_a_prompt_stays_text(open_duel: OpenDuel, stand_in: Any) -> None:
    attack = '<img src=x onerror="window.attacked=1"><script>window.attacked=2</script>${window.attacked=3}{{attacked}}'
    stand_in.prompt = attack
    duel = open_duel()
    assert duel.page.locator("[data-el=prompt]").text_content() == attack
    assert duel.page.locator("[data-el=prompt] *").count() == 0
    assert duel.page.evaluate("window.attacked") is None


def test_a_practice_pair_explains_itself_and_the_end_says_so(open_duel: OpenDuel, stand_in: Any) -> None:
    stand_in.kind, stand_in.pairs = "practice", [("blue", "green")]
    duel = open_duel()
    duel.wait_until_watched()
    duel.keys("3", "3", "3", "3", "Enter")
    duel.page.get_by_role("heading", name="Look again").wait_for()
    assert duel.text("message-text") == "The left clip follows the prompt."
    duel.keys("Enter")
    duel.page.get_by_role("heading", name="All done").wait_for()
    assert duel.page.locator("[data-el=message-link]").is_hidden()
    duel.shot("all-done")


@pytest.mark.parametrize(
    ("url", "is_shown"), [('https://panel.example/done?cc="><b>CODE', True), ("javascript:alert(1)", False)]
)
def test_the_end_leads_a_panels_raters_back_by_https_alone(
    open_duel: OpenDuel, stand_in: Any, url: str, is_shown: bool
) -> None:
    stand_in.pairs, stand_in.completion_url = [("blue", "green")], url
    duel = open_duel()
    duel.wait_until_watched()
    duel.keys("3", "3", "3", "3", "Enter")
    duel.page.get_by_role("heading", name="All done").wait_for()
    link = duel.page.locator("[data-el=message-link]")
    assert link.is_visible() == is_shown
    assert link.get_attribute("href") == (url if is_shown else None)
    duel.shot("all-done-panel")


def test_nothing_moves_by_itself_for_those_who_asked_for_less_motion(open_duel: OpenDuel) -> None:
    duel = open_duel(reduced_motion="reduce")
    duel.page.wait_for_timeout(700)
    assert duel.state("paused") == [True, True] and duel.frames() == [0, 0]
    duel.keys(" ")
    duel.wait_until_watched()


def test_zoom_moves_both_clips_alike(open_duel: OpenDuel) -> None:
    duel = open_duel()
    box = duel.page.locator(".clip[data-side=left] .screen").bounding_box()
    duel.page.mouse.move(box["x"] + 20, box["y"] + 20)
    duel.page.mouse.wheel(0, -200)
    duel.page.wait_for_selector(".stage[data-zoomed]")
    duel.page.mouse.down()
    duel.page.mouse.move(box["x"] + 10, box["y"] + 15, steps=3)
    duel.page.mouse.up()
    left, right = duel.page.evaluate(
        "[...document.querySelectorAll('.duel video')].map((video) => getComputedStyle(video).transform)"
    )
    assert left == right and left.startswith("matrix(1.")
    duel.shot("zoomed")


def test_text_has_enough_contrast_in_light_and_dark(open_duel: OpenDuel) -> None:
    for scheme in ("light", "dark"):
        duel = open_duel(color_scheme=scheme)
        duel.keys("1", "b")
        found = duel.page.evaluate(CONTRASTS)
        assert len(found) > 20
        assert [item for item in found if item[1] < 4.5] == []
