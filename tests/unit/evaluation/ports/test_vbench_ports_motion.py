"""Ports of VBench's dimensions of motion, picture quality and text: what they refuse, skip and never depend on."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from evaluation.base import ClipEntry, DecodedClip, Metric, SkipClipError
from evaluation.ports import dynamic_degree as ported_dynamic_degree
from evaluation.ports.amt import AmtS
from evaluation.ports.dynamic_degree import DynamicDegree
from evaluation.ports.imaging_quality import ImagingQuality
from evaluation.ports.motion_smoothness import MotionSmoothness, settings_ignored
from evaluation.ports.musiq import Musiq, MusiqSizes
from evaluation.ports.overall_consistency import OverallConsistency
from evaluation.ports.temporal_style import TemporalStyle
from evaluation.ports.viclip import ViClip, ViClipSizes
from evaluation.ports.weights import CACHE_VARIABLE
from rewards import dynamic_degree
from rewards.errors import RewardError
from rewards.ledger import LEDGER
from rewards.raft import Raft
from rewards.random_weights import random_array
from rewards.weight_files import read_state, resolve

MUSIQ_SIZES = MusiqSizes(width=64, inner=32, layers=1, grid=10)
VICLIP_SIZES = ViClipSizes(
    vision_width=64,
    vision_layers=1,
    patch_size=16,
    grid=2,
    num_frames=4,
    text_width=64,
    text_layers=1,
    num_tokens=32,
    vocabulary=514,
    embedding=8,
)


def random_state(model: nn.Module) -> dict[str, Tensor]:
    return {name: torch.from_numpy(random_array(name, value.shape)) for name, value in model.state_dict().items()}


def clip(num_frames: int, height: int = 128, width: int = 128, *, fps: float = 8.0) -> DecodedClip:
    """Return a clip of a coarse picture that drifts to the left."""
    generator = torch.Generator().manual_seed(num_frames)
    coarse = torch.randint(0, 256, (3, height // 8 + 8, width // 8 + 8), generator=generator, dtype=torch.uint8)
    picture = coarse.repeat_interleave(8, dim=1).repeat_interleave(8, dim=2)
    shown = torch.stack([picture[:, :height, i : i + width] for i in range(num_frames)])
    return DecodedClip(ClipEntry(file=Path("clip.mp4"), sha256="", prompt="a red circle"), shown, fps=fps)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    models = {"amt": AmtS(), "musiq": Musiq(MUSIQ_SIZES), "viclip": ViClip(VICLIP_SIZES), "raft": Raft()}
    for name, model in models.items():
        torch.save(random_state(model), folder / f"{name}.pth")
    return {name: folder / f"{name}.pth" for name in models}


@pytest.fixture
def metrics(files: dict[str, Path], byte_tokenizer: Path) -> dict[str, Metric]:
    return {
        "dynamic_degree": DynamicDegree(files["raft"]),
        "motion_smoothness": MotionSmoothness(files["amt"]),
        "imaging_quality": ImagingQuality(files["musiq"]),
        "overall_consistency": OverallConsistency(files["viclip"], tokenizer=byte_tokenizer),
        "temporal_style": TemporalStyle(files["viclip"], tokenizer=byte_tokenizer),
    }


def test_every_port_states_its_name_family_and_a_weight_file_of_the_ledger(metrics: dict[str, Metric]) -> None:
    for name, metric in metrics.items():
        assert isinstance(metric, Metric)
        assert (metric.spec.name, metric.spec.dimensions, metric.spec.family) == (name, (name,), "vbench-port")
        assert set(metric.spec.weights) <= set(LEDGER)
        assert metric.spec.uses_prompt is (name in ("overall_consistency", "temporal_style"))


def test_weights_bound_to_noncommercial_use_ask_for_consent() -> None:
    for name in ("amt_s", "musiq_spaq"):
        with pytest.raises(RewardError, match="accept_licence"):
            resolve(name)


def test_the_flow_model_is_found_where_vbench_unpacks_it(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    with pytest.raises(RewardError, match=r"raft_model/models/raft-things\.pth"):
        DynamicDegree()
    (tmp_path / "raft_model" / "models").mkdir(parents=True)
    shutil.copy(files["raft"], tmp_path / "raft_model" / "models" / "raft-things.pth")
    assert DynamicDegree().spec.weights == ("raft_things",)


@pytest.mark.parametrize("port", [DynamicDegree, MotionSmoothness, ImagingQuality])
def test_a_file_of_another_model_is_refused(port: Callable[..., Metric], files: dict[str, Path]) -> None:
    with pytest.raises(RewardError, match="viclip"):
        port(files["viclip"])


def test_viclip_refuses_the_file_of_another_model(files: dict[str, Path], byte_tokenizer: Path) -> None:
    with pytest.raises(RewardError, match="holds no ViCLIP"):
        OverallConsistency(files["raft"], tokenizer=byte_tokenizer)


def test_clips_too_short_or_too_small_are_skipped_with_a_reason(metrics: dict[str, Metric]) -> None:
    for name, shown, reason in (
        ("motion_smoothness", clip(2), "2 frames"),
        ("motion_smoothness", clip(3, 64, 64), "64x64 are too small"),
        ("dynamic_degree", clip(3, fps=24.0), "too short"),
    ):
        with pytest.raises(SkipClipError, match=reason):
            metrics[name].score(shown)


def test_smoothness_does_not_depend_on_pairs_per_pass_and_leaves_the_last_frame_out(files: dict[str, Path]) -> None:
    shown = clip(6)
    together = MotionSmoothness(files["amt"], pairs_per_pass=4).score(shown)
    alone = MotionSmoothness(files["amt"], pairs_per_pass=1).score(shown)
    assert len(together.curves["motion_smoothness"]) == 2
    assert together.values["motion_smoothness"] == pytest.approx(alone.values["motion_smoothness"], rel=1e-5)
    odd = MotionSmoothness(files["amt"]).score(dataclasses.replace(shown, frames=shown.frames[:5]))
    assert odd.values == alone.values


def test_quality_does_not_depend_on_frames_per_pass(files: dict[str, Path]) -> None:
    shown = clip(3, 40, 72)
    together, alone = (ImagingQuality(files["musiq"], frames_per_pass=n).score(shown) for n in (8, 1))
    assert together.curves["imaging_quality"] == pytest.approx(alone.curves["imaging_quality"], rel=1e-5)
    assert together.values["imaging_quality"] == pytest.approx(sum(alone.curves["imaging_quality"]) / 3, rel=1e-5)


def test_options_out_of_range_are_refused(files: dict[str, Path]) -> None:
    for port, options in (
        (MotionSmoothness, {"weights": files["amt"], "pairs_per_pass": 0}),
        (ImagingQuality, {"weights": files["musiq"], "frames_per_pass": 0}),
        (ImagingQuality, {"weights": files["musiq"], "sizing": "bigger"}),
    ):
        with pytest.raises(RewardError, match=r"pass|sizing"):
            port(**options)


def test_the_verdict_is_that_of_the_reward_that_training_uses(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ported_dynamic_degree, "ITERATIONS", 3)
    shown = clip(3)
    ours = DynamicDegree(files["raft"]).score(shown).values["dynamic_degree"]
    reward = dynamic_degree.DynamicDegree(files["raft"], iterations=3)
    theirs = reward(shown.pixels[None], [""], fps=shown.fps).values["is_dynamic"]
    assert ours == float(theirs)


def test_the_prompt_changes_consistency_and_an_empty_one_is_an_error(metrics: dict[str, Metric]) -> None:
    shown = clip(5, 48, 40)
    values = []
    for prompt in ("a red circle", "two blue squares"):
        asked = dataclasses.replace(shown, entry=dataclasses.replace(shown.entry, prompt=prompt))
        values.append(metrics["overall_consistency"].score(asked).values["overall_consistency"])
    assert abs(values[0] - values[1]) > 1e-3
    empty = dataclasses.replace(shown, entry=dataclasses.replace(shown.entry, prompt=" "))
    with pytest.raises(RewardError, match="empty"):
        metrics["temporal_style"].score(empty)


class Settings:
    """What a file may hold beside its weights; building one would be noticed."""

    built = 0

    def __reduce__(self) -> tuple[object, ...]:
        return _build, ("danger",)


def _build(_: str) -> Settings:
    Settings.built += 1
    return Settings()


def test_settings_in_a_file_are_passed_over_without_running_anything(tmp_path: Path) -> None:
    path = tmp_path / "amt.pth"
    torch.save({"state_dict": {"weight": torch.ones(2)}, "config": Settings()}, path)
    with pytest.raises(RewardError, match="Cannot read"):
        read_state(path, key="state_dict")
    with settings_ignored(path):
        state = read_state(path, key="state_dict")
    assert list(state) == ["weight"]
    assert Settings.built == 0
