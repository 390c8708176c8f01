"""Optimiser steps of Video-DPO on a tiny model: what shares noise, and what changes nothing but time and memory."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rlhf_video.algorithms.dpo import train_step
from rlhf_video.algorithms.dpo_beta import AutoBeta
from rlhf_video.algorithms.dpo_config import DpoConfig
from rlhf_video.algorithms.dpo_pairs import latent_membership
from rlhf_video.algorithms.dpo_rows import pair_errors
from rlhf_video.backbones import load_backbone, meta_backbone
from rlhf_video.errors import AdapterError
from rlhf_video.lora import adapter_state, load_adapter, save_adapter
from rlhf_video.preferences import ClipRecord, PreferencePair, PreferenceStore, SegmentLabel
from rlhf_video.settings import load_config
from rlhf_video.testing.runs import write_config

Recipe = dict[str, Any]
Call = Callable[..., Any]


@pytest.fixture
def dpo_recipe(dpo_recipe: Recipe) -> Recipe:
    """Return the recipe with an optimiser that does not blow rounding up."""
    return dpo_recipe | {"optim": {"learning_rate": 1e-3, "epsilon": 1e-4, "warmup": 0}, "num_steps": 2}


def test_the_first_loss_is_log_2_and_every_margin_zero(steps: Call, dpo_recipe: Recipe, tmp_path: Path) -> None:
    (first, second) = steps(dpo_recipe, tmp_path / "run").metrics
    assert first["loss/dpo"] == pytest.approx(math.log(2), abs=1e-7)
    assert first["dpo/margin"] == first["dpo/chosen_gain"] == first["dpo/rejected_gain"] == 0.0
    assert first["dpo/accuracy"] == 0.5
    assert first["dpo/gradient_factor"] == 0.5
    assert second["dpo/margin"] != 0.0


def test_both_clips_share_noise_and_level_bit_for_bit(opened: Call, dpo_recipe: Recipe, tmp_path: Path) -> None:
    _, trained, _ = opened(dpo_recipe, tmp_path / "run")
    seen: list[tuple[Tensor, Tensor]] = []
    backbone = trained.world.backbone
    velocity = backbone.velocity

    def spy(latents: Tensor, sigma: Tensor, *rest: Any) -> Tensor:
        seen.append((latents.clone(), sigma.clone()))
        return velocity(latents, sigma, *rest)

    backbone.velocity = spy  # type: ignore[method-assign,assignment]
    rows = trained.rows([(0, 0), (3, 1)])
    with torch.no_grad():
        pair_errors(backbone, rows, trained.config.loss)
    (chosen, sigma), (rejected, other_sigma) = seen
    assert torch.equal(sigma, other_sigma)
    (group,) = rows.groups
    level = sigma.view(-1, 1, 1, 1, 1)
    for latents, clean in ((chosen, group.chosen), (rejected, group.rejected)):
        assert torch.equal(latents, (1 - level) * clean + level * group.noise)
    assert not torch.equal(group.noise[0], group.noise[1]), "another draw of the pair has other noise"


def test_noise_depends_on_the_pair_and_the_number_of_the_draw_alone(
    opened: Call, dpo_recipe: Recipe, tmp_path: Path
) -> None:
    _, trained, _ = opened(dpo_recipe, tmp_path / "run", draws_per_pair=1)
    together, alone = trained.rows([(0, 2), (3, 1)]), trained.rows([(3, 1)])
    assert torch.equal(together.groups[0].noise[1], alone.groups[0].noise[0])
    assert torch.equal(together.sigma[1], alone.sigma[0])


def test_swapping_the_labels_keeps_the_noise_and_turns_the_gradient(
    steps: Call, dpo_recipe: Recipe, tmp_path: Path
) -> None:
    dpo_recipe["optim"] = {"learning_rate": 1e-3, "epsilon": 1.0, "weight_decay": 1e-9, "max_grad_norm": 1e9}
    given = steps(dpo_recipe, tmp_path / "given", 1)
    store = PreferenceStore(tmp_path / "pairs" / "train.jsonl")
    other = {"A": "B", "B": "A"}
    pairs = [replace(pair, labels={"overall": other[pair.labels["overall"]]}) for pair in store.read()]
    swapped_store = PreferenceStore(tmp_path / "pairs" / "swapped.jsonl")
    swapped_store.append(pairs)
    swapped = steps(dpo_recipe, tmp_path / "swapped", 1, pairs__train=str(swapped_store.path))
    rows, turned = given.trained.rows([(1, 0)]), swapped.trained.rows([(1, 0)])
    assert torch.equal(rows.groups[0].noise, turned.groups[0].noise)
    assert torch.equal(rows.groups[0].chosen, turned.groups[0].rejected)
    ups = [name for name in given.adapter if "lora_B" in name]
    assert any(given.adapter[name].abs().max() > 0 for name in ups)
    for name in ups:  # with epsilon 1, Adam's first step is nearly proportional to the gradient
        torch.testing.assert_close(given.adapter[name], -swapped.adapter[name], rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize(
    "changes",
    [
        {"batch__accumulation": 4},
        {"batch__accumulation": 2},
        {"passes": "two_pass"},
        {"passes": "two_pass", "batch__accumulation": 4},
        {"gradient_checkpointing": False},
    ],
    ids=["four pieces", "two pieces", "two passes", "two passes of one pair", "no recomputing"],
)
def test_what_saves_memory_changes_nothing(
    steps: Call, dpo_recipe: Recipe, tmp_path: Path, changes: dict[str, object]
) -> None:
    plain = steps(dpo_recipe, tmp_path / "plain")
    other = steps(dpo_recipe, tmp_path / "other", **changes)
    torch.testing.assert_close(other.adapter, plain.adapter, rtol=0, atol=1e-6)
    assert other.metrics[1]["loss/dpo"] == pytest.approx(plain.metrics[1]["loss/dpo"], abs=1e-6)


def test_a_reference_kept_on_disk_is_the_computed_one(steps: Call, dpo_recipe: Recipe, tmp_path: Path) -> None:
    dpo_recipe |= {"reference": {"fixed_draws": 4}, "draws_per_pair": 1}
    one_row = {"batch__accumulation": 4, "validation__batch": 1}  # as many rows a pass, so no rounding differs
    plain = steps(dpo_recipe, tmp_path / "plain", **one_row)
    cached = steps(dpo_recipe, tmp_path / "cached", reference__cache=str(tmp_path / "kept"), **one_row)
    torch.testing.assert_close(cached.adapter, plain.adapter, rtol=0, atol=0)
    assert cached.metrics == plain.metrics


def test_a_reference_kept_on_disk_is_the_computed_one_up_to_rounding(
    steps: Call, dpo_recipe: Recipe, tmp_path: Path
) -> None:
    dpo_recipe |= {"reference": {"fixed_draws": 4}, "num_steps": 6}  # every pair is visited twice, at other draws
    plain = steps(dpo_recipe, tmp_path / "plain")
    cached = steps(dpo_recipe, tmp_path / "cached", reference__cache=str(tmp_path / "kept"))
    rows = plain.trained.rows([(0, 0), (5, 1), (2, 7)])
    for computed, known in zip(
        plain.trained.reference_errors(rows), cached.trained.reference_errors(rows), strict=True
    ):
        torch.testing.assert_close(computed, known, rtol=1e-6, atol=0)
    torch.testing.assert_close(cached.adapter, plain.adapter, rtol=0, atol=1e-6)


def test_later_runs_reuse_what_is_kept_until_anything_changes(
    opened: Call, start_adapter: Call, dpo_recipe: Recipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def computed(name: str, **changes: object) -> tuple[int, int]:
        """Return the first computed draw and for how many pairs."""
        caplog.clear()
        settings = {"reference__cache": str(tmp_path / "kept"), "pairs__latents": str(tmp_path / "latents")}
        with caplog.at_level("INFO"):
            opened(dpo_recipe, tmp_path / name, **(settings | changes))
        (line,) = [record.getMessage() for record in caplog.records if "Reference errors" in record.getMessage()]
        return int(line.split("draws ")[-1].split()[0]), int(line.split()[-2])

    dpo_recipe["reference"] = {"fixed_draws": 4}
    assert computed("first") == (0, 12)
    assert computed("again", optim__learning_rate=0.5, num_steps=1, loss__beta=7.0) == (0, 0)
    assert computed("longer", num_steps=6) == (2, 12), "the draws of the first visits were there"
    assert computed("seed", seed=1) == (0, 12)
    assert computed("levels", noise_levels__distribution="logit_normal") == (0, 12)
    assert computed("reduction", loss__reduction="sum") == (0, 12)
    start = start_adapter(dpo_recipe, tmp_path)
    assert computed("model", reference__kind="merged", reference__start_adapter=str(start)) == (
        0,
        12,
    )
    pairs = PreferenceStore(tmp_path / "pairs" / "train.jsonl").read()
    other = PreferenceStore(tmp_path / "pairs" / "other.jsonl")
    renamed = replace(pairs[0], a=replace(pairs[2].a, seed=7))
    other.append([renamed, *pairs[1:]])
    assert computed("clip", pairs__train=str(other.path)) == (0, 1)


@pytest.fixture
def start_adapter(steps: Call) -> Call:
    """Return a function that writes an adapter of a recipe's base that does something."""
    return partial(write_start_adapter, steps)


def write_start_adapter(steps: Call, recipe: Recipe, folder: Path, *, rank: int = 2) -> Path:
    backbone = load_backbone(recipe["backbone"])
    made = steps(recipe, folder / "made", 1, lora__rank=rank, lora__alpha=float(2 * rank), optim__learning_rate=0.05)
    metadata = {"base": recipe["backbone"]}
    save_adapter(folder / "start", made.adapter, backbone=backbone, config=made.trained.config.lora, metadata=metadata)
    return folder / "start"


@pytest.mark.parametrize("kind", ["adapter", "merged"])
def test_training_from_an_adapter_starts_at_its_reference(
    steps: Call, start_adapter: Call, dpo_recipe: Recipe, tmp_path: Path, kind: str
) -> None:
    folder = start_adapter(dpo_recipe, tmp_path)
    dpo_recipe["reference"] = {"kind": kind, "start_adapter": str(folder)}
    done = steps(dpo_recipe, tmp_path / kind, 2)
    assert done.metrics[0]["dpo/margin"] == 0.0
    assert done.metrics[0]["loss/dpo"] == pytest.approx(math.log(2), abs=1e-7)
    trained = done.trained
    rows = trained.rows([(0, 0), (4, 0)])
    reference = trained.reference_errors(rows)
    with_start = load_backbone(dpo_recipe["backbone"])
    load_adapter(with_start, folder)
    for mine, plain in zip(reference, pair_errors(with_start, rows, trained.config.loss), strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-5, atol=1e-6)
    published = trained.start.published(done.adapter, trained.world.backbone, trained.config.lora)
    save_adapter(
        tmp_path / "all", published.state, backbone=with_start, config=published.config,
        metadata={"base": dpo_recipe["backbone"]},
    )  # fmt: skip
    fresh = load_backbone(dpo_recipe["backbone"])
    load_adapter(fresh, tmp_path / "all")
    for mine, plain in zip(
        pair_errors(trained.world.backbone, rows, trained.config.loss),
        pair_errors(fresh, rows, trained.config.loss),
        strict=True,
    ):
        torch.testing.assert_close(mine, plain, rtol=1e-5, atol=1e-6)


def test_a_frozen_adapter_is_untouched_while_the_policy_trains(
    opened: Call, start_adapter: Call, dpo_recipe: Recipe, tmp_path: Path
) -> None:
    folder = start_adapter(dpo_recipe, tmp_path)
    dpo_recipe["reference"] = {"kind": "adapter", "adapter": str(folder)}
    config, trained, visits = opened(dpo_recipe, tmp_path / "run")
    rows = trained.rows([(0, 0), (4, 0)])
    before = trained.reference_errors(rows)
    metrics = train_step(config, trained, AutoBeta(config.loss), visits(0), step=0)
    assert metrics["dpo/margin"] != 0.0, "training starts at zero, not at the reference"
    for then, now in zip(before, trained.reference_errors(rows), strict=True):
        assert torch.equal(then, now)


def test_an_adapter_of_another_base_or_of_a_larger_rank_is_refused(
    opened: Call, start_adapter: Call, dpo_recipe: Recipe, tmp_path: Path
) -> None:
    folder = start_adapter(dpo_recipe, tmp_path, rank=6)
    dpo_recipe["reference"] = {"kind": "adapter", "start_adapter": str(folder)}
    with pytest.raises(AdapterError, match=r"rank 6 does not fit lora.rank=4: set lora.rank=6"):
        opened(dpo_recipe, tmp_path / "rank")
    backbone = load_backbone(dpo_recipe["backbone"])
    load_adapter(backbone, folder)
    state, lora = adapter_state(backbone), load_config(DpoConfig, write_config(dpo_recipe, tmp_path / "x")).lora
    save_adapter(
        tmp_path / "foreign", state, backbone=backbone, config=replace(lora, rank=6), metadata={"base": "other-wan"}
    )
    dpo_recipe["reference"]["start_adapter"] = str(tmp_path / "foreign")
    with pytest.raises(AdapterError, match=r"was trained on 'other-wan', this run's backbone is"):
        opened(dpo_recipe, tmp_path / "base")


def test_stretches_of_frames_become_shares_of_latent_frames(dpo_recipe: Recipe) -> None:
    spec = meta_backbone(dpo_recipe["backbone"]).spec
    assert latent_membership((0, 9), 3, spec).tolist() == [1.0, 1.0, 1.0]
    assert latent_membership((0, 3), 3, spec).tolist() == [1.0, 0.5, 0.0]
    assert latent_membership((5, 8), 3, spec).tolist() == [0.0, 0.0, 0.75]


def test_segments_soft_labels_and_weights_reach_the_loss(opened: Call, dpo_recipe: Recipe, tmp_path: Path) -> None:
    store = PreferenceStore(tmp_path / "pairs" / "train.jsonl")
    plain = store.read()
    segments = (SegmentLabel(start=0, stop=1, label="B"), SegmentLabel(start=1, stop=5, label="A"))
    changed = [
        replace(plain[0], segments=segments, weight=3.0),
        replace(plain[1], labels={}, soft={"overall": 0.2}),
        *plain[2:],
    ]
    other = PreferenceStore(tmp_path / "pairs" / "changed.jsonl")
    other.append(changed)
    _, trained, _ = opened(dpo_recipe, tmp_path / "run", pairs__train=str(other.path), pairs__validation_share=0.0)
    index = {pair.chosen.path: place for place, pair in enumerate(trained.pairs.pairs)}
    rows = trained.rows([(index["clips/train-0-bright.mkv"], 0), (index["clips/train-1-bright.mkv"], 0)])
    assert rows.preference[0].tolist() == [0.0, 1.0]
    assert rows.preference[2, 0] == pytest.approx(0.8)
    assert rows.preference[2, 1].isnan()
    assert rows.weight[0] / rows.weight[2] == pytest.approx(3.0)
    assert rows.groups[0].segments[0].tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_clips_may_be_latents_already(opened: Call, dpo_recipe: Recipe, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from rlhf_video.data import sha256_file

    _, trained, _ = opened(dpo_recipe, tmp_path / "videos")
    latents = PreferenceStore(tmp_path / "pairs" / "latents.jsonl")

    def as_latents(clip: ClipRecord, clean: Tensor) -> ClipRecord:
        name = f"clips/{Path(clip.path).stem}.safetensors"
        save_file({"latents": clean.contiguous()}, tmp_path / "pairs" / name)
        return ClipRecord(path=name, sha256=sha256_file(tmp_path / "pairs" / name))

    pairs = []
    for number, pair in enumerate(trained.pairs.pairs):
        (group,) = trained.rows([(number, 0)]).groups
        chosen, rejected = as_latents(pair.chosen, group.chosen[0]), as_latents(pair.rejected, group.rejected[0])
        pairs.append(PreferencePair(prompt=pair.prompt, a=chosen, b=rejected, labels={"overall": "A"}))
    latents.append(pairs)
    _, again, _ = opened(dpo_recipe, tmp_path / "latents", pairs__train=str(latents.path))
    first, second = trained.rows([(3, 0)]).groups[0], again.rows([(3, 0)]).groups[0]
    assert torch.equal(first.chosen, second.chosen)
    assert torch.equal(first.rejected, second.rejected)
