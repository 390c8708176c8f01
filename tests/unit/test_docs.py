"""docs/metrics.md explains every logged key, docs/paper_index.md every default; documents name files that exist."""

import ast
import json
import re
from pathlib import Path

import pytest
import torch

from rlhf_video.algorithms.asd_config import AsdConfig
from rlhf_video.algorithms.dpo import train as train_dpo
from rlhf_video.algorithms.dpo_config import DpoConfig, DpoPairsConfig, DpoPromptsConfig, PreferenceBatchConfig
from rlhf_video.algorithms.dpo_rounds_config import DpoRoundsConfig
from rlhf_video.algorithms.gradient_estimators import EstimatorConfig
from rlhf_video.algorithms.pair_building import PairBuildingConfig
from rlhf_video.algorithms.preference_loss import PreferenceLossConfig
from rlhf_video.algorithms.reward_bp import train
from rlhf_video.algorithms.reward_bp_config import (
    BatchConfig,
    PromptsConfig,
    PullConfig,
    RewardBpConfig,
    RewardTermConfig,
    SamplingConfig,
    SweepConfig,
)
from rlhf_video.algorithms.reward_model import train as train_reward_model
from rlhf_video.algorithms.reward_model_config import PairBatchConfig, PairsConfig, RewardModelConfig
from rlhf_video.algorithms.sft import train as train_sft
from rlhf_video.algorithms.sft_config import (
    ClipBatchConfig,
    ClipDataConfig,
    RecoveryConfig,
    SftConfig,
    SftPromptsConfig,
)
from rlhf_video.algorithms.window_recovery import train as recover_windows
from rlhf_video.attention import AttentionConfig, AttentionPlan, Band
from rlhf_video.data import write_lossless
from rlhf_video.lora import LoraConfig
from rlhf_video.reward_commands import reward_table
from rlhf_video.runtime import create_accelerator, read_metrics
from rlhf_video.settings.building import to_plain
from rlhf_video.settings.schema import REQUIRED, walk_fields
from rlhf_video.testing import tiny_wan_pipeline
from rlhf_video.testing.tiny_pairs import tiny_clip, tiny_clip_pairs, tiny_pairs

ROOT = Path(__file__).resolve().parents[2]
LOGGING_ROOMS = ("algorithms", "validation", "runtime")
FAMILIES = (
    "adversarial|batch|dpo|preference|reward|loss|grad|gradient_share|optim|estimator|steps|time|memory|validation|guard|"
    "result|recovery"
)
KEY = re.compile(rf"^({FAMILIES})/[a-z<][\w<>/-]*$")
AS_REWARDS = ("held_out.N.", "judge.")


def _documented() -> list[re.Pattern[str]]:
    """Return the first column of the tables of docs/metrics.md, a name in <> matching anything."""
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    keys = re.findall(r"^\| `([^`]+)`", text, flags=re.MULTILINE)
    return [re.compile("^" + re.sub(r"<\w+>", ".+", re.sub(r"[.+]", r"\\\g<0>", key)) + "$") for key in keys]


def _logged() -> list[str]:
    """Return the texts of the logging rooms that look like metric keys; a placeholder of an f-string becomes <x>."""
    keys = set()
    for room in LOGGING_ROOMS:
        for path in sorted((ROOT / "rlhf_video" / room).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for node in ast.walk(tree):
                text = node.value if isinstance(node, ast.Constant) else None
                if isinstance(node, ast.JoinedStr):
                    text = "".join(part.value if isinstance(part, ast.Constant) else "<x>" for part in node.values)
                if isinstance(text, str) and KEY.match(text):
                    keys.add(text)
    return sorted(keys)


def test_logged_keys_are_found() -> None:
    assert {"reward/total", "grad/norm", "guard/alarms", "result/scale", "reward/<x>"} <= set(_logged())


@pytest.mark.parametrize("key", _logged())
def test_logged_key_is_documented(key: str) -> None:
    # A key like guard/<x> needs some documented key of its shape.
    shape = re.compile("^" + key.replace("<x>", ".+") + "$")
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    literal = re.findall(r"^\| `([^`]+)`", text, flags=re.MULTILINE)
    assert any(pattern.match(key) for pattern in _documented()) or any(shape.match(name) for name in literal)


def test_every_key_of_a_real_run_is_documented(tmp_path: Path) -> None:
    for split, shape in (("train", "circle"), ("validation", "square"), ("test", "star")):
        (tmp_path / f"{split}.txt").write_text(f"a red {shape} moving left\na blue {shape} moving left\n")
    config = RewardBpConfig(
        backbone=str(tiny_wan_pipeline(tmp_path / "wan")),
        prompts=PromptsConfig(**{split: tmp_path / f"{split}.txt" for split in ("train", "validation", "test")}),
        rewards=(RewardTermConfig(name="brightness"),),
        held_out=(RewardTermConfig(name="sharpness"),),
        judge=RewardTermConfig(name="frame_difference", label="judge"),
        sampling=SamplingConfig(num_frames=5, height=16, width=16, num_steps=2, guidance=2.0),
        lora=LoraConfig(rank=2, alpha=2.0),
        estimator=EstimatorConfig(num_grad_steps=1),
        pull=PullConfig(weight=0.1),
        batch=BatchConfig(global_prompts=2),
        sweep=SweepConfig(scales=(0.0, 1.0)),
        num_steps=1,
        output_dir=tmp_path / "run",
    )
    train(config, accelerator=create_accelerator())
    keys = {key for line in read_metrics(tmp_path / "run") for key in line}
    assert {"reward/total", "guard/motion", "result/scale"} <= keys
    assert {key for key in keys if not any(pattern.match(key) for pattern in _documented())} == set()


def test_every_key_of_a_real_reward_model_run_is_documented(tmp_path: Path) -> None:
    tiny_pairs(tmp_path / "pairs.jsonl")
    head = {"model": str(tiny_clip(tmp_path / "clip")), "uncertainty": True}
    config = RewardModelConfig(
        reward="preference_head",
        options=head,
        pairs=PairsConfig(train=tmp_path / "pairs.jsonl", validation_share=0.3),
        trains="head",
        loss=PreferenceLossConfig(model="rao_kupper", learn_tie_parameter=True, uncertainty="closed_form"),
        batch=PairBatchConfig(global_pairs=4),
        num_steps=1,
        output_dir=tmp_path / "run",
    )
    train_reward_model(config, accelerator=create_accelerator())
    keys = {key for line in read_metrics(tmp_path / "run") for key in line}
    assert {"preference/deviation", "preference/tie_parameter", "result/overall/slope"} <= keys
    assert {key for key in keys if not any(pattern.match(key) for pattern in _documented())} == set()


@pytest.mark.parametrize("recovers", [False, True], ids=["fine-tuning", "recovery"])
def test_every_key_of_a_real_sft_run_is_documented(tmp_path: Path, recovers: bool) -> None:
    for split, shape in (("train", "circle"), ("validation", "square"), ("test", "star")):
        (tmp_path / f"{split}.txt").write_text(f"a red {shape} moving left\na blue {shape} moving left\n")
    for split in ("train", "heldout"):
        video = torch.rand(9, 3, 32, 32, generator=torch.Generator().manual_seed(len(split)))
        write_lossless(tmp_path / f"{split}.mkv", video, 8)
        entry = {"file": f"{split}.mkv", "prompt": f"a {split} circle moving left"}
        (tmp_path / f"{split}.jsonl").write_text(json.dumps(entry) + "\n")
    AttentionPlan(num_heads=6, layers=(Band(halo=0.0), Band(halo=0.0))).save(tmp_path / "plan.json")
    prompts = {split: tmp_path / f"{split}.txt" for split in ("train", "validation", "test")}
    if not recovers:
        del prompts["train"]
    clips = ClipDataConfig(train=tmp_path / "train.jsonl", validation=tmp_path / "heldout.jsonl")
    config = SftConfig(
        backbone=str(tiny_wan_pipeline(tmp_path / "wan")),
        prompts=SftPromptsConfig(**prompts),
        data=ClipDataConfig() if recovers else clips,
        recovery=RecoveryConfig(flow_weight=1.0, anneal_steps=0) if recovers else None,
        attention=AttentionConfig(file=tmp_path / "plan.json"),
        rewards=(RewardTermConfig(name="brightness"),),
        judge=RewardTermConfig(name="frame_difference", label="judge"),
        sampling=SamplingConfig(num_frames=9, height=32, width=32, num_steps=2, guidance=2.0),
        lora=LoraConfig(rank=2, alpha=2.0),
        batch=ClipBatchConfig(global_clips=2),
        num_steps=1,
        output_dir=tmp_path / "run",
    )
    (recover_windows if recovers else train_sft)(config, accelerator=create_accelerator())
    keys = {key for line in read_metrics(tmp_path / "run") for key in line}
    own = {"loss/teacher_attention", "recovery/windowed_layers", "result/recovery/psnr/to_dense/adapter"}
    assert (own if recovers else {"result/flow_matching/loss/adapter"}) <= keys
    assert {key for key in keys if not any(pattern.match(key) for pattern in _documented())} == set()


def test_every_key_of_a_real_dpo_run_is_documented(tmp_path: Path) -> None:
    for split, shape in (("validation", "square"), ("test", "star")):
        (tmp_path / f"{split}.txt").write_text(f"a red {shape} moving left\na blue {shape} moving left\n")
    tiny_clip_pairs(tmp_path / "train.jsonl", ["a red circle moving left", "a blue circle moving left"])
    tiny_clip_pairs(tmp_path / "heldout.jsonl", ["a red triangle moving left", "a blue triangle moving left"])
    config = DpoConfig(
        backbone=str(tiny_wan_pipeline(tmp_path / "wan")),
        prompts=DpoPromptsConfig(validation=tmp_path / "validation.txt", test=tmp_path / "test.txt"),
        pairs=DpoPairsConfig(train=tmp_path / "train.jsonl", validation=tmp_path / "heldout.jsonl"),
        rewards=(RewardTermConfig(name="brightness"),),
        judge=RewardTermConfig(name="frame_difference", label="judge"),
        sampling=SamplingConfig(num_frames=5, height=16, width=16, num_steps=2, guidance=2.0),
        lora=LoraConfig(rank=2, alpha=2.0),
        batch=PreferenceBatchConfig(token_budget=100),
        num_steps=1,
        output_dir=tmp_path / "run",
    )
    train_dpo(config, accelerator=create_accelerator())
    keys = {key for line in read_metrics(tmp_path / "run") for key in line}
    assert {"dpo/margin", "batch/pairs", "validation/dpo/accuracy_low", "result/dpo/accuracy"} <= keys
    assert {key for key in keys if not any(pattern.match(key) for pattern in _documented())} == set()


@pytest.mark.parametrize(
    "schema", [AsdConfig, PairBuildingConfig, RewardBpConfig, RewardModelConfig, SftConfig, DpoConfig, DpoRoundsConfig]
)
def test_every_default_has_its_row_with_its_source(schema: type) -> None:
    text = (ROOT / "docs" / "paper_index.md").read_text(encoding="utf-8")
    (section,) = re.findall(rf"^## `{schema.__name__}`\n(.*?)^## ", text, flags=re.MULTILINE | re.DOTALL)
    rows = dict(re.findall(r"^\| `([^`]+)` \| `([^`]*)` \| .+ \|$", section, flags=re.MULTILINE))
    defaults = {
        dotted: repr(to_plain(spec.default))
        for dotted, spec in walk_fields(schema)
        if spec.default is not REQUIRED and not dotted.startswith(AS_REWARDS)
    }
    assert rows == defaults


@pytest.mark.parametrize("document", ["AGENTS.md", "README.md", "docs/decisions.md", "docs/architecture.md"])
def test_named_files_exist(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    named = re.findall(r"\b((?:tests|docs|configs|rewards|rlhf_video|benchmarks)/[\w./-]*\w)", text)
    assert sorted({name for name in named if not (ROOT / name).exists()}) == []
    if document == "AGENTS.md":
        assert len(text.splitlines()) <= 80


def test_the_zoos_table_is_what_the_command_prints() -> None:
    assert reward_table().strip() in (ROOT / "docs" / "rewards.md").read_text(encoding="utf-8")
