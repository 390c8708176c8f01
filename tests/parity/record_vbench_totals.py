"""Record VBench's constants, its totals of made-up scores, and a result file that it wrote: golden/vbench_totals.json.

Constants and totals are in its repository, not in the package. Run it with a checkout of github.com/Vchitect/VBench
(recorded at commit 45e79ec14e69a2187202c675d2dbce1a71843d53), in the worker's environment (`rlhf-video rewards env
create vbench`):

    PYTHONPATH=. PYTHON tests/parity/record_vbench_totals.py path/to/VBench
"""

import importlib
import json
import os
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parent / "golden" / "vbench_totals.json"
RAW = (0.9612, 0.9731, 0.9874, 0.9803, 0.4625, 0.6137, 0.6518, 0.8843, 0.5127, 0.9420)
RAW = (*RAW, 0.8735, 0.6391, 0.5264, 0.2378, 0.2461, 0.2694)
"""One score per dimension, in VBench's order."""
LEFT_OUT = "motion_smoothness"
"""VBench counts a dimension without a score as raw 0."""
LEVELS = {"a moving light-0": (40, 70, 100, 130), "a moving light-1": (40, 45, 50, 60), "a still light-0": (90, 90, 90)}
"""Grey level of each frame of a clip."""


def main(checkout: Path) -> None:
    """Record and write."""
    sys.path.insert(0, str(checkout / "scripts"))
    constant: Any = importlib.import_module("constant")
    dimensions = [name.replace(" ", "_") for name in constant.TASK_INFO]
    scores = dict(zip(dimensions, RAW, strict=True))
    partial = {name: score for name, score in scores.items() if name != LEFT_OUT}
    golden = {
        "made_by": "tests/parity/record_vbench_totals.py",
        "constants": {name: facts(constant, name.replace("_", " ")) for name in dimensions},
        "quality_weight": constant.QUALITY_WEIGHT,
        "semantic_weight": constant.SEMANTIC_WEIGHT,
        "scores": scores,
        "totals": totals(scores),
        "left_out": LEFT_OUT,
        "totals_without_it": totals(partial),
        "result_file": result_file(),
    }
    GOLDEN.write_text(json.dumps(golden, indent=1) + "\n")


def facts(constant: Any, name: str) -> dict[str, Any]:
    """Return what enters the totals of one dimension."""
    scale = constant.NORMALIZE_DIC[name]
    group = "quality" if name in constant.QUALITY_LIST else "semantic"
    assert (name in constant.SEMANTIC_LIST) == (group == "semantic")
    return {"min": scale["Min"], "max": scale["Max"], "weight": constant.DIM_WEIGHT[name], "group": group}


def totals(scores: dict[str, float]) -> dict[str, float]:
    """Return what VBench's leaderboard makes of a submission with one result file per dimension."""
    script: Any = importlib.import_module("cal_final_score")
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder, "submission.zip")
        with zipfile.ZipFile(archive, "w") as file:
            for name, score in scores.items():
                file.writestr(f"{name}_eval_results.json", json.dumps({name: [score, []]}))
        submitted = script.submission(str(Path(folder, "model")), str(archive))
    normalised = script.get_nomalized_score(submitted)
    quality, semantic = script.get_quality_score(normalised), script.get_semantic_score(normalised)
    return {"quality": quality, "semantic": semantic, "total": script.get_final_score(quality, semantic)}


def result_file() -> dict[str, Any]:
    """Return what the package writes for three small clips in the dimension that needs no weights."""
    import cv2
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        os.environ["VBENCH_CACHE_DIR"] = folder
        clips = Path(folder, "clips")
        clips.mkdir()
        for name, levels in LEVELS.items():
            writer = cv2.VideoWriter(str(clips / f"{name}.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 8, (64, 48))
            for level in levels:
                writer.write(np.full((48, 64, 3), level, np.uint8))
            writer.release()
        vbench: Any = importlib.import_module("vbench")
        torch: Any = importlib.import_module("torch")
        judge = vbench.VBench(torch.device("cpu"), "", f"{folder}/out")
        judge.evaluate(
            videos_path=str(clips), name="sample", dimension_list=["temporal_flickering"], mode="custom_input"
        )
        text = Path(folder, "out", "sample_eval_results.json").read_text()
    found: dict[str, Any] = json.loads(text.replace(f"{clips}/", "clips/"))
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
