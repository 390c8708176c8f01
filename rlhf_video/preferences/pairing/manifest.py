"""Write pairs and the manifest that says where they are from: same inputs, same bytes."""

import hashlib
import json
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlhf_video.data import PromptSuite
from rlhf_video.data.files import write_atomic
from rlhf_video.errors import DataError
from rlhf_video.preferences.pair import PreferencePair, pair_to_json
from rlhf_video.preferences.pairing.scored import Pairing
from rlhf_video.preferences.pairing.split import SplitConfig, remove_leaks, split_pairs
from rlhf_video.preferences.store import prompt_key
from rlhf_video.settings import to_plain

MANIFEST_VERSION = 1


@dataclass(frozen=True)
class WrittenPairs:
    """Where the pairs lie and what was counted."""

    files: Mapping[str, Path]
    """Part ("train", "validation") -> its .jsonl file."""
    manifest: Path
    """manifest.json."""
    pairing: Pairing
    """What was written, leaks taken out and counted."""


def write_pairs(
    folder: str | Path,
    pairing: Pairing,
    *,
    rule: str,
    settings: object,
    split: SplitConfig | None = None,
    evaluation: Mapping[str, PromptSuite] | None = None,
    sources: Mapping[str, str] | None = None,
) -> WrittenPairs:
    """Write train.jsonl, validation.jsonl (where its share is above 0) and manifest.json.

    The bytes depend on the arguments alone: no time, no host, no absolute path.

    Args:
        folder: Target folder; paths of the clips are relative to it.
        pairing: What a rule made.
        rule: Its name, for the manifest.
        settings: Its config dataclass, or a mapping of plain values, for the manifest.
        split: Validation share, seed and what to do about leaks; None for the defaults.
        evaluation: Prompt suites that results are measured on, by name; their prompts may not be trained on.
        sources: Name -> SHA-256 of everything that the pairs were made from: score files, prompts, rewards, votes.

    Returns:
        The files and the counts.

    Raises:
        DataError: No pair is left, a pair leaks, a part is empty, or the folder holds other pairs already; nothing is
            written then.
        OSError: The disk is full.
    """
    folder, split, suites = Path(folder), split or SplitConfig(), evaluation or {}
    pairing = remove_leaks(pairing, suites, split.leaks)
    if not pairing.pairs:
        why = "; ".join(f"{count}: {reason}" for reason, count in (*pairing.dropped.items(), *pairing.unused.items()))
        raise DataError(f"No pair is left to write ({why or 'nothing was compared'}): loosen the rule {rule}.")
    parts = split_pairs(pairing.pairs, split)
    contents = {f"{name}.jsonl": _lines(part) for name, part in parts.items()}
    manifest = _counts(pairing) | {
        "rule": rule,
        "settings": to_plain(settings),
        "split": to_plain(split),
        "sources": dict(sorted((sources or {}).items())),
        "evaluation": {name: _identity(suites[name]) for name in sorted(suites)},
        "parts": {name: _summary(part, contents[f"{name}.jsonl"]) for name, part in parts.items()},
    }
    text = json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    contents["manifest.json"] = text.encode()
    _refuse_others(folder, contents)
    for name, content in contents.items():
        write_atomic(folder / name, content)
    return WrittenPairs({name: folder / f"{name}.jsonl" for name in parts}, folder / "manifest.json", pairing)


def _counts(pairing: Pairing) -> dict[str, object]:
    """Return the format's version and what became of every comparison and input."""
    return {
        "version": MANIFEST_VERSION,
        "comparisons": {
            "considered": pairing.num_comparisons,
            "kept": len(pairing.pairs),
            "dropped": dict(pairing.dropped),
        },
        "unused_inputs": dict(pairing.unused),
    }


def _identity(suite: PromptSuite) -> dict[str, object]:
    return {"version": suite.version, "num_prompts": len(suite), "sha256": suite.sha256}


def _lines(pairs: Sequence[PreferencePair]) -> bytes:
    return "".join(pair_to_json(pair) + "\n" for pair in pairs).encode()


def _summary(pairs: Sequence[PreferencePair], content: bytes) -> dict[str, object]:
    """Return what one part holds: its hash, labels by question, pairs by prompt, weights, margins."""
    labels: dict[str, Counter[str]] = {}
    for pair in pairs:
        for question, label in pair.labels.items():
            labels.setdefault(question, Counter())[label] += 1
    margins = [pair.margin for pair in pairs if pair.margin is not None]
    return {
        "sha256": hashlib.sha256(content).hexdigest(),
        "num_pairs": len(pairs),
        "labels": {question: dict(sorted(labels[question].items())) for question in sorted(labels)},
        "prompts": _prompts(pairs),
        "margin": _spread(margins),
        "weight": _spread([pair.weight for pair in pairs]),
    }


def _prompts(pairs: Sequence[PreferencePair]) -> dict[str, float]:
    """Return how pairs are spread over prompts; the effective number is Kish's (sum n)^2 / sum n^2."""
    counts = list(Counter(prompt_key(pair.prompt) for pair in pairs).values())
    effective = sum(counts) ** 2 / sum(count**2 for count in counts)
    return {
        "num": len(counts),
        "effective_num": round(effective, 3),
        "most_pairs": max(counts),
        "median_pairs": statistics.median(counts),
    }


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {"least": min(values), "median": statistics.median(values), "most": max(values)}


def _refuse_others(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Refuse to overwrite pairs that somebody may have trained on with other ones."""
    for name in ("train.jsonl", "validation.jsonl", "manifest.json"):
        file = folder / name
        if file.is_file() and file.read_bytes() != contents.get(name):
            raise DataError(f"'{file}' exists and holds something else: write to another folder, or delete it first.")
