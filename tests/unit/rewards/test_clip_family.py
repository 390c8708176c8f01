"""CLIPScore, PickScore, HPSv2, MPS and LAION aesthetic: the contract at tiny size, and what they refuse."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import CLIPConfig, CLIPModel

from rewards import open_clip_weights, registry
from rewards.catalogue import CATALOGUE
from rewards.clip_text import clean_prompt
from rewards.clip_towers import LAION_H_14, OPENAI_B_32, OPENAI_L_14, POSITION_IDS
from rewards.errors import RewardError
from rewards.ledger import LEDGER
from rewards.mps import MpsModel
from rewards.mps_layers import _NAMES
from rewards.open_clip_weights import to_transformers
from rewards.random_weights import random_array
from rewards.testing import RewardContract
from rlhf_video.algorithms.reward_bp_config import RewardBpConfig
from rlhf_video.algorithms.reward_bp_setup import build_rewards
from rlhf_video.settings import load_config

NAMES = ("aesthetic", "clip_score", "hps_v2", "hps_v2_1", "mps", "pick_score")
WITH_TEXT = tuple(name for name in NAMES if name != "aesthetic")
PROMPTS = ["a red circle moving left", "a blue square", "a green star moving up"]


def open_clip_state(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a `CLIPModel`'s weights under open_clip's names: the way back of `to_transformers`."""
    named = {theirs: state[ours] for theirs, ours in open_clip_weights._WHOLE.items()}
    named |= {theirs: state[ours].T.contiguous() for theirs, ours in open_clip_weights._TRANSPOSED.items()}
    for theirs, ours in open_clip_weights._NORMS.items():
        named |= {f"{theirs}.{kind}": state[f"{ours}.{kind}"] for kind in ("weight", "bias")}
    for theirs, ours in open_clip_weights._LAYERS.items():
        for layer in range(2):
            for kind in ("weight", "bias"):
                parts = [state[f"{ours}.{layer}.self_attn.{letter}_proj.{kind}"] for letter in "qkv"]
                named[f"{theirs}.{layer}.attn.in_proj_{kind}"] = torch.cat(parts)
                for part, target in open_clip_weights._IN_LAYER.items():
                    named[f"{theirs}.{layer}.{part}.{kind}"] = state[f"{ours}.{layer}.{target}.{kind}"]
    return named


def mps_file_state(clip: Mapping[str, torch.Tensor], config: CLIPConfig) -> dict[str, torch.Tensor]:
    """Return the authors' state dict: the CLIP of the folder, random layers, and their constants."""
    authors = {ours: theirs for theirs, ours in _NAMES.items()}
    state = {f"model.{name}": value for name, value in clip.items()}
    state["model." + POSITION_IDS[0]] = torch.arange(12)[None]
    for name, value in MpsModel(config).image_text.state_dict().items():
        layers, number, part = name.split(".", 2)
        stem, _, kind = part.rpartition(".")
        key = f"cross_model.{layers}.{number}.{authors[stem]}.{kind}"
        state[key] = torch.from_numpy(random_array(key, value.shape))
    state["cross_model.layers.0.1.fn.rotary_emb.inv_freq"] = torch.zeros(32)
    return state


@pytest.fixture(scope="session")
def family(clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Return the options of each reward at tiny size, as a YAML file would state them."""
    folder = tmp_path_factory.mktemp("family")
    clip = load_file(clip_folder / "model.safetensors")
    config = CLIPConfig.from_pretrained(clip_folder)
    torch.save({"state_dict": open_clip_state(clip), "iteration": 7}, folder / "hps.pt")
    torch.save(mps_file_state(clip, config), folder / "mps.pth")
    head = {name: torch.from_numpy(random_array(name, shape)) for name, shape in (("weight", (1, 8)), ("bias", (1,)))}
    torch.save(head, folder / "head.pth")
    tower = {"config": str(clip_folder), "tokenizer": str(clip_folder)}
    safetensors = str(clip_folder / "model.safetensors")
    return {
        "aesthetic": {"weights": str(folder / "head.pth"), "clip_weights": safetensors, "config": str(clip_folder)},
        "clip_score": {"weights": safetensors, "formula": "percent", **tower},
        "hps_v2": {"weights": str(folder / "hps.pt"), **tower},
        "hps_v2_1": {"weights": str(folder / "hps.pt"), **tower},
        "mps": {"weights": str(folder / "mps.pth"), "condition": "red circle", **tower},
        "pick_score": {"weights": safetensors, **tower},
    }


class FamilyContract(RewardContract):
    """The contract with the options of the tiny files."""

    bf16_tolerance = 0.1
    changed: ClassVar[Mapping[str, object]] = {}

    @pytest.fixture(autouse=True)
    def _files(self, family: dict[str, dict[str, Any]]) -> None:
        type(self).options = {**family[self.reward], **self.changed}


class TestClipScore(FamilyContract):
    reward = "clip_score"


class TestClipScoreOfThePaper(FamilyContract):
    reward = "clip_score"
    prompts = ("a green", "green left", "square green")  # their cosines are above 0, where the formula has a gradient
    changed: ClassVar[Mapping[str, object]] = {"formula": "paper", "prefix": ""}


class TestPickScore(FamilyContract):
    reward = "pick_score"


class TestPickScoreOfFewFramesInPasses(FamilyContract):
    reward = "pick_score"
    changed: ClassVar[Mapping[str, object]] = {
        "frames": {"kind": "uniform", "count": 3},
        "reduction": "min",
        "frames_per_pass": 2,
    }


class TestHpsV2(FamilyContract):
    reward = "hps_v2"


class TestHpsV21(FamilyContract):
    reward = "hps_v2_1"
    shape = (2, 3, 3, 20, 14)
    changed: ClassVar[Mapping[str, object]] = {"frames": "first", "reduction": "first"}


class TestMps(FamilyContract):
    reward = "mps"


class TestMpsInPasses(FamilyContract):
    reward = "mps"
    changed: ClassVar[Mapping[str, object]] = {
        "frames_per_pass": 4,
        "reduction": {"kind": "softmin", "temperature": 0.5},
        "mask_threshold": 0.3,
    }


class TestAesthetic(FamilyContract):
    reward = "aesthetic"


def clips(num_frames: int = 5, seed: int = 0) -> torch.Tensor:
    return torch.rand(3, num_frames, 3, 12, 16, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", NAMES)
def test_built_reward_agrees_with_the_catalogue(name: str, family: dict[str, dict[str, Any]]) -> None:
    spec, entry = registry.build(name, **family[name]).spec, CATALOGUE[name]
    assert (spec.name, spec.is_differentiable) == (name, entry.is_differentiable)
    assert entry.frames == f"{spec.frames.kind}, mean"
    assert set(entry.weights) <= set(LEDGER)


@pytest.mark.parametrize(
    ("name", "added"), [("clip_score", 0), ("pick_score", 0), ("hps_v2", 0), ("mps", 1)]
)  # MPS encodes its condition, too
def test_text_is_encoded_once_per_prompt_whatever_the_frames(
    name: str, added: int, family: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    reward = registry.build(name, **family[name])
    parts = vars(reward)
    embeddings = parts["_text"] if name == "mps" else parts["_towers"].text
    encoded: list[torch.Tensor] = []
    encode = embeddings._encode
    monkeypatch.setattr(embeddings, "_encode", lambda ids: encoded.append(ids) or encode(ids))
    reward(clips(5), PROMPTS, fps=8)
    assert len(encoded) == len(PROMPTS) + added
    reward(clips(7, seed=1), PROMPTS, fps=8)
    reward(clips(2)[:2], [PROMPTS[0], PROMPTS[0]], fps=8)
    assert len(encoded) == len(PROMPTS) + added


@pytest.mark.parametrize("name", WITH_TEXT)
def test_long_prompt_is_cut_with_a_warning(
    name: str, family: dict[str, dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    output = registry.build(name, **family[name])(clips()[:1], ["red " * 30], fps=8)
    assert all(bool(value.isfinite().all()) for value in output.values.values())
    assert "is cut to 12" in caplog.text


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("damage", ["missing", "truncated", "corrupt", "of another model"])
def test_weights_that_cannot_be_right_are_refused(
    name: str, damage: str, family: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    source = Path(family[name]["weights"])
    weights = tmp_path / source.name
    content = source.read_bytes()
    if damage == "truncated":
        weights.write_bytes(content[: len(content) // 2])
    elif damage == "corrupt":
        weights.write_bytes(b"\x00garbage" * 50)
    elif damage == "of another model":
        weights = tmp_path / "other.pt"
        torch.save({"layers.0.weight": torch.ones(2, 2)}, weights)
    message = {"missing": "no weight file", "of another model": r"layers\.0\.weight|lacks"}.get(damage, "Cannot read")
    with pytest.raises(RewardError, match=message):
        registry.build(name, **{**family[name], "weights": str(weights)})


@pytest.mark.parametrize("name", NAMES)
def test_config_that_does_not_fit_is_refused(
    name: str, family: dict[str, dict[str, Any]], xclip_folder: Path, tmp_path: Path
) -> None:
    values = json.loads((Path(family[name]["config"]) / "config.json").read_text())
    values["vision_config"]["hidden_size"] = 32
    wider, broken = tmp_path / "wider.json", tmp_path / "broken.json"
    wider.write_text(json.dumps(values))
    broken.write_text("{")
    for config, message in (
        (wider, "another shape"),
        (broken, "Cannot read a config"),
        (tmp_path / "none.json", "Cannot read a config"),
        (xclip_folder, "type 'xclip', this reward needs 'clip'"),
    ):
        with pytest.raises(RewardError, match=message):
            registry.build(name, **{**family[name], "config": str(config)})


@pytest.mark.parametrize("name", WITH_TEXT)
def test_tokenizer_is_asked_for_by_name(name: str, family: dict[str, dict[str, Any]]) -> None:
    with pytest.raises(RewardError, match=r"Cannot load a tokenizer from (laion|openai)/.*option 'tokenizer'"):
        registry.build(name, **{**family[name], "tokenizer": None})


@pytest.mark.parametrize("name", NAMES)
def test_published_weights_offline_say_how_to_get_them(name: str, family: dict[str, dict[str, Any]]) -> None:
    options = {key: value for key, value in family[name].items() if key != "weights"}
    with pytest.raises(RewardError, match=r"hf download|curl -L"):
        registry.build(name, **options)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("clip_score", {"formula": "cosine"}, "must be 'paper' or 'percent'"),
        ("pick_score", {"frames_per_pass": 0}, "1 or more"),
        ("hps_v2", {"wieght": "x"}, "Did you mean 'weights'"),
        ("hps_v2_1", {"reduction": "max"}, "Unknown frame reduction"),
        ("mps", {"mask_threshold": 1.0}, r"in \[0, 1\)"),
        ("mps", {"similarity_over": "clip"}, "must be 'prompt' or 'batch'"),
        ("aesthetic", {"tokenizer": "x"}, "has no option 'tokenizer'"),
    ],
)
def test_bad_options_are_refused(
    name: str, options: dict[str, Any], message: str, family: dict[str, dict[str, Any]]
) -> None:
    with pytest.raises(RewardError, match=message):
        registry.build(name, **{**family[name], **options})


def test_open_clip_names_come_back_and_unknown_ones_are_named(clip_folder: Path) -> None:
    state = load_file(clip_folder / "model.safetensors")
    back = to_transformers(open_clip_state(state))
    assert set(back) == set(state)
    assert all(torch.equal(back[name], state[name]) for name in state)
    for name in ("visual.attnpool.c_proj.weight", "visual.transformer.resblocks.0.ls_1.gamma"):
        with pytest.raises(RewardError, match=f"'{name}' is no weight of an open_clip ViT"):
            to_transformers({name: torch.ones(1)})


def test_counters_of_older_files_are_left_behind_and_other_extras_refused(
    family: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    state = load_file(family["pick_score"]["weights"])
    torch.save(state | {name: torch.arange(3) for name in POSITION_IDS}, tmp_path / "old.bin")
    old = registry.build("pick_score", **{**family["pick_score"], "weights": str(tmp_path / "old.bin")})
    new = registry.build("pick_score", **family["pick_score"])
    torch.testing.assert_close(old(clips(), PROMPTS, fps=8).values, new(clips(), PROMPTS, fps=8).values)
    torch.save(state | {"head.weight": torch.ones(1)}, tmp_path / "extra.bin")
    with pytest.raises(RewardError, match=r"unknown 'head\.weight'"):
        registry.build("pick_score", **{**family["pick_score"], "weights": str(tmp_path / "extra.bin")})


def test_mps_needs_a_tokenizer_that_pads(family: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    folder = Path(family["mps"]["tokenizer"])
    for file in folder.glob("tokenizer*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**settings, "pad_token": None}))
    with pytest.raises(RewardError, match="no padding token"):
        registry.build("mps", **{**family["mps"], "tokenizer": str(tmp_path)})


def test_hps_letterboxes_and_pick_score_crops(family: dict[str, dict[str, Any]]) -> None:
    video = torch.rand(1, 1, 3, 12, 30, generator=torch.Generator().manual_seed(0)).requires_grad_()
    edges = {}
    for name in ("hps_v2", "pick_score"):
        (value,) = registry.build(name, **family[name])(video, PROMPTS[:1], fps=8).values.values()
        (gradient,) = torch.autograd.grad(value.sum(), video)
        edges[name] = float(gradient[..., :4].abs().sum())
    assert edges["hps_v2"] > 0
    assert edges["pick_score"] == 0


@pytest.mark.parametrize(
    ("written", "cleaned"),
    [
        ("  Moving\n RED\tcircle ", "moving red circle"),
        ("it’s a “red” circle", 'it\'s a "red" circle'),
        ("a &amp;amp; b &lt;c&gt;", "a & b <c>"),
        ("\ufb01re \uff21\u3000x", "fire a x"),
        ("cafe\u0301 \x07bell", "caf\u00e9 bell"),
    ],
)
def test_prompt_is_cleaned_as_clips_own_tokenizer_does(written: str, cleaned: str) -> None:
    assert clean_prompt(written) == cleaned


@pytest.mark.parametrize(("published", "millions"), [(OPENAI_B_32, 151.3), (OPENAI_L_14, 427.6), (LAION_H_14, 986.1)])
def test_published_architectures_have_the_published_sizes(published: dict[str, Any], millions: float) -> None:
    with torch.device("meta"):
        model = CLIPModel(CLIPConfig(**published))
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6, 1) == millions
    assert model.config.text_config.eos_token_id == 49407


def test_reward_backpropagation_builds_each_of_them_from_yaml(
    family: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    frames = {"kind": "uniform", "count": 2}
    softmin = {"kind": "softmin", "temperature": 0.1}
    terms = [
        {"name": name, "weight": 0.5, "options": {**family[name], "frames": frames, "reduction": softmin}}
        for name in NAMES
    ]
    tree = {
        "backbone": "tiny",
        "prompts": {"train": "a.txt", "validation": "b.txt"},
        "rewards": terms,
        "held_out": [{"name": "hps_v2_1", "label": "held_out", "options": family["hps_v2_1"]}],
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tree))
    rewards = build_rewards(load_config(RewardBpConfig, tmp_path / "run.yaml"))
    assert [score.split("/")[0] for score in rewards.trained_scores] == list(NAMES)
    video = clips().requires_grad_()
    total = torch.stack([next(iter(r(video, PROMPTS, fps=8).values.values())) for r in rewards.reported.values()]).sum()
    (gradient,) = torch.autograd.grad(total, video)
    assert (gradient.flatten(1).norm(dim=1) > 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_reward_backpropagation_trains_on_each_of_them(
    name: str, family: dict[str, dict[str, Any]], train_by_config: Callable[..., None]
) -> None:
    train_by_config(name, family[name] | {"frames": {"kind": "uniform", "count": 2}})


@pytest.mark.parametrize("name", ["clip_score", "hps_v2", "pick_score"])
def test_half_precision_tower_is_near_and_another_version(name: str, family: dict[str, dict[str, Any]]) -> None:
    full = registry.build(name, **family[name])
    half = registry.build(name, **family[name], precision="bfloat16")
    assert half.spec.version == f"{full.spec.version}-precision=bfloat16"
    video = clips().requires_grad_()
    scores = [next(iter(reward(video, PROMPTS, fps=8).values.values())) for reward in (full, half)]
    assert scores[1].dtype == torch.float32
    assert not torch.equal(*scores)
    torch.testing.assert_close(scores[1] / full.spec.range[1], scores[0] / full.spec.range[1], rtol=0, atol=0.02)
    gradients = [torch.autograd.grad(score.sum(), video)[0].flatten() for score in scores]
    assert torch.cosine_similarity(*gradients, dim=0) > 0.99
    with pytest.raises(RewardError, match="float16"):
        registry.build(name, **family[name], precision="float16")
