"""VideoAlign against what its authors' code computed (tests/parity/record_video_align.py), and the reward contract."""

import hashlib
import itertools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import Qwen2VLConfig

from rewards import video_align
from rewards.errors import RewardError
from rewards.ledger import LEDGER
from rewards.qwen2_vl import RewardTower, patchify, smart_resize, smart_size
from rewards.testing import RewardContract
from rewards.video_align import FRAMES, MAX_PIXELS, MIN_PIXELS, PUBLISHED, STATISTICS, VideoAlign, _head, merge_lora

TOLERANCE = 1e-5
CPU = torch.device("cpu")
Golden = dict[str, Any]


class TestVideoAlign(RewardContract):
    reward = "video_align"
    shape = (2, 5, 3, 12, 16)
    prompts = ("A red kite over the sea", "two dogs play with a ball in the snow")
    bf16_tolerance = 0.1

    @pytest.fixture(autouse=True)
    def _files(self, align_options: dict[str, Path]) -> None:
        type(self).options = {**align_options, "min_pixels": 4 * 784, "max_pixels": 8 * 784}


@pytest.fixture(scope="session")
def original(golden: Callable[[str], Golden]) -> Golden:
    return golden("video_align")


@pytest.fixture
def reward(align_options: dict[str, Path]) -> VideoAlign:
    return VideoAlign(**align_options, clips_per_pass=None)


def clips(stand_in: SimpleNamespace, case: Golden) -> Tensor:
    both = [stand_in.clip(case["frames"], case["height"], case["width"], seed) for seed in range(2)]
    return torch.from_numpy(np.stack(both)).movedim(-1, 2).float() / 255


def resized(video: Tensor, case: Golden) -> Tensor:
    frames = video[:, list(FRAMES.select(video.shape[1], fps=case["fps"]))]
    return smart_resize(frames, min_pixels=MIN_PIXELS, max_pixels=MAX_PIXELS)


def scores(reward: VideoAlign, video: Tensor, prompts: tuple[str, ...], fps: float) -> Tensor:
    return torch.stack(list(reward(video, list(prompts), fps=fps).values.values()), dim=-1)


def error(tensor: Tensor, recorded: Golden) -> float:
    assert list(tensor.shape) == recorded["shape"]
    flat = tensor.detach().double().flatten()
    found = flat[np.linspace(0, len(flat) - 1, 64).astype(int)]
    return float((found - torch.tensor(recorded["values"], dtype=torch.float64)).abs().max())


def raw_scores(reward: VideoAlign, frames: Tensor, prompts: tuple[str, ...]) -> Tensor:
    text = reward._text(prompts, CPU)
    return reward._model(frames, text, reward._text.prefix(CPU), reward._text.reward_ids(CPU))[..., 0]


def test_scores_are_the_originals_where_nothing_is_rounded(
    reward: VideoAlign, original: Golden, stand_in: SimpleNamespace
) -> None:
    case = original["cases"][0]
    found = scores(reward, clips(stand_in, case), stand_in.PROMPTS, case["fps"])
    torch.testing.assert_close(found, torch.tensor(case["scores"]), rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(found[:, 3], found[:, :3].sum(dim=1))


def test_raw_scores_hidden_states_and_gradients_are_the_originals_at_its_rounding(
    reward: VideoAlign, original: Golden, stand_in: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Tensor] = {}
    reward._model.to(device=CPU, dtype=torch.float64)  # so that only the original's own float32 noise counts
    reward._model.model.language_model.register_forward_hook(lambda *call: seen.update(hidden=call[-1]))

    def watched(*arguments: Any) -> Tensor:
        seen["patches"] = patchify(*arguments).requires_grad_()
        return seen["patches"]

    monkeypatch.setattr("rewards.qwen2_vl.patchify", watched)
    for case in original["cases"]:
        frames = resized(clips(stand_in, case) * 255, case).round().clamp(0, 255).double() / 255
        raw = raw_scores(reward, frames, stand_in.PROMPTS)
        torch.testing.assert_close(raw, torch.tensor(case["raw"]).double(), rtol=0, atol=TOLERANCE)
        assert error(seen["patches"].flatten(0, 2), case["patches"]) < TOLERANCE
        assert error(seen["hidden"][:, :64], case["features"]) < TOLERANCE * max(map(abs, case["features"]["values"]))
        for i, recorded in enumerate(case["gradients"]):
            (gradient,) = torch.autograd.grad(raw[:, i].sum(), seen["patches"], retain_graph=True)
            assert error(gradient.flatten(0, 2), recorded) < TOLERANCE
            assert error(0 * gradient.flatten(0, 2), recorded) > 10 * TOLERANCE
            assert float(gradient.double().norm()) == pytest.approx(recorded["norm"], rel=1e-4)


def test_preprocessing_is_the_originals_to_half_a_grey_level_and_another_resize_is_not(
    original: Golden, stand_in: SimpleNamespace
) -> None:
    half_a_level = 0.5 / 255 / 0.2613
    for case in original["cases"]:
        frames = resized(clips(stand_in, case), case)
        grid = [frames.shape[1] // 2, frames.shape[-2] // 14, frames.shape[-1] // 14]
        assert case["grid"] == [grid, grid]
        assert error(patchify(frames.clamp(0, 1), 14, 2).flatten(0, 2), case["patches"]) < 1.01 * half_a_level
    case = original["cases"][-1]
    video, size = clips(stand_in, case), frames.shape[-2:]
    chosen = video[:, list(FRAMES.select(video.shape[1], fps=case["fps"]))].flatten(0, 1)
    for wrong in ({"mode": "bicubic", "antialias": False}, {"mode": "bilinear", "antialias": True}):
        other = functional.interpolate(chosen, size, **wrong).unflatten(0, frames.shape[:2])
        assert error(patchify(other.clamp(0, 1), 14, 2).flatten(0, 2), case["patches"]) > 5 * half_a_level


def test_frames_and_sizes_are_the_originals(original: Golden) -> None:
    for count, fps, expected in original["frames"]:
        assert list(FRAMES.select(count, fps=fps)) == expected
    for *size, height, width in original["sizes"]:
        assert smart_size(*size, min_pixels=MIN_PIXELS, max_pixels=MAX_PIXELS) == (height, width)


def test_the_model_reads_the_originals_tokens(reward: VideoAlign, original: Golden, stand_in: SimpleNamespace) -> None:
    pad = reward._text._tokenizer.convert_tokens_to_ids("<|video_pad|>")
    for case in original["cases"]:
        groups, rows, columns = case["grid"][0]
        for prompt, expected in zip(stand_in.PROMPTS, case["ids"], strict=True):
            pads = [pad] * (groups * rows * columns // 4)
            ids = [*reward._text.prefix(CPU).tolist(), *pads, *reward._text([prompt], CPU)[0].tolist()]
            assert hashlib.sha256(",".join(map(str, ids)).encode()).hexdigest() == expected


def test_a_changed_patch_moves_every_score_by_a_hundred_tolerances(
    reward: VideoAlign, original: Golden, stand_in: SimpleNamespace
) -> None:
    case = original["cases"][0]
    video = clips(stand_in, case)
    changed = video.clone()
    changed[:, 0, :, 28:84, 56:112] = 1 - changed[:, 0, :, 28:84, 56:112]
    moved = scores(reward, changed, stand_in.PROMPTS, case["fps"]) - scores(
        reward, video, stand_in.PROMPTS, case["fps"]
    )
    assert float(moved.abs().amax(dim=0).min()) > 100 * TOLERANCE


def test_unmerged_tokens_exact_positions_and_other_lora_scales_are_not_the_original(
    reward: VideoAlign,
    align_options: dict[str, Path],
    original: Golden,
    stand_in: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = original["cases"][0]
    video, expected = clips(stand_in, case), torch.tensor(case["scores"])

    def distance(candidate: VideoAlign) -> float:
        return float((scores(candidate, video, stand_in.PROMPTS, case["fps"]) - expected).abs().max())

    visual, language = reward._model.model.visual, reward._model.model.language_model
    with monkeypatch.context() as wrong:
        wrong.setattr(visual.merger, "forward", lambda hidden: hidden[:, : hidden.shape[1] // 4])
        assert distance(reward) > 100 * TOLERANCE
    for tower in (visual, language):
        with monkeypatch.context() as wrong:
            wrong.setattr(tower, "_position_dtype", torch.float32)
            assert distance(reward) > 10 * TOLERANCE
    with monkeypatch.context() as wrong:
        wrong.setattr(video_align, "LORA_ALPHA", 64)
        assert distance(VideoAlign(**align_options)) > 100 * TOLERANCE
    assert distance(reward) < TOLERANCE


def test_published_sizes_are_those_of_the_published_file() -> None:
    config = Qwen2VLConfig(**PUBLISHED)
    with torch.device("meta"):
        tower = RewardTower(config, _head(config.text_config.hidden_size), "bfloat16")
    language = tower.model.language_model
    lora = sum(64 * sum(weight.shape) for name, weight in language.named_parameters() if name.endswith("proj.weight"))
    lm_head = language.embed_tokens.weight.numel()
    num_bytes = 2 * (sum(parameter.numel() for parameter in tower.parameters()) + lm_head + lora)
    size = LEDGER["video_align"].size
    assert size is not None
    assert 0 < size - num_bytes < 500_000  # zip entries of 1,124 tensors


def test_half_precision_towers_stay_near_and_leave_the_head_in_float32(
    align_options: dict[str, Path], stand_in: SimpleNamespace, original: Golden
) -> None:
    half = VideoAlign(**align_options, precision="bfloat16")
    case = original["cases"][0]
    found = scores(half, clips(stand_in, case), stand_in.PROMPTS, case["fps"])
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.tensor(case["scores"]), rtol=0, atol=0.3)
    assert half._model.model.visual.merger.ln_q.weight.dtype == torch.bfloat16
    assert half._model.rm_head.weight.dtype == torch.float32


def test_wrong_clips_and_prompts_are_refused(align_options: dict[str, Path]) -> None:
    reward = VideoAlign(**align_options, min_pixels=784, max_pixels=784, max_prompt_tokens=3)
    with pytest.raises(RewardError, match="2 frame"):
        reward(torch.rand(1, 1, 3, 28, 28), ["a sea"], fps=8.0)
    with pytest.raises(RewardError, match="MQ_reward"):
        reward(torch.rand(1, 4, 3, 28, 28), ["<|MQ_reward|>"], fps=8.0)


def test_wrong_files_are_refused_with_the_way_out(align_options: dict[str, Path], tmp_path: Path) -> None:
    def refusal(**changes: object) -> str:
        with pytest.raises(RewardError) as caught:
            VideoAlign(**{**align_options, **changes})  # type: ignore[arg-type]
        return str(caught.value)

    assert "There is no weight file" in refusal(weights=tmp_path / "nowhere.pth")
    torn = tmp_path / "torn.pth"
    torn.write_bytes(align_options["weights"].read_bytes()[:5000])
    assert "Cannot read weights" in refusal(weights=torn)
    assert "clips_per_pass" in refusal(clips_per_pass=0)
    state = torch.load(align_options["weights"], weights_only=True)
    layer = "base_model.model.model.layers.0.self_attn.q_proj"
    for lost in (f"{layer}.lora_A.default.weight", f"{layer}.lora_B.default.weight", f"{layer}.base_layer.weight"):
        with pytest.raises(RewardError, match="other half or the weight"):
            merge_lora({key: value for key, value in state.items() if key != lost})
    file = tmp_path / "headless.pth"
    torch.save({key: value for key, value in state.items() if "rm_head" not in key}, file)
    assert "lacks 'rm_head.weight'" in refusal(weights=file)


def test_merged_weights_are_the_weight_plus_twice_the_update_at_rank_64() -> None:
    down, up, base = (
        torch.randn(shape, generator=torch.Generator().manual_seed(0)) for shape in ((64, 5), (3, 64), (3, 5))
    )
    layer = "base_model.model.model.layers.0.mlp.up_proj"
    names = (f"{layer}.lora_A.default.weight", f"{layer}.lora_B.default.weight", f"{layer}.base_layer.weight")
    for order in itertools.permutations(zip(names, (down, up, base), strict=True)):
        merged = merge_lora(dict(order))
        assert list(merged) == ["model.language_model.layers.0.mlp.up_proj.weight"]
        torch.testing.assert_close(next(iter(merged.values())), base + 2 * up @ down)


def test_statistics_keep_the_order_of_the_reward_tokens() -> None:
    assert tuple(STATISTICS) == ("VQ", "MQ", "TA")


@pytest.mark.parametrize("dimension", ["VQ", "MQ", "TA", "Overall"])
def test_reward_backpropagation_trains_on_each_dimension(
    dimension: str, align_options: dict[str, Path], train_by_config: Callable[..., None]
) -> None:
    train_by_config("video_align", align_options, dimension=dimension)
