"""Our export is TRL's preference layout: by our own reading, and by TRL's functions where it is installed."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rlhf_video.errors import DataError
from rlhf_video.preferences import PreferencePair, PreferenceStore, export_trl, export_trl_unpaired, import_trl
from rlhf_video.testing.tiny_pairs import tiny_pairs


@pytest.fixture
def store(tmp_path: Path) -> PreferenceStore:
    return tiny_pairs(tmp_path / "pairs.jsonl", adjectives=("big",), every_tie=4)


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def outcome(pair: PreferencePair) -> tuple[str, str, str]:
    """Return prompt, hash of the winner and hash of the loser."""
    clips = pair.clips if pair.winner() == "A" else pair.clips[::-1]
    return pair.prompt, clips[0].sha256, clips[1].sha256


def test_the_winner_is_chosen_and_ties_are_counted_out(store: PreferenceStore, tmp_path: Path) -> None:
    pairs = store.read()
    export = export_trl(pairs, store, tmp_path / "trl.jsonl")
    rows = rows_of(tmp_path / "trl.jsonl")
    decided = [pair for pair in pairs if pair.labels["overall"] != "tie"]
    assert (export.num_rows, export.dropped) == (len(decided), {"no winner of overall": len(pairs) - len(decided)})
    assert export.lost == {"source": 27, "which side was A": 27} and len(rows) == 27
    for row, pair in zip(rows, decided, strict=True):
        winner, loser = pair.clips if pair.labels["overall"] == "A" else pair.clips[::-1]
        assert row["prompt"][0]["content"][0]["text"] == pair.prompt
        assert Path(row["chosen"][0]["content"][0]["video"]) == store.clip_path(winner).resolve()
        assert Path(row["rejected"][0]["content"][0]["video"]) == store.clip_path(loser).resolve()
        assert set(row) == {"prompt", "chosen", "rejected"}, "no margin, since no pair has one"


def test_nothing_decided_is_refused(store: PreferenceStore, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"No pair can be written .*no winner of motion_quality \(36\)"):
        export_trl(store.read(), store, tmp_path / "trl.jsonl", question="motion_quality")


def test_what_comes_back_has_the_same_winners_on_both_sides(store: PreferenceStore, tmp_path: Path) -> None:
    pairs = [replace(pair, margin=0.1 * (i + 1)) for i, pair in enumerate(store.read())]
    decided = [pair for pair in pairs if pair.winner()]
    export_trl(pairs, store, tmp_path / "trl.jsonl")
    back = import_trl(tmp_path / "trl.jsonl", store)
    assert list(map(outcome, back.pairs)) == list(map(outcome, decided))
    assert [pair.margin for pair in back.pairs] == [pair.margin for pair in decided]
    assert {clip.path for pair in back.pairs for clip in pair.clips} <= {c.path for p in pairs for c in p.clips}
    sides = [pair.winner() for pair in back.pairs]
    assert 5 < sides.count("A") < 22, "TRL's layout knows no sides: a hash deals them"
    export_trl(back.pairs, store, tmp_path / "again.jsonl")
    assert rows_of(tmp_path / "again.jsonl") == rows_of(tmp_path / "trl.jsonl")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chosen": "text"}, "'chosen' must be one message whose content is one part of type 'video'"),
        ({"margin": "much"}, "margin='much' must be a number"),
        ({"prompt": []}, "'prompt' must be one message"),
        (
            {"rejected": [{"role": "assistant", "content": [{"type": "video", "video": "no.mkv"}]}]},
            "clip 'no.mkv' does not exist",
        ),
    ],
)
def test_a_row_that_is_no_video_preference_is_named(
    store: PreferenceStore, tmp_path: Path, change: dict, message: str
) -> None:
    path = tmp_path / "trl.jsonl"
    export_trl(store.read(), store, path)
    rows = rows_of(path)
    path.write_text("".join(json.dumps(row) + "\n" for row in [rows[0], {**rows[1], **change}]))
    with pytest.raises(DataError, match=f"1 of 2 rows .*Line 2: {message}"):
        import_trl(path, store)


def test_unpaired_rows_hold_both_bad_as_two_thumbs_down(store: PreferenceStore, tmp_path: Path) -> None:
    first, *others = store.read()
    bad = replace(first, labels={"overall": "both-bad"})
    export = export_trl_unpaired([bad, *others], store, tmp_path / "kto.jsonl")
    rows = rows_of(tmp_path / "kto.jsonl")
    assert export.num_rows == len(rows) == 2 * 28 and export.dropped == {"no winner of overall": 8}
    assert export.lost["which clips were compared"] == 28
    videos = [str(store.clip_path(clip).resolve()) for clip in bad.clips]
    assert [(r["completion"][0]["content"][0]["video"], r["label"]) for r in rows[:2]] == [(v, False) for v in videos]
    labels = {row["completion"][0]["content"][0]["video"]: row["label"] for row in rows[2:]}
    for pair in others:
        if pair.winner():
            a, b = (labels[str(store.clip_path(clip).resolve())] for clip in pair.clips)
            assert (a, b) == (pair.winner() == "A", pair.winner() == "B")


@pytest.mark.slow
def test_trls_own_dataset_functions_read_the_export(store: PreferenceStore, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason='needs pip install -e ".[trl]"')
    data_utils = pytest.importorskip("trl.data_utils", reason='needs pip install -e ".[trl]"')
    export = export_trl(store.read(), store, tmp_path / "trl.jsonl")
    export_trl_unpaired(store.read(), store, tmp_path / "kto.jsonl")
    loaded, ours = (
        datasets.load_dataset("json", data_files=str(tmp_path / name), split="train", cache_dir=str(tmp_path / "cache"))
        for name in ("trl.jsonl", "kto.jsonl")
    )
    assert len(loaded) == export.num_rows
    first = loaded[0]
    assert data_utils.is_conversational(first)
    assert data_utils.maybe_extract_prompt(first)["prompt"] == first["prompt"], "the prompt stands alone already"
    unpaired = data_utils.unpair_preference_dataset(loaded)
    assert len(unpaired) == 2 * export.num_rows and sum(unpaired["label"]) == export.num_rows
    videos = [row["completion"][0]["content"][0]["video"] for row in unpaired]
    assert all(Path(video).is_file() for video in videos)
    assert videos[: export.num_rows] == [row["chosen"][0]["content"][0]["video"] for row in loaded]
    assert sorted(map(str, unpaired.select_columns(ours.column_names))) == sorted(map(str, ours))
