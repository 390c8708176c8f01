"""The ports compute what VBench's own code computes: golden numbers of tests/parity/record_vbench_motion.py."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from evaluation.base import ClipEntry, DecodedClip
from evaluation.ports import amt, frames, imaging_quality, musiq
from evaluation.ports.dynamic_degree import DynamicDegree
from evaluation.ports.imaging_quality import ImagingQuality
from evaluation.ports.motion_smoothness import MotionSmoothness
from evaluation.ports.overall_consistency import OverallConsistency
from evaluation.ports.temporal_style import TemporalStyle
from rewards.clip_text import clean_prompt
from rewards.dynamic_degree import is_dynamic
from rewards.random_weights import random_array

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "golden" / "vbench_motion.json").read_text())
TOLERANCE = 1e-4
"""Relative."""
FLOW, MOTION, IMAGING, CONSISTENCY = (
    GOLDEN[name] for name in ("dynamic_degree", "motion_smoothness", "imaging_quality", "overall_consistency")
)


@pytest.fixture(scope="module")
def file_of(
    tmp_path_factory: pytest.TempPathFactory, random_state: Callable[..., dict[str, torch.Tensor]]
) -> Callable[..., Path]:
    """Return a weight file as the originals publish it."""

    def write(metric: str, key: str | None = None, prefix: str = "") -> Path:
        state = {prefix + name: value for name, value in random_state(GOLDEN[metric]["shapes"]).items()}
        path = tmp_path_factory.mktemp("weights") / f"{metric}.pth"
        torch.save({key: state} if key else state, path)
        return path

    return write


@pytest.fixture(scope="module")
def smoothness(file_of: Callable[..., Path]) -> MotionSmoothness:
    return MotionSmoothness(file_of("motion_smoothness", "state_dict"))


@pytest.fixture(scope="module")
def degree(file_of: Callable[..., Path]) -> DynamicDegree:
    return DynamicDegree(file_of("dynamic_degree", prefix="module."))


@pytest.fixture(scope="module")
def musiq_file(file_of: Callable[..., Path]) -> Path:
    return file_of("imaging_quality")


@pytest.fixture(scope="module")
def viclip(file_of: Callable[..., Path], clip_tokenizer: Callable[..., Path]) -> dict[str, Path]:
    tokenizer = clip_tokenizer(CONSISTENCY["merges"])
    return {"weights": file_of("overall_consistency", "model"), "tokenizer": tokenizer}


def clip(metric: str, name: str, prompt: str = "") -> DecodedClip:
    """Return the recorded clip."""
    num_frames, height, width = GOLDEN["clips"][metric][name]
    rows, columns = height // 16 + 4, width // 16 + 4
    coarse = random_array(f"clip {metric} {name}", (1, rows * columns * 3))[0]
    unit = coarse / np.abs(coarse).max() * 0.5 + 0.5
    picture = unit.reshape(rows, columns, 3).repeat(16, axis=0).repeat(16, axis=1)
    array = np.stack([picture[3 * i : 3 * i + height, 5 * i : 5 * i + width] for i in range(num_frames)])
    pixels = torch.from_numpy(np.round(array * 255).astype(np.uint8)).movedim(-1, 1)
    return DecodedClip(ClipEntry(file=Path(f"{name}.mp4"), sha256="", prompt=prompt), pixels, fps=8.0)


def relative(ours: float, theirs: float) -> float:
    return abs(ours - theirs) / abs(theirs)


class TestDynamicDegree:
    @pytest.mark.parametrize("name", list(FLOW["speeds"]))
    def test_speeds_equal_the_originals(self, name: str, degree: DynamicDegree) -> None:
        shown = clip("dynamic_degree", name)
        speeds = degree.score(shown).curves["dynamic_degree"]
        expected = torch.tensor(FLOW["speeds"][name]) * (256 / min(shown.frames.shape[-2:]))
        torch.testing.assert_close(torch.tensor(speeds), expected, rtol=TOLERANCE, atol=0)

    def test_padding_outside_the_statistics_is_seen(self, degree: DynamicDegree) -> None:
        shown = clip("dynamic_degree", "padded")
        with torch.inference_mode():
            flow = degree._flow(*(shown.pixels[i : i + 1] for i in range(2)))
        lengths = flow.norm(dim=1).flatten()
        speed = float(lengths.topk(int(0.05 * len(lengths))).values.mean())
        assert relative(speed, FLOW["speeds"]["padded"][0]) > 10 * TOLERANCE

    @pytest.mark.parametrize("name", list(FLOW["verdicts"]))
    def test_the_verdict_on_speeds_is_the_originals(self, name: str) -> None:
        recorded = FLOW["verdicts"][name]
        assert bool(is_dynamic(torch.tensor([recorded["speeds"]]))) is recorded["is_dynamic"]

    def test_verdicts_of_both_kinds_were_recorded(self) -> None:
        assert {recorded["is_dynamic"] for recorded in FLOW["verdicts"].values()} == {True, False}


class TestMotionSmoothness:
    @staticmethod
    def difference(metric: MotionSmoothness, name: str) -> float:
        """Return how far the error of the prediction, which is what varies, is from the original's."""
        score = metric.score(clip("motion_smoothness", name)).values["motion_smoothness"]
        return relative(1 - score, 1 - MOTION["scores"][name])

    @pytest.mark.parametrize("name", list(MOTION["scores"]))
    def test_score_equals_the_originals(self, name: str, smoothness: MotionSmoothness) -> None:
        assert self.difference(smoothness, name) < TOLERANCE

    def test_correlations_of_the_flows_as_they_are_are_seen(
        self, smoothness: MotionSmoothness, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(amt, "MIDDLE", 0.9)
        assert self.difference(smoothness, "padded") > 10 * TOLERANCE

    def test_zeros_around_the_frame_are_seen(
        self, smoothness: MotionSmoothness, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pad = functional.pad
        monkeypatch.setattr(functional, "pad", lambda values, padding, **_: pad(values, padding))
        assert self.difference(smoothness, "padded") > 5 * TOLERANCE


class TestImagingQuality:
    @staticmethod
    def scores(metric: ImagingQuality, name: str) -> float:
        return metric.score(clip("imaging_quality", name)).values["imaging_quality"]

    @pytest.mark.parametrize(("name", "sizing"), [(n, s) for n, all_ in IMAGING["scores"].items() for s in all_])
    def test_score_equals_the_originals(self, name: str, sizing: Any, musiq_file: Path) -> None:
        score = self.scores(ImagingQuality(musiq_file, sizing=sizing), name)
        assert relative(100 * score, IMAGING["scores"][name][sizing]) < TOLERANCE

    def test_the_sizings_differ_where_a_frame_is_large(self) -> None:
        scores = IMAGING["scores"]["long"]
        assert relative(scores["longer"], scores["none"]) > 100 * TOLERANCE

    def test_antialiasing_is_seen(self, musiq_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        resize = functional.interpolate

        def smooth(*args: Any, mode: str, **options: Any) -> torch.Tensor:
            return resize(*args, mode=mode, antialias=mode != "nearest", **options)

        for module in (musiq, imaging_quality):
            monkeypatch.setattr(module.functional, "interpolate", smooth)
        assert relative(100 * self.scores(ImagingQuality(musiq_file), "long"), IMAGING["scores"]["long"]["longer"]) > (
            10 * TOLERANCE
        )

    def test_the_approximate_gelu_of_jax_is_seen(self, musiq_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(musiq.functional, "gelu", partial(functional.gelu, approximate="tanh"))
        score = self.scores(ImagingQuality(musiq_file), "small")
        assert relative(100 * score, IMAGING["scores"]["small"]["longer"]) > TOLERANCE


class TestViClip:
    @staticmethod
    def scores(metric: OverallConsistency, name: str) -> list[float]:
        shown = (clip("overall_consistency", name, prompt) for prompt in CONSISTENCY["prompts"])
        return [metric.score(one).values[metric.name] for one in shown]

    @pytest.mark.parametrize("name", list(CONSISTENCY["scores"]))
    @pytest.mark.parametrize("metric", [OverallConsistency, TemporalStyle])
    def test_cosines_equal_the_originals(self, metric: Any, name: str, viclip: dict[str, Path]) -> None:
        ours, theirs = self.scores(metric(**viclip), name), CONSISTENCY["scores"][name]
        torch.testing.assert_close(torch.tensor(ours), torch.tensor(theirs), rtol=TOLERANCE, atol=0)

    def test_both_dimensions_embed_a_clip_once(self, viclip: dict[str, Path]) -> None:
        metrics = (OverallConsistency(**viclip), TemporalStyle(**viclip))
        assert metrics[0]._model is metrics[1]._model  # 1.7 GB in the published size
        passes: list[object] = []
        handle = metrics[0]._model._model.vision_encoder.register_forward_hook(lambda *_: passes.append(1))
        for name in CONSISTENCY["scores"]:
            shown = clip("overall_consistency", name, CONSISTENCY["prompts"][0])
            scores = {metric.score(shown).values[metric.name] for metric in metrics}
            assert len(scores) == 1 and relative(scores.pop(), CONSISTENCY["scores"][name][0]) <= TOLERANCE
        handle.remove()
        assert len(passes) == len(CONSISTENCY["scores"])

    def test_tokens_equal_the_originals_and_one_prompt_is_cut(self, viclip: dict[str, Path]) -> None:
        text = OverallConsistency(**viclip)._model._text
        lengths = []
        for prompt, expected in zip(CONSISTENCY["prompts"], CONSISTENCY["tokens"], strict=True):
            ids = text._token_ids(clean_prompt(prompt))[0].tolist()
            assert ids + [0] * (len(expected) - len(ids)) == expected
            lengths.append(len(text.tokenizer(clean_prompt(prompt))["input_ids"]))
        assert max(lengths) > len(CONSISTENCY["tokens"][0]) > min(lengths)

    @pytest.mark.parametrize("name", list(CONSISTENCY["indices"]))
    def test_frames_are_those_of_the_original(self, name: str) -> None:
        num_frames = GOLDEN["clips"]["overall_consistency"][name][0]
        assert frames.middle_frames(num_frames, 8) == CONSISTENCY["indices"][name]

    def test_pixels_that_are_not_rounded_to_8_bit_are_seen(
        self, viclip: dict[str, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(torch.Tensor, "round_", lambda pixels: pixels)
        ours, theirs = self.scores(OverallConsistency(**viclip), "landscape"), CONSISTENCY["scores"]["landscape"]
        assert max(relative(a, b) for a, b in zip(ours, theirs, strict=True)) > TOLERANCE
