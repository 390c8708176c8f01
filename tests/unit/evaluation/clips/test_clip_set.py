"""Folders of clips against a suite: everything that is wrong is told before a metric runs."""

import json
import logging
import unicodedata
from fractions import Fraction
from pathlib import Path

import av
import pytest
import torch

from evaluation.clips.clip_set import check_clip_set, read_clip_set
from evaluation.prompt_suites import Suite, SuitePrompt, make_suite
from rlhf_video.data import ClipSize, sha256_file, write_lossless, write_video
from rlhf_video.errors import DataError

LONGEST = "An old man's rock-carved façade, " + "x" * 176
SIZE = ClipSize(5, 16, 16)


def suite_of(*prompts: str, num_samples: int = 1) -> Suite:
    return make_suite("test", "1", [SuitePrompt(prompt, num_samples=num_samples) for prompt in prompts])


def clip(path: Path, seed: int = 0, *, size: ClipSize = SIZE, fps: float = 8.0) -> Path:
    """Write a clip of noise."""
    pixels = torch.rand(size.num_frames, 3, size.height, size.width, generator=torch.Generator().manual_seed(seed))
    (write_lossless if path.suffix == ".mkv" else write_video)(path, pixels, fps)
    return path


def rewrite(source: Path, target: Path, *, late: int = 0, options: dict[str, str] | None = None) -> Path:
    """Copy the packets of a clip; the last is shown `late` frames later."""
    with av.open(str(source)) as read, av.open(str(target), "w", options=options or {}) as written:
        stream = written.add_stream_from_template(read.streams.video[0])
        packets = [packet for packet in read.demux(video=0) if packet.size]
        last = max(packet.pts for packet in packets)
        for packet in packets:
            if packet.pts == last:
                packet.pts += late * packet.duration
                packet.dts = max(packet.dts, packet.dts + late * packet.duration)
            packet.stream = stream
            written.mux(packet)
    return target


def write_manifest(folder: Path, clips: list[tuple[str, str]], **facts: object) -> None:
    """Record clips (file, prompt) as generate.py does."""
    records = [
        {"file": name, "prompt": prompt, "seed": number, "sha256": sha256_file(folder / name)}
        for number, (name, prompt) in enumerate(clips)
    ]
    (folder / "manifest.json").write_text(json.dumps({**facts, "clips": records}), encoding="utf-8")


def problems(folder: Path, suite: Suite, size: ClipSize | None = None) -> dict[str, list[str]]:
    """Return kind -> clips."""
    found: dict[str, list[str]] = {}
    for problem in check_clip_set(folder, suite, size=size).problems:
        found.setdefault(problem.kind, []).append(problem.clip)
    return found


def test_vbench_names_are_read_with_apostrophes_accents_and_216_bytes(tmp_path: Path) -> None:
    assert len(f"{LONGEST}-0.mp4".encode()) == 216  # as VBench's longest
    suite = suite_of("a star", LONGEST, num_samples=2)
    for number in range(2):
        clip(tmp_path / f"a star-{number}.mp4", number)
        clip(tmp_path / f"{unicodedata.normalize('NFD', LONGEST)}-{number}.mp4", 2 + number)  # as macOS writes it
    entries = read_clip_set(tmp_path, suite, size=SIZE).entries
    assert [(entry.prompt, entry.sample) for entry in entries] == [
        ("a star", 0), ("a star", 1), (LONGEST, 0), (LONGEST, 1),
    ]  # fmt: skip
    assert all(entry.seed is None and entry.sha256 == sha256_file(entry.file) for entry in entries)


def test_dimensions_and_facts_of_the_suite_go_with_the_clip(tmp_path: Path) -> None:
    asked = SuitePrompt("a red bird", frozenset({"color"}), {"color": {"color": "red"}})
    clip(tmp_path / "a red bird-0.mp4")
    (entry,) = read_clip_set(tmp_path, make_suite("test", "1", [asked])).entries
    assert (entry.dimensions, entry.facts) == (asked.dimensions, asked.facts)
    assert entry.seconds == SIZE.num_frames / 8.0


def test_missing_clips_are_listed_first_few_and_count(tmp_path: Path) -> None:
    clip(tmp_path / "a star-0.mp4")
    with pytest.raises(DataError, match=r"8 missing: 'a star-1', .*'a star-5' and 3 more\."):
        read_clip_set(tmp_path, suite_of("a star", num_samples=9))


def test_everything_wrong_is_told_at_once_and_partial_keeps_the_rest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = ("good", "cut", "front", "empty", "words", "large", "short", "fast", "copied", "copy", "gone", "Case")
    for seed, name in enumerate(names[:3]):
        clip(tmp_path / f"{name}-0.mp4", seed)
    whole = (tmp_path / "cut-0.mp4").read_bytes()
    (tmp_path / "cut-0.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    front = rewrite(tmp_path / "front-0.mp4", tmp_path / "x.mp4", options={"movflags": "faststart"})
    (tmp_path / "front-0.mp4").write_bytes(front.read_bytes()[:-20])
    front.unlink()
    (tmp_path / "empty-0.mp4").touch()
    (tmp_path / "words-0.mp4").write_text("no video")
    clip(tmp_path / "large-0.mp4", 5, size=ClipSize(5, 32, 16))
    clip(tmp_path / "short-0.mp4", 6, size=ClipSize(4, 16, 16))
    rewrite(clip(tmp_path / "x.mp4", 7), tmp_path / "fast-0.mp4", late=3)
    (tmp_path / "x.mp4").unlink()
    for name in ("copied", "copy"):
        clip(tmp_path / f"{name}-0.mp4", 8)
    clip(tmp_path / "case-0.mp4", 9)
    suite = suite_of(*names)
    assert problems(tmp_path, suite, SIZE) == {
        "missing": ["gone-0", "Case-0"],
        "truncated": ["front-0.mp4"],
        "empty": ["empty-0.mp4"],
        "unreadable": ["cut-0.mp4", "words-0.mp4"],
        "size": ["large-0.mp4", "short-0.mp4"],
        "uneven": ["fast-0.mp4"],
        "copy": ["copy-0.mp4", "copied-0.mp4"],
    }
    with pytest.raises(DataError) as refused:
        read_clip_set(tmp_path, suite, size=SIZE)
    for part in ("2 missing", "there is 'case-0.mp4', which differs in case", "declared 5 frames of 16x16", "1 good"):
        assert part in str(refused.value)
    with caplog.at_level(logging.WARNING):
        found = read_clip_set(tmp_path, suite, size=SIZE, partial=True)
    assert [entry.prompt for entry in found.entries] == ["good"]
    reasons = {lost.prompt: lost.reason for lost in found.left_out}
    assert list(reasons) == [*("gone", "Case"), *names[1:10]] and len(found.left_out) == 11
    assert reasons["gone"] == "missing" and "differs in case" in reasons["Case"]
    assert reasons["cut"].startswith("not readable") and "declared 5 frames" in reasons["large"]
    assert "left out of 'test': 2 missing" in caplog.text


@pytest.mark.parametrize(("suffix", "kept"), [(".mkv", 0.6), (".mkv", 0.9), (".mp4", 0.6), (".mp4", 0.98)])
def test_a_file_cut_anywhere_is_found_without_decoding(tmp_path: Path, suffix: str, kept: float) -> None:
    file = clip(tmp_path / f"x{suffix}", size=ClipSize(21, 64, 64), fps=24.0)
    target = tmp_path / "clips" / f"a star-0{suffix}"
    target.parent.mkdir()
    whole = rewrite(file, target, options={"movflags": "faststart"} if suffix == ".mp4" else {}).read_bytes()
    assert problems(target.parent, suite_of("a star")) == {}
    target.write_bytes(whole[: int(len(whole) * kept)])
    assert problems(target.parent, suite_of("a star")) == {"truncated": [target.name]}


@pytest.mark.parametrize(("rate", "suffix"), [(Fraction(24000, 1001), ".mkv"), (Fraction(24), ".mkv"), (7, ".mp4")])
def test_rounded_times_are_even(tmp_path: Path, rate: Fraction, suffix: str) -> None:
    clip(tmp_path / f"a star-0{suffix}", size=ClipSize(33, 16, 16), fps=float(rate))
    assert problems(tmp_path, suite_of("a star"), ClipSize(33, 16, 16)) == {}


def test_two_vbench_prompts_that_differ_in_case_are_two_clips(tmp_path: Path) -> None:
    suite = suite_of("a fantasy landscape", "A fantasy landscape")
    for seed, asked in enumerate(suite.prompts):
        clip(tmp_path / f"{asked.prompt}-0.mp4", seed)
    assert len({entry.sha256 for entry in read_clip_set(tmp_path, suite).entries}) == 2


def test_names_that_differ_in_case_or_ending_alone_are_refused(tmp_path: Path) -> None:
    clip(tmp_path / "a star-0.mp4", 0)
    clip(tmp_path / "A Star-0.mp4", 1)
    clip(tmp_path / "a moon-0.mp4", 2)
    clip(tmp_path / "a moon-0.mkv", 2)
    assert problems(tmp_path, suite_of("a star", "a moon")) == {"case": ["a star-0.mp4"], "twice": ["a moon-0.mkv"]}
    assert check_clip_set(tmp_path, suite_of("a star", "a moon")).entries == ()


def test_clips_that_nobody_asked_for_are_noted_and_not_scored(tmp_path: Path) -> None:
    clip(tmp_path / "a star-0.mp4", 0)
    clip(tmp_path / "a star-1.mp4", 1, size=ClipSize(5, 32, 16))
    clip(tmp_path / "a moon-0.mp4", 2)
    found = check_clip_set(tmp_path, suite_of("a star"))
    assert len(found.entries) == 1
    assert found.notes == ("2 clips are not asked for and not scored, for example 'a moon-0.mp4', 'a star-1.mp4'",)
    two = check_clip_set(tmp_path, suite_of("a star", num_samples=2))
    assert any("clips of 2 sizes" in note for note in two.notes)


def test_manifest_gives_seed_and_number_and_its_declared_size_is_checked(tmp_path: Path) -> None:
    names = [(f"0000-a-star-{number}.mp4", "a star") for number in range(3)]
    for seed, (name, _) in enumerate(names):
        clip(tmp_path / name, seed)
    video = {"num_frames": 5, "height": 16, "width": 16, "fps": 8}
    write_manifest(tmp_path, names, video=video, clips_per_prompt=3)
    entries = read_clip_set(tmp_path, suite_of("a star", num_samples=3)).entries
    assert [(entry.sample, entry.seed) for entry in entries] == [(0, 0), (1, 1), (2, 2)]
    write_manifest(tmp_path, [names[0], names[2]], video={**video, "width": 32}, clips_per_prompt=3)
    assert problems(tmp_path, suite_of("a star", num_samples=3)) == {
        "missing": ["a star-1"],  # not the last one: the number stands in the name
        "size": [names[0][0], names[2][0]],
    }
    write_manifest(tmp_path, names, video={**video, "fps": 16}, clips_per_prompt=3)
    assert len(problems(tmp_path, suite_of("a star", num_samples=3))["size"]) == 3


def test_length_size_and_rate_go_with_the_clip_and_a_declared_rate_is_checked(tmp_path: Path) -> None:
    clip(tmp_path / "a star-0.mp4")
    clip(tmp_path / "a moon-0.mp4", 1, fps=16.0)
    suite = suite_of("a star", "a moon")
    found = check_clip_set(tmp_path, suite)
    assert [entry.shape for entry in found.entries] == [f"5 frames of 16x16 at {fps} a second" for fps in (8, 16)]
    assert "clips of 2 frame rates (1 at 8, 1 at 16 a second)" in found.notes[0]
    (problem,) = check_clip_set(tmp_path, suite, fps=8.0).problems
    assert (problem.kind, problem.clip) == ("size", "a moon-0.mp4")
    assert problem.detail == "16 frames per second, declared 8"


def test_a_changed_file_and_one_listed_twice_are_found_by_the_manifest(tmp_path: Path) -> None:
    for seed, name in enumerate(("s.mp4", "m.mp4", "M.mp4")):
        clip(tmp_path / name, seed)
    write_manifest(tmp_path, [("s.mp4", "a star"), ("m.mp4", "a moon"), ("M.mp4", "a sun")])
    assert problems(tmp_path, suite_of("a star", "a moon", "a sun")) == {"case": ["m.mp4"]}
    clip(tmp_path / "s.mp4", 9)
    assert problems(tmp_path, suite_of("a star")) == {"case": ["m.mp4"], "changed": ["s.mp4"]}
    write_manifest(tmp_path, [("s.mp4", "a star"), ("s.mp4", "a moon")])
    assert problems(tmp_path, suite_of("a star", "a moon")) == {"twice": ["s.mp4"]}


def test_equal_clips_of_a_manifest_are_noted_since_a_collapsed_model_makes_them(tmp_path: Path) -> None:
    for name in ("s.mp4", "m.mp4"):
        clip(tmp_path / name, 3)
    write_manifest(tmp_path, [("s.mp4", "a star"), ("m.mp4", "a moon")])
    found = check_clip_set(tmp_path, suite_of("a star", "a moon"))
    assert (len(found.entries), found.problems) == (2, ())
    assert "equal to the byte" in found.notes[0]


def test_clips_of_extended_prompts_fit_only_the_suite_that_asked_for_them(tmp_path: Path) -> None:
    clip(tmp_path / "s.mp4")
    write_manifest(tmp_path, [("s.mp4", "a star, in great detail")])
    extended = make_suite("test+longer", "1", [SuitePrompt("a star", wording="a star, in great detail")])
    assert [entry.prompt for entry in read_clip_set(tmp_path, extended).entries] == ["a star"]
    assert problems(tmp_path, suite_of("a star")) == {"missing": ["a star-0"]}


@pytest.mark.parametrize("content", ["{", "[]", '{"clips": [{"file": "s.mp4"}]}', '{"clips": 3}'])
def test_a_damaged_manifest_and_an_empty_folder_are_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(DataError, match="generate its clips first"):
        read_clip_set(tmp_path, suite_of("a star"))
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(DataError, match="is damaged"):
        read_clip_set(tmp_path, suite_of("a star"))
    with pytest.raises(DataError, match="There is no folder"):
        read_clip_set(tmp_path / "none", suite_of("a star"))
