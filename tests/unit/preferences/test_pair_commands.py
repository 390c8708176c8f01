"""`rlhf-video pairs` imports, exports and checks files of preference pairs."""

from pathlib import Path

import pytest

from rlhf_video.cli import main
from rlhf_video.preferences import PreferenceStore
from rlhf_video.preferences.layouts import LAYOUTS
from rlhf_video.testing.tiny_pairs import tiny_pairs

TARGETS = {"videoalign": "x.csv", "pickapic": "x.parquet", "datasets": "x", "trl": "x.jsonl", "trl-unpaired": "x.jsonl"}


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return tiny_pairs(tmp_path / "pairs.jsonl", adjectives=("big",), every_tie=4).path


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_written_and_read(
    pairs: Path, tmp_path: Path, layout: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out, back = str(tmp_path / "out" / TARGETS[layout]), tmp_path / "back" / "pairs.parquet"
    assert main(["pairs", "export", layout, str(pairs), out]) == 0
    printed = capsys.readouterr().out
    rows = {"trl": 27, "trl-unpaired": 54}.get(layout, 36)
    assert printed.startswith(f"rows             {rows} in {out}\n")
    assert ("no winner of overall (9)" in printed) == layout.startswith("trl") and ("source (" in printed) == (
        layout != "datasets"
    )
    if LAYOUTS[layout].import_pairs is None:
        with pytest.raises(SystemExit, match="2"):
            main(["pairs", "import", layout, out, str(back)])
        return
    assert main(["pairs", "import", layout, out, str(back), "--copy-clips"]) == 0
    assert capsys.readouterr().out.startswith(f"pairs            {rows} in {back}\n")
    store = PreferenceStore(back)
    store.check_clips(store.read())
    winners = {
        (pair.prompt, pair.winner() and pair.clips["AB".index(pair.winner() or "")].sha256) for pair in store.read()
    }
    originals = PreferenceStore(pairs).read()
    assert winners <= {(p.prompt, p.winner() and p.clips["AB".index(p.winner() or "")].sha256) for p in originals}
    assert main(["pairs", "check", str(back)]) == 0
    with pytest.raises(SystemExit, match="2"):
        main(["pairs", "import", layout, out, str(back)])
    assert "exists: an import makes a new file" in capsys.readouterr().err


def test_check_lists_defects_and_exits_with_1(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pairs", "check", str(pairs)]) == 0
    assert "nothing wrong" in capsys.readouterr().out
    store = PreferenceStore(pairs)
    for pair in store.read()[:3]:
        store.clip_path(pair.a).unlink()
    assert main(["pairs", "check", str(pairs), "--no-decode", "--no-hashes", "--limit", "1"]) == 1
    assert "3 clips cannot be used: clips/big-0-a.mkv is missing; and 2 more." in capsys.readouterr().out
    assert main(["pairs", "check", str(pairs), "--question", "style"]) == 1
    assert "no pair has a winner of style" in capsys.readouterr().out


def test_an_export_never_replaces_the_pairs(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = pairs.read_bytes()
    with pytest.raises(SystemExit, match="2"):
        main(["pairs", "export", "trl", str(pairs), str(pairs)])
    assert "is the file of pairs itself" in capsys.readouterr().err and pairs.read_bytes() == content


def test_a_question_for_a_layout_of_several_is_refused(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["pairs", "export", "videoalign", str(pairs), str(pairs.parent / "x.csv"), "--question", "overall"])
    assert "--question does not fit videoalign" in capsys.readouterr().err


def test_packing_leaves_out_the_clips_that_no_pair_names(pairs: Path, tmp_path: Path) -> None:
    (pairs.parent / "clips" / "unpaired.mkv").write_bytes(b"of a tie")
    (pairs.parent / "manifest.json").write_text("{}")
    target = tmp_path / "packed"
    assert main(["pairs", "pack", str(pairs.parent), str(target)]) == 0
    packed = PreferenceStore(target / pairs.name)
    assert packed.read() == PreferenceStore(pairs).read()
    packed.check_clips(packed.read())
    assert not (target / "clips" / "unpaired.mkv").exists()
    assert (target / "manifest.json").read_text() == "{}"


def test_packing_into_a_folder_that_exists_is_refused(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "packed").mkdir()
    with pytest.raises(SystemExit, match="2"):
        main(["pairs", "pack", str(pairs.parent), str(tmp_path / "packed")])
    assert "name a new folder" in capsys.readouterr().err
