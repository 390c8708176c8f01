"""The files of the arena in a real browser: they play, and a seek shows the frame that was asked for."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.studies.media import MediaPolicy, place, transcode
from rlhf_video.testing.barcode_clips import READ_BARCODE_JS, Area, write_barcode_clip

_LOAD = """async (data) => {
  const video = document.createElement("video");
  video.muted = true;
  video.src = URL.createObjectURL(await (await fetch(data)).blob());
  document.body.replaceChildren(video);
  await new Promise((done, failed) => {
    video.onloadeddata = done;
    video.onerror = () => failed(video.error.message);
  });
}"""
_SEEK = """async (video, time) => {
  const shown = new Promise((done) => video.requestVideoFrameCallback(done));
  video.currentTime = time;
  await shown;
}"""
_PLAY = """async (video) => {
  video.currentTime = 0;
  const ended = new Promise((done) => { video.onended = done; });
  await video.play();
  await ended;
  return video.duration;
}"""


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """Return an empty page of Chromium."""
    page = browser.new_page()
    yield page
    page.close()


@pytest.mark.slow
def test_both_formats_play_and_show_the_frame_that_was_asked_for(page: Any, tmp_path: Path) -> None:
    source = write_barcode_clip(tmp_path / "clip.mp4", 20, 8, codec="mpeg4", height=40, width=40)
    policy = MediaPolicy(height=128, width=192)
    play, spot = transcode(source, tmp_path, policy), place(40, 40, policy)
    area = Area(spot.left / 192, spot.top / 128, spot.width / 192, spot.height / 128)
    assert play.webm is not None
    for path, kind in ((play.mp4, "video/mp4"), (play.webm, "video/webm")):
        page.evaluate(_LOAD, f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}")
        video = page.locator("video")
        assert video.evaluate("(video) => [video.videoHeight, video.videoWidth]") == [128, 192]
        for index in (7, 8, 19, 0, 12, 11, 3):
            video.evaluate(_SEEK, (index + 0.5) / play.fps)
            assert video.evaluate(READ_BARCODE_JS, area._asdict()) == index
        assert video.evaluate(_PLAY) == pytest.approx(2.5, abs=0.02)
        assert video.evaluate(READ_BARCODE_JS, area._asdict()) == 19
        assert video.evaluate(READ_BARCODE_JS) is None  # without the area, black bars are read
