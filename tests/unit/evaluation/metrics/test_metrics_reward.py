"""A reward as a metric: the reward's own number, its reasons, and nothing of its own."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from evaluation.base import ClipEntry, DecodedClip, Metric, SkipClipError
from evaluation.metrics.reward import RewardMetric
from evaluation.registry import build_metric
from rewards import registry
from rewards.base import FramePolicy, RewardOutput, RewardSpec, masked_output
from rewards.errors import RewardError
from rlhf_video.errors import ConfigError
from rlhf_video.validation import Clips, score_clips

ROOT = Path(__file__).resolve().parents[4]
WEIGHTLESS = ("frame_difference", "saturation", "temporal_flicker", "colourfulness", "sharpness", "exposure")
PROMPT = "a red circle moving left on a black background"


class DarkHater:
    """Masks clips that are darker than 0.2 on average."""

    spec = RewardSpec(
        name="dark_hater",
        version="3-odd",
        dimensions=("light", "square"),
        range=(0.0, 1.0),
        higher_is_better=False,
        is_differentiable=True,
        frames=FramePolicy("all"),
        resolution=None,
        licence="MIT",
        paper=None,
        uses_prompt=False,
    )

    def __call__(self, video: Tensor, prompts: Sequence[str], *, fps: float) -> RewardOutput:
        light = video.mean(dim=(1, 2, 3, 4))
        valid = light > 0.2
        reasons = tuple(None if ok else "too dark to judge" for ok in valid.tolist())
        return masked_output({"light": light, "square": light**2}, valid, reasons)


def clip_of(frames: Tensor, prompt: str = PROMPT) -> DecodedClip:
    return DecodedClip(ClipEntry(file=Path("clip.mp4"), sha256="0" * 64, prompt=prompt), frames, 8.0)


def noise(num_frames: int = 8, side: int = 64) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (num_frames, 3, side, side), generator=generator, dtype=torch.uint8)


def register_dark_hater(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(registry._TARGETS, "dark_hater", "rewards.testing:BrightnessReward")
    monkeypatch.setattr("rewards.testing.BrightnessReward", DarkHater)
    return "dark_hater"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in WEIGHTLESS),
        ("clip_preference", {"model": str(ROOT / "assets/sprite-clip")}),
        ("video_text", {"model": str(ROOT / "assets/sprite-motion")}),
        ("rlhf_video.sprites.judge:SpriteJudge", {}),
    ],
)
def test_metric_gives_the_number_of_the_reward_and_of_validation(name: str, options: dict[str, object]) -> None:
    clip = clip_of(noise())
    metric = build_metric("reward", None, {"name": name, "options": options}).metric
    assert isinstance(metric, Metric)
    found = metric.score(clip).values
    reward = registry.build(name, **options)
    direct = reward(clip.pixels[None], [PROMPT], fps=8.0)
    validated = score_clips(Clips(clip.pixels[None], (PROMPT,), (0,)), {"r": reward}, fps=8.0)
    assert tuple(found) == reward.spec.dimensions == metric.spec.dimensions
    for dimension, number in found.items():
        assert number == float(direct.values[dimension][0]) == validated[f"r/{dimension}"][0]


def test_facts_are_those_of_the_reward(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = RewardMetric(register_dark_hater(monkeypatch)).spec
    assert (spec.name, spec.version, spec.family) == ("dark_hater", "3-odd", "reward")
    assert spec.dimensions == ("light", "square") and spec.higher_is_better is False and not spec.uses_prompt
    assert (spec.unit, spec.licence, spec.weights) == ("score", "MIT", ())
    assert RewardMetric("dark_hater", unit="lux").spec.unit == "lux"


def test_masked_clip_is_skipped_with_the_rewards_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    metric = RewardMetric(register_dark_hater(monkeypatch))
    assert metric.score(clip_of(noise())).values["light"] == pytest.approx(0.5, abs=0.01)
    with pytest.raises(SkipClipError, match=r"^too dark to judge$"):
        metric.score(clip_of(noise() // 10))


def test_a_clip_that_does_not_fit_is_a_failure_and_no_skip() -> None:
    with pytest.raises(RewardError, match="2 frame"):
        RewardMetric("frame_difference").score(clip_of(noise(1)))


def test_two_rewards_have_two_keys() -> None:
    first = build_metric("reward", None, {"name": "saturation"})
    second = build_metric("reward", None, {"name": "sharpness"})
    assert first.key != second.key and (first.label, second.label) == ("saturation", "sharpness")


def test_weights_of_the_ledger_are_named_unless_a_file_stands_for_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    built = []
    monkeypatch.setattr(registry, "build", lambda name, **options: built.append(options) or DarkHater())
    assert RewardMetric("pick_score").spec.weights == ("pick_score",)
    assert RewardMetric("clip_score", options={"weights": "clip_vit_l_14"}).spec.weights == ("clip_vit_l_14",)
    assert RewardMetric("clip_score", options={"weights": str(tmp_path / "w.pt")}).spec.weights == ()
    assert built[1:] == [{"weights": "clip_vit_l_14"}, {"weights": str(tmp_path / "w.pt")}]


def test_unknown_reward_or_device_is_refused_by_name() -> None:
    with pytest.raises(RewardError, match="Did you mean 'saturation'"):
        RewardMetric("saturatoin")
    with pytest.raises(ConfigError, match="Unknown device 'gpu'"):
        RewardMetric("saturation", device="gpu")  # type: ignore[arg-type]
