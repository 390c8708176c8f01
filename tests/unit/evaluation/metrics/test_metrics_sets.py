"""Distances of sets of features: closed forms for Gaussians, unbiasedness, refusals, and the networks behind them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch.nn import functional
from transformers import CLIPModel, VJEPA2Config, VJEPA2Model, XCLIPModel

from evaluation.base import ClipEntry, DecodedClip, SetMetric
from evaluation.metrics.feature_backbones import FeatureBackbone
from evaluation.metrics.frechet_distance import FrechetDistance, frechet_distance
from evaluation.metrics.kernel_distance import KernelDistance, kernel_distance, kernel_distance_interval
from evaluation.registry import build_metric
from rewards import registry
from rlhf_video.errors import ConfigError, DataError

ROOT = Path(__file__).resolve().parents[4]


def clip_of(seed: int = 0, num_frames: int = 21) -> DecodedClip:
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randint(0, 256, (num_frames, 3, 64, 64), generator=generator, dtype=torch.uint8)
    return DecodedClip(ClipEntry(file=Path("clip.mp4"), sha256="0" * 64, prompt="a red circle"), frames, 8.0)


def sample_with(mean: NDArray[np.float64], covariance: NDArray[np.float64], size: int, seed: int) -> np.ndarray:
    """Return a sample whose own mean and covariance are exactly these."""
    rows = np.random.default_rng(seed).normal(size=(size, len(mean)))
    rows -= rows.mean(axis=0)
    rows @= np.linalg.inv(np.linalg.cholesky(np.cov(rows, rowvar=False))).T
    values, vectors = np.linalg.eigh(covariance)
    return mean + rows @ (vectors * np.sqrt(values)).T


def test_frechet_distance_of_axis_aligned_gaussians_is_its_closed_form() -> None:
    spreads = np.array([1.0, 4.0, 9.0]), np.array([4.0, 0.25, 9.0])
    means = np.array([0.0, 1.0, 2.0]), np.array([3.0, 1.0, -2.0])
    sets = [sample_with(means[i], np.diag(spreads[i]), 40, seed=i) for i in range(2)]
    expected = 9 + 16 + np.square(np.sqrt(spreads[0]) - np.sqrt(spreads[1])).sum()
    assert frechet_distance(*sets) == pytest.approx(expected, rel=1e-10)


def test_frechet_distance_of_tilted_gaussians_is_its_closed_form() -> None:
    # For 2x2 products with positive eigenvalues: tr sqrt(M) = sqrt(tr M + 2 sqrt(det M)).
    one, other = np.array([[2.0, 0.9], [0.9, 1.0]]), np.array([[1.0, -0.8], [-0.8, 3.0]])
    sets = [sample_with(np.zeros(2), matrix, 30, seed=5) for matrix in (one, other)]
    product = one @ other
    root = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    assert frechet_distance(*sets) == pytest.approx(np.trace(one + other) - 2 * root, rel=1e-10)
    assert frechet_distance(sets[1], sets[0]) == pytest.approx(frechet_distance(*sets), rel=1e-10)


def test_frechet_distance_is_zero_on_itself_and_ignores_order_and_rotation() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(200, 12)).astype(np.float32), rng.normal(0.3, 2.0, size=(90, 12))
    assert frechet_distance(first, first[::-1]) == pytest.approx(0.0, abs=1e-6)
    turn = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    assert frechet_distance(first @ turn, second @ turn) == pytest.approx(frechet_distance(first, second), rel=1e-6)


def test_frechet_distance_survives_features_that_never_change() -> None:
    rng = np.random.default_rng(2)
    first, second = rng.normal(size=(50, 6)), rng.normal(size=(50, 6))
    first[:, 3:] = 1.0  # covariances of rank 3
    second[:, 3:] = 1.0
    assert frechet_distance(first, second) == pytest.approx(frechet_distance(first[:, :3], second[:, :3]), abs=1e-9)


def test_too_few_items_are_refused_with_what_is_needed() -> None:
    rows = np.zeros((8, 8))
    with pytest.raises(DataError, match=r"at least 9 items .* got 8 and 20.*kernel_distance"):
        frechet_distance(rows, np.zeros((20, 8)))
    with pytest.raises(DataError, match="at least 2 items"):
        kernel_distance(rows[:1], rows)
    with pytest.raises(DataError, match="one width"):
        frechet_distance(rows, np.zeros((20, 7)))
    with pytest.raises(DataError, match="not finite"):
        kernel_distance(rows * np.nan, rows)


def plain_kernel_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Return the unbiased squared MMD pair by pair."""

    def k(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / len(x) + 1) ** 3)

    n, m = len(first), len(second)
    xx = sum(k(first[i], first[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(k(second[i], second[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return xx + yy - 2 * sum(k(x, y) for x in first for y in second) / (n * m)


def test_kernel_distance_equals_a_plain_sum_over_pairs() -> None:
    rng = np.random.default_rng(3)
    first, second = rng.normal(size=(9, 4)), rng.normal(0.5, size=(7, 4))
    assert kernel_distance(first, second) == pytest.approx(plain_kernel_distance(first, second), rel=1e-10)


def test_kernel_distance_has_mean_zero_for_equal_distributions_where_frechet_is_biased() -> None:
    rng = np.random.default_rng(4)
    pairs = [(rng.normal(size=(30, 5)), rng.normal(size=(30, 5))) for _ in range(400)]
    kernels = np.array([kernel_distance(*pair) for pair in pairs])
    assert abs(kernels.mean()) < 3.5 * kernels.std() / np.sqrt(len(kernels))
    assert np.mean([frechet_distance(*pair) for pair in pairs[:50]]) > 0.3


def test_interval_leaves_out_whole_clusters() -> None:
    rng = np.random.default_rng(5)
    first, second = rng.normal(size=(12, 4)), rng.normal(0.6, size=(10, 4))
    labels, others = np.arange(12) // 3, np.arange(10) // 2  # 0 to 3 in both sets, 4 in the second alone
    found = kernel_distance_interval(first, second, clusters=labels, reference_clusters=others)
    left_out = [plain_kernel_distance(first[labels != c], second[others != c]) for c in range(5)]
    spread = np.sqrt(4 / 5 * np.square(left_out - np.mean(left_out)).sum())
    assert found.mean == pytest.approx(plain_kernel_distance(first, second), rel=1e-10)
    assert (found.num_items, found.num_clusters) == (22, 5)
    assert found.high - found.mean == pytest.approx(2.776 * spread, rel=5e-3)  # t with 4 degrees of freedom
    assert found.mean - found.low == pytest.approx(found.high - found.mean)


def kernel_mean(width: int, first: float, second: float) -> float:
    """Return E k(x, y) for independent x ~ N(first, I) and y ~ N(second, I), each mean the same in every coordinate."""
    one, two, three = (
        moment(first) * moment(second) for moment in (lambda c: c, lambda c: c**2 + 1, lambda c: c**3 + 3 * c)
    )
    square = width * two + width * (width - 1) * one**2
    cube = width * three + 3 * width * (width - 1) * two * one + width * (width - 1) * (width - 2) * one**3
    return 1 + 3 * one + 3 * square / width**2 + cube / width**3


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_interval_holds_the_truth_at_its_level(shift: float) -> None:
    rng = np.random.default_rng(6)
    truth = kernel_mean(16, 0.0, 0.0) + kernel_mean(16, shift, shift) - 2 * kernel_mean(16, 0.0, shift)
    intervals = []
    for _ in range(500):
        sets = [rng.normal(mean, size=(40, 16)) for mean in (0.0, shift)]
        intervals.append(kernel_distance_interval(*sets))
    assert np.mean([part.mean for part in intervals]) == pytest.approx(truth, abs=0.06 if shift else 0.01)
    assert np.mean([part.low <= truth <= part.high for part in intervals]) >= 0.92
    if shift:
        assert np.mean([part.is_above_zero for part in intervals]) > 0.9
    else:
        assert np.mean([part.is_above_zero for part in intervals]) <= 0.025


def test_labels_must_fit_and_be_several() -> None:
    rows = np.zeros((6, 2))
    with pytest.raises(DataError, match="one label a row"):
        kernel_distance_interval(rows, rows, clusters=[0, 1])
    with pytest.raises(DataError, match="at least 3 clusters"):
        kernel_distance_interval(rows, rows, clusters=[0, 0, 0, 1, 1, 1])
    with pytest.raises(DataError, match="got 2 and 6"):
        kernel_distance_interval(rows[:2], rows)
    with pytest.raises(DataError, match="got 6 and 1"):
        kernel_distance_interval(rows, rows, reference_clusters=[0] * 6)


def test_clip_features_are_the_directions_of_the_models_own_image_embeddings() -> None:
    folder = ROOT / "assets/sprite-clip"
    metric = FrechetDistance("clip_frames", folder, device="cpu")
    clip = clip_of()
    found = metric.features(clip)
    model = CLIPModel.from_pretrained(folder)
    pixels = metric._backbone._pixels(clip.frames)
    mean, std = (torch.tensor(value)[:, None, None] for value in _statistics(folder))
    with torch.no_grad():
        expected = model.get_image_features(pixel_values=(pixels - mean) / std).pooler_output
    assert found.shape == (21, 64) and found.dtype == np.float32
    np.testing.assert_allclose(found, 8 * functional.normalize(expected, dim=-1).numpy(), atol=1e-4)
    assert metric.spec.name == "frechet_clip_frames_sprite-clip"


def _statistics(folder: Path) -> tuple[list[float], list[float]]:
    content = json.loads((folder / "preprocessor_config.json").read_text())
    return content["image_mean"], content["image_std"]


def test_xclip_features_are_those_behind_the_video_text_reward() -> None:
    folder = ROOT / "assets/sprite-motion"
    clip = clip_of(num_frames=30)
    found = FrechetDistance("xclip_clips", folder, device="cpu").features(clip)
    reward = registry.build("video_text", model=str(folder))
    expected, _, _ = reward.embed(clip.pixels[None], ["a red circle moving left on black"], fps=8.0)  # type: ignore[attr-defined]
    assert found.shape == (1, 64)
    np.testing.assert_allclose(found, 8 * functional.normalize(expected.detach(), dim=-1).numpy(), atol=1e-4)
    assert isinstance(reward.model, XCLIPModel)  # type: ignore[attr-defined]


def test_v_jepa_features_are_the_mean_token_of_its_encoder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = VJEPA2Config(
        crop_size=32, patch_size=16, frames_per_clip=16, hidden_size=24, num_attention_heads=2, num_hidden_layers=2,
        pred_hidden_size=12, pred_num_attention_heads=2, pred_num_hidden_layers=1, pred_num_mask_tokens=2,
    )  # fmt: skip
    model = VJEPA2Model(config).eval()
    save_file(model.state_dict(), tmp_path / "tiny.safetensors")
    config.save_pretrained(tmp_path)
    metric = KernelDistance("v_jepa_clips", tmp_path / "tiny.safetensors", config=tmp_path, device="cpu")
    clip = clip_of(num_frames=16)
    found = metric.features(clip)
    assert found.shape == (1, 24) and metric.spec.name == "kernel_v_jepa_clips_tiny"
    surprise = registry.build("v_jepa_surprise", weights=str(tmp_path / "tiny.safetensors"), config=str(tmp_path))
    with torch.no_grad():
        expected = model.encoder(pixel_values_videos=surprise._prepare(clip.pixels[None])).last_hidden_state.mean(1)  # type: ignore[attr-defined]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


def test_kernel_distance_looks_at_one_frame_a_clip_unless_told() -> None:
    folder = ROOT / "assets/sprite-clip"
    assert KernelDistance("clip_frames", folder).features(clip_of()).shape == (1, 64)
    several = KernelDistance("clip_frames", folder, frames={"kind": "uniform", "count": 3})
    assert several.features(clip_of()).shape == (3, 64)


def test_distances_are_built_by_name_and_tell_noise_from_stripes() -> None:
    options = {"backbone": "clip_frames", "model": str(ROOT / "assets/sprite-clip")}
    for name in ("frechet_distance", "kernel_distance"):
        metric = build_metric(name, None, {**options, "frames": {"kind": "uniform", "count": 17}}).metric
        assert isinstance(metric, SetMetric) and len(metric.spec.dimensions) == 1
        noise = [
            np.concatenate([metric.features(clip_of(seed)) for seed in seeds]) for seeds in (range(4), range(4, 8))
        ]
        striped = []
        for seed in range(4):
            clip = clip_of(seed)
            clip.frames[..., ::8, :] = 0
            striped.append(metric.features(clip))
        assert metric.distance(noise[0], np.concatenate(striped)) > 3 * abs(metric.distance(*noise))


def test_options_that_do_not_fit_the_network_are_refused() -> None:
    with pytest.raises(ConfigError, match="Unknown feature backbone 'i3d'"):
        FeatureBackbone("i3d", "x")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="v_jepa_clips"):
        FeatureBackbone("clip_frames", ROOT / "assets/sprite-clip", config="x")
    with pytest.raises(ConfigError, match="exactly 21"):
        FeatureBackbone("xclip_clips", ROOT / "assets/sprite-motion", frames="all")
