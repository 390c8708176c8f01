"""The audit finds every defect of a set of pairs at once and tells errors from warnings."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from rlhf_video.data import sha256_file, write_lossless, write_video
from rlhf_video.errors import DataError
from rlhf_video.preferences import Audit, ClipRecord, PreferencePair, PreferenceStore, SegmentLabel, audit_pairs
from rlhf_video.testing.tiny_pairs import tiny_pairs

MakeClip = Callable[..., ClipRecord]


@pytest.fixture
def store(tmp_path: Path) -> PreferenceStore:
    return PreferenceStore(tmp_path / "pairs.jsonl")


@pytest.fixture
def clip(tmp_path: Path) -> MakeClip:
    """Return a function that writes another clip of noise and records it."""
    count = iter(range(1000))

    def write(*, frames: int = 3, size: int = 8, fps: float = 8.0, ending: str = ".mkv", **facts: Any) -> ClipRecord:
        index = next(count)
        video = torch.rand(frames, 3, size, size, generator=torch.Generator().manual_seed(index))
        path = tmp_path / f"{index}{ending}"
        if ending == ".safetensors":
            save_file({"latents": video}, path)
        else:
            (write_lossless if ending == ".mkv" else write_video)(path, video, fps)
        return ClipRecord(path=path.name, sha256=sha256_file(path), **facts)

    return write


def pair(a: ClipRecord, b: ClipRecord, label: Any = "A", **facts: Any) -> PreferencePair:
    return PreferencePair(prompt="a wall", a=a, b=b, **{"labels": {"overall": label}, **facts})


def kinds(audit: Audit) -> dict[str, str]:
    return {finding.kind: finding.severity for finding in audit.findings}


def test_good_pairs_have_no_findings(tmp_path: Path) -> None:
    store = tiny_pairs(tmp_path / "pairs.jsonl", adjectives=("big",), every_tie=4)
    audit = audit_pairs(store.read(), store)
    assert not audit.findings and (audit.num_pairs, audit.num_clips) == (36, 72)
    assert audit.answers == {"decided": 27, "undecided": 9, "unanswered": 0}
    assert audit.message().endswith("36 pairs of 72 clips (27 decided, 9 undecided): nothing wrong.")
    audit.refuse_errors()


def test_no_pairs_no_winner_and_no_weight_are_errors(store: PreferenceStore, clip: MakeClip) -> None:
    assert kinds(audit_pairs([], store)) == {"empty": "error"}
    pairs = [pair(clip(), clip(), label) for label in ("tie", "both-bad")]
    pairs.append(pair(clip(), clip(), labels={"motion_quality": "A"}))
    audit = audit_pairs(pairs, store)
    assert kinds(audit) == {"undecided": "error"}
    assert audit.answers == {"decided": 0, "undecided": 2, "unanswered": 1}
    assert (
        "2 ties or both-bad, 1 unanswered" in audit.message() and "answered: motion_quality, overall" in audit.message()
    )
    assert not audit_pairs(pairs, store, questions=("overall", "motion_quality")).findings
    segment = SegmentLabel(start=0, stop=3, label="A")
    assert not audit_pairs([replace(pairs[0], segments=(segment,))], store).findings, "segments decide too"
    assert kinds(audit_pairs([replace(pairs[0], segments=(replace(segment, stop=4), segment))], store)) == {
        "segments": "error"
    }
    assert kinds(audit_pairs([pair(clip(), clip(), weight=0.0)], store)) == {"weights": "error"}


def test_a_repeated_comparison_is_a_warning_and_an_opposite_one_an_error(
    store: PreferenceStore, clip: MakeClip
) -> None:
    a, b, c, d = (clip() for _ in range(4))
    same = [pair(a, b), pair(c, d), pair(b, a, "B"), replace(pair(a, b), prompt=" A  WALL")]
    audit = audit_pairs(same, store)
    assert kinds(audit) == {"duplicates": "warning"}
    assert audit.findings[0].cases == ("pair 1, pair 3, pair 4",) and "2 pairs repeat" in audit.message()
    audit.refuse_errors()
    opposite = [pair(a, b), pair(c, d), pair(b, a), pair(d, c, "tie")]
    audit = audit_pairs(opposite, store)
    assert kinds(audit) == {"contradictions": "error", "duplicates": "warning"}
    assert [finding.cases for finding in audit.findings] == [("pair 1, pair 3 about overall",), ("pair 2, pair 4",)]
    soft = [pair(a, b, soft={"overall": 0.6}), pair(a, b, soft={"overall": 0.4})]
    assert kinds(audit_pairs(soft, store)) == {"contradictions": "error"}
    other = [pair(a, b), replace(pair(a, b, "B"), prompt="another wall")]
    assert not audit_pairs(other, store).findings, "another prompt is another comparison"


def test_always_the_same_side_or_model_is_a_warning(store: PreferenceStore, clip: MakeClip) -> None:
    sided = [pair(clip(), clip()) for _ in range(12)]
    assert kinds(audit_pairs(sided, store)) == {"one-sided": "warning"}
    assert not audit_pairs(sided[:11], store).findings, "too few to tell"
    mixed = [pair(clip(), clip(), "AB"[i % 2]) for i in range(12)]

    def made(pairs: list[PreferencePair], good: str | None, bad: str | None) -> list[PreferencePair]:
        names = {"A": (good, bad), "B": (bad, good)}
        return [
            replace(
                p,
                a=replace(p.a, model=names[p.labels["overall"]][0]),
                b=replace(p.b, model=names[p.labels["overall"]][1]),
            )
            for p in pairs
        ]

    audit = audit_pairs(made(mixed, "real", "wan"), store)
    assert kinds(audit) == {"one-model": "warning"} and "always of real, the loser never" in audit.message()
    assert not audit_pairs(made(mixed, "wan", "wan"), store).findings
    assert not audit_pairs(made(mixed, None, "wan"), store).findings


def test_missing_changed_and_corrupt_clips_are_listed_together(
    store: PreferenceStore, clip: MakeClip, tmp_path: Path
) -> None:
    pairs = [pair(clip(frames=9, size=32), clip(frames=9, size=32, ending=".mp4")) for _ in range(4)]
    (tmp_path / pairs[0].a.path).unlink()
    (tmp_path / pairs[1].b.path).write_bytes(b"another")
    silent, torn = tmp_path / pairs[2].a.path, tmp_path / pairs[3].b.path
    silent.write_bytes(silent.read_bytes()[:700])  # a header without a frame
    torn.write_bytes(torn.read_bytes()[:1000])
    pairs[2] = replace(pairs[2], a=replace(pairs[2].a, sha256=sha256_file(silent)))
    pairs[3] = replace(pairs[3], b=replace(pairs[3].b, sha256=sha256_file(torn)))
    audit = audit_pairs(pairs, store)
    assert kinds(audit) == {"clips": "error", "corrupt": "error"}
    missing, corrupt = audit.findings
    assert missing.cases == (
        f"{pairs[0].a.path} is missing",
        f"{pairs[1].b.path} is not the recorded file (sha256 differs)",
    )
    assert len(corrupt.cases) == 2 and "holds no frame" in corrupt.cases[0] and "cannot be decoded" in corrupt.cases[1]
    with pytest.raises(DataError, match=r"(?s)cannot be trained on.*2 clips cannot be used.*2 clips cannot be decoded"):
        audit.refuse_errors()
    quick = audit_pairs(pairs, store, decode=False, hashes=False)
    assert [len(finding.cases) for finding in quick.findings] == [1, 3], "headers show the replaced one too"


def test_clips_of_two_sizes_lengths_or_rates_are_found(store: PreferenceStore, clip: MakeClip) -> None:
    pairs = [
        pair(clip(), clip(size=16)),
        pair(clip(), clip(frames=5), "B"),
        pair(clip(), clip(fps=16.0)),
        pair(clip(), clip()),
    ]
    audit = audit_pairs(pairs, store)
    assert kinds(audit) == {"sizes": "error", "rates": "warning"}
    assert audit.errors[0].cases == ("pair 1 (3x8x8 and 3x16x16)", "pair 2 (3x8x8 and 5x8x8)")
    assert audit.warnings[0].cases == ("pair 3 (8 and 16)",)
    assert kinds(audit_pairs(pairs, store, same_size=False)) == {"rates": "warning"}
    assert kinds(audit_pairs(pairs, store, decode=False)) == {"sizes": "error", "rates": "warning"}


def test_a_record_that_is_not_its_file_is_an_error(store: PreferenceStore, clip: MakeClip) -> None:
    a, b, c = (replace(clip(), num_frames=3, height=8, width=8, fps=8.0) for _ in range(3))
    wrong = replace(c, num_frames=5, fps=16.0)
    pairs = [pair(a, b), pair(wrong, a), pair(b, wrong, "B")]
    audit = audit_pairs(pairs, store)
    assert kinds(audit) == {"records": "error"}
    assert audit.findings[0].cases == (f"{wrong.path} (record: num_frames 5, file 3, fps 16, file 8)",)
    believed = audit_pairs(pairs[1:2], store, decode=False)
    assert kinds(believed) == {"sizes": "error", "rates": "warning"}, "without decoding the record is believed"


def test_latents_are_compared_by_shape_and_with_videos_by_record(
    store: PreferenceStore, clip: MakeClip, tmp_path: Path
) -> None:
    latents = [clip(ending=".safetensors", frames=frames) for frames in (3, 3, 4)]
    assert not audit_pairs([pair(latents[0], latents[1])], store).findings
    assert kinds(audit_pairs([pair(latents[0], latents[2])], store)) == {"sizes": "error"}
    assert not audit_pairs([pair(latents[0], clip())], store).findings, "nobody knows"
    said = replace(latents[0], num_frames=9, height=8, width=8)
    assert kinds(audit_pairs([pair(said, clip())], store)) == {"sizes": "error"}
    for content in (b"torn", None):
        path = tmp_path / latents[0].path
        save_file({"weights": torch.zeros(1)}, path) if content is None else path.write_bytes(content)
        broken = replace(latents[0], sha256=sha256_file(path))
        assert kinds(audit_pairs([pair(broken, latents[1])], store)) == {"corrupt": "error"}


def test_the_message_lists_a_few_of_each(store: PreferenceStore, clip: MakeClip) -> None:
    pairs = [pair(clip(), clip(frames=5), "AB"[i % 2]) for i in range(4)]
    head, error, warning = audit_pairs([*pairs, pairs[0]], store).message(2).splitlines()
    assert head == f"'{store.path}': 5 pairs of 8 clips (5 decided):"
    assert error == (
        "  error: the clips of 5 pairs differ in frames x height x width: pair 1 (3x8x8 and 5x8x8); pair 2 (3x8x8 and "
        "5x8x8); and 3 more. Cut and scale both clips of a pair to one size: they share their noise in training."
    )
    assert warning == (
        "  warning: 1 pairs repeat another one (same prompt and clips, sides swapped or not): pair 1, pair 5. Keep one "
        "of each: a pair that is to count twice has the field `weight`."
    )
