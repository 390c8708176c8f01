"""The handle of a plan: what it refuses, what it keeps of the model, and that copies and files do not know it."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from diffusers.models.attention_processor import FusedCogVideoXAttnProcessor2_0
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from rlhf_video.attention import AttentionPlan, Band, Full, Grid, Local, Tile, apply_attention_plan, find_plan
from rlhf_video.attention.processors import WindowedProcessor
from rlhf_video.errors import ConfigError
from rlhf_video.testing.tiny_transformers import TinyTransformer, tiny_transformer

GRID = Grid(2, 4, 6)
NARROW = AttentionPlan(2, (Full(), Band(chunk=0.5, halo=0.25), Tile((1, 2, 2), (1, 1, 2)), Local((1, 2, 2))))
COVERING = AttentionPlan(2, (Full(), Band(chunk=1.0, halo=1.0), Tile((1, 2, 2), (2, 2, 3)), Local((0, 0, 0))))
WAN, COGVIDEOX = "WanTransformer3DModel", "CogVideoXTransformer3DModel"


def test_another_depth_head_count_or_backend_is_refused() -> None:
    tiny = tiny_transformer(WAN)
    with pytest.raises(ConfigError, match="3 layers does not fit a model of 4"):
        apply_attention_plan(tiny.model, AttentionPlan(2, NARROW.layers[:3]))
    with pytest.raises(ConfigError, match="12 heads does not fit a model of 2"):
        apply_attention_plan(tiny.model, AttentionPlan(12, NARROW.layers))
    with pytest.raises(ConfigError, match=r"Unknown attention back-end 'flush'\. Known: auto, "):
        apply_attention_plan(tiny.model, NARROW, backend="flush")
    assert find_plan(tiny.model) is None
    assert not any(isinstance(p, WindowedProcessor) for p in tiny.model.attn_processors.values())


def test_window_that_does_not_fit_the_clip_names_its_layer() -> None:
    tiny = tiny_transformer(WAN)
    apply_attention_plan(tiny.model, NARROW)
    with pytest.raises(ConfigError, match=r"layer 2: tile=\[1, 2, 2\] does not fit the grid 2 x 4 x 3"):
        tiny.run(tiny.inputs(Grid(2, 4, 3)))


def test_second_plan_is_refused_until_the_first_is_restored() -> None:
    tiny = tiny_transformer(WAN)
    handle = apply_attention_plan(tiny.model, NARROW)
    assert find_plan(nn.Sequential(tiny.model)) is handle
    with pytest.raises(ConfigError, match=r"has an attention plan already.*restore\(\)"):
        apply_attention_plan(tiny.model, NARROW)
    handle.restore()
    assert apply_attention_plan(tiny.model, COVERING).plan == COVERING


@pytest.mark.parametrize("late", [False, True])
def test_sharded_models_are_refused(late: bool) -> None:
    tiny = tiny_transformer(WAN)
    if late:
        apply_attention_plan(tiny.model, NARROW)
    tiny.model._parallel_config = object()
    with pytest.raises(ConfigError, match="sharding along a windowed axis"):
        tiny.run(tiny.inputs(GRID)) if late else apply_attention_plan(tiny.model, NARROW)


def test_foreign_and_replaced_processors_are_refused() -> None:
    class Foreign:
        def __call__(self, attn: nn.Module, hidden_states: Tensor) -> Tensor:
            return hidden_states

    tiny = tiny_transformer(WAN)
    module = tiny.model.blocks[2].attn1
    stock = module.processor
    module.set_processor(Foreign())
    with pytest.raises(ConfigError, match="stock processors of diffusers, and Foreign is none"):
        apply_attention_plan(tiny.model, NARROW)
    module.set_processor(stock)
    handle = apply_attention_plan(tiny.model, NARROW)
    module.set_processor(Foreign())
    with pytest.raises(ConfigError, match=r"layer 2 was replaced by Foreign.*restore\(\)"):
        tiny.run(tiny.inputs(GRID))
    handle.restore()
    assert isinstance(module.processor, Foreign)


def test_masks_that_windows_would_ignore_are_refused() -> None:
    tiny = tiny_transformer(WAN)
    apply_attention_plan(tiny.model, NARROW)
    block = tiny.model.blocks[1].attn1
    block.register_forward_pre_hook(lambda module, args: (args[0], None, torch.zeros(48, 48), *args[3:]))
    with pytest.raises(ConfigError, match="attention mask, which windows do not take"):
        tiny.run(tiny.inputs(GRID))


def test_attention_outside_of_the_transformers_forward_pass_is_refused() -> None:
    tiny = tiny_transformer(WAN)
    apply_attention_plan(tiny.model, NARROW)
    tiny.run(tiny.inputs(GRID))
    with pytest.raises(ConfigError, match="outside of its transformer's forward pass"):
        tiny.model.blocks[1].attn1(torch.zeros(1, 48, 32), None, None, None)
    with pytest.raises(ConfigError, match="does not fit the grid"):  # a failed pass leaves no grid behind either
        tiny.run(tiny.inputs(Grid(2, 4, 3)))
    with pytest.raises(ConfigError, match="outside of its transformer's forward pass"):
        tiny.model.blocks[1].attn1(torch.zeros(1, 48, 32), None, None, None)


def test_settings_of_stock_processors_survive_both_ways() -> None:
    tiny = tiny_transformer(WAN)
    first, second = (tiny.model.blocks[layer].attn1 for layer in (0, 1))
    first.processor._attention_backend = "native"
    handle = apply_attention_plan(tiny.model, NARROW)
    assert first.processor._attention_backend == "native"
    second.processor._attention_backend = "native"
    tiny.run(tiny.inputs(GRID))
    handle.restore()
    assert (first.processor._attention_backend, second.processor._attention_backend) == ("native", "native")
    assert not {"slot", "stock"} & set(vars(second.processor))


@pytest.mark.parametrize("name", [WAN, COGVIDEOX])
def test_fused_projections_are_kept(name: str) -> None:
    tiny, inputs = tiny_transformer(name), tiny_transformer(name).inputs(GRID)
    handle = apply_attention_plan(tiny.model, NARROW)
    expected = tiny.run(inputs)
    handle.restore()
    tiny.model.fuse_qkv_projections()
    assert name == WAN or type(tiny.model.transformer_blocks[0].attn1.processor) is FusedCogVideoXAttnProcessor2_0
    apply_attention_plan(tiny.model, NARROW)
    torch.testing.assert_close(tiny.run(inputs), expected, rtol=0, atol=2e-6)


def test_saved_files_are_those_of_the_stock_model(tiny: TinyTransformer, tmp_path: Path) -> None:
    names = set(tiny.model.state_dict())
    apply_attention_plan(tiny.model, NARROW)
    inputs = tiny.inputs(GRID)
    windowed = tiny.run(inputs)
    assert set(tiny.model.state_dict()) == names
    tiny.model.save_pretrained(tmp_path)
    assert set(load_file(tmp_path / "diffusion_pytorch_model.safetensors")) == names
    loaded = type(tiny.model).from_pretrained(tmp_path).eval()
    assert find_plan(loaded) is None
    apply_attention_plan(loaded, NARROW)
    torch.testing.assert_close(TinyTransformer(loaded, tiny.name).run(inputs), windowed, rtol=0, atol=2e-6)


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_have_a_plan_of_their_own(tiny: TinyTransformer, copier: Callable[[Any], Any]) -> None:
    inputs = tiny.inputs(GRID)
    stock = tiny.run(inputs)
    handle = apply_attention_plan(tiny.model, NARROW)
    windowed = tiny.run(inputs)
    other = TinyTransformer(copier(tiny.model), tiny.name)
    handle.restore()
    assert torch.equal(tiny.run(inputs), stock)
    assert torch.equal(other.run(inputs), windowed)
    copied = find_plan(other.model)
    assert copied is not None and copied is not handle
    copied.restore()
    assert torch.equal(other.run(inputs), stock)


def test_plan_works_inside_peft_and_ddp_wrappers() -> None:
    tiny = tiny_transformer(WAN)
    inputs = tiny.inputs(GRID)
    handle = apply_attention_plan(tiny.model, NARROW)
    expected = tiny.run(inputs)
    handle.restore()
    wrapped = get_peft_model(tiny.model, LoraConfig(r=1, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        wrapped = DistributedDataParallel(wrapped)
        apply_attention_plan(wrapped, NARROW)
        assert torch.equal(wrapped(**inputs, return_dict=False)[0], expected)
    finally:
        dist.destroy_process_group()
