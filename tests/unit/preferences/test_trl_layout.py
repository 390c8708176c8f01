"""Our export is TRL's preference layout: by our own reading, and by TRL's functions where it is installed."""

import json
from pathlib import Path

import pytest

from rlhf_video.errors import DataError
from rlhf_video.preferences import PreferenceStore, export_trl, trl_rows
from rlhf_video.testing.tiny_pairs import tiny_pairs


@pytest.fixture
def store(tmp_path: Path) -> PreferenceStore:
    return tiny_pairs(tmp_path / "pairs.jsonl", adjectives=("big",), every_tie=4)


def test_the_winner_is_chosen_and_ties_are_counted_out(store: PreferenceStore, tmp_path: Path) -> None:
    pairs = store.read()
    export = export_trl(pairs, store, tmp_path / "trl.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "trl.jsonl").read_text().splitlines()]
    decided = [pair for pair in pairs if pair.labels["overall"] != "tie"]
    assert (export.num_rows, export.num_undecided) == (len(decided), len(pairs) - len(decided)) == (len(rows), 9)
    for row, pair in zip(rows, decided, strict=True):
        winner, loser = pair.clips if pair.labels["overall"] == "A" else pair.clips[::-1]
        assert row["prompt"][0]["content"][0]["text"] == pair.prompt
        assert Path(row["chosen"][0]["content"][0]["video"]) == store.clip_path(winner).resolve()
        assert Path(row["rejected"][0]["content"][0]["video"]) == store.clip_path(loser).resolve()
        assert set(row) == {"prompt", "chosen", "rejected"}, "no margin, since no pair has one"


def test_nothing_decided_is_refused(store: PreferenceStore, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no place for ties"):
        export_trl(store.read(), store, tmp_path / "trl.jsonl", question="motion_quality")
    assert trl_rows(store.read(), store, question="motion_quality") == []


@pytest.mark.slow
def test_trls_own_dataset_functions_read_the_export(store: PreferenceStore, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason='needs pip install -e ".[trl]"')
    data_utils = pytest.importorskip("trl.data_utils", reason='needs pip install -e ".[trl]"')
    export = export_trl(store.read(), store, tmp_path / "trl.jsonl")
    loaded = datasets.load_dataset(
        "json", data_files=str(tmp_path / "trl.jsonl"), split="train", cache_dir=str(tmp_path / "cache")
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
