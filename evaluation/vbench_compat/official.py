"""VBench's dimensions by the original package, in its own environment (family "vbench-official").

Each is computed for one clip by the package's own code (arXiv:2311.17982, vbench 0.1.5); what is changed around it is
listed in rewards/workers/vbench_scorer.py. A failure is a failure here, never VBench's zero. One process serves all
dimensions and keeps their models; a clip that ends it fails in that one dimension and the process starts again.
"""

import difflib
import hashlib
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from evaluation.base import ClipEntry, ClipScore, DecodedClip, MetricSpec, SkipClipError
from evaluation.option_hash import content_hash
from evaluation.ports.frame_features import check_two_frames
from evaluation.ports.static_filter import KEPT, StaticFilter
from rewards.errors import RewardError
from rewards.ledger import LEDGER
from rewards.workers.environments import require
from rewards.workers.lock import load_lock
from rewards.workers.process import ItemError
from rewards.workers.resident import ResidentWorker
from rewards.workers.vbench_cache import FILES, missing, vbench_cache
from rlhf_video.errors import DataError

WORKER = "vbench"
UNITS = {
    "subject_consistency": "cosine",
    "background_consistency": "cosine",
    "temporal_flickering": "share",
    "motion_smoothness": "share",
    "dynamic_degree": "share of clips",
    "aesthetic_quality": "rating / 10",
    "imaging_quality": "MUSIQ score / 100",
    "human_action": "share of clips",
    "color": "share of frames",
    "object_class": "share of frames",
    "multiple_objects": "share of frames",
    "spatial_relationship": "share of frames",
    "scene": "share of frames",
    "appearance_style": "logit / 100",
    "temporal_style": "cosine",
    "overall_consistency": "cosine",
}
FACT_KEYS = {
    "object_class": "object",
    "multiple_objects": "object",
    "color": "color",
    "spatial_relationship": "spatial_relationship",
    "scene": "scene",
    "appearance_style": "appearance_style",
}
"""Dimension that needs VBench's auxiliary_info -> the key that this must have."""
PROMPTED = frozenset(FACT_KEYS) | {"human_action", "temporal_style", "overall_consistency"}
Device = Literal["auto", "cpu", "cuda"]


class VBenchOfficial:
    """One of VBench's sixteen dimensions by its own code; higher is better in all of them."""

    def __init__(
        self,
        dimension: str,
        *,
        cache_dir: str | Path | None = None,
        device: Device = "auto",
        deadline_s: float = 3600.0,
        static_filter: str | Path | None = None,
    ) -> None:
        """Find the environment and the weights; nothing is started yet.

        Args:
            dimension: For example "temporal_flickering".
            cache_dir: Folder of weights in VBench's layout; None takes VBENCH_CACHE_DIR, or ~/.cache/vbench.
            device: Where the worker computes; "auto" takes a GPU where there is one.
            deadline_s: Seconds for one clip before the worker counts as hung.
            static_filter: For temporal_flickering alone: weights of RAFT for the port of VBench's static filter, see
                `TemporalFlickering`. The package filters in a program of its own, before it scores; None counts every
                clip, moving or not, which is not VBench's number.

        Raises:
            RewardError: Unknown dimension, no environment, a filter that the dimension does not have, or weights that
                are not there: which, how big, where from.
            ConfigError: The filter's device is not there.
        """
        if dimension not in FILES:
            close = difflib.get_close_matches(dimension, FILES, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise RewardError(f"Unknown dimension {dimension!r} of VBench.{hint} Known: {', '.join(FILES)}.")
        if static_filter is not None and dimension != "temporal_flickering":
            raise RewardError(f"VBench filters static clips for temporal_flickering alone: drop it for {dimension}.")
        lock, environment = load_lock(WORKER), require(WORKER)
        cache = vbench_cache(cache_dir)
        if lacks := missing(dimension, cache, environment):
            raise RewardError(f"VBench's {dimension} cannot run without " + "; ".join(lacks) + ".")
        self._dimension = dimension
        self._filter = None if static_filter is None else StaticFilter(static_filter, device=device)
        self._worker = _shared_worker(environment.python, cache, device, deadline_s)
        names = tuple(name for name, _ in FILES[dimension])
        contents = [content_hash(cache / path) for _, path in FILES[dimension]]
        weights = hashlib.sha256(" ".join(contents).encode()).hexdigest()[:12]
        names += () if self._filter is None else ("raft_things",)
        licences = dict.fromkeys(["Apache-2.0", *(LEDGER[name].licence for name in names)])
        self.spec = MetricSpec(
            name=f"official_{dimension}",
            version=f"1+{lock.digest}+{weights}",  # another environment or another file may score otherwise
            family="vbench-official",
            dimensions=(dimension,),
            unit=UNITS[dimension],
            higher_is_better=True,
            uses_prompt=dimension in PROMPTED,
            reads="file" if self._filter is None else "frames",
            weights=names,
            licence=" AND ".join(licences),
            paper="arXiv:2311.17982",
            first_of_prompt=None if self._filter is None else KEPT,
        )

    def score(self, clip: DecodedClip) -> ClipScore:
        """Score a clip, see `Metric`.

        Raises:
            SkipClipError: VBench leaves out such a clip (color), its prompt names no action (human_action), or the
                filter is on and it moves.
            DataError: The suite says nothing of what this dimension looks for.
            ItemError: The package failed, or its process died or hung over this clip.
            WorkerFailure: The process cannot be started or keeps dying.
        """
        entry, dimension = clip.entry, self._dimension
        if self._filter is not None:
            check_two_frames(clip)
            if reason := self._filter.why_moving(clip):
                raise SkipClipError(reason)
        request = {
            "file": str(entry.file.resolve()),
            "dimension": dimension,
            "prompt": entry.prompt,
            "facts": auxiliary_info(entry, dimension),
        }
        identity = f"{dimension} {entry.sha256} {entry.prompt}"
        answer = self._worker.ask(identity, "score_file", lambda _folder: request)
        if "skipped" in answer:
            raise SkipClipError(str(answer["skipped"]))
        value, curve = answer.get("value"), answer.get("curve")
        if not isinstance(value, float) or not isinstance(curve, list):
            raise ItemError(f"the worker answered {str(answer)[:80]} instead of a score")
        return ClipScore(values={dimension: value}, curves={dimension: curve} if curve else {})

    def close(self) -> None:
        """End the process that all dimensions share; the next clip starts it again."""
        self._worker.close()


def auxiliary_info(entry: ClipEntry, dimension: str) -> Any:
    """Return VBench's auxiliary_info of a dimension for a clip, None where the dimension needs none.

    Args:
        entry: Its `facts` hold under the dimension's name what VBench's own file says there, or only the word, for
            example "red" for color.
        dimension: One of VBench's.

    Raises:
        DataError: The facts do not name it.
    """
    key = FACT_KEYS.get(dimension)
    if key is None:
        return None
    found = entry.facts.get(dimension)
    if found is None:
        raise DataError(
            f"VBench's {dimension} asks what to look for, and the suite says nothing of it for {entry.prompt!r}: give "
            f"facts {{{dimension}: {{{key}: ...}}}} as VBench_full_info.json does, or leave the dimension out for it."
        )
    if isinstance(found, Mapping) and key in found:
        return dict(found)
    return {key: {"scene": found} if dimension == "scene" else found}


_workers: weakref.WeakValueDictionary[tuple[object, ...], ResidentWorker] = weakref.WeakValueDictionary()


def _shared_worker(python: Path, cache: Path, device: Device, deadline_s: float) -> ResidentWorker:
    """Return the one worker of these settings; it ends with the last metric that has it."""
    key = (python, cache, device, deadline_s)
    worker = _workers.get(key)
    if worker is None:
        lock = load_lock(WORKER)
        assert lock.scorer is not None
        worker = ResidentWorker(
            worker=WORKER,
            scorer=lock.scorer,
            python=python,
            settings={"cache": str(cache), "device": device},
            dimensions=tuple(FILES),
            lock=lock,
            deadline_s=deadline_s,
        )
        _workers[key] = worker
    return worker
