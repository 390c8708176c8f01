"""Tiny real CLIP and X-CLIP folders with a word-level tokenizer, written once per session."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast, XCLIPConfig, XCLIPModel

from rewards.raft import Raft
from rlhf_video.algorithms.reward_bp import train
from rlhf_video.algorithms.reward_bp_config import RewardBpConfig
from rlhf_video.runtime import create_accelerator, read_metrics
from rlhf_video.settings import load_config, to_plain

WORDS = ("<pad>", "<unk>", "<bos>", "a", "red", "blue", "green", "circle", "square", "star", "moving", "left", "up")
WORDS = (*WORDS, "<eos>")  # X-CLIP reads the text at the highest id
TEXT = {
    "vocab_size": len(WORDS),
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 12,
    "pad_token_id": 0,
    "bos_token_id": WORDS.index("<bos>"),
    "eos_token_id": WORDS.index("<eos>"),
}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 12,
    "patch_size": 6,
}


def word_tokenizer(words: tuple[str, ...] = WORDS, *, appends_end: bool = True) -> PreTrainedTokenizerFast:
    """Return a tokenizer of whole words that frames a sentence with <bos> and <eos>."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if appends_end:
        special = [(word, words.index(word)) for word in ("<bos>", "<eos>")]
        tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A <eos>", special_tokens=special)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", bos_token="<bos>", eos_token="<eos>"
    )


def spread(model: torch.nn.Module) -> None:
    """Widen the initial weights: std 0.02 leaves a model blind to its pixels, and tests of it pass whatever it does."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2:
                parameter.normal_(std=parameter.shape[-1] ** -0.5)
            elif name.endswith("bias"):
                parameter.normal_(std=0.1)


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny-clip")
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=8))
    spread(model)
    model.save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def xclip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny-xclip")
    torch.manual_seed(0)
    mit = {"mit_hidden_size": 8, "mit_intermediate_size": 16, "mit_num_hidden_layers": 1, "mit_num_attention_heads": 2}
    config = XCLIPConfig(
        text_config=TEXT,
        vision_config={**VISION, **mit, "num_frames": 5},
        projection_dim=8,
        prompt_layers=1,
        prompt_num_attention_heads=2,
        prompt_alpha=1.0,
    )
    model = XCLIPModel(config)
    spread(model)
    model.save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return folder


def seeded_raft_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return weights for RAFT-large, in the order of its state dict, with which the flow depends on the pixels."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, value in model.state_dict().items():
        noise = torch.randn(value.shape, generator=generator)
        if name.endswith("num_batches_tracked"):
            state[name] = torch.zeros_like(value)
        elif value.ndim == 4:
            state[name] = noise * (2 / value[0].numel()) ** 0.5 * (0.25 if "flow_head.conv2" in name else 1.0)
        elif name.endswith("running_var") or name.endswith("1.weight"):
            state[name] = 1 + 0.1 * noise.abs()
        else:
            state[name] = 0.1 * noise
    return state


@pytest.fixture(scope="session")
def raft_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("raft") / "raft_large.pth"
    torch.save(seeded_raft_state(Raft()), file)
    return file


TRAIN_PROMPTS = ("a red circle moving left", "a blue square moving up")
VALIDATION_PROMPTS = ("a green star", "a red square moving up")


@pytest.fixture
def train_by_config(tiny_wan_folder: Path, tmp_path: Path) -> Callable[..., None]:
    """Return a function that runs reward backpropagation on a tiny model, the reward named as a config names it."""

    def run(name: str, options: Mapping[str, object], *, frames: int = 5, size: int = 16, **entry: object) -> None:
        for split, prompts in (("train", TRAIN_PROMPTS), ("validation", VALIDATION_PROMPTS)):
            (tmp_path / f"{split}.txt").write_text("\n".join(prompts) + "\n")
        plain = yaml.safe_load(yaml.safe_dump({key: to_plain(value) for key, value in options.items()}))
        tree = {
            "backbone": str(tiny_wan_folder),
            "prompts": {split: str(tmp_path / f"{split}.txt") for split in ("train", "validation")},
            "rewards": [{"name": name, "options": plain, **entry}],
            "sampling": {"num_frames": frames, "height": size, "width": size, "num_steps": 2, "guidance": 1.0},
            "lora": {"rank": 2, "alpha": 2.0},
            "estimator": {"num_grad_steps": 1},
            "optim": {"learning_rate": 0.01, "warmup": 0},
            "batch": {"global_prompts": 1},
            "num_steps": 1,
            "validation": {"every": 1, "clips_per_prompt": 1, "batch": 2},
            "held_out_stop": {"enabled": False},
            "sweep": {"scales": [1.0]},
            "output_dir": str(tmp_path / "run"),
        }
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(tree))
        outcome = train(load_config(RewardBpConfig, tmp_path / "run.yaml"), accelerator=create_accelerator())
        (step,) = [line for line in read_metrics(tmp_path / "run") if "grad/norm" in line]
        assert step["grad/norm"] > 0
        assert step[f"reward/{name}"] == step[f"reward/{name}"]  # not NaN: the clip was scored
        assert (outcome.adapter / "pytorch_lora_weights.safetensors").is_file()

    return run
