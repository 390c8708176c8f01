"""Readers of benchmarks of human choices: VideoGen-RewardBench, GenAI-Bench (video) and our own JSON lines."""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from evaluation.judging.records import Benchmark, Comparison, Label
from evaluation.judging.rows import Row, read_rows
from rlhf_video.errors import DataError

_REMOTE = re.compile(r"https?://[^/]+/(?:.+/)?(?:blob|resolve)/[^/]+/(?P<path>[^?#]+)")
"""A file of a Hub repository: what follows the revision is its path inside the repository."""


@dataclass
class LabelReader:
    """Turns labels as written into A, B and tie; keeps count of what is dropped and remembers what is unknown."""

    known: Mapping[str, Label]
    drop_unknown: bool
    dropped: dict[str, Counter[str]] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)

    def read(self, row: Row, dimension: str, written: str) -> dict[str, Label]:
        """Return {dimension: label}, or nothing where the label is empty or unknown."""
        if written in self.known:
            return {dimension: self.known[written]}
        self.dropped.setdefault(dimension, Counter())[written] += 1
        if written:
            self.unknown.append(f"{written!r} ({dimension}, line {row.line})")
        return {}

    def check(self, path: Path) -> None:
        """Refuse unknown labels unless they may be dropped.

        Raises:
            DataError: There are some; the message names the first ten.
        """
        if self.unknown and not self.drop_unknown:
            shown = ", ".join(self.unknown[:10]) + (", ..." if len(self.unknown) > 10 else "")
            raise DataError(
                f"'{path}' holds {len(self.unknown)} labels that are none of {', '.join(self.known)}: {shown}. Mend "
                "the file, or leave these labels out, counted, with --drop-unknown-labels."
            )


def read_benchmark(name: str, root: Path, *, file: Path | None = None, drop_unknown_labels: bool = False) -> Benchmark:
    """Read a benchmark's annotations; no clip is opened.

    Args:
        name: One of `BENCHMARKS`.
        root: Folder that the clips' paths are relative to.
        file: Annotation file; None for the benchmark's own file name inside `root`.
        drop_unknown_labels: Leave labels of another spelling out, counted, instead of refusing the file. Empty labels
            are always left out, counted.

    Raises:
        DataError: Unknown benchmark, missing or malformed file, missing column, unknown label, or not one valid label.
    """
    if name not in BENCHMARKS:
        raise DataError(f"Unknown benchmark {name!r}. Known: {', '.join(BENCHMARKS)}.")
    default, known, reader = BENCHMARKS[name]
    labels = LabelReader(known, drop_unknown_labels)
    path = root / default if file is None else file
    dimensions, comparisons = reader(path, root, labels)
    labels.check(path)
    if not any(item.labels for item in comparisons):
        raise DataError(f"'{path}' holds {len(comparisons)} comparisons and not one valid label: nothing to judge by.")
    return Benchmark(
        name=name,
        file=path,
        dimensions=dimensions,
        comparisons=tuple(comparisons),
        dropped={dimension: dict(counts) for dimension, counts in labels.dropped.items()},
    )


def _videogen_rewardbench(path: Path, root: Path, labels: LabelReader) -> tuple[tuple[str, ...], list[Comparison]]:
    """Read KwaiVGI/VideoGen-RewardBench (arXiv:2501.13918); columns as in VideoAlign, eval_videogen_rewardbench.py."""
    dimensions = ("VQ", "MQ", "TA", "Overall")
    advice = (
        "It comes with the dataset KwaiVGI/VideoGen-RewardBench: put videogen-rewardbench.csv and the unpacked "
        "videos.zip into one folder and give that as --root."
    )
    rows = read_rows(path, ("path_A", "path_B", "prompt", "A_model", "B_model", *dimensions), advice=advice)
    comparisons = []
    for row in rows:
        chosen: dict[str, Label] = {}
        for dimension in dimensions:
            chosen |= labels.read(row, dimension, row.optional(dimension))
        models = (row.optional("A_model"), row.optional("B_model"))
        comparisons.append(_comparison(row, root, row.text("path_A"), row.text("path_B"), chosen, models))
    return dimensions, comparisons


def _genai_bench(path: Path, root: Path, labels: LabelReader) -> tuple[tuple[str, ...], list[Comparison]]:
    """Read TIGER-Lab/GenAI-Bench, video_generation (arXiv:2406.04485), exported to JSON lines or CSV."""
    advice = (
        "Export the dataset once: datasets.load_dataset('TIGER-Lab/GenAI-Bench', 'video_generation', "
        "split='test_v1').to_json('genai-bench.jsonl')."
    )
    columns = ("prompt", "left_video", "right_video", "left_model", "right_model", "vote_type")
    comparisons = []
    for row in read_rows(path, columns, advice=advice):
        chosen = labels.read(row, "Overall", row.optional("vote_type"))
        clips = [_inside_repository(row.text(column)) for column in ("left_video", "right_video")]
        models = (row.optional("left_model"), row.optional("right_model"))
        comparisons.append(_comparison(row, root, clips[0], clips[1], chosen, models))
    return ("Overall",), comparisons


def _preferences(path: Path, root: Path, labels: LabelReader) -> tuple[tuple[str, ...], list[Comparison]]:
    """Read our own preference pairs: prompt, a and b {path, model, adapter}, labels and soft {question: answer}."""
    comparisons, dimensions = [], dict[str, None]()
    for row in read_rows(path, ("prompt", "a", "b")):
        answers = row.part("labels") if "labels" in row.values else Row(path, row.line, {})
        shares = row.part("soft") if "soft" in row.values else Row(path, row.line, {})
        questions = tuple(dict.fromkeys((*answers.values, *shares.values)))
        if not questions:
            raise DataError(
                f"Line {row.line} of '{path}' answers nothing: 'labels' must be like {{\"overall\": \"A\"}}."
            )
        chosen: dict[str, Label] = {}
        for question in questions:
            dimensions.setdefault(question)
            if question in shares.values:  # a share counts before the label
                chosen[question] = _from_share(shares, question)
            else:
                chosen |= labels.read(row, question, answers.optional(question))
        sides = [row.part(side) for side in ("a", "b")]
        clips = [side.text("path") for side in sides]
        models = [" + ".join(filter(None, (side.optional("model"), side.optional("adapter")))) for side in sides]
        comparisons.append(_comparison(row, root, clips[0], clips[1], chosen, (models[0], models[1])))
    return tuple(dimensions), comparisons


def _from_share(shares: Row, question: str) -> Label:
    """Return what most raters said; exactly one half is a tie."""
    share = shares.values[question]
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
        raise DataError(f"Line {shares.line} of '{shares.file}': soft.{question} must be in [0, 1], got {share!r}.")
    return "tie" if share == 0.5 else ("A" if share > 0.5 else "B")


def _comparison(
    row: Row, root: Path, clip_a: str, clip_b: str, labels: dict[str, Label], models: tuple[str, str]
) -> Comparison:
    return Comparison(
        prompt=row.text("prompt"),
        clip_a=root / clip_a,
        clip_b=root / clip_b,
        labels=labels,
        model_a=models[0] or "unknown",
        model_b=models[1] or "unknown",
        source=f"line {row.line}",
    )


def _inside_repository(video: str) -> str:
    """Return a clip's path relative to the root; a Hub address becomes the path inside its repository."""
    match = _REMOTE.fullmatch(video)
    return match["path"] if match else video


_Reader = Callable[[Path, Path, LabelReader], tuple[tuple[str, ...], list[Comparison]]]

BENCHMARKS: Mapping[str, tuple[str, Mapping[str, Label], _Reader]] = {
    "videogen-rewardbench": (
        "videogen-rewardbench.csv",
        {"A": "A", "B": "B", "same": "tie"},
        _videogen_rewardbench,
    ),
    "genai-bench": (
        "genai-bench.jsonl",
        {"leftvote": "A", "rightvote": "B", "tievote": "tie", "bothbad_vote": "tie"},
        _genai_bench,
    ),
    "preferences": ("preferences.jsonl", {"A": "A", "B": "B", "tie": "tie", "both-bad": "tie"}, _preferences),
}
"""Name -> default file, labels as written, reader."""
