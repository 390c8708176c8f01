"""Every adapter in adapters/ is loaded by plain diffusers, changes the clip, and is gone once unloaded."""

import json
import re
from pathlib import Path

import pytest
import torch
from diffusers import WanPipeline
from safetensors import safe_open

ADAPTERS = sorted(path.parent for path in Path("adapters").glob("*/pytorch_lora_weights.safetensors"))

COMMANDS = {
    "sprite-wan-asd": "train_asd.py --config configs/asd/sprite-data.yaml",
    "sprite-wan-causal-warmup": "train_asd.py --config configs/asd/sprite-long.yaml",
    "sprite-wan-dpo": "`python rlhf_video/train_dpo.py`",
    "sprite-wan-reward-bp": "train_reward_bp.py",
    "sprite-wan-window-recovery": "train_sft.py --config configs/sft/sprite-recovery.yaml",
}


def _clip(pipeline: WanPipeline) -> torch.Tensor:
    frames: torch.Tensor = pipeline(
        "a red circle moving left on a navy background", height=64, width=64, num_frames=21, num_inference_steps=3,
        generator=torch.Generator().manual_seed(0), output_type="latent",
    ).frames  # fmt: skip
    return frames


def test_the_adapters_of_the_readme_are_there() -> None:
    assert [path.name for path in ADAPTERS] == sorted(COMMANDS)


@pytest.mark.parametrize("folder", ADAPTERS, ids=lambda path: path.name)
def test_plain_diffusers_loads_it(folder: Path) -> None:
    with safe_open(folder / "pytorch_lora_weights.safetensors", framework="pt") as file:
        metadata = file.metadata()
    pipeline = WanPipeline.from_pretrained(json.loads(metadata["rlhf_video"])["base"])
    pipeline.set_progress_bar_config(disable=True)
    base = _clip(pipeline)
    pipeline.load_lora_weights(folder)
    adapted = _clip(pipeline)
    assert torch.isfinite(adapted).all()
    assert (adapted - base).abs().mean() > 1e-3
    pipeline.unload_lora_weights()
    assert torch.equal(_clip(pipeline), base)


@pytest.mark.parametrize("folder", ADAPTERS, ids=lambda path: path.name)
def test_its_card_says_how_it_was_made_and_what_it_gained(folder: Path) -> None:
    card = (folder / "README.md").read_text()
    for part in (COMMANDS[folder.name], "judge/all", "unseen test prompts", "Config hash"):
        assert part in card


def test_the_page_on_attention_states_what_the_card_of_window_recovery_measured() -> None:
    card = Path("adapters/sprite-wan-window-recovery/README.md").read_text()
    page = Path("docs/attention.md").read_text()
    to_dense, regained = (
        [float(number) for number in row]
        for row in re.findall(r"judge/all +\| +(\S+) \| +(\S+) \| +(\S+) \[(\S+), (\S+)\]", card)
    )
    (psnr,) = re.findall(r"psnr/to_dense +\| +(\S+) \| +(\S+) \| +(\S+) \[(\S+), (\S+)\]", card)
    before, after, gain, low, high = (float(number) for number in psnr)
    assert f"| dense | {100 * to_dense[0]:.1f}% | |" in page
    assert f"| windows, untrained | {100 * regained[0]:.1f}% | {before:.1f} dB |" in page
    loss, least, most = (100 * number for number in to_dense[2:])
    assert f"{100 * to_dense[1]:.1f}%, {loss:+.1f} points [{least:+.1f}, {most:+.1f}] from dense" in page
    assert f"{after:.1f} dB, {gain:+.1f} [{low:+.1f}, {high:+.1f}]" in page
    untrained = f"{100 * (to_dense[0] - regained[0]):.1f} points of clips"
    assert untrained in Path("README.md").read_text()


@pytest.mark.parametrize(
    ("adapter", "chapter"), [("sprite-wan-reward-bp", "## Two commands"), ("sprite-wan-dpo", "## Video-DPO")]
)
def test_the_readme_states_what_the_card_of_seed_0_measured(adapter: str, chapter: str) -> None:
    card = Path(f"adapters/{adapter}/README.md").read_text()
    readme = Path("README.md").read_text().split(chapter, 1)[1]
    row = re.search(r"judge/all +\| +(\S+) \| +(\S+) \| +(\S+) \[(\S+), (\S+)\]", card)
    assert row is not None
    before, after, gain, low, high = (100 * float(number) for number in row.groups())
    assert f"| 0 | {before:.1f}% | {after:.1f}% | {gain:+.1f} [{low:+.1f}, {high:+.1f}] |" in readme
