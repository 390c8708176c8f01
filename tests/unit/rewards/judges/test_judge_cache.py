"""The judge's cache: shared by threads and processes, safe over a crash, plain about a broken file."""

import pickle
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rewards.errors import RewardError
from rewards.judge_cache import JudgeCache

WRITER = """
import sys
from rewards.judge_cache import JudgeCache
cache = JudgeCache(sys.argv[1])
for i in range(20):
    cache.put(f"{sys.argv[2]}-{i}", {"text": sys.argv[2] * 100, "i": i})
"""
HALF_WRITER = """
import os, sqlite3, sys
from rewards.judge_cache import JudgeCache
JudgeCache(sys.argv[1]).put("kept", {"text": "whole"})
half = sqlite3.connect(sys.argv[1])
half.execute("BEGIN IMMEDIATE")
half.execute("INSERT INTO answers VALUES ('half', '{}')")
os._exit(1)
"""


def test_answer_comes_back_and_a_new_one_replaces_it(tmp_path: Path) -> None:
    cache = JudgeCache(tmp_path / "judge.sqlite")
    assert cache.get("a") is None
    cache.put("a", {"text": "eins \N{EN DASH} 2"})
    cache.put("a", {"text": "zwei", "tokens": [{"token": "2"}]})
    assert cache.get("a") == {"text": "zwei", "tokens": [{"token": "2"}]}
    assert len(cache) == 1


def test_threads_lose_nothing(tmp_path: Path) -> None:
    cache = JudgeCache(tmp_path / "judge.sqlite")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: cache.put(str(i), {"i": i}), range(60)))
    assert [cache.get(str(i)) for i in range(60)] == [{"i": i} for i in range(60)]


def test_processes_lose_nothing(tmp_path: Path) -> None:
    file = tmp_path / "judge.sqlite"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(file), name]) for name in "ab"]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0]
    cache = JudgeCache(file)
    assert len(cache) == 40
    assert cache.get("b-19") == {"text": "b" * 100, "i": 19}


def test_crash_in_the_middle_of_writing_keeps_what_was_whole(tmp_path: Path) -> None:
    file = tmp_path / "judge.sqlite"
    assert subprocess.run([sys.executable, "-c", HALF_WRITER, str(file)], timeout=60, check=False).returncode == 1
    cache = JudgeCache(file)
    assert cache.get("kept") == {"text": "whole"}
    assert cache.get("half") is None
    cache.put("after", {})
    assert len(cache) == 2


def test_cache_pickles_as_its_file(tmp_path: Path) -> None:
    cache = JudgeCache(tmp_path / "judge.sqlite")
    cache.put("a", {"i": 1})
    assert pickle.loads(pickle.dumps(cache)).get("a") == {"i": 1}


def test_file_that_is_no_cache_is_named(tmp_path: Path) -> None:
    file = tmp_path / "judge.sqlite"
    file.write_bytes(b"this is not a database" * 100)
    with pytest.raises(RewardError, match=r"judge\.sqlite cannot be used .*name another file"):
        JudgeCache(file)
    (tmp_path / "file").write_text("")
    with pytest.raises(RewardError, match="Cannot make the folder"):
        JudgeCache(tmp_path / "file" / "judge.sqlite")


def test_damaged_file_is_an_error_and_no_miss(tmp_path: Path) -> None:
    file = tmp_path / "judge.sqlite"
    cache = JudgeCache(file)
    cache.put("a", {"i": 1})
    with sqlite3.connect(file) as database:
        database.execute("DROP TABLE answers")
    with pytest.raises(RewardError, match="cannot be used"):
        cache.get("a")
