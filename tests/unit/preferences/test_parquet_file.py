"""A Parquet store holds the same records as a JSON lines one, in typed columns, and refuses what is no pair."""

import json
import string
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_video.errors import DataError
from rlhf_video.preferences import ClipRecord, PreferencePair, PreferenceStore, SegmentLabel

pa = pytest.importorskip("pyarrow", reason='needs pip install -e ".[datasets]"')
pq = pytest.importorskip("pyarrow.parquet")


def optional(values: st.SearchStrategy) -> st.SearchStrategy:
    return st.none() | values


words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
numbers = st.floats(0, 1e9, allow_subnormal=True)
shares = st.floats(0, 1)
labels = st.sampled_from(["A", "B", "tie", "both-bad"])
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | words, lambda inner: st.lists(inner), max_leaves=3
)


def clips(letter: str) -> st.SearchStrategy[ClipRecord]:
    return st.builds(
        ClipRecord,
        path=st.text(string.ascii_letters, min_size=1, max_size=5),
        sha256=st.just(letter * 64),
        seed=optional(st.integers(-(2**63), 2**63 - 1)),
        model=optional(words),
        adapter=optional(words),
        sampler=st.dictionaries(words, plain, max_size=2),
        num_frames=optional(st.integers(1, 2**40)),
        height=optional(st.integers(1, 4096)),
        width=optional(st.integers(1, 4096)),
        fps=optional(st.floats(0.1, 240)),
    )


segments = st.builds(lambda start, length, label: SegmentLabel(start=start, stop=start + length, label=label),
                     st.integers(0, 99), st.integers(1, 99), labels)  # fmt: skip
pairs = st.builds(
    PreferencePair,
    prompt=words.filter(str.strip),
    a=clips("a"),
    b=clips("b"),
    labels=st.dictionaries(words, labels, min_size=1, max_size=3),
    soft=st.dictionaries(words, shares, max_size=2),
    margin=optional(numbers),
    confidence=optional(shares),
    num_votes=optional(st.integers(1, 2**40)),
    weight=numbers,
    segments=st.lists(segments, max_size=2).map(tuple),
    source=optional(words),
)


@settings(max_examples=12)
@given(first=st.lists(pairs, min_size=1, max_size=3), second=st.lists(pairs, max_size=2))
def test_both_kinds_of_file_hold_the_same_records(
    tmp_path_factory: pytest.TempPathFactory, first: list[PreferencePair], second: list[PreferencePair]
) -> None:
    folder = tmp_path_factory.mktemp("stores")
    for name in ("pairs.jsonl", "pairs.parquet"):
        store = PreferenceStore(folder / name)
        assert (store.append(first), store.append(second)) == (len(first), len(second))
        back = store.read()
        assert back == (*first, *second)
        assert repr(back) == repr((*first, *second)), "0.0 is not -0.0, 1 is not 1.0 is not True"


def pair(**facts: Any) -> PreferencePair:
    a, b = (ClipRecord(path=f"clips/{letter}.mkv", sha256=letter * 64) for letter in "ab")
    return PreferencePair(prompt="a red wall", a=a, b=b, **{"labels": {"overall": "A"}, **facts})


def test_columns_are_typed(tmp_path: Path) -> None:
    store = PreferenceStore(tmp_path / "pairs.parquet")
    store.append(
        [pair(), pair(margin=0.5, soft={"overall": 0.25}, segments=(SegmentLabel(start=0, stop=4, label="B"),))]
    )
    schema = pq.read_schema(store.path)
    assert schema.field("margin").type == pa.float64() and schema.field("num_votes").type == pa.int64()
    assert schema.field("a").type.field("seed").type == pa.int64()
    assert schema.field("segments").type.value_type.field("start").type == pa.int64()
    table = pq.read_table(store.path)
    assert table["margin"].to_pylist() == [None, 0.5] and table["soft"][1].as_py() == [
        {"question": "overall", "share": 0.25}
    ]


def rewrite(store: PreferenceStore, **columns: object) -> None:
    rows = [{**row, **columns} for row in pq.read_table(store.path).to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows), store.path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"margins": 1.0}, "Unknown key 'margins'. Did you mean 'margin'"),
        ({"margin": "much"}, "'margin' expects number, got text 'much'"),
        ({"margin": -1.0}, "at least 0"),
        ({"prompt": None}, "'prompt' is required"),
        ({"version": 2}, "reads version 1"),
        ({"labels": [{"question": "overall", "answer": "C"}]}, "must be one of A, B, tie, both-bad"),
        ({"labels": [{"question": "overall", "answer": "A"}] * 2}, "answers 'overall' twice"),
        ({"labels": "A"}, "each entry is a struct of 'question' and 'answer'"),
        ({"a": {"path": "a.mkv", "sha256": "a" * 64, "sampler": "{"}}, r"'a\.sampler' is not JSON"),
        ({"a": {"path": "a.mkv", "sha256": "a" * 64, "sampler": '{"x": NaN}'}}, "NaN is not JSON"),
        ({"a": {"path": "a.mkv", "sha256": "a" * 64, "sampler": "[1]"}}, r"'a\.sampler' expects mapping"),
        ({"b": {"path": "b.mkv", "sha256": "b" * 64, "sed": 1}}, "Did you mean 'b.seed'"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    store = PreferenceStore(tmp_path / "pairs.parquet")
    store.append([pair()])
    rewrite(store, **change)
    with pytest.raises(DataError, match=f"Row 1 of .*{message}"):
        store.read()


def test_a_file_that_is_no_parquet_empty_or_too_large_a_number_is_refused(tmp_path: Path) -> None:
    store = PreferenceStore(tmp_path / "pairs.parquet")
    store.append([])
    with pytest.raises(DataError, match="holds no preference pair"):
        store.read()
    content = store.path.read_bytes()
    store.path.write_bytes(content[:-6])
    for use in (store.read, lambda: store.append([pair()])):
        with pytest.raises(DataError, match="cannot be read as Parquet"):
            use()
    store.path.write_bytes(content)
    with pytest.raises(DataError, match="64 bits"):
        store.append([pair(num_votes=2**70)])
    assert store.path.read_bytes() == content, "a failed append leaves the old file"
    assert [path.name for path in tmp_path.iterdir()] == ["pairs.parquet"]


def test_without_pyarrow_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DataError, match=r'needs pyarrow .*"\.\[datasets\]"'):
        PreferenceStore(tmp_path / "pairs.parquet").append([pair()])
    lines = PreferenceStore(tmp_path / "pairs.jsonl")
    lines.append([pair()])
    assert lines.read() == (pair(),), "JSON lines need no pyarrow"


def test_nan_in_json_lines_is_refused(tmp_path: Path) -> None:
    store = PreferenceStore(tmp_path / "pairs.jsonl")
    store.append([replace(pair(), a=replace(pair().a, sampler={"guidance": 1.0}))])
    store.path.write_text(json.dumps(json.loads(store.path.read_text())).replace("1.0}", "NaN}"))
    with pytest.raises(DataError, match=r"Line 1 of .*NaN is not JSON"):
        store.read()
