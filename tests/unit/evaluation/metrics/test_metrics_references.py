"""Metrics against reference clips: pairing, PSNR, SSIM against a plain NumPy computation, CLIP distance and LPIPS."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from evaluation.base import ClipEntry, DecodedClip, SkipClipError
from evaluation.metrics.clip_distance import ClipDistance
from evaluation.metrics.lpips_distance import Lpips
from evaluation.metrics.lpips_layers import LpipsModel
from evaluation.metrics.psnr import Psnr
from evaluation.metrics.reference_clips import ReferenceClips
from evaluation.metrics.ssim import Ssim
from rewards.errors import RewardError
from rlhf_video.data import read_video, write_video
from rlhf_video.errors import ConfigError, DataError
from rlhf_video.validation import Clips, psnr_scores

ROOT = Path(__file__).resolve().parents[4]
PROMPTS = ("a red circle", "a well-lit star")


def make(seed: int, num_frames: int = 3, side: int = 32) -> Tensor:
    return torch.rand(num_frames, 3, side, side, generator=torch.Generator().manual_seed(seed))


def clip_of(frames: Tensor, prompt: str = PROMPTS[0], sample: int = 0, seed: int | None = None) -> DecodedClip:
    entry = ClipEntry(file=Path("clip.mp4"), sha256="0" * 64, prompt=prompt, sample=sample, seed=seed)
    return DecodedClip(entry, frames, 8.0)


def stored(path: Path) -> Tensor:
    """Return the 8-bit frames of a file."""
    return read_video(path)[0].mul(255).round().to(torch.uint8)


@pytest.fixture
def named(tmp_path: Path) -> Path:
    """Return two prompts with two clips each, named as VBench names them."""
    for number in range(4):
        write_video(tmp_path / f"{PROMPTS[number // 2]}-{number % 2}.mp4", make(number), 8.0)
    return tmp_path


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """Return the same in generate.py's form, clips of one prompt apart from each other."""
    clips = []
    for number, (prompt, seed) in enumerate([(PROMPTS[0], 70), (PROMPTS[1], 80), (PROMPTS[0], 71)]):
        write_video(tmp_path / f"{number}.mp4", make(10 + number), 8.0)
        clips.append({"file": f"{number}.mp4", "prompt": prompt, "seed": seed, "sha256": "0"})
    (tmp_path / "manifest.json").write_text(json.dumps({"clips": clips}))
    return tmp_path


def test_names_pair_by_prompt_and_number(named: Path) -> None:
    references = ReferenceClips(named)
    frames = stored(named / f"{PROMPTS[1]}-1.mp4")
    assert torch.equal(references(clip_of(frames, PROMPTS[1], 1)), frames)
    assert torch.equal(references(clip_of(frames, PROMPTS[1], 1, seed=5)), frames)
    assert not torch.equal(references(clip_of(frames, PROMPTS[0], 1)), frames)
    with pytest.raises(SkipClipError, match="number 2"):
        references(clip_of(frames, PROMPTS[1], 2))


def test_a_manifest_pairs_by_seed_and_by_number_where_the_clip_has_none(listed: Path) -> None:
    references = ReferenceClips(listed)
    frames = stored(listed / "2.mp4")
    assert torch.equal(references(clip_of(frames, seed=71)), frames)
    assert torch.equal(references(clip_of(frames, sample=1)), frames)
    with pytest.raises(SkipClipError, match="seed 80"):
        references(clip_of(frames, PROMPTS[0], seed=80))


def test_bad_folders_say_what_fits(tmp_path: Path, named: Path) -> None:
    with pytest.raises(DataError, match="no folder of reference clips"):
        ReferenceClips(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no clips"):
        ReferenceClips(tmp_path / "empty")
    (named / "manifest.json").write_text('{"clips": [{"prompt": "x"}]}')
    with pytest.raises(DataError, match="is damaged"):
        ReferenceClips(named)
    twice = [{"file": f"{n}.mp4", "prompt": "x", "seed": 1} for n in range(2)]
    (named / "manifest.json").write_text(json.dumps({"clips": twice}))
    with pytest.raises(DataError, match="two clips of one prompt and seed"):
        ReferenceClips(named)


def test_another_size_is_an_error_that_states_both(named: Path) -> None:
    frames = torch.zeros(2, 3, 32, 16, dtype=torch.uint8)
    with pytest.raises(DataError, match="2 frames of 32x16 against 3 frames of 32x32"):
        Psnr(named).score(clip_of(frames))


def test_psnr_is_that_of_validation_and_of_the_formula(named: Path) -> None:
    reference = stored(named / f"{PROMPTS[0]}-0.mp4")
    other = stored(named / f"{PROMPTS[0]}-1.mp4")
    clip = clip_of(other)
    result = Psnr(named).score(clip)
    pair = [Clips(frames[None] / 255.0, ("x",), (0,)) for frames in (other, reference)]
    assert result.values["psnr"] == pytest.approx(psnr_scores(*pair)["psnr/to_dense"][0], abs=1e-5)
    errors = np.square(other.numpy() / 255.0 - reference.numpy() / 255.0).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(result.curves["psnr"], -10 * np.log10(errors), rtol=1e-12)
    assert result.values["psnr"] == pytest.approx(-10 * np.log10(errors.mean()), rel=1e-12)
    assert Psnr(named).score(clip_of(reference)).values["psnr"] == 100.0


def plain_ssim(x: np.ndarray, y: np.ndarray) -> float:
    """Return SSIM of two grey pictures window by window, as the paper writes it."""
    places = np.arange(11) - 5
    window = np.exp(-(places[:, None] ** 2 + places**2) / (2 * 1.5**2))
    window /= window.sum()
    found = []
    for top in range(x.shape[0] - 10):
        for left in range(x.shape[1] - 10):
            a, b = (picture[top : top + 11, left : left + 11] for picture in (x, y))
            mean_a, mean_b = (window * a).sum(), (window * b).sum()
            spread_a, spread_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
            shared = (window * (a - mean_a) * (b - mean_b)).sum()
            above = (2 * mean_a * mean_b + 0.01**2) * (2 * shared + 0.03**2)
            found.append(above / ((mean_a**2 + mean_b**2 + 0.01**2) * (spread_a + spread_b + 0.03**2)))
    return float(np.mean(found))


def test_ssim_equals_a_plain_computation_window_by_window(named: Path) -> None:
    reference = stored(named / f"{PROMPTS[0]}-0.mp4")
    noisy = (reference.int() + torch.randint(-40, 40, reference.shape)).clamp(0, 255).to(torch.uint8)
    result = Ssim(named).score(clip_of(noisy))
    grey = [np.tensordot([0.299, 0.587, 0.114], part.numpy() / 255.0, axes=(0, 1)) for part in (noisy, reference)]
    expected = [plain_ssim(x, y) for x, y in zip(*grey, strict=True)]
    assert 0.2 < np.mean(expected) < 0.98
    np.testing.assert_allclose(result.curves["ssim"], expected, atol=2e-6)
    assert result.values["ssim"] == pytest.approx(np.mean(expected), abs=2e-6)


def test_ssim_is_one_for_equal_clips_and_small_for_strangers(named: Path) -> None:
    reference = stored(named / f"{PROMPTS[0]}-0.mp4")
    assert Ssim(named).score(clip_of(reference)).values["ssim"] == pytest.approx(1.0, abs=1e-12)
    stranger = Ssim(named).score(clip_of(255 - reference)).values["ssim"]
    assert stranger < 0.1


def test_ssim_needs_room_for_its_window(tmp_path: Path) -> None:
    write_video(tmp_path / f"{PROMPTS[0]}-0.mp4", make(0, side=16)[..., :10], 8.0)
    with pytest.raises(SkipClipError, match="window of 11"):
        Ssim(tmp_path).score(clip_of(torch.zeros(3, 3, 16, 10, dtype=torch.uint8)))


def test_clip_distance_grows_with_noise_and_names_its_tower(named: Path) -> None:
    metric = ClipDistance(named, model=ROOT / "assets/sprite-clip", device="cpu", frames_per_pass=2)
    reference = stored(named / f"{PROMPTS[0]}-0.mp4").float()
    found = []
    for strength in (0.0, 8.0, 60.0):
        noise = torch.randn(reference.shape, generator=torch.Generator().manual_seed(1))
        result = metric.score(clip_of((reference + strength * noise).clamp(0, 255).to(torch.uint8)))
        found.append(result.values["clip_distance_sprite-clip"])
        assert len(result.curves["clip_distance_sprite-clip"]) == 3
    assert found[0] == pytest.approx(0.0, abs=1e-6)
    assert found[0] < found[1] < found[2] < 2.0
    assert metric.spec.name == "clip_distance_sprite-clip"


def lpips_files(folder: Path, network: str) -> dict[str, str]:
    """Write random weights in the layouts of torchvision's and LPIPS's files."""
    model = LpipsModel(network)  # type: ignore[arg-type]
    features = {f"features.{name}": value for name, value in model.features.state_dict().items()}
    torch.save({**features, "classifier.1.weight": torch.zeros(2, 2)}, folder / "backbone.pth")
    weights = {f"lin{name[0]}.model.1.weight": value.abs() for name, value in model.linear.state_dict().items()}
    torch.save(weights, folder / "linear.pth")
    return {"backbone": str(folder / "backbone.pth"), "linear": str(folder / "linear.pth")}


def plain_lpips(pixels: list[Tensor], files: dict[str, str]) -> Tensor:
    """Return LPIPS's formula on AlexNet, step by step, from the files alone."""
    state, weights = (torch.load(files[key], weights_only=True) for key in ("backbone", "linear"))
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    sides = [((2 * part - 1) - shift[:, None, None]) / scale[:, None, None] for part in pixels]
    total = torch.zeros(len(pixels[0]))
    for depth, (place, stride, padding) in enumerate([(0, 4, 2), (3, 1, 2), (6, 1, 1), (8, 1, 1), (10, 1, 1)]):
        if depth in (1, 2):
            sides = [torch.nn.functional.max_pool2d(part, 3, 2) for part in sides]
        kernel, bias = state[f"features.{place}.weight"], state[f"features.{place}.bias"]
        sides = [torch.conv2d(part, kernel, bias, stride, padding).relu() for part in sides]
        one, other = (part / (part.pow(2).sum(1, keepdim=True).sqrt() + 1e-10) for part in sides)
        total += ((one - other).pow(2) * weights[f"lin{depth}.model.1.weight"]).sum(1).mean((1, 2))
    return total


def test_lpips_is_its_formula_on_its_own_files(tmp_path: Path) -> None:
    torch.manual_seed(0)
    files = lpips_files(tmp_path, "alex")
    (tmp_path / "clips").mkdir()
    write_video(tmp_path / "clips" / f"{PROMPTS[0]}-0.mp4", make(0, side=48), 8.0)
    reference = stored(tmp_path / "clips" / f"{PROMPTS[0]}-0.mp4")
    noisy = 255 - reference
    metric = Lpips(tmp_path / "clips", **files, device="cpu", frames_per_pass=2)
    result = metric.score(clip_of(noisy))
    expected = plain_lpips([noisy / 255.0, reference / 255.0], files)
    assert float(expected.min()) > 1e-3
    np.testing.assert_allclose(result.curves["lpips_alex"], expected.numpy(), rtol=1e-4)
    assert metric.score(clip_of(reference)).values["lpips_alex"] == 0.0
    assert metric.spec.name == "lpips_alex"


def test_lpips_refuses_files_of_another_network_and_absent_ones(tmp_path: Path, named: Path) -> None:
    files = lpips_files(tmp_path, "alex")
    with pytest.raises(RewardError, match=r"backbone\.pth does not fit"):
        Lpips(named, **files, network="vgg")
    with pytest.raises(RewardError, match="does not fit"):
        Lpips(named, backbone=files["backbone"], linear=files["backbone"])
    with pytest.raises(RewardError, match=r"absent\.pth.*alexnet-owt"):
        Lpips(named, backbone=tmp_path / "absent.pth", linear=files["linear"])
    with pytest.raises(ConfigError, match="squeeze"):
        Lpips(named, **files, network="squeeze")  # type: ignore[arg-type]
    with pytest.raises(RewardError, match="1 or more, got 0"):
        Lpips(named, **files, frames_per_pass=0)
    small = clip_of(torch.zeros(3, 3, 30, 32, dtype=torch.uint8))
    with pytest.raises(SkipClipError, match="31 pixels"):
        Lpips(named, **files).score(small)


def test_vgg_reads_the_file_of_torchvision_layer_by_layer(tmp_path: Path) -> None:
    names = set(LpipsModel("vgg").features.state_dict())
    places = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)  # of torchvision's vgg16().features
    assert names == {f"{place}.{kind}" for place in places for kind in ("weight", "bias")}
