"""docs/preference_pairs.md says what the rules do: every default, every reason, every number of its tables."""

import json
import re
from pathlib import Path

import pytest

from rlhf_video.preferences import ClipRecord
from rlhf_video.preferences.pairing import (
    AllPairsConfig,
    BestWorstConfig,
    OmniScoreConfig,
    ParetoConfig,
    ReweightingConfig,
    ScoredClip,
    SplitConfig,
    VotesConfig,
    best_worst,
    dominance,
    one_score,
    scored,
    votes,
    write_pairs,
)
from rlhf_video.preferences.pairing.votes import VoteCount
from rlhf_video.settings.building import to_plain
from rlhf_video.settings.schema import REQUIRED, fields_of

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "preference_pairs.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "schema",
    [BestWorstConfig, AllPairsConfig, OmniScoreConfig, ReweightingConfig, ParetoConfig, VotesConfig, SplitConfig],
)
def test_every_default_has_its_row_with_its_source(schema: type) -> None:
    (section,) = re.findall(rf"^### `{schema.__name__}`\n(.*?)(?=^#|\Z)", TEXT, flags=re.MULTILINE | re.DOTALL)
    rows = dict(re.findall(r"^\| `([^`]+)` \| `([^`]*)` \| .+ \|$", section, flags=re.MULTILINE))
    defaults = {name: spec.default for name, spec in fields_of(schema).items() if spec.default is not REQUIRED}
    assert rows == {name: repr(to_plain(default)) for name, default in defaults.items()}


@pytest.mark.parametrize("module", [scored, one_score, dominance, votes])
def test_every_reason_is_explained(module: object) -> None:
    reasons = [
        value for name, value in vars(module).items() if name.isupper() and isinstance(value, str) and name[0] != "_"
    ]
    assert reasons and [reason for reason in reasons if f"`{reason}`" not in TEXT and reason != "overall"] == []


def test_the_table_of_votes_is_what_the_counts_say() -> None:
    heads, sure, means = (
        re.findall(r"[\d.:]+(?= \|)", line) for line in re.findall(r"^\| (?:votes A|P\(p|p_mean).*", TEXT, re.MULTILINE)
    )
    assert len(heads) == 7
    for head, probability, mean in zip(heads, sure, means, strict=True):
        a, b = map(int, head.split(":"))
        count = VoteCount(a=a, b=b, num_votes=a + b)
        assert (f"{count.surety:.3f}", f"{count.mean_share:.3f}") == (probability, mean)


def test_every_key_of_a_manifest_is_explained(tmp_path: Path) -> None:
    clips = [ScoredClip("p", ClipRecord(path=f"{n}.mkv", sha256=str(n) * 64), {"s": float(n)}) for n in range(3)]
    config = BestWorstConfig(score="s")
    written = write_pairs(
        tmp_path, best_worst(clips, config), rule="best_worst", settings=config, split=SplitConfig(validation_share=0)
    )
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", TEXT.split("| key of `manifest.json`")[1], flags=re.MULTILINE)
    documented = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert documented == set(json.loads(written.manifest.read_text()))
