from pathlib import Path

import pytest

from rlhf_video.data import load_prompts
from rlhf_video.errors import DataError


def _write(folder: Path, text: str, name: str = "suite.txt") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_suite_keeps_order_and_skips_comments(tmp_path: Path) -> None:
    suite = load_prompts(_write(tmp_path, "# version: 3\n# two prompts\na red circle\n# spacer\n  a blue square \n\n"))
    assert suite.prompts == ("a red circle", "a blue square")
    assert (suite.name, suite.version, len(suite)) == ("suite", "3", 2)


def test_hash_depends_on_the_prompts_alone(tmp_path: Path) -> None:
    plain = load_prompts(_write(tmp_path, "a\nb\n"))
    commented = load_prompts(_write(tmp_path, "# note\na\n# note\nb\n\n", "other.txt"))
    other = load_prompts(_write(tmp_path, "b\na\n", "third.txt"))
    assert plain.sha256 == commented.sha256 != other.sha256


def test_json_lines_may_carry_other_keys(tmp_path: Path) -> None:
    suite = load_prompts(_write(tmp_path, '{"prompt": "a cat", "tag": 1}\n{"prompt": "a dog"}\n', "suite.jsonl"))
    assert suite.prompts == ("a cat", "a dog")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("empty.txt", "# nothing\n\n", "holds no prompt"),
        ("blank.txt", "a\n\nb\n", "Line 2 .* is blank"),
        ("double.txt", "a cat\na dog\nA  Cat\n", "Line 3 .* repeats line 1"),
        ("suite.csv", "a\n", r"use \.txt"),
        ("bad.jsonl", '{"prompt": "a"}\n{prompt}\n', "Line 2 .* is not JSON"),
        ("blank.jsonl", '{"prompt": " "}\n', 'Line 1 .* has no text under "prompt"'),
        ("list.jsonl", "[1]\n", "Line 1"),
        ("gap.jsonl", '{"prompt": "a"}\n\n{"prompt": "b"}\n', "Line 2"),
    ],
)
def test_ambiguous_suites_are_refused_with_their_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_prompts(_write(tmp_path, text, name))


def test_missing_file_and_wrong_encoding_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        load_prompts(tmp_path / "none.txt")
    (tmp_path / "latin.txt").write_bytes("caf\xe9\n".encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8"):
        load_prompts(tmp_path / "latin.txt")
