"""Where numbers come from: versions, commit, clips' origin, for the report."""

import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.registry import NamedMetric
from evaluation.running.weights_state import weight_state
from rewards.ledger import LEDGER
from rlhf_video.algorithms.generate import MANIFEST
from rlhf_video.command import command_line

PACKAGES = ("rlhf-video", "torch", "diffusers", "transformers", "av", "numpy")
_ROOT = Path(__file__).resolve().parents[2]


def provenance(folders: Mapping[str, Sequence[Path]], metrics: Sequence[NamedMetric]) -> dict[str, Any]:
    """Return what a reader needs to make the numbers again.

    Args:
        folders: System -> folders of its clips.
        metrics: What is measured.
    """
    return {
        "command": command_line(),
        "commit": source_commit(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "clips": {name: _origins(of_system) for name, of_system in folders.items()},
        "metrics": {metric.label: f"{metric.spec.name}@{metric.spec.version} {metric.key[:12]}" for metric in metrics},
        "weights": {name: _weight(name) for metric in metrics for name in metric.spec.weights},
    }


def source_commit() -> str | None:
    """Return the commit of this checkout, with "+changes" where files differ from it; None outside a checkout."""
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return None
    return commit + ("+changes" if _git("status", "--porcelain", "--untracked-files=no") else "")


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(_ROOT), *words], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _origins(folders: Sequence[Path]) -> dict[str, Any]:
    """Return what generate.py says of a system's clips; only the folder for clips of others."""
    manifest = folders[0] / MANIFEST
    if not manifest.is_file():
        return {"folder": str(folders[0])}
    facts: dict[str, Any] = json.loads(manifest.read_text(encoding="utf-8"))
    facts.pop("clips", None)
    return {"folder": str(folders[0]), **facts}


def _weight(name: str) -> dict[str, Any]:
    if name not in LEDGER:
        return {"source": "not in the ledger"}
    state, entry = weight_state(name), LEDGER[name]
    return {"source": state.source, "sha256": entry.sha256, "licence": entry.licence}
