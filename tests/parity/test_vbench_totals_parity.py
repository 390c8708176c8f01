"""Our totals are those of VBench's own script, from its own constants; its own result file reads as it was written."""

import json
from pathlib import Path

import numpy as np
import pytest

from evaluation.vbench_compat.result_files import read_vbench_results, vbench_scores
from evaluation.vbench_compat.totals import QUALITY_SHARE, TOTALS, VBENCH_DIMENSIONS, total_formula

GOLDEN = json.loads((Path(__file__).parent / "golden" / "vbench_totals.json").read_text())
EXACT = 1e-12


def test_constants_are_vbenchs() -> None:
    ours = {
        name: {"min": facts.least, "max": facts.most, "weight": facts.weight, "group": facts.group}
        for name, facts in VBENCH_DIMENSIONS.items()
    }
    assert ours == GOLDEN["constants"]
    weights = GOLDEN["quality_weight"], GOLDEN["semantic_weight"]
    assert weights[0] / sum(weights) == QUALITY_SHARE


@pytest.mark.parametrize("total", TOTALS)
def test_totals_of_the_same_scores_are_vbenchs(total: str) -> None:
    formula = total_formula(total)  # type: ignore[arg-type]
    ours = formula.offset + sum(weight * GOLDEN["scores"][name] for name, weight in formula.weights.items())
    assert ours == pytest.approx(GOLDEN["totals"][total], rel=EXACT)
    zeroed = GOLDEN["scores"] | {GOLDEN["left_out"]: 0.0}  # what VBench does with a missing dimension; we refuse it
    ours = formula.offset + sum(weight * zeroed[name] for name, weight in formula.weights.items())
    assert ours == pytest.approx(GOLDEN["totals_without_it"][total], rel=EXACT)


def test_result_file_that_vbench_wrote_has_its_own_aggregate(tmp_path: Path) -> None:
    path = tmp_path / "sample_eval_results.json"
    path.write_text(json.dumps(GOLDEN["result_file"]))
    results = read_vbench_results(path)
    assert set(results) == {"temporal_flickering"}
    result = results["temporal_flickering"]
    assert len(result.clips) == 3 and len(set(result.clips.values())) == 3
    scores = vbench_scores(results, "sample")
    assert np.mean(scores.values["temporal_flickering"]) == pytest.approx(result.aggregate, rel=EXACT)
    assert {entry.prompt for entry in scores.entries} == {"a moving light", "a still light"}
