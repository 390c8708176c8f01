import json
from collections.abc import Callable
from pathlib import Path

import pytest

from evaluation.judging.benchmarks import read_benchmark
from rlhf_video.errors import DataError

VIDEOGEN = "videogen-rewardbench"


def _genai(path: Path, *rows: dict[str, object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _vote(vote: object, **changes: object) -> dict[str, object]:
    clips = {"left_video": "x/1.mp4", "right_video": "y/1.mp4"}
    return {"prompt": "a cat", **clips, "left_model": "X", "right_model": "Y", "vote_type": vote, **changes}


def test_videogen_rows_become_comparisons_with_labels_of_every_dimension(bench_root: Path) -> None:
    benchmark = read_benchmark(VIDEOGEN, bench_root)
    assert benchmark.dimensions == ("VQ", "MQ", "TA", "Overall")
    assert len(benchmark.comparisons) == 9
    first = benchmark.comparisons[0]
    assert first.clip_a == bench_root / "videos/dim/0.mp4" and first.clip_b == bench_root / "videos/bright/0.mp4"
    assert (first.model_a, first.model_b, first.prompt, first.source) == ("dim", "bright", "a red circle", "line 2")
    assert first.labels == {"VQ": "tie", "MQ": "B", "TA": "B", "Overall": "B"}
    assert benchmark.missing() == () and benchmark.dropped == {}


def test_each_clip_is_listed_once_however_many_comparisons_share_it(bench_root: Path) -> None:
    clips = read_benchmark(VIDEOGEN, bench_root).clips()
    assert len(clips) == len(set(clips)) == 9


def test_missing_clips_are_listed_without_opening_any(bench_root: Path) -> None:
    gone = [bench_root / "videos/dim/1.mp4", bench_root / "videos/bright/2.mp4"]
    for path in gone:
        path.unlink()
    assert sorted(read_benchmark(VIDEOGEN, bench_root).missing()) == sorted(gone)


def test_empty_labels_are_dropped_and_counted(
    tmp_path: Path, make_row: Callable[..., dict[str, str]], make_csv: Callable[..., Path]
) -> None:
    rows = [make_row("a star", "dim", "bright", MQ=label) for label in ("A", "", "nan", "B")]
    make_csv(tmp_path / "videogen-rewardbench.csv", rows)
    benchmark = read_benchmark(VIDEOGEN, tmp_path)
    assert benchmark.dropped == {"MQ": {"": 2}}
    assert ["MQ" in item.labels for item in benchmark.comparisons] == [True, False, False, True]


def test_unknown_label_is_refused_with_its_line_and_dropped_on_request(
    tmp_path: Path, make_row: Callable[..., dict[str, str]], make_csv: Callable[..., Path]
) -> None:
    rows = [make_row("a star", "dim", "bright"), make_row("a star", "dim", "bright", TA="a", VQ="22")]
    make_csv(tmp_path / "videogen-rewardbench.csv", rows)
    with pytest.raises(DataError, match=r"2 labels that are none of A, B, same: '22' \(VQ, line 3\), 'a' \(TA, line 3"):
        read_benchmark(VIDEOGEN, tmp_path)
    benchmark = read_benchmark(VIDEOGEN, tmp_path, drop_unknown_labels=True)
    assert benchmark.dropped == {"VQ": {"22": 1}, "TA": {"a": 1}}
    assert set(benchmark.comparisons[1].labels) == {"MQ", "Overall"}


def test_prompt_with_commas_quotes_and_line_breaks_survives_csv(
    tmp_path: Path, make_row: Callable[..., dict[str, str]], make_csv: Callable[..., Path]
) -> None:
    prompt = 'a "red", very\nred circle\u2028indeed'
    rows = [make_row("a star", "dim", "bright") | {"prompt": prompt}, make_row("a star", "dim", "bright")]
    make_csv(tmp_path / "videogen-rewardbench.csv", rows)
    assert [item.prompt for item in read_benchmark(VIDEOGEN, tmp_path).comparisons] == [prompt, "a star"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "path_A,path_B,prompt,A_model,B_model,VQ,MQ,Overall\na,b,c,d,e,A,A,A\n",
            "lacks the columns TA; it has path_A",
        ),
        ("path_A,path_A\na,b\n", "names path_A twice"),
        ("path_A,path_B\na,b,c\n", "Line 2 of .* has 3 cells where the header has 2"),
        ("path_A,path_B\n", "holds no row"),
        ("", "holds no row"),
        ('path_A,path_B\na,"b\n', "is not CSV"),
    ],
)
def test_csv_of_another_form_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "videogen-rewardbench.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_benchmark(VIDEOGEN, tmp_path)


@pytest.mark.parametrize(("column", "value"), [("prompt", " "), ("path_A", "")])
def test_row_without_prompt_or_clip_is_refused_with_its_line(
    tmp_path: Path,
    make_row: Callable[..., dict[str, str]],
    make_csv: Callable[..., Path],
    column: str,
    value: str,
) -> None:
    make_csv(tmp_path / "videogen-rewardbench.csv", [make_row("a star", "dim", "bright") | {column: value}])
    with pytest.raises(DataError, match=f"Line 2 of .*'{column}' must be a text"):
        read_benchmark(VIDEOGEN, tmp_path)


def test_missing_file_says_where_it_comes_from(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"does not exist\. It comes with the dataset KwaiVGI/VideoGen-RewardBench"):
        read_benchmark(VIDEOGEN, tmp_path)


def test_parquet_is_refused_with_the_export_command(tmp_path: Path) -> None:
    (tmp_path / "test.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"ends in '\.parquet'.*to_json\('genai-bench\.jsonl'\)"):
        read_benchmark("genai-bench", tmp_path, file=tmp_path / "test.parquet")


def test_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "videogen-rewardbench.csv").write_bytes(b"path_A\n\xff\xfe\n")
    with pytest.raises(DataError, match=r"not UTF-8 text \(byte 7\)"):
        read_benchmark(VIDEOGEN, tmp_path)


def test_unknown_benchmark_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Known: videogen-rewardbench, genai-bench, preferences"):
        read_benchmark("vbench", tmp_path)


def test_genai_votes_become_labels_and_both_bad_is_a_tie(tmp_path: Path) -> None:
    votes = ("leftvote", "rightvote", "tievote", "bothbad_vote", None)
    _genai(tmp_path / "genai-bench.jsonl", *(_vote(vote) for vote in votes))
    benchmark = read_benchmark("genai-bench", tmp_path)
    assert [item.labels.get("Overall") for item in benchmark.comparisons] == ["A", "B", "tie", "tie", None]
    assert benchmark.dropped == {"Overall": {"": 1}}
    assert benchmark.comparisons[0].clip_a == tmp_path / "x/1.mp4"


def test_genai_hub_addresses_become_paths_inside_the_repository(tmp_path: Path) -> None:
    base = "https://huggingface.co/datasets/owner/videos"
    left, right = f"{base}/blob/main/X/0a.mp4", f"{base}/resolve/main/Y/0b.mp4?download=true"
    _genai(tmp_path / "genai-bench.jsonl", _vote("leftvote", left_video=left, right_video=right.split("?")[0]))
    (item,) = read_benchmark("genai-bench", tmp_path).comparisons
    assert (item.clip_a, item.clip_b) == (tmp_path / "X/0a.mp4", tmp_path / "Y/0b.mp4")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "Line 2 of .* is not JSON"),
        ("[1]", "Line 2 of .* is not an object"),
        ('{"prompt": "a"}', "Line 2 of .* lacks the columns left_video"),
        (json.dumps(_vote("leftvote", prompt=3)), "Line 2 of .*'prompt' must be a text, got 3"),
        (json.dumps(_vote(1)), "Line 2 of .*'vote_type' must be a text, got 1"),
    ],
)
def test_json_lines_of_another_form_are_refused_with_their_line(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "genai-bench.jsonl").write_text(json.dumps(_vote("leftvote")) + "\n" + line + "\n")
    with pytest.raises(DataError, match=message):
        read_benchmark("genai-bench", tmp_path)


def _pair(**changes: object) -> dict[str, object]:
    return {"version": 1, "prompt": "a cat", "a": {"path": "1.mp4"}, "b": {"path": "2.mp4"}, **changes}


def test_own_preferences_name_their_dimensions_themselves(tmp_path: Path) -> None:
    lines = [
        _pair(labels={"motion": "A"}),
        _pair(labels={"overall": "both-bad", "motion": "B"}, b={"path": "3.mp4", "model": "Y", "adapter": "Z"}),
    ]
    _genai(tmp_path / "preferences.jsonl", *lines)
    benchmark = read_benchmark("preferences", tmp_path)
    assert benchmark.dimensions == ("motion", "overall")
    assert [dict(item.labels) for item in benchmark.comparisons] == [{"motion": "A"}, {"overall": "tie", "motion": "B"}]
    second = benchmark.comparisons[1]
    assert (second.model_a, second.model_b, second.clip_b) == ("unknown", "Y + Z", tmp_path / "3.mp4")


def test_own_preferences_count_the_share_of_raters_before_the_label(tmp_path: Path) -> None:
    lines = [_pair(soft={"overall": share}, labels={"overall": "A"}) for share in (0.9, 0.5, 0)]
    _genai(tmp_path / "preferences.jsonl", *lines, _pair(soft={"overall": 0.4}))
    labels = [item.labels["overall"] for item in read_benchmark("preferences", tmp_path).comparisons]
    assert labels == ["A", "tie", "B", "B"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "Line 1 of .* answers nothing"),
        ({"labels": {}}, "Line 1 of .* answers nothing"),
        ({"labels": "A"}, "'labels' must be an object"),
        ({"labels": {"overall": 1}}, "'overall' must be a text, got 1"),
        ({"labels": {"overall": "C"}}, "none of A, B, tie, both-bad: 'C'"),
        ({"soft": {"overall": 1.5}}, "soft.overall must be in"),
        ({"soft": {"overall": True}}, "soft.overall must be in"),
        ({"labels": {"overall": "A"}, "a": "1.mp4"}, "'a' must be an object"),
        ({"labels": {"overall": "A"}, "b": {}}, "'path' must be a text"),
    ],
)
def test_own_preferences_of_another_form_are_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    _genai(tmp_path / "preferences.jsonl", _pair(**changes))
    with pytest.raises(DataError, match=message):
        read_benchmark("preferences", tmp_path)


def test_benchmark_without_one_valid_label_is_refused(tmp_path: Path) -> None:
    _genai(tmp_path / "genai-bench.jsonl", _vote(None))
    with pytest.raises(DataError, match="not one valid label"):
        read_benchmark("genai-bench", tmp_path)
