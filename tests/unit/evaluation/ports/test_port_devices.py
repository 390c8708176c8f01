"""The device of a run reaches the frames and the weights of every port, and changes no score."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from evaluation.base import ClipEntry, DecodedClip
from evaluation.metric_catalogue import CATALOGUE
from evaluation.metrics.pixels import pick_device
from evaluation.ports import (
    amt,
    dynamic_degree,
    frame_features,
    imaging_quality,
    motion_smoothness,
    musiq,
    overall_consistency,
    random_weights,
    static_filter,
    viclip,
)
from evaluation.ports.computing import exactly
from evaluation.registry import build_metric
from rewards.raft import Raft
from rewards.random_weights import random_array
from rlhf_video.errors import ConfigError

META = torch.device("meta")
"""Stands for a GPU: tensors move there, and nothing can be read back."""
STYLE = {"appearance_style": "a style"}


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory, byte_tokenizer: Path) -> dict[str, dict[str, object]]:
    """Return port -> options by which it reads tiny random weights."""
    folder = tmp_path_factory.mktemp("weights")
    narrow = random_weights.ClipSizes(
        width=64, layers=1, patch_size=56, text_width=64, text_layers=1, embed_dim=768, num_words=514
    )
    sizes = viclip.ViClipSizes(64, 1, 16, 2, 4, 64, 1, 32, 514, 8)
    models: dict[str, nn.Module] = {
        "amt": amt.AmtS(),
        "musiq": musiq.Musiq(musiq.MusiqSizes(64, 32, 1, 10)),
        "viclip": viclip.ViClip(sizes),
        "raft": Raft(),
    }
    for name, model in models.items():
        state = {key: torch.from_numpy(random_array(key, value.shape)) for key, value in model.state_dict().items()}
        torch.save(state, folder / f"{name}.pth")
    torch.save(random_weights.dino_state(width=64, depth=1), folder / "dino.pth")
    torch.save(random_weights.aesthetic_state(), folder / "head.pth")
    random_weights.write_torchscript(folder / "clip.pt", random_weights.clip_state(narrow))
    return {
        "temporal_flickering": {"static_filter": str(folder / "raft.pth")},
        "subject_consistency": {"weights": str(folder / "dino.pth")},
        "background_consistency": {"weights": str(folder / "clip.pt")},
        "aesthetic_quality": {"weights": str(folder / "head.pth"), "clip_weights": str(folder / "clip.pt")},
        "appearance_style": {"weights": str(folder / "clip.pt"), "tokenizer": str(byte_tokenizer)},
        "imaging_quality": {"weights": str(folder / "musiq.pth")},
        "motion_smoothness": {"weights": str(folder / "amt.pth")},
        "dynamic_degree": {"weights": str(folder / "raft.pth")},
        "overall_consistency": {"weights": str(folder / "viclip.pth"), "tokenizer": str(byte_tokenizer)},
        "temporal_style": {"weights": str(folder / "viclip.pth"), "tokenizer": str(byte_tokenizer)},
    }


def short_clip() -> DecodedClip:
    frames = torch.randint(0, 256, (3, 3, 128, 128), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return DecodedClip(ClipEntry(file=Path("a.mp4"), sha256="", prompt="a cat", facts=STYLE), frames, fps=8.0)


def modules_in(holder: object, seen: set[int] | None = None) -> Iterator[nn.Module]:
    """Return every module that an object holds, however deep, in attributes of this project's objects."""
    seen = set() if seen is None else seen
    for value in vars(holder).values():
        if isinstance(value, nn.Module):
            yield value
        elif type(value).__module__.startswith(("evaluation.", "rewards.")) and id(value) not in seen:
            seen.add(id(value))
            yield from modules_in(value, seen)


@pytest.mark.parametrize("name", [name for name, target in CATALOGUE.items() if target.startswith("evaluation.ports.")])
def test_frames_and_weights_go_where_the_run_says(
    name: str, options: dict[str, dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def pick(device: str) -> torch.device:
        return META if device == "cuda" else torch.device("cpu")

    for module in (
        dynamic_degree,
        frame_features,
        imaging_quality,
        motion_smoothness,
        overall_consistency,
        static_filter,
    ):
        monkeypatch.setattr(module, "pick_device", pick)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # it knows no such device
    metric = build_metric(name, None, options[name], device="cuda").metric
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        metric.score(short_clip())  # type: ignore[union-attr]
    assert {parameter.device for module in modules_in(metric) for parameter in module.parameters()} == {META}


def test_a_device_by_name_changes_neither_score_nor_key(options: dict[str, dict[str, object]]) -> None:
    shown = short_clip()
    for name in ("subject_consistency", "imaging_quality", "motion_smoothness", "overall_consistency"):
        auto, named = (build_metric(name, None, options[name], device=device) for device in ("auto", "cpu"))
        asked = build_metric(name, None, {**options[name], "device": "cpu"}, device="auto")
        assert auto.key == named.key == asked.key
        if pick_device("auto").type == "cpu":
            assert auto.metric.score(shown) == named.metric.score(shown)  # type: ignore[union-attr]


def test_long_clips_pass_the_device_on(options: dict[str, dict[str, object]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imaging_quality, "pick_device", lambda device: META if device == "cuda" else None)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    long = {"dimension": "imaging_quality", "options": options["imaging_quality"]}
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        build_metric("vbench_long", None, long, device="cuda").metric.score(short_clip())  # type: ignore[union-attr]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(options: dict[str, dict[str, object]]) -> None:
    with pytest.raises(ConfigError, match="no CUDA device"):
        build_metric("imaging_quality", None, options["imaging_quality"], device="cuda")


def test_nothing_changes_digits_while_a_port_computes() -> None:
    before = torch.backends.cudnn.allow_tf32
    with torch.autocast("cpu", dtype=torch.bfloat16), exactly(torch.device("cpu")):
        assert not torch.backends.cudnn.allow_tf32 and not torch.is_autocast_enabled("cpu")
        assert torch.is_inference_mode_enabled()
    assert torch.backends.cudnn.allow_tf32 is before
