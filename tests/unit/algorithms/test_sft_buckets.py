"""Fine-tuning on clips of mixed sizes and lengths, and the folder of latents that runs share."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf_video.algorithms.outcome import Outcome
from rlhf_video.algorithms.sft import train
from rlhf_video.algorithms.sft_config import SftConfig
from rlhf_video.algorithms.sft_data import fitting_size
from rlhf_video.algorithms.sft_dry_run import describe
from rlhf_video.attention import AttentionPlan, Full, Local
from rlhf_video.backbones import VideoBackbone
from rlhf_video.data import ClipSize, write_lossless
from rlhf_video.errors import ConfigError, DataError
from rlhf_video.runtime import create_accelerator, read_metrics
from rlhf_video.settings import load_config
from rlhf_video.testing.runs import adapter_distance, same_checkpoint, timeless_metrics, write_config

Recipe = dict[str, Any]
SIZES = ((5, 16, 16),) * 5 + ((9, 16, 32),) * 2 + ((1, 32, 32),)  # 2, 6 and 4 tokens
BUDGET = 6


@pytest.fixture
def mixed(sft_recipe: Recipe, tmp_path: Path) -> Recipe:
    """Return the recipe with eight clips of three sizes, and two sizes held out."""
    write_clips(tmp_path / "mixed", SIZES)
    write_clips(tmp_path / "apart", ((5, 32, 16), (5, 16, 16)), first_seed=50)
    sft_recipe["data"] = {"train": str(tmp_path / "mixed" / "c.jsonl"), "validation": str(tmp_path / "apart/c.jsonl")}
    sft_recipe["batch"] = {"token_budget": BUDGET}
    return sft_recipe


def write_clips(folder: Path, sizes: tuple[tuple[int, int, int], ...], *, first_seed: int = 0) -> None:
    lines = []
    for number, (frames, height, width) in enumerate(sizes):
        noise = torch.rand(frames, 3, height, width, generator=torch.Generator().manual_seed(first_seed + number))
        write_lossless(folder / f"{number}.mkv", 0.7 + 0.3 * noise, 8)
        lines.append(json.dumps({"file": f"{number}.mkv", "prompt": f"a red circle, number {number}"}) + "\n")
    (folder / "c.jsonl").write_text("".join(lines))


def run(recipe: Recipe, folder: Path, *, resume: bool = False, **changes: object) -> Outcome:
    config = load_config(SftConfig, write_config(recipe, folder, **changes))
    return train(config, accelerator=create_accelerator(), resume=resume)


def steps_of(folder: Path) -> list[tuple[float | None, float | None]]:
    return [(line["batch/clips"], line["batch/tokens"]) for line in read_metrics(folder) if "batch/clips" in line]


def test_a_run_on_mixed_sizes_trains_every_clip_once_an_epoch_and_lowers_the_held_out_loss(
    mixed: Recipe, tmp_path: Path
) -> None:
    outcome = run(mixed, tmp_path / "a", num_steps=25, validation__every=25)
    steps = steps_of(tmp_path / "a")
    for start in range(0, 25, 5):
        assert sorted(steps[start : start + 5]) == [(1.0, 4.0), (1.0, 6.0), (1.0, 6.0), (2.0, 4.0), (3.0, 6.0)]
    last = read_metrics(tmp_path / "a")[-1]
    assert last["result/flow_matching/loss/difference"] < 0  # type: ignore[operator]
    assert "Clips of mixed sizes: 3 bucket(s), 5 steps an epoch" in (outcome.adapter / "README.md").read_text()


def test_resuming_on_mixed_sizes_is_bit_equal_to_a_straight_run(mixed: Recipe, tmp_path: Path) -> None:
    run(mixed, tmp_path / "straight", num_steps=6, validation__every=3, checkpoint__every=3)
    run(mixed, tmp_path / "resumed", num_steps=3, validation__every=3, checkpoint__every=3)
    run(mixed, tmp_path / "resumed", num_steps=6, validation__every=3, checkpoint__every=3, resume=True)
    assert same_checkpoint(tmp_path / "straight", tmp_path / "resumed", 6)
    assert timeless_metrics(tmp_path / "straight") == timeless_metrics(tmp_path / "resumed")


def test_accumulation_changes_nothing_where_it_does_not_divide_a_batch(mixed: Recipe, tmp_path: Path) -> None:
    run(mixed, tmp_path / "whole", num_steps=5)
    run(mixed, tmp_path / "pieces", num_steps=5, batch__accumulation=2)
    assert steps_of(tmp_path / "whole") == steps_of(tmp_path / "pieces")
    assert adapter_distance(tmp_path / "whole", tmp_path / "pieces") < 1e-5


def test_dry_run_says_what_the_budget_holds(mixed: Recipe, tmp_path: Path) -> None:
    config = load_config(SftConfig, write_config(mixed, tmp_path / "a", batch__token_budget=9, batch__accumulation=2))
    text = describe(config)
    assert "9 tokens of clips of one size, 4 of the sampling size, a step over all processes, 2 at a time" in text


def test_clips_that_fit_no_bucket_are_named_with_what_would_fit(mixed: Recipe, tmp_path: Path) -> None:
    write_clips(tmp_path / "mixed", ((5, 16, 16), (8, 16, 16), (5, 24, 40), (5, 16, 8)))
    with pytest.raises(DataError) as caught:
        run(mixed, tmp_path / "a")
    for word in (
        "data.train: 3 of 4 clips do not fit",
        "1.mkv' has 8 frames of 16x16, 5 frames of 16x16 would fit",
        "2.mkv' has 5 frames of 24x40, 5 frames of 16x32 would fit",
        "3.mkv' has 5 frames of 16x8, it is too small",
        "4k + 1 frames",
        "multiples of 16",
    ):
        assert word in str(caught.value)
    assert not (tmp_path / "a").exists()


def test_a_clip_beyond_the_budget_is_named(mixed: Recipe, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="2 of 8 clips") as caught:
        run(mixed, tmp_path / "a", batch__token_budget=5)
    assert "5.mkv' (3 x 1 x 2 = 6 tokens)" in str(caught.value)
    assert "Set it to 6 or more" in str(caught.value)


@pytest.mark.parametrize("size", [(1, 16, 16), (4, 17, 31), (6, 40, 16), (82, 100, 50), (3, 15, 16)])
def test_the_size_that_would_fit_does(tiny_wan: VideoBackbone, size: tuple[int, int, int]) -> None:
    spec, found = tiny_wan.spec, ClipSize(*size)
    fits = fitting_size(found, spec)
    if fits is None:
        assert min(size[1:]) < 16
        return
    assert fitting_size(fits, spec) == fits
    assert all(0 <= have - want < step for have, want, step in zip(found, fits, (4, 16, 16), strict=True))


def test_windows_that_do_not_fit_a_bucket_name_its_size(mixed: Recipe, tmp_path: Path) -> None:
    plan = AttentionPlan(num_heads=6, layers=(Local(window=(2, 0, 0)), Full()))
    plan.save(tmp_path / "plan.json")
    with pytest.raises(ConfigError, match=r"data\.train, clips with 1 frame of 32x32: Attention plan, layer 0"):
        run(mixed, tmp_path / "a", attention__file=str(tmp_path / "plan.json"))
    assert not (tmp_path / "a").exists()


def test_runs_share_a_folder_of_latents(mixed: Recipe, tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    run(mixed, tmp_path / "a", data__latents=str(folder))
    written = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert len(written) == 10
    assert not (tmp_path / "a" / "latents").exists()
    run(mixed, tmp_path / "b", data__latents=str(folder))
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == written
    assert adapter_distance(tmp_path / "a", tmp_path / "b") == 0.0
