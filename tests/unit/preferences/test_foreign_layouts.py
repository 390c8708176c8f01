"""VideoAlign's CSV, Pick-a-Pic-type rows and `datasets` folders: there and back, and what they cannot hold."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf_video.data import sha256_file, write_lossless
from rlhf_video.errors import DataError
from rlhf_video.preferences import (
    ClipRecord,
    PreferencePair,
    PreferenceStore,
    SegmentLabel,
    export_datasets,
    export_pickapic,
    export_videoalign,
    import_dataset,
    import_datasets,
    import_pickapic,
    import_videoalign,
)

FRAMES, FPS, PROMPT = 3, 8.0, 'a "red" wall,\r\nthen a büe one'


@pytest.fixture
def store(tmp_path: Path) -> PreferenceStore:
    """Four clips, five pairs: everything filled in, a soft label, a tie, both-bad, a pair of latents."""
    folder = tmp_path / "store"
    clips = [_clip(folder, index) for index in range(4)]
    full = PreferencePair(
        prompt=PROMPT,
        a=replace(clips[0], seed=7, adapter="x", sampler={"num_steps": 30}, height=8, width=8),
        b=clips[1],
        labels={"overall": "A", "visual_quality": "B", "motion_quality": "tie", "style": "A"},
        margin=0.5,
        confidence=0.75,
        num_votes=4,
        weight=2.0,
        segments=(SegmentLabel(start=0, stop=2, label="B"),),
        source="arena",
    )
    soft = replace(_plain(clips[1], clips[2]), labels={}, soft={"overall": 0.25, "text_alignment": 0.5})
    tie = replace(_plain(clips[2], clips[3]), labels={"overall": "tie"})
    bad = replace(_plain(clips[3], clips[0]), labels={"overall": "both-bad", "motion_quality": "both-bad"})
    latents = [ClipRecord(path=f"{letter}.safetensors", sha256=letter * 64) for letter in "ab"]
    opened = PreferenceStore(folder / "pairs.jsonl")
    opened.append([full, soft, tie, bad, _plain(*latents)])
    return opened


def _clip(folder: Path, index: int) -> ClipRecord:
    path = folder / "films" / f"{index}.mkv"
    write_lossless(path, torch.full((FRAMES, 3, 8, 8), index / 4), FPS)
    return ClipRecord(path=f"films/{index}.mkv", sha256=sha256_file(path), model=f"model-{index}")


def _plain(a: ClipRecord, b: ClipRecord) -> PreferencePair:
    return PreferencePair(prompt="a wall", a=a, b=b, labels={"overall": "A"})


def with_paths_of(pairs: Any, originals: Any) -> list[PreferencePair]:
    """Return pairs with the paths of other ones: a path is where a clip lies, not what it is."""
    return [
        replace(p, a=replace(p.a, path=o.a.path), b=replace(p.b, path=o.b.path))
        for p, o in zip(pairs, originals, strict=True)
    ]


class TestVideoAlign:
    def test_what_the_layout_holds_comes_back(self, store: PreferenceStore, tmp_path: Path) -> None:
        full, soft, tie, bad, _ = store.read()
        export = export_videoalign(store.read(), store, tmp_path / "out" / "va.csv")
        back = import_videoalign(tmp_path / "out" / "va.csv", store)

        def as_held(pair: PreferencePair, **labels: Any) -> PreferencePair:
            a, b = (
                ClipRecord(path=c.path, sha256=c.sha256, model=c.model, num_frames=FRAMES, fps=FPS) for c in pair.clips
            )
            return PreferencePair(prompt=pair.prompt, a=a, b=b, labels=labels)

        assert back.pairs == (
            as_held(full, overall="A", visual_quality="B", motion_quality="tie"),
            as_held(soft, overall="B", text_alignment="tie"),
            as_held(tie, overall="tie"),
            as_held(bad, overall="tie", motion_quality="tie"),
        )
        assert (export.num_rows, export.dropped, back.dropped) == (4, {"a clip is latents, not video": 1}, {})
        once = ["clips.adapter", "clips.height", "clips.sampler", "clips.seed", "clips.width", "confidence", "margin"]
        once += ["labels.style", "num_votes", "segments", "source", "weight", "soft.overall", "soft.text_alignment"]
        once += ["both-bad of overall, written as same", "both-bad of motion_quality, written as same"]
        assert export.lost == dict.fromkeys(once, 1)

    def test_the_columns_are_those_of_their_loader(self, store: PreferenceStore, tmp_path: Path) -> None:
        export_videoalign(store.read(), store, tmp_path / "va.csv", copy_clips=True)
        with (tmp_path / "va.csv").open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        assert list(rows[0])[:6] == ["path_A", "path_B", "prompt", "VQ", "MQ", "TA"]
        assert [rows[0][name] for name in ("VQ", "MQ", "TA", "Overall", "A_model")] == [
            "B",
            "same",
            "invalid",
            "A",
            "model-0",
        ]
        assert (float(rows[0]["fps_A"]), int(rows[0]["num_frames_B"])) == (FPS, FRAMES)
        assert (tmp_path / rows[0]["path_A"]).parent == tmp_path / "clips" and (tmp_path / rows[0]["path_A"]).is_file()

    def test_their_own_example_form_is_read(self, store: PreferenceStore, tmp_path: Path) -> None:
        text = "\ufeffpath_A,path_B,prompt,VQ,MQ,TA,fps_A,num_frames_A,fps_B,num_frames_B,MOS_A_VQ\n"
        text += 'films/0.mkv,./films/1.mkv,"a wall, still",B,same,invalid,24.0,126.0,30.0,152.0,3.5\n'
        text += "films/0.mkv,films/2.mkv,a wall,invalid,,invalid,,,,,\nfilms/0.mkv,films/0.mkv,a wall,A,A,A,,,,,\n"
        (store.path.parent / "va.csv").write_text(text, encoding="utf-8")
        back = import_videoalign(store.path.parent / "va.csv", store)
        (pair,) = back.pairs
        assert pair.labels == {"visual_quality": "B", "motion_quality": "tie"} and pair.prompt == "a wall, still"
        assert (pair.a.path, pair.b.path) == ("films/0.mkv", "films/1.mkv")
        assert (pair.a.fps, pair.a.num_frames, pair.b.fps, pair.b.num_frames) == (24.0, 126, 30.0, 152)
        assert back.dropped == {"no valid answer": 1, "both clips are one file": 1} and back.lost == {"MOS_A_VQ": 1}

    def test_every_wrong_row_is_named_in_one_message(self, store: PreferenceStore, tmp_path: Path) -> None:
        path = store.path.parent / "va.csv"
        head, good = "path_A,path_B,prompt,VQ,MQ,TA,num_frames_A\n", "films/0.mkv,films/1.mkv,a wall,A,B,same,3\n"
        wrong = [
            "no.mkv,films/1.mkv,x,A,B,A,3",
            "films/0.mkv,films/1.mkv,x,A,better,A,3",
            "films/0.mkv,films/1.mkv,,A,A,A,3",
        ]
        wrong += ["films/0.mkv,films/1.mkv,x,A,A,A,many", "films/0.mkv,films/1.mkv,x,A,A,A,2.5"]
        path.write_text(head + good + "".join(line + "\n" for line in wrong))
        with pytest.raises(DataError, match=r"5 of 6 rows .*nothing was imported") as caught:
            import_videoalign(path, store)
        message = str(caught.value)
        for part in ("Line 3: clip 'no.mkv' does not exist", "Line 4: MQ='better' must be A, B, same or invalid",
                     "Line 5: prompt is empty", "Line 6: num_frames_A='many'", "Line 7: num_frames_A=2.5"):  # fmt: skip
            assert part in message
        path.write_text("path_A,path_B,caption\n")
        with pytest.raises(DataError, match="lacks the columns prompt, VQ, MQ, TA"):
            import_videoalign(path, store)
        path.write_text(head)
        with pytest.raises(DataError, match="there is no row"):
            import_videoalign(path, store)
        path.write_text(head + "films/0.mkv,films/1.mkv\n")
        with pytest.raises(DataError, match="more or fewer cells"):
            import_videoalign(path, store)
        path.write_bytes(b"\xff\xfe")
        with pytest.raises(DataError, match="not CSV in UTF-8"):
            import_videoalign(path, store)


class TestPickAPic:
    @pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet"])
    def test_what_the_layout_holds_comes_back(self, store: PreferenceStore, tmp_path: Path, name: str) -> None:
        pairs = store.read()
        export = export_pickapic(pairs, store, tmp_path / "out" / name)
        assert (export.num_rows, export.dropped) == (3, {"both-bad": 1, "a clip is latents, not video": 1})
        assert export.lost["soft.text_alignment"] == 1 and "soft.overall" not in export.lost
        target = PreferenceStore(tmp_path / "target" / "pairs.jsonl")
        back = import_pickapic(tmp_path / "out" / name, target)
        target.append(back.pairs)
        target.check_clips(target.read())

        def as_held(pair: PreferencePair) -> PreferencePair:
            a, b = (ClipRecord(path=clip.path, sha256=clip.sha256, model=clip.model) for clip in pair.clips)
            facts: Any = {
                name: {q: v for q, v in getattr(pair, name).items() if q == "overall"} for name in ("labels", "soft")
            }
            return PreferencePair(prompt=pair.prompt, a=a, b=b, **facts)

        assert with_paths_of(back.pairs, pairs[:3]) == [as_held(pair) for pair in pairs[:3]]
        assert all(target.clip_path(clip).suffix == ".mkv" for pair in back.pairs for clip in pair.clips)

    def test_parquet_holds_the_bytes_and_jsonl_the_paths(self, store: PreferenceStore, tmp_path: Path) -> None:
        pq = pytest.importorskip("pyarrow.parquet", reason='needs pip install -e ".[datasets]"')
        full, soft, *_ = store.read()
        export_pickapic([full, soft], store, tmp_path / "rows.parquet")
        export_pickapic([full, soft], store, tmp_path / "rows.jsonl")
        rows = pq.read_table(tmp_path / "rows.parquet").to_pylist()
        lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
        assert rows[0]["mp4_0"] == store.clip_path(full.a).read_bytes()
        assert lines[0]["mp4_0"] == "store/films/0.mkv"
        for row, line in zip(rows, lines, strict=True):
            assert {k: v for k, v in row.items() if "mp4" not in k} == {k: v for k, v in line.items() if "mp4" not in k}
        assert [(row["label_0"], row["label_1"]) for row in rows] == [(1.0, 0.0), (0.25, 0.75)]

    def test_rows_are_read_strictly(self, store: PreferenceStore) -> None:
        path = store.path.parent / "rows.jsonl"
        good = {"caption": "a wall", "mp4_0": "films/0.mkv", "mp4_1": "films/1.mkv", "label_0": 1, "ranking_id": 3}
        unlabelled = {**good, "has_label": False, "label_0": None}
        path.write_text(json.dumps(good) + "\n" + json.dumps(unlabelled) + "\n")
        back = import_pickapic(path, store, question="visual_quality")
        assert [pair.labels for pair in back.pairs] == [{"visual_quality": "A"}]
        assert back.dropped == {"has_label is false": 1} and back.lost == {"ranking_id": 1}
        for change, message in (
            ({"label_0": 1.5}, "label_0=1.5 must be a number between 0 and 1"),
            ({"label_0": True}, "label_0=True must be a number"),
            ({"label_1": 0.5}, "must sum to 1"),
            ({"caption": None}, "caption is missing"),
            ({"caption": 3}, "caption=3 must be text"),
            ({"mp4_1": 3}, "a clip is int"),
            ({"mp4_1": "no.mkv"}, "does not exist"),
        ):
            path.write_text(json.dumps({**good, **change}) + "\n")
            with pytest.raises(DataError, match=f"Line 1: .*{message}"):
                import_pickapic(path, store)
        with pytest.raises(DataError, match=r"must end in \.parquet"):
            export_pickapic(store.read(), store, store.path.parent / "rows.csv")


class TestDatasets:
    def test_the_whole_record_comes_back(self, store: PreferenceStore, tmp_path: Path) -> None:
        pytest.importorskip("pyarrow", reason='needs pip install -e ".[datasets]"')
        pairs = store.read()
        export = export_datasets(pairs, store, tmp_path / "hub")
        assert (export.num_rows, export.dropped, export.lost) == (4, {"a clip is latents, not video": 1}, {})
        back = import_datasets(tmp_path / "hub", store)
        assert with_paths_of(back.pairs, pairs[:4]) == list(pairs[:4])
        inside = PreferenceStore(tmp_path / "hub" / "pairs.parquet")
        inside.append(import_datasets(tmp_path / "hub", inside).pairs)
        inside.check_clips(inside.read())
        assert all(clip.path.startswith("clips/") for pair in inside.read() for clip in pair.clips)

    def test_datasets_loads_it_with_video_columns(
        self, store: PreferenceStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        datasets = pytest.importorskip("datasets", reason='needs pip install -e ".[datasets]"')
        pairs = store.read()
        export_datasets(pairs, store, tmp_path / "train-pairs")
        loaded = datasets.load_dataset(str(tmp_path / "train-pairs"), split="train", cache_dir=str(tmp_path / "cache"))
        assert isinstance(loaded.features["a"], datasets.Video) and isinstance(loaded.features["b"], datasets.Video)
        assert loaded.remove_columns(["a", "b"])[0]["margin"] == 0.5
        target = PreferenceStore(tmp_path / "target" / "pairs.jsonl")
        back = import_dataset(loaded, target, copy_clips=True)
        assert with_paths_of(back.pairs, pairs[:4]) == list(pairs[:4])
        target.append(back.pairs)
        target.check_clips(target.read())
        undecoded = loaded
        for side in ("a", "b"):
            undecoded = undecoded.cast_column(side, datasets.Video(decode=False))
        embedded = undecoded.map(
            lambda row: {s: {"path": "x.mkv", "bytes": Path(row[s]["path"]).read_bytes()} for s in ("a", "b")}
        )
        embedded.to_parquet(tmp_path / "shard.parquet")
        again = import_datasets(tmp_path / "shard.parquet", target)
        assert with_paths_of(again.pairs, pairs[:4]) == list(pairs[:4]), "clips inside the file, as push_to_hub writes"
        monkeypatch.delattr(datasets, "Video")
        with pytest.raises(DataError, match="has no Video feature"):
            import_dataset(loaded, target)

    def test_another_clip_under_the_name_is_refused(self, store: PreferenceStore, tmp_path: Path) -> None:
        pytest.importorskip("pyarrow", reason='needs pip install -e ".[datasets]"')
        export_datasets(store.read(), store, tmp_path / "hub")
        next((tmp_path / "hub" / "clips").iterdir()).write_bytes(b"another")
        with pytest.raises(DataError, match=r"2 of 4 rows .*is not the recorded one"):
            import_datasets(tmp_path / "hub", store)
        with pytest.raises(DataError, match="must be a folder"):
            export_datasets(store.read(), store, tmp_path / "pairs.parquet")
        with pytest.raises(DataError, match="only clips inside its folder"):
            export_datasets(store.read(), store, tmp_path / "hub", copy_clips=False)
        with pytest.raises(DataError, match=r"holds no metadata\.parquet"):
            import_datasets(tmp_path / "store", store)


@pytest.mark.parametrize(("copies", "names"), [(False, "../store/films"), (True, "clips")])
def test_clips_outside_the_store_stay_or_are_copied(
    store: PreferenceStore, tmp_path: Path, copies: bool, names: str
) -> None:
    export_videoalign(store.read(), store, tmp_path / "va.csv")
    target = PreferenceStore(tmp_path / "target" / "pairs.jsonl")
    target.append(import_videoalign(tmp_path / "va.csv", target, copy_clips=copies).pairs)
    assert {str(Path(clip.path).parent) for pair in target.read() for clip in pair.clips} == {names}
    target.check_clips(target.read())


def test_a_missing_clip_stops_every_export(store: PreferenceStore, tmp_path: Path) -> None:
    pairs = store.read()
    store.clip_path(pairs[0].a).unlink()
    for export, name in ((export_videoalign, "x.csv"), (export_pickapic, "x.jsonl"), (export_datasets, "x")):
        with pytest.raises(DataError, match=r"films/0\.mkv is missing"):
            export(pairs, store, tmp_path / name)
        assert not (tmp_path / name).exists()
