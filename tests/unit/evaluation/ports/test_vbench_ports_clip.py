"""Ports of VBench that look at single frames: formulas, weight files, options. Parity has tests of its own."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from evaluation.base import ClipEntry, DecodedClip, Metric, SkipClipError
from evaluation.ports import random_weights, weights
from evaluation.ports.aesthetic_quality import AestheticQuality
from evaluation.ports.background_consistency import BackgroundConsistency
from evaluation.ports.dino import load_dino
from evaluation.ports.frame_features import consistency
from evaluation.ports.openai_clip import load_clip_model, read_clip_state
from evaluation.ports.random_weights import ClipSizes
from evaluation.ports.subject_consistency import SubjectConsistency
from evaluation.ports.temporal_flickering import TemporalFlickering
from evaluation.ports.weights import CACHE_VARIABLE, find_weights
from rewards.errors import RewardError
from rewards.ledger import LEDGER, WeightFile
from rewards.temporal_flicker import TemporalFlicker
from rewards.weight_files import file_hash

SIZES = ClipSizes(width=64, layers=1, patch_size=56, text_width=64, text_layers=1, embed_dim=768, num_words=520)


def clip(frames: Tensor) -> DecodedClip:
    return DecodedClip(ClipEntry(file=Path("a.mp4"), sha256="a", prompt="a prompt"), frames, 8.0)


def blocks(num_frames: int = 5) -> DecodedClip:
    return clip(torch.from_numpy(random_weights.random_clip("unit", num_frames, 64, 120)).permute(0, 3, 1, 2))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("ports")
    torch.save(random_weights.dino_state(width=64, depth=1), folder / "dino.pth")
    torch.save(random_weights.aesthetic_state(), folder / "head.pth")
    random_weights.write_torchscript(folder / "clip.pt", random_weights.clip_state(SIZES))
    return SimpleNamespace(folder=folder, dino=folder / "dino.pth", head=folder / "head.pth", clip=folder / "clip.pt")


def build(files: SimpleNamespace, frames_per_pass: int | None = None) -> list[Metric]:
    return [
        SubjectConsistency(files.dino, frames_per_pass=frames_per_pass),
        BackgroundConsistency(files.clip, frames_per_pass=frames_per_pass),
        AestheticQuality(files.head, clip_weights=files.clip, frames_per_pass=frames_per_pass),
    ]


def test_flickering_is_the_mean_difference_of_neighbours_in_levels() -> None:
    frames = torch.zeros(3, 3, 2, 2, dtype=torch.uint8)
    frames[1] = 51
    score = TemporalFlickering().score(clip(frames))
    assert score.values == {"temporal_flickering": pytest.approx(0.8, abs=1e-12)}
    assert score.curves["temporal_flickering"] == pytest.approx([0.8, 0.8])


def test_flickering_equals_the_reward_of_the_same_formula() -> None:
    decoded = blocks()
    reward = TemporalFlicker()(decoded.pixels[None], ["a prompt"], fps=8.0).values["temporal_flickering"]
    value = TemporalFlickering().score(decoded).values["temporal_flickering"]
    assert value == pytest.approx(float(reward), rel=1e-6)


def test_consistency_averages_previous_and_first_and_knows_no_negative_cosine() -> None:
    east, north, west = (2.0, 0.0), (0.0, 3.0), (-1.0, 0.0)
    values = consistency(torch.tensor([east, east, north, west, west]))
    assert values.tolist() == pytest.approx([1.0, 0.0, 0.0, 0.5])


def test_a_still_clip_is_perfectly_consistent(files: SimpleNamespace) -> None:
    still = clip(blocks(1).frames.repeat(3, 1, 1, 1))
    for metric in build(files)[:2]:
        assert metric.score(still).values[metric.spec.name] == pytest.approx(1.0, abs=1e-6)


def test_a_single_frame_is_skipped_where_neighbours_are_compared(files: SimpleNamespace) -> None:
    subject, background, aesthetic = build(files)
    for metric in (TemporalFlickering(), subject, background):
        with pytest.raises(SkipClipError, match="single frame"):
            metric.score(blocks(1))
    assert len(aesthetic.score(blocks(1)).curves["aesthetic_quality"]) == 1


def test_passes_change_no_score(files: SimpleNamespace) -> None:
    for whole, parts in zip(build(files), build(files, frames_per_pass=2), strict=True):
        expected = whole.score(blocks()).curves[whole.spec.name]
        assert parts.score(blocks()).curves[whole.spec.name] == pytest.approx(expected, rel=1e-6)


def test_ports_say_what_they_are(files: SimpleNamespace) -> None:
    for metric in (TemporalFlickering(), *build(files)):
        assert isinstance(metric, Metric)
        assert metric.spec.family == "vbench-port"
        assert set(metric.spec.weights) <= set(LEDGER)
        score = metric.score(blocks())
        assert tuple(score.values) == tuple(score.curves) == metric.spec.dimensions == (metric.spec.name,)


def test_frames_per_pass_of_zero_is_refused(files: SimpleNamespace) -> None:
    with pytest.raises(RewardError, match="frames_per_pass must be 1 or more"):
        SubjectConsistency(files.dino, frames_per_pass=0)


def test_archive_state_dict_and_folder_of_transformers_hold_the_same_clip(files: SimpleNamespace) -> None:
    torch.save(random_weights.clip_state(SIZES), files.folder / "state.pt")
    torch.save(load_clip_model(files.clip).state_dict(), files.folder / "transformers.bin")
    expected = read_clip_state(files.clip)
    for name in ("state.pt", "transformers.bin"):
        found = read_clip_state(files.folder / name)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key].float(), expected[key].float()) for key in expected)


class RunsCode(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images

    @torch.jit.export
    def __getstate__(self) -> int:
        return 1

    @torch.jit.export
    def __setstate__(self, state: int) -> None:
        self.training = False


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_archive_that_runs_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "code.pt"
    torch.jit.save(torch.jit.script(RunsCode()), str(path))
    with pytest.raises(RewardError, match="runs code when it is loaded"):
        read_clip_state(path)
    entry = WeightFile(repository=None, file="code.pt", licence="MIT", sha256=file_hash(path))
    monkeypatch.setitem(LEDGER, "published", entry)
    with pytest.raises(RewardError, match="no whole CLIP"):  # the published one is read, and is no CLIP
        load_clip_model(path)


def test_a_torn_archive_is_refused(files: SimpleNamespace, tmp_path: Path) -> None:
    path = tmp_path / "torn.pt"
    path.write_bytes(files.clip.read_bytes()[:5000])
    with pytest.raises(RewardError, match="Cannot read weights"):
        load_clip_model(path)


def test_weights_of_another_model_are_refused(files: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(RewardError, match="no CLIP with a vision transformer"):
        load_clip_model(files.dino)
    with pytest.raises(RewardError, match="no DINO ViT"):
        load_dino(files.head)
    state = random_weights.dino_state(width=64, depth=1)
    torch.save({**state, "pos_embed": state["pos_embed"][:, :-1]}, tmp_path / "odd.pth")
    with pytest.raises(RewardError, match="one more than a square number"):
        load_dino(tmp_path / "odd.pth")
    del state["norm.bias"]
    torch.save(state, tmp_path / "short.pth")
    with pytest.raises(RewardError, match=r"lacks 'norm\.bias'"):
        load_dino(tmp_path / "short.pth")
    with pytest.raises(RewardError, match="Linear"):
        AestheticQuality(files.dino, clip_weights=files.clip)


def test_weights_are_found_where_vbench_keeps_them(
    files: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    with pytest.raises(RewardError, match=r"curl .*dl\.fbaipublicfiles\.com.*dino_model/dino_vitbase16_pretrain\.pth"):
        find_weights("dino_vit_b_16")
    place = tmp_path / "dino_model" / "dino_vitbase16_pretrain.pth"
    place.parent.mkdir()
    place.write_bytes(files.dino.read_bytes())
    assert find_weights("dino_vit_b_16") == place
    place.rename(tmp_path / "moved.pth")
    hub = tmp_path / "hub" / "checkpoints" / place.name
    hub.parent.mkdir(parents=True)
    (tmp_path / "moved.pth").rename(hub)
    assert find_weights("dino_vit_b_16") == hub


def test_a_wrong_file_in_vbenchs_folder_is_refused(
    files: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    place = tmp_path / "clip_model" / "ViT-B-32.pt"
    place.parent.mkdir()
    place.write_bytes(files.clip.read_bytes())
    with pytest.raises(RewardError, match="expected 353976522"):
        BackgroundConsistency()


def test_every_place_belongs_to_a_name_of_the_ledger() -> None:
    for name, places in weights.CACHED.items():
        weight = LEDGER[name]
        named = [weight.file, *weight.note.split()]  # of an archive, the note names the file inside
        assert all(any(text.strip(",").endswith(Path(place).name) for text in named) for place in places)
