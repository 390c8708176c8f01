"""The original VBench, run here and now in its environment, computes what our ports compute.

Slow: makes the environment (two minutes of one core) unless `RLHF_VIDEO_ENVS` has it. Weights are random ones in the
originals' own formats, made by the package's networks where it builds them; CLIPs are small. Clips are lossless RGB, so
that OpenCV, decord and PyAV decode the same pixels.
"""

import gzip
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from evaluation.base import ClipEntry, ClipScore, DecodedClip, Metric
from evaluation.metric_catalogue import CATALOGUE
from evaluation.ports.random_weights import ClipSizes, aesthetic_state, clip_state, random_clip, write_torchscript
from evaluation.registry import build_metric
from evaluation.vbench_compat.official import VBenchOfficial
from rewards import random_weights
from rewards.errors import RewardError
from rewards.workers.environments import Environment
from rewards.workers.process import ItemError, WorkerProcess
from rewards.workers.vbench_cache import FILES
from rlhf_video.data import read_video, sha256_file

TOLERANCE = 1e-4
DIMENSIONS = (
    *("temporal_flickering", "dynamic_degree", "motion_smoothness", "background_consistency", "aesthetic_quality"),
    "appearance_style",
)
"""Those whose weights are small, or exist in a small size; the others need hundreds of millions of parameters."""
PORTS = tuple(name for name in DIMENSIONS if CATALOGUE.get(name, "").startswith("evaluation.ports."))
SMALL = {"width": 128, "layers": 2, "text_width": 128, "text_layers": 2}
CLIPS = {"lively": ((3, 128, 144), 1.0), "calm": ((5, 136, 128), 0.3)}
"""Name -> frames, height and width; contrast. RAFT sees nothing below 128 pixels."""
FLOW_SCALE = 0.02
"""Of RAFT's last layer: brings the flow of random weights to VBench's threshold."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def environment(worker_environment: Callable[[str], Environment]) -> Environment:
    return worker_environment("vbench")


@pytest.fixture(scope="module")
def cache(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return VBench's cache folder with random weights."""
    folder = tmp_path_factory.mktemp("vbench")
    paths = {name: folder / path for files in FILES.values() for name, path in files}
    write_torchscript(paths["openai_clip_vit_b_32"], clip_state(ClipSizes(**SMALL, embed_dim=64)))
    write_torchscript(paths["openai_clip_vit_l_14"], clip_state(ClipSizes(**SMALL, embed_dim=768, patch_size=14)))
    paths["aesthetic_linear"].parent.mkdir(parents=True)
    torch.save(aesthetic_state(), paths["aesthetic_linear"])
    scorer = Path(random_weights.__file__).parent / "workers" / "vbench_scorer.py"
    settings = {"device": "cpu"}
    with WorkerProcess(
        environment.python, scorer=scorer, settings=settings, worker="vbench", deadline_s=900.0
    ) as process:
        np.save(process.folder / "no_frames.npy", np.zeros(0))
        for model in ("amt_s", "raft_things"):
            request = {
                "frames": str(process.folder / "no_frames.npy"),
                "prompts": [],
                "config": {"model": model},
                "seed": 0,
                "random_weights": random_weights.__file__,
                "out": str(process.folder),
                "save_weights": str(paths[model]),
            }
            process.request("parity", request, deadline_s=900.0)
    state = torch.load(paths["raft_things"], weights_only=True)
    for part in ("weight", "bias"):
        state[f"module.update_block.flow_head.conv2.{part}"] *= FLOW_SCALE
    torch.save(state, paths["raft_things"])
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, DecodedClip]:
    folder = tmp_path_factory.mktemp("clips")
    return {name: make_clip(folder / f"{name}.mp4", *shape_and_contrast) for name, shape_and_contrast in CLIPS.items()}


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
    entry = ClipEntry(file=path, sha256=sha256_file(path), prompt="a cat", facts=facts)
    return DecodedClip(entry, decoded, fps)


@pytest.fixture(scope="module")
def originals(environment: Environment, cache: Path, clips: dict[str, DecodedClip]) -> dict[str, dict[str, ClipScore]]:
    """Return what the original says: dimension -> clip -> score."""
    assert environment.has("vbench")
    metrics = {name: original(name, cache) for name in DIMENSIONS}
    return {
        dimension: {name: metric.score(clip) for name, clip in clips.items()} for dimension, metric in metrics.items()
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
    if dimension == "appearance_style":
        options["tokenizer"] = tokenizer
    metric = build_metric(dimension, None, options, device="cpu").metric
    assert isinstance(metric, Metric)
    return metric


@pytest.fixture
def tokenizer(environment: Environment, clip_tokenizer: Callable[..., Path]) -> Path:
    """Return the vocabulary of OpenAI's package as a tokenizer of transformers."""
    (packed,) = environment.path.glob("lib/python*/site-packages/clip/bpe_simple_vocab_16e6.txt.gz")
    lines = gzip.decompress(packed.read_bytes()).decode().split("\n")
    return clip_tokenizer(lines[1 : 49152 - 256 - 2 + 1])


def test_original_scores_every_clip_and_sees_its_pixels(originals: dict[str, dict[str, ClipScore]]) -> None:
    assert set(originals) == set(DIMENSIONS)
    for dimension, scores in originals.items():
        lively, calm = (score.values[dimension] for score in (scores["lively"], scores["calm"]))
        assert abs(lively - calm) > 10 * TOLERANCE, dimension  # a score that is blind would agree with anything
    degrees = {name: score.values["dynamic_degree"] for name, score in originals["dynamic_degree"].items()}
    assert set(degrees.values()) == {0.0, 1.0}, originals["dynamic_degree"]


def test_every_port_is_compared() -> None:
    assert set(PORTS) == set(DIMENSIONS)


@pytest.mark.parametrize("dimension", PORTS)
def test_port_is_the_original(
    dimension: str,
    originals: dict[str, dict[str, ClipScore]],
    cache: Path,
    tokenizer: Path,
    clips: dict[str, DecodedClip],
) -> None:
    ours = port(dimension, cache, tokenizer)
    for name, clip in clips.items():
        theirs, score = originals[dimension][name], ours.score(clip)
        assert score.values[dimension] == pytest.approx(theirs.values[dimension], rel=TOLERANCE), name
        if theirs.curves:
            assert score.curves[dimension] == pytest.approx(theirs.curves[dimension], rel=TOLERANCE), name


def test_clip_that_cannot_be_read_fails_and_the_next_is_scored(
    environment: Environment, originals: dict[str, dict[str, ClipScore]], cache: Path, clips: dict[str, DecodedClip],
    tmp_path: Path,
) -> None:  # fmt: skip
    torn = tmp_path / "torn.mp4"
    torn.write_bytes(clips["calm"].entry.file.read_bytes()[:200])
    frames = torch.empty(0, 3, 0, 0, dtype=torch.uint8)
    metric = VBenchOfficial("temporal_flickering", cache_dir=cache, device="cpu")
    entry = ClipEntry(file=torn, sha256="0", prompt="a cat")
    with pytest.raises(ItemError, match="temporal_flickering"):  # VBench itself says NaN
        metric.score(DecodedClip(entry, frames, 0.0))
    assert metric.score(clips["calm"]) == originals["temporal_flickering"]["calm"]


def test_what_is_missing_is_said_before_anything_runs(environment: Environment, cache: Path) -> None:
    with pytest.raises(RewardError, match=r"musiq_spaq_ckpt.*curl"):
        VBenchOfficial("imaging_quality", cache_dir=cache)
    with pytest.raises(RewardError, match=r"grit_b_densecap_objectdet.*curl"):
        VBenchOfficial("object_class", cache_dir=cache)
