"""The original VBench, run here and now in its environment, computes what our ports compute: all ten of them.

Slow: makes the environment (two minutes of one core) unless `RLHF_VIDEO_ENVS` has it. Weights are random ones in the
originals' own formats. AMT-S, RAFT and MUSIQ are the package's networks in full size; its CLIPs and its ViCLIP are
small (why, says small_vbench_scorer.py). DINO is no part of the package but a clone
of a repository, which no test can fetch: timm's vision transformer stands for it, on square clips, where the two are
equal; what DINO does with others is compared by tests/parity/record_vbench_clip.py. Clips are lossless RGB, so that
OpenCV, decord and PyAV decode the same pixels.
"""

import gzip
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from evaluation.base import ClipEntry, ClipScore, DecodedClip, Metric
from evaluation.metric_catalogue import CATALOGUE
from evaluation.ports.random_weights import (
    ClipSizes,
    aesthetic_state,
    clip_state,
    dino_state,
    random_clip,
    write_torchscript,
)
from evaluation.registry import build_metric
from evaluation.vbench_compat import official
from evaluation.vbench_compat.official import VBenchOfficial
from rewards import random_weights
from rewards.errors import RewardError
from rewards.workers.environments import Environment
from rewards.workers.lock import load_lock
from rewards.workers.process import ItemError
from rewards.workers.resident import ResidentWorker
from rewards.workers.vbench_cache import DINO_CODE, FILES
from rlhf_video.data import read_video, sha256_file

TOLERANCE, CURVE_TOLERANCE = 1e-5, 1e-4
"""Relative, of a clip's value and of a frame's; found were 2e-6 and 9e-6. Two consistencies lie within 0.02 of 1."""
DIMENSIONS = tuple(name for name in FILES if CATALOGUE.get(name, "").startswith("evaluation.ports."))
SMALL_CLIP = {"width": 128, "layers": 2, "text_width": 128, "text_layers": 2}
SMALL_DINO = {"width": 128, "depth": 2}
HUBCONF = """
import torch
from timm.models.vision_transformer import VisionTransformer

def dino_vitb16(**_):
    model = VisionTransformer(embed_dim=128, depth=2, num_heads=2, num_classes=0)
    url = "https://dl.fbaipublicfiles.com/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth"
    model.load_state_dict(torch.hub.load_state_dict_from_url(url, map_location="cpu"))
    return model.eval()
"""
"""What torch.hub runs in place of DINO's repository: it reads the file where the scorer has put it, in its folder."""
SCORER = Path(__file__).with_name("small_vbench_scorer.py")
NETWORKS = ("amt_s", "raft_things", "musiq_spaq", "viclip_l_14")
"""Names in the ledger of the weights that the package's own networks make."""
CLIPS = {"lively": ((3, 128, 144), 1.0), "calm": ((5, 136, 128), 0.3)}
"""Name -> frames, height and width; contrast. RAFT sees nothing below 128 pixels."""
SQUARE_CLIPS = {"lively_square": ((3, 128, 128), 1.0), "calm_square": ((5, 136, 136), 0.3)}
"""For subject consistency."""
PROMPT = "A cat &amp; its “shadow” walk " + "past a red wall and then " * 6
"""ViCLIP reads 32 tokens of it."""
FLOW_SCALE = 0.02
"""Of RAFT's last layer: brings the flow of random weights to VBench's threshold."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def environment(worker_environment: Callable[[str], Environment]) -> Environment:
    return worker_environment("vbench")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return VBench's cache folder, which `cache` fills."""
    return tmp_path_factory.mktemp("vbench")


@pytest.fixture(scope="module")
def worker(environment: Environment, folder: Path) -> Iterator[ResidentWorker]:
    """Yield the process that makes weights and is the original."""
    worker = ResidentWorker(
        worker="vbench",
        scorer=SCORER,
        python=environment.python,
        settings={"cache": str(folder), "device": "cpu"},
        dimensions=tuple(FILES),
        lock=load_lock("vbench"),
        deadline_s=600.0,
    )
    yield worker
    worker.close()


@pytest.fixture(scope="module")
def cache(worker: ResidentWorker, folder: Path) -> Path:
    """Return VBench's cache folder with random weights."""
    paths = {name: folder / path for dimension in DIMENSIONS for name, path in FILES[dimension]}
    write_torchscript(paths["openai_clip_vit_b_32"], clip_state(ClipSizes(**SMALL_CLIP, embed_dim=64)))
    write_torchscript(paths["openai_clip_vit_l_14"], clip_state(ClipSizes(**SMALL_CLIP, embed_dim=768, patch_size=14)))
    for name, state in (("aesthetic_linear", aesthetic_state()), ("dino_vit_b_16", dino_state(**SMALL_DINO))):
        paths[name].parent.mkdir(parents=True)
        torch.save(state, paths[name])
    (folder / DINO_CODE).mkdir()
    (folder / DINO_CODE / "hubconf.py").write_text(HUBCONF)
    for model in NETWORKS:
        make_weights(worker, model, paths[model])
    state = torch.load(paths["raft_things"], weights_only=True)
    for part in ("weight", "bias"):
        state[f"module.update_block.flow_head.conv2.{part}"] *= FLOW_SCALE
    torch.save(state, paths["raft_things"])
    assert all(path.is_file() for path in paths.values())
    return folder


def make_weights(worker: ResidentWorker, model: str, path: Path) -> None:
    def request(folder: Path) -> dict[str, object]:
        np.save(folder / "no_frames.npy", np.zeros(0))
        return {
            "frames": str(folder / "no_frames.npy"),
            "prompts": [],
            "config": {"model": model},
            "seed": 0,
            "random_weights": random_weights.__file__,
            "out": str(folder),
            "save_weights": str(path),
        }

    worker.ask(model, "parity", request)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, DecodedClip]:
    folder = tmp_path_factory.mktemp("clips")
    return {
        name: make_clip(folder / f"{name}.mp4", *shape_and_contrast)
        for name, shape_and_contrast in (CLIPS | SQUARE_CLIPS).items()
    }


def make_clip(path: Path, shape: tuple[int, int, int], contrast: float) -> DecodedClip:
    frames = (127.5 + contrast * (random_clip(path.stem, *shape) - 127.5)).round().astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264rgb", rate=Fraction(8), options={"crf": "0"})
        stream.height, stream.width, stream.pix_fmt = *shape[1:], "rgb24"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    pixels, fps = read_video(path)
    decoded = (pixels * 255).round().to(torch.uint8)
    assert np.array_equal(decoded.permute(0, 2, 3, 1).numpy(), frames)
    facts = {"appearance_style": "oil painting"}
    entry = ClipEntry(file=path, sha256=sha256_file(path), prompt=PROMPT, facts=facts)
    return DecodedClip(entry, decoded, fps)


def clips_of(dimension: str) -> tuple[str, ...]:
    return tuple(SQUARE_CLIPS if dimension == "subject_consistency" else CLIPS)


@pytest.fixture(scope="module")
def originals(
    environment: Environment, worker: ResidentWorker, cache: Path, clips: dict[str, DecodedClip]
) -> dict[str, dict[str, ClipScore]]:
    """Return what the original says: dimension -> clip -> score."""
    assert environment.has("vbench")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(official, "_shared_worker", lambda *_: worker)
        metrics = {name: original(name, cache) for name in DIMENSIONS}
    return {
        dimension: {name: metric.score(clips[name]) for name in clips_of(dimension)}
        for dimension, metric in metrics.items()
    }


def original(dimension: str, cache: Path) -> Metric:
    options = {"dimension": dimension, "cache_dir": cache}
    metric = build_metric("vbench_official", None, options, device="cpu").metric
    assert isinstance(metric, VBenchOfficial)
    return metric


def port(dimension: str, cache: Path, tokenizer: Path) -> Metric:
    """Return our port of a dimension, with the original's weight files and words."""
    options: dict[str, object] = {}
    if FILES[dimension]:
        options["weights"] = cache / FILES[dimension][-1][1]
    if dimension == "aesthetic_quality":
        options["clip_weights"] = cache / FILES[dimension][0][1]
    if dimension in ("appearance_style", "temporal_style", "overall_consistency"):
        options["tokenizer"] = tokenizer
    metric = build_metric(dimension, None, options, device="cpu").metric
    assert isinstance(metric, Metric)
    return metric


@pytest.fixture(scope="module")
def tokenizer(environment: Environment, clip_tokenizer: Callable[..., Path]) -> Path:
    """Return the vocabulary of OpenAI's package as a tokenizer of transformers."""
    (packed,) = environment.path.glob("lib/python*/site-packages/clip/bpe_simple_vocab_16e6.txt.gz")
    lines = gzip.decompress(packed.read_bytes()).decode().split("\n")
    return clip_tokenizer(lines[1 : 49152 - 256 - 2 + 1])


def test_original_scores_every_clip_and_sees_its_pixels(originals: dict[str, dict[str, ClipScore]]) -> None:
    assert len(originals) == 10
    for dimension, scores in originals.items():
        lively, calm = (score.values[dimension] for score in scores.values())
        assert lively != pytest.approx(calm, rel=100 * TOLERANCE), (
            dimension
        )  # a score that is blind would agree with anything
    degrees = {score.values["dynamic_degree"] for score in originals["dynamic_degree"].values()}
    assert degrees == {0.0, 1.0}, originals["dynamic_degree"]


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_port_is_the_original(
    dimension: str,
    originals: dict[str, dict[str, ClipScore]],
    cache: Path,
    tokenizer: Path,
    clips: dict[str, DecodedClip],
) -> None:
    ours = port(dimension, cache, tokenizer)
    for name, theirs in originals[dimension].items():
        score = ours.score(clips[name])
        assert score.values[dimension] == pytest.approx(theirs.values[dimension], rel=TOLERANCE), name
        if theirs.curves:
            assert score.curves[dimension] == pytest.approx(theirs.curves[dimension], rel=CURVE_TOLERANCE), name


def test_clip_that_cannot_be_read_fails_and_the_next_is_scored(
    environment: Environment, originals: dict[str, dict[str, ClipScore]], cache: Path, clips: dict[str, DecodedClip],
    tmp_path: Path,
) -> None:  # fmt: skip
    torn = tmp_path / "torn.mp4"
    torn.write_bytes(clips["calm"].entry.file.read_bytes()[:200])
    frames = torch.empty(0, 3, 0, 0, dtype=torch.uint8)
    metric = VBenchOfficial("temporal_flickering", cache_dir=cache, device="cpu")  # by the scorer file itself
    entry = ClipEntry(file=torn, sha256="0", prompt="a cat")
    with pytest.raises(ItemError, match="temporal_flickering"):  # VBench itself says NaN
        metric.score(DecodedClip(entry, frames, 0.0))
    assert metric.score(clips["calm"]) == originals["temporal_flickering"]["calm"]


def test_what_is_missing_is_said_before_anything_runs(environment: Environment, tmp_path: Path) -> None:
    with pytest.raises(RewardError, match=r"musiq_spaq_ckpt.*curl"):
        VBenchOfficial("imaging_quality", cache_dir=tmp_path)
    with pytest.raises(RewardError, match=r"grit_b_densecap_objectdet.*curl"):
        VBenchOfficial("object_class", cache_dir=tmp_path)
