"""ImageReward keeps the contract, loads exactly the published layout, and encodes a prompt once."""

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import BlipConfig

from rewards import registry
from rewards.catalogue import CATALOGUE
from rewards.errors import RewardError
from rewards.image_reward import MAX_TOKENS, ImageReward
from rewards.image_reward_model import PUBLISHED, ImageRewardModel, rename_original
from rewards.random_weights import random_array
from rewards.testing import RewardContract

WORDS = (
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "a",
    "red",
    "blue",
    "green",
    "circle",
    "square",
    "star",
    "moving",
)
VISION = {
    "hidden_size": 16,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 16,
    "layer_norm_eps": 1e-6,
}
TEXT = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 40,
    "vocab_size": len(WORDS) + 2,
    "bos_token_id": None,
    "sep_token_id": None,
}


def published_layout(vision: dict[str, Any], text: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of the package's `ImageReward` state dict (its vit.py, med.py, ImageReward.py)."""
    layout: dict[str, tuple[int, ...]] = {}

    def linear(name: str, outputs: int, inputs: int, norm: str | None = None) -> None:
        layout.update({f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)})
        if norm:
            layout.update({f"{norm}.weight": (outputs,), f"{norm}.bias": (outputs,)})

    width, patch = vision["hidden_size"], vision["patch_size"]
    tower = "blip.visual_encoder"
    layout[f"{tower}.cls_token"] = (1, 1, width)
    layout[f"{tower}.pos_embed"] = (1, (vision["image_size"] // patch) ** 2 + 1, width)
    layout[f"{tower}.patch_embed.proj.weight"] = (width, 3, patch, patch)
    layout[f"{tower}.patch_embed.proj.bias"] = (width,)
    for i in range(vision["num_hidden_layers"]):
        linear(f"{tower}.blocks.{i}.attn.qkv", 3 * width, width)
        linear(f"{tower}.blocks.{i}.attn.proj", width, width, f"{tower}.blocks.{i}.norm1")
        linear(f"{tower}.blocks.{i}.mlp.fc1", vision["intermediate_size"], width)
        linear(f"{tower}.blocks.{i}.mlp.fc2", width, vision["intermediate_size"], f"{tower}.blocks.{i}.norm2")
    layout |= {f"{tower}.norm.{part}": (width,) for part in ("weight", "bias")}

    hidden, encoder = text["hidden_size"], "blip.text_encoder"
    layout[f"{encoder}.embeddings.position_ids"] = (1, text["max_position_embeddings"])
    layout[f"{encoder}.embeddings.word_embeddings.weight"] = (text["vocab_size"], hidden)
    layout[f"{encoder}.embeddings.position_embeddings.weight"] = (text["max_position_embeddings"], hidden)
    layout |= {f"{encoder}.embeddings.LayerNorm.{part}": (hidden,) for part in ("weight", "bias")}
    for i in range(text["num_hidden_layers"]):
        layer = f"{encoder}.encoder.layer.{i}"
        for attention, seen in (("attention", hidden), ("crossattention", width)):
            linear(f"{layer}.{attention}.self.query", hidden, hidden)
            linear(f"{layer}.{attention}.self.key", hidden, seen)
            linear(f"{layer}.{attention}.self.value", hidden, seen)
            linear(f"{layer}.{attention}.output.dense", hidden, hidden, f"{layer}.{attention}.output.LayerNorm")
        linear(f"{layer}.intermediate.dense", text["intermediate_size"], hidden)
        linear(f"{layer}.output.dense", hidden, text["intermediate_size"], f"{layer}.output.LayerNorm")
    linear("blip.vision_proj", 256, width)
    linear("blip.text_proj", 256, hidden)
    widths = (hidden, 1024, 128, 64, 16, 1)
    for number, inputs, outputs in zip((0, 2, 4, 6, 7), widths, widths[1:], strict=False):
        linear(f"mlp.layers.{number}", outputs, inputs)
    return layout


def tiny_state() -> dict[str, torch.Tensor]:
    state = {key: torch.from_numpy(random_array(key, shape)) for key, shape in published_layout(VISION, TEXT).items()}
    return state | {"blip.text_encoder.embeddings.position_ids": torch.arange(40)[None]}


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny-image-reward")
    config = {"model_type": "blip", "vision_config": VISION, "text_config": TEXT}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    torch.save(tiny_state(), folder / "ImageReward.pt")
    return folder


def options(folder: Path) -> dict[str, object]:
    return {"weights": folder / "ImageReward.pt", "config": folder / "config.json", "tokenizer": folder}


class TestImageReward(RewardContract):
    reward = "image_reward"
    bf16_tolerance = 0.1

    @pytest.fixture(autouse=True)
    def _folder(self, tiny_folder: Path) -> None:
        type(self).options = options(tiny_folder)


class TestImageRewardOfFewFramesInPasses(RewardContract):
    reward = "image_reward"
    shape = (3, 4, 3, 40, 33)
    bf16_tolerance = 0.1

    @pytest.fixture(autouse=True)
    def _folder(self, tiny_folder: Path) -> None:
        few = {"frames": {"kind": "uniform", "count": 3}, "reduction": "min", "frames_per_pass": 2}
        type(self).options = {**options(tiny_folder), **few}


def test_published_layout_is_that_of_the_recorded_package() -> None:
    golden = json.loads((Path(__file__).parents[2] / "parity/golden/image_reward.json").read_text())["state"]
    vision = VISION | {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 3, "image_size": 224}
    text = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "max_position_embeddings": 64}
    assert published_layout(vision, text | {"vocab_size": 32}) == {key: tuple(shape) for key, shape in golden.items()}


def test_published_architecture_has_the_size_that_the_authors_state() -> None:
    layout = published_layout(PUBLISHED["vision_config"], PUBLISHED["text_config"])
    kept = {key: shape for key, shape in layout.items() if "_proj." not in key and "position_ids" not in key}
    numbers = sum(torch.Size(shape).numel() for shape in kept.values())
    assert 446e6 < numbers < 447e6  # 446.7 M; times 4 bytes that is the file's 1.79 GB
    assert len(layout) - len(kept) == 5
    with torch.device("meta"):
        ours = ImageRewardModel(BlipConfig(**PUBLISHED)).state_dict()
    renamed = rename_original({key: torch.empty(shape, device="meta") for key, shape in layout.items()})
    assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in renamed.items()}


def test_a_config_file_names_everything_as_text(tiny_folder: Path) -> None:
    config = f"""
    weights: {tiny_folder}/ImageReward.pt
    config: {tiny_folder}
    tokenizer: {tiny_folder}
    frames: {{kind: uniform, count: 2}}
    reduction: {{kind: softmin, temperature: 0.5}}
    frames_per_pass: 1
    """
    reward = registry.build("image_reward", **yaml.safe_load(config))
    video = torch.rand(1, 5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    each = [reward(video[:, [i]], ["a star"], fps=8).values["image_reward"].item() for i in (0, 4)]
    score = reward(video, ["a star"], fps=8).values["image_reward"].item()
    weights = [math.exp(-value / 0.5) for value in each]
    assert score == pytest.approx(sum(w * v for w, v in zip(weights, each, strict=True)) / sum(weights), abs=1e-5)
    entry = CATALOGUE["image_reward"]
    assert (entry.is_differentiable, entry.licence) == (reward.spec.is_differentiable, reward.spec.licence)


def test_a_prompt_is_tokenised_once_and_its_ids_serve_all_frames(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reward = registry.build("image_reward", **options(tiny_folder))
    assert isinstance(reward, ImageReward)
    calls, pad = [], reward._tokens._encode
    monkeypatch.setattr(reward._tokens, "_encode", lambda ids: calls.append(ids) or pad(ids))
    video = torch.rand(3, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for _ in range(2):
        reward(video, ["a red circle", "a star", "a red circle"], fps=8)
    assert len(calls) == 2
    (ids,) = reward._condition(["a red star"], video)
    assert ids.tolist() == [[2, 5, 6, 11, 3] + [0] * (MAX_TOKENS - 5)]
    assert ids.dtype == torch.int64


def test_a_prompt_over_35_tokens_is_cut_with_a_warning(tiny_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    reward = ImageReward(**options(tiny_folder))  # type: ignore[arg-type]
    video = torch.rand(1, 1, 3, 32, 32)
    with caplog.at_level(logging.WARNING):
        long, cut = (reward(video, ["a star " * n], fps=8).values["image_reward"] for n in (30, 17))
    assert "62 tokens is cut to 35" in caplog.text
    # 33 words fit: the 17th "star" is lost from both.
    torch.testing.assert_close(long, cut)


def test_the_packages_two_additional_tokens_are_there(tiny_folder: Path) -> None:
    reward = ImageReward(**options(tiny_folder))  # type: ignore[arg-type]
    (ids,) = reward._condition(["a [ENC] star [DEC]"], torch.zeros(1))
    assert ids[0, :6].tolist() == [2, 5, len(WORDS) + 1, 11, len(WORDS), 3]


def test_files_that_do_not_fit_are_refused(tiny_folder: Path, tmp_path: Path) -> None:
    state, file = tiny_state(), tmp_path / "other.pt"
    first = "blip.visual_encoder.cls_token"
    for change, words in (
        ({key: value for key, value in state.items() if key != first}, "lacks 'vision.embeddings.class_embedding'"),
        (state | {"blip.text_encoder.pooler.dense.bias": torch.zeros(2)}, "unknown 'text.pooler.dense.bias'"),
        (state | {first: torch.zeros(1, 1, 8)}, "another shape of 'vision.embeddings.class_embedding'"),
    ):
        torch.save(change, file)
        with pytest.raises(RewardError, match=words):
            ImageReward(**{**options(tiny_folder), "weights": file})  # type: ignore[arg-type]
    file.write_bytes((tiny_folder / "ImageReward.pt").read_bytes()[:20_000])
    with pytest.raises(RewardError, match=r"Cannot read weights from .*other\.pt"):
        ImageReward(**{**options(tiny_folder), "weights": file})  # type: ignore[arg-type]
    with pytest.raises(RewardError, match=r"no weight file nowhere\.pt"):
        ImageReward(**{**options(tiny_folder), "weights": "nowhere.pt"})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{}", "model of type None, this reward needs 'blip'"),
        ("not json", "Cannot read a config"),
        ('{"model_type": "blip", "text_config": {"is_decoder": false}}', "is_decoder must be true"),
        ('{"model_type": "blip", "text_config": {"hidden_size": "many"}}', "no valid BlipConfig"),
    ],
)
def test_configs_that_make_no_sense_are_refused(tiny_folder: Path, tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(RewardError, match=words):
        ImageReward(**{**options(tiny_folder), "config": tmp_path})  # type: ignore[arg-type]


def test_tokenizers_of_other_models_are_refused(tiny_folder: Path, clip_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RewardError, match="it is not BERT's"):
        ImageReward(**{**options(tiny_folder), "tokenizer": clip_folder})  # type: ignore[arg-type]
    (tmp_path / "vocab.txt").write_text("\n".join((*WORDS, "seven")) + "\n")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    with pytest.raises(RewardError, match=r"has 16 tokens with .* the text model 15"):
        ImageReward(**{**options(tiny_folder), "tokenizer": tmp_path})  # type: ignore[arg-type]


def test_reward_backpropagation_trains_on_it(tiny_folder: Path, train_by_config: Callable[..., None]) -> None:
    train_by_config("image_reward", options(tiny_folder) | {"frames": "first"})


def test_half_precision_towers_are_near_and_another_version(tiny_folder: Path) -> None:
    full = registry.build("image_reward", **options(tiny_folder))
    half = registry.build("image_reward", **options(tiny_folder), precision="bfloat16")
    assert (full.spec.version, half.spec.version) == ("1", "1-precision=bfloat16")
    video = torch.rand(2, 2, 3, 40, 33, generator=torch.Generator().manual_seed(0)).requires_grad_()
    scores = [reward(video, ["a red circle", "a blue square"], fps=8).values["image_reward"] for reward in (full, half)]
    assert scores[1].dtype == torch.float32
    assert not torch.equal(*scores)
    torch.testing.assert_close(scores[1], scores[0], rtol=0.05, atol=0.05)
    gradients = [torch.autograd.grad(score.sum(), video)[0].flatten() for score in scores]
    assert torch.cosine_similarity(*gradients, dim=0) > 0.99
