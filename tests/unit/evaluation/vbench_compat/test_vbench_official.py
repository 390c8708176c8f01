"""VBench's dimensions through the worker: with a stand-in for the package, so that every path is walked in seconds."""

import argparse
import collections
import contextlib
import dataclasses
import json
import math
import pickle
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch

from evaluation.base import ClipEntry, DecodedClip, Metric, SkipClipError
from evaluation.registry import NamedMetric
from evaluation.running.runner import score_clips, system_scores
from evaluation.running.store import ResultStore
from evaluation.vbench_compat import official as vbench_official
from evaluation.vbench_compat.official import FACT_KEYS, UNITS, VBenchOfficial
from rewards.errors import RewardError
from rewards.ledger import LEDGER
from rewards.workers import vbench_cache
from rewards.workers.child import load_module
from rewards.workers.environments import Environment
from rewards.workers.process import ItemError
from rewards.workers.resident import ResidentWorker
from rewards.workers.vbench_cache import DETECTORS, FILES
from rlhf_video.errors import DataError

SCORER = Path(vbench_cache.__file__).with_name("vbench_scorer.py")
STAND_IN = Path(__file__).with_name("stand_in_scorer.py")
Build = Callable[..., VBenchOfficial]
FACTS = {
    "object_class": {"object": "person"},
    "multiple_objects": {"object": "bird and cat"},
    "color": {"color": "red"},
    "spatial_relationship": {"spatial_relationship": {"object_a": "cat", "object_b": "dog", "relationship": "on top"}},
    "scene": {"scene": {"scene": "alley"}},
    "appearance_style": {"appearance_style": "Van Gogh style"},
}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a cache folder in which every file is there, though none holds weights."""
    pretend_all_is_there(monkeypatch)
    return fill(tmp_path / "cache")


def fill(folder: Path) -> Path:
    for _, path in {file for files in FILES.values() for file in files}:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(path)
    (folder / vbench_cache.DINO_CODE).mkdir()
    (folder / vbench_cache.DINO_CODE / "hubconf.py").touch()
    return folder


def pretend_all_is_there(patch: pytest.MonkeyPatch) -> None:
    made = Environment(Path(sys.prefix), "3.11", {"detectron2": "0.6"})
    patch.setattr(vbench_cache, "try_to_load_from_cache", lambda _repository, file: file)
    patch.setattr(vbench_official, "require", lambda _worker: made)


@contextlib.contextmanager
def stand_in(cache: Path) -> Iterator[Build]:
    """Yield a function that builds a dimension; one process of the stand-in serves them all."""
    worker = ResidentWorker(
        worker="vbench",
        scorer=STAND_IN,
        python=sys.executable,
        settings={"cache": str(cache), "device": "cpu"},
        dimensions=tuple(FILES),
        lock=None,
        deadline_s=60.0,
    )

    def make(dimension: str, **options: Any) -> VBenchOfficial:
        with pytest.MonkeyPatch.context() as patch:
            pretend_all_is_there(patch)
            patch.setattr(vbench_official, "_shared_worker", lambda *_: worker)
            return VBenchOfficial(dimension, cache_dir=cache, device="cpu", **options)

    yield make
    worker.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the cache folder in which the stand-in notes what it was given."""
    return fill(tmp_path_factory.mktemp("vbench") / "cache")


@pytest.fixture(scope="module")
def build(shared: Path) -> Iterator[Build]:
    with stand_in(shared) as make:
        yield make


def clip(folder: Path, prompt: str = "a person is riding a bike", **facts: object) -> DecodedClip:
    file = folder / "some clip.mp4"
    file.write_text("frames")
    entry = ClipEntry(file=file, sha256="0", prompt=prompt, facts={**FACTS, **facts})
    return DecodedClip(entry, torch.empty(0, 3, 0, 0, dtype=torch.uint8), 0.0)


def test_tables_know_the_sixteen_dimensions_and_the_scorer_the_same() -> None:
    assert len(FILES) == 16
    assert tuple(load_module(str(SCORER)).DIMENSIONS) == tuple(FILES)
    assert set(UNITS) == set(FILES) and set(FACT_KEYS) == set(FACTS)
    assert {name for files in FILES.values() for name, _ in files} <= set(LEDGER)


@pytest.mark.parametrize("dimension", FILES)
def test_every_dimension_reaches_its_function_with_its_clip_and_facts(
    dimension: str, build: Build, shared: Path, tmp_path: Path
) -> None:
    metric = build(dimension)
    assert isinstance(metric, Metric)
    assert metric.spec.family == "vbench-official" and metric.spec.reads == "file"
    assert metric.score(clip(tmp_path)).values == {dimension: 0.25}
    (seen,) = json.loads((shared / f"{dimension}.json").read_text())
    assert seen["dimension"] == [dimension]
    assert seen.get("auxiliary_info") == ({dimension: FACTS[dimension]} if dimension in FACTS else None)
    assert (shared / f"{dimension}.txt").read_text() == "frames"  # of the clip that it opened
    name = Path(seen["video_list"][0]).name
    assert name == ("a person is riding a bike-0.mp4" if dimension == "human_action" else "clip-0.mp4")


def test_word_alone_is_as_good_as_the_suites_own_facts(build: Build, shared: Path, tmp_path: Path) -> None:
    for dimension, word in (("color", "red"), ("scene", "alley")):
        build(dimension).score(clip(tmp_path, **{dimension: word}))
        (seen,) = json.loads((shared / f"{dimension}.json").read_text())
        assert seen["auxiliary_info"] == {dimension: FACTS[dimension]}


def test_missing_facts_are_an_error_that_names_them(build: Build, shared: Path, tmp_path: Path) -> None:
    bare = clip(tmp_path)
    bare = dataclasses.replace(bare, entry=dataclasses.replace(bare.entry, facts={}))
    with pytest.raises(DataError, match=r"color: {color: "):
        build("color").score(bare)


def test_what_vbench_leaves_out_is_skipped(build: Build, shared: Path, tmp_path: Path) -> None:
    with pytest.raises(SkipClipError, match="leaves such clips out"):
        build("color").score(clip(tmp_path, prompt="colourless"))
    with pytest.raises(SkipClipError, match="Kinetics-400 \\('flying'\\)"):
        build("human_action").score(clip(tmp_path, prompt="a person is flying"))


@pytest.mark.parametrize(
    ("dimension", "prompt", "named"),
    [
        ("object_class", "out of memory", "object_class: RuntimeError: CUDA out of memory"),  # VBench says 0.0
        ("temporal_flickering", "unreadable", "0 results for one clip"),  # VBench says NaN
        ("motion_smoothness", "nan", "not a finite number"),
        ("scene", "division", "ZeroDivisionError"),
        ("human_action", "a person is 1/2", "can be none"),
    ],
)
def test_swallowed_failure_is_a_failure(
    dimension: str, prompt: str, named: str, build: Build, shared: Path, tmp_path: Path
) -> None:
    with pytest.raises(ItemError, match=named):
        build(dimension).score(clip(tmp_path, prompt=prompt))


def test_flickering_is_asked_of_clips_that_pass_the_ports_static_filter(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Filter:
        def __init__(self, weights: str, **_: object) -> None:
            assert weights == "raft_things"

        def why_moving(self, clip: DecodedClip) -> str | None:
            return "it moves: a lot" if clip.entry.prompt == "moves" else None

    monkeypatch.setattr(vbench_official, "StaticFilter", Filter)
    metric = build("temporal_flickering", static_filter="raft_things")
    assert (metric.spec.first_of_prompt, metric.spec.reads, metric.spec.weights) == (5, "frames", ("raft_things",))
    assert build("temporal_flickering").spec.first_of_prompt is None
    still, moving = (
        dataclasses.replace(clip(tmp_path, prompt=prompt), frames=torch.zeros(3, 3, 8, 8, dtype=torch.uint8))
        for prompt in ("stands still", "moves")
    )
    assert metric.score(still).values == {"temporal_flickering": 0.25}
    with pytest.raises(SkipClipError, match="it moves: a lot"):
        metric.score(moving)
    with pytest.raises(RewardError, match="temporal_flickering alone: drop it for scene"):
        build("scene", static_filter="raft_things")


def test_models_are_loaded_once(build: Build, shared: Path, tmp_path: Path) -> None:
    for _ in range(2):
        for dimension in ("background_consistency", "appearance_style", "aesthetic_quality"):
            build(dimension).score(clip(tmp_path))
    assert (shared / "loaded.txt").read_text().split() == ["ViT-B-32.pt", "ViT-L-14.pt"]


def test_dimension_that_kills_the_worker_fails_alone_and_is_not_asked_again(
    build: Build, shared: Path, tmp_path: Path
) -> None:
    poison = clip(tmp_path, prompt="die")
    with pytest.raises(ItemError, match="died of signal"):
        build("dynamic_degree").score(poison)
    assert build("subject_consistency").score(poison).values == {"subject_consistency": 0.25}
    with pytest.raises(ItemError, match=r"quarantined: .*died of signal"):
        build("dynamic_degree").score(poison)
    assert build("dynamic_degree").score(clip(tmp_path)).values == {"dynamic_degree": 0.25}


def test_run_goes_on_where_a_dimension_kills_the_worker(build: Build, tmp_path: Path) -> None:
    good = clip(tmp_path).entry
    entries = [dataclasses.replace(good, prompt="die", sha256="1"), dataclasses.replace(good, sha256="2")]
    dimensions = ("temporal_style", "subject_consistency")
    metrics = [NamedMetric(name, build(name), key=name) for name in dimensions]
    with ResultStore(tmp_path / "results") as store:
        score_clips(entries, metrics, store)
        scores = system_scores("a model", entries, metrics, store)
    killed, other = (f"{name}/{name}" for name in dimensions)
    assert scores.statuses == {killed: ("failed", "ok"), other: ("ok", "ok")}
    assert "died of signal" in scores.reasons[killed][0]
    assert scores.values[killed][1] == 0.25 and math.isnan(scores.values[killed][0])
    assert scores.coverage(killed) == 0.5 and scores.coverage(other) == 1.0


def test_checkpoint_with_settings_is_read_and_none_of_them_is_built(tmp_path: Path) -> None:
    path = tmp_path / "amt-s.pth"
    settings = argparse.Namespace(lr=1.0, parts=collections.Counter("ab"))
    torch.save({"state_dict": {"weight": torch.ones(2)}, "config": settings, "when": datetime.now(tz=UTC)}, path)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    before = torch.serialization.get_safe_globals()
    try:
        load_module(str(SCORER))._ignore_settings(str(path))
        read = torch.load(path, weights_only=True)
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)
    assert read["state_dict"]["weight"].tolist() == [1.0, 1.0]
    assert type(read["config"]).__name__ == type(read["when"]).__name__ == "_Ignored"


def test_missing_nms_is_an_error_and_not_an_empty_clip(cache: Path, tmp_path: Path) -> None:
    (cache / "no-nms").touch()
    with stand_in(cache) as build:
        for dimension in DETECTORS:
            with pytest.raises(ItemError, match="no working nms"):
                build(dimension).score(clip(tmp_path))


def test_absent_weights_are_named_with_size_source_and_place(cache: Path) -> None:
    (cache / "clip_model" / "ViT-L-14.pt").unlink()
    (cache / "raft_model" / "models" / "raft-things.pth").unlink()
    with pytest.raises(RewardError) as told:
        VBenchOfficial("aesthetic_quality", cache_dir=cache)
    for part in ("ViT-L-14.pt (933 MB, licence MIT)", "openaipublic", str(cache / "clip_model")):
        assert part in str(told.value)
    with pytest.raises(RewardError, match=r"about 21 MB.*models\.zip.*unzip"):
        VBenchOfficial("dynamic_degree", cache_dir=cache)
    VBenchOfficial("temporal_flickering", cache_dir=cache / "nowhere")  # needs none


def test_what_is_no_weight_file_is_named_too(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache / vbench_cache.DINO_CODE / "hubconf.py").unlink()
    with pytest.raises(RewardError, match="git clone"):
        VBenchOfficial("subject_consistency", cache_dir=cache)
    bare = Environment(Path(sys.prefix), "3.11", {})
    monkeypatch.setattr(vbench_official, "require", lambda _worker: bare)
    with pytest.raises(RewardError, match="env create vbench --with detectron2"):
        VBenchOfficial("object_class", cache_dir=cache)
    monkeypatch.setattr(vbench_cache, "try_to_load_from_cache", lambda *_: None)
    with pytest.raises(RewardError, match="its weights of bert-base-uncased"):
        VBenchOfficial("scene", cache_dir=cache)


def test_version_changes_with_the_weights(cache: Path) -> None:
    before = VBenchOfficial("motion_smoothness", cache_dir=cache).spec.version
    assert VBenchOfficial("motion_smoothness", cache_dir=cache).spec.version == before
    (cache / "amt_model" / "amt-s.pth").write_text("other weights")
    assert VBenchOfficial("motion_smoothness", cache_dir=cache).spec.version != before


def test_unknown_dimension_and_absent_environment_say_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLHF_VIDEO_ENVS", str(tmp_path))
    with pytest.raises(RewardError, match="Did you mean 'temporal_flickering'"):
        VBenchOfficial("temporal_flicker")
    with pytest.raises(RewardError, match="rewards env create vbench"):
        VBenchOfficial("temporal_flickering")


def test_dimensions_share_one_worker_that_ends_with_the_last(cache: Path) -> None:
    first, second = (VBenchOfficial(name, cache_dir=cache) for name in ("color", "scene"))
    assert first._worker is second._worker
    assert VBenchOfficial("color", cache_dir=cache, device="cpu")._worker is not first._worker
    count = len(vbench_official._workers)
    del first, second
    assert len(vbench_official._workers) < count


def test_answer_of_another_form_is_no_score(build: Build, shared: Path, tmp_path: Path) -> None:
    metric = build("color")

    class Odd:
        def ask(self, *_: object) -> dict[str, Any]:
            return {"value": "0.5", "curve": []}

    metric._worker = Odd()  # type: ignore[assignment]
    with pytest.raises(ItemError, match="instead of a score"):
        metric.score(clip(tmp_path))
