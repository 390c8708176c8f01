"""Plans on tiny real transformers of every class: what changes, what stays bit for bit, what is refused."""

import copy
import inspect
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from diffusers.models.attention_processor import FusedCogVideoXAttnProcessor2_0
from peft import LoraConfig, get_peft_model, inject_adapter_in_model
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from rlhf_video.attention import AttentionPlan, Band, Full, Grid, Local, Tile, apply_attention_plan, find_plan
from rlhf_video.attention.context import AttentionContext
from rlhf_video.attention.families import FAMILIES
from rlhf_video.attention.problem import Problem, Text
from rlhf_video.attention.processors import WindowedProcessor
from rlhf_video.errors import ConfigError
from rlhf_video.testing.tiny_transformers import TinyTransformer, tiny_transformer

GRID = Grid(2, 4, 6)
NARROW = AttentionPlan(2, (Full(), Band(chunk=0.5, halo=0.25), Tile((1, 2, 2), (1, 1, 2)), Local((1, 2, 2))))
COVERING = AttentionPlan(2, (Full(), Band(chunk=1.0, halo=1.0), Tile((1, 2, 2), (2, 2, 3)), Local((0, 0, 0))))
WAN, HUNYUAN, COGVIDEOX = "WanTransformer3DModel", "HunyuanVideoTransformer3DModel", "CogVideoXTransformer3DModel"
PROJECTIONS = ["to_q", "to_k", "to_v", "to_out.0"]


def dense_at(low: float, high: float) -> AttentionPlan:
    return AttentionPlan(2, NARROW.layers, (low, high))


def gradients(model: nn.Module, output: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(output.square().sum(), [p for p in model.parameters() if p.requires_grad]))


def equal(left: list[Tensor], right: list[Tensor]) -> bool:
    return len(left) == len(right) > 0 and all(map(torch.equal, left, right))


def add_lora(model: Any) -> None:
    config = LoraConfig(r=2, target_modules=PROJECTIONS, init_lora_weights=False)
    model.requires_grad_(False)
    if hasattr(model, "add_adapter"):
        model.add_adapter(config)
    else:  # EasyAnimate
        inject_adapter_in_model(config, model)


@contextmanager
def masks_by_hand(tiny: TinyTransformer, plan: AttentionPlan, texts: tuple[int, ...] | None) -> Iterator[None]:
    """Give the stock model's own self-attention calls, one after another, the masks of a plan."""
    stock = functional.scaled_dot_product_attention
    waiting = list(plan.layers)
    position = "last" if tiny.name == HUNYUAN else "first"

    def masked(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **options: Any) -> Tensor:
        length = query.shape[2] - GRID.num_tokens
        if query.shape == key.shape and length >= 0:
            text = Text(length, position, texts) if length else None
            attn_mask = Problem(GRID, waiting.pop(0), text, 1.0).mask(query.shape[1])
        return stock(query, key, value, attn_mask=attn_mask, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(functional, "scaled_dot_product_attention", masked)
        yield
    assert not waiting


def test_covering_windows_leave_output_and_gradients_bit_for_bit(tiny: TinyTransformer) -> None:
    inputs = tiny.inputs(GRID, batch=2)
    stock = tiny.run(inputs)
    expected = gradients(tiny.model, stock)
    apply_attention_plan(tiny.model, COVERING)
    covered = tiny.run(inputs)
    assert torch.equal(covered, stock)
    assert equal(gradients(tiny.model, covered), expected)


@pytest.mark.parametrize("adapter_first", [True, False])
def test_covering_windows_leave_lora_gradients_bit_for_bit(tiny: TinyTransformer, adapter_first: bool) -> None:
    inputs = tiny.inputs(GRID, batch=2)
    if adapter_first:
        add_lora(tiny.model)
    handle = apply_attention_plan(tiny.model, COVERING)
    if not adapter_first:
        add_lora(tiny.model)
    covered = tiny.run(inputs)
    on = gradients(tiny.model, covered)
    handle.restore()
    stock = tiny.run(inputs)
    assert torch.equal(covered, stock)
    assert equal(on, gradients(tiny.model, stock))
    assert len(on) >= 2 * len(PROJECTIONS) * 4


@pytest.mark.parametrize("backend", ["auto", "mask"])
def test_narrow_windows_equal_the_stock_model_with_masks_by_hand(tiny: TinyTransformer, backend: str) -> None:
    inputs = tiny.inputs(GRID, batch=2)
    stock = tiny.run(inputs)
    with masks_by_hand(tiny, NARROW, (5, 4) if tiny.name == HUNYUAN else None):
        expected = tiny.run(inputs)
    expected_gradients = gradients(tiny.model, expected)
    apply_attention_plan(tiny.model, NARROW, backend=backend)
    windowed = tiny.run(inputs)
    assert (windowed - stock).abs().max() > 1e-2
    if tiny.name == HUNYUAN:  # rows of padded text are nobody's keys, but mean something else in each computation
        assert torch.equal(inputs["encoder_attention_mask"].sum(1), torch.tensor([5, 4]))
    torch.testing.assert_close(windowed, expected, rtol=0, atol=2e-6)
    for found, wanted in zip(gradients(tiny.model, windowed), expected_gradients, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_padded_text_does_not_touch_the_video() -> None:
    tiny = tiny_transformer(HUNYUAN)
    apply_attention_plan(tiny.model, NARROW)
    inputs = tiny.inputs(GRID, batch=2)
    before = tiny.run(inputs)
    inputs["encoder_hidden_states"][1, 4:] += 100.0
    after = tiny.run(inputs)
    assert torch.equal(before, after)
    inputs["encoder_hidden_states"][1, 3] += 1.0  # the last real token
    assert not torch.equal(before[1], tiny.run(inputs)[1])


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([1, 0, 1, 0, 0], r"item 0 keeps 2 tokens, the last of them is number 3.*padding_side='right'"),
        ([0] * 5, "0 of 5"),
    ],
)
def test_text_masks_that_are_no_prefix_or_empty_are_refused(mask: list[int], message: str) -> None:
    tiny = tiny_transformer(HUNYUAN)
    handle = apply_attention_plan(tiny.model, NARROW)
    inputs = tiny.inputs(GRID) | {"encoder_attention_mask": torch.tensor([mask])}
    with pytest.raises(ConfigError, match=message):
        tiny.run(inputs)
    with handle.disabled():  # what the stock model makes of it is its own affair
        tiny.run(inputs)


def test_only_self_attention_is_touched(tiny: TinyTransformer) -> None:
    handle = apply_attention_plan(tiny.model, NARROW)
    touched = [m for m in tiny.model.modules() if isinstance(getattr(m, "processor", None), WindowedProcessor)]
    assert set(touched) == set(handle.attention_modules) == set(FAMILIES[tiny.name].attention_modules(tiny.model))
    others = [m for m in tiny.model.modules() if hasattr(m, "processor") and m not in touched]
    assert len(others) == {WAN: 4, "LTXVideoTransformer3DModel": 4, HUNYUAN: 1}.get(tiny.name, 0)


def test_disabled_and_restored_are_the_stock_model(tiny: TinyTransformer) -> None:
    inputs = tiny.inputs(GRID, batch=2)
    stock = tiny.run(inputs)
    expected = gradients(tiny.model, stock)
    processors = [module.processor for module in FAMILIES[tiny.name].attention_modules(tiny.model)]
    handle = apply_attention_plan(tiny.model, NARROW)
    windowed = tiny.run(inputs)
    with handle.disabled():
        with handle.disabled():
            pass
        dense = tiny.run(inputs)
    assert torch.equal(dense, stock)
    assert equal(gradients(tiny.model, dense), expected)
    assert torch.equal(tiny.run(inputs), windowed)
    handle.restore()
    handle.restore()
    assert [module.processor for module in handle.attention_modules] == processors
    assert not tiny.model._forward_pre_hooks and not tiny.model._forward_hooks
    assert find_plan(tiny.model) is None
    assert torch.equal(tiny.run(inputs), stock)


def test_disabled_ends_with_an_error_too() -> None:
    tiny = tiny_transformer(WAN)
    handle = apply_attention_plan(tiny.model, NARROW)
    windowed = tiny.run(tiny.inputs(GRID))
    with pytest.raises(KeyError), handle.disabled():
        raise KeyError
    assert torch.equal(tiny.run(tiny.inputs(GRID)), windowed)


def test_use_switches_to_another_plan() -> None:
    tiny = tiny_transformer(WAN)
    inputs = tiny.inputs(GRID)
    stock = tiny.run(inputs)
    handle = apply_attention_plan(tiny.model, NARROW)
    narrow = tiny.run(inputs)
    handle.use(COVERING)
    assert handle.plan == COVERING
    assert torch.equal(tiny.run(inputs), stock)
    with pytest.raises(ConfigError, match="1 layers does not fit a model of 4"):
        handle.use(AttentionPlan(2, (Full(),)))
    assert handle.plan == COVERING
    handle.use(NARROW)
    assert torch.equal(tiny.run(inputs), narrow)


def test_items_at_dense_noise_levels_are_dense_and_the_others_windowed(tiny: TinyTransformer) -> None:
    inputs = tiny.inputs(GRID, batch=3) | {"timestep": torch.tensor([900.0, 500.0, 1000.0])}
    dense = tiny.run(inputs)
    handle = apply_attention_plan(tiny.model, NARROW)
    windowed = tiny.run(inputs)
    handle.use(dense_at(0.9, 1.0))
    mixed = tiny.run(inputs)
    torch.testing.assert_close(mixed[[0, 2]], dense[[0, 2]], rtol=0, atol=2e-6)
    torch.testing.assert_close(mixed[1], windowed[1], rtol=0, atol=2e-6)
    assert (dense - windowed).abs().amax((1, 2) if dense.ndim == 3 else (1, 2, 3, 4)).min() > 1e-2
    handle.use(dense_at(0.5, 1.0))
    assert torch.equal(tiny.run(inputs), dense)
    handle.use(dense_at(0.0, 0.1))
    assert torch.equal(tiny.run(inputs), windowed)


def test_gradients_of_a_mixed_batch_are_those_of_its_items() -> None:
    tiny = tiny_transformer(HUNYUAN)
    apply_attention_plan(tiny.model, dense_at(0.9, 1.0))
    inputs = tiny.inputs(GRID, batch=3) | {"timestep": torch.tensor([900.0, 500.0, 1000.0])}
    mixed = gradients(tiny.model, tiny.run(inputs))
    items = [{name: value[[item]] for name, value in inputs.items()} for item in range(3)]
    alone = [gradients(tiny.model, tiny.run(item)) for item in items]
    for found, wanted in zip(mixed, zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(found, sum(wanted), rtol=1e-4, atol=1e-4)


def test_highest_noise_level_of_an_item_decides() -> None:
    tiny = tiny_transformer(WAN)
    inputs = tiny.inputs(GRID)
    first_frame_clean = torch.full((1, GRID.num_tokens), 950.0)
    first_frame_clean[:, : GRID.frame_tokens] = 0.0
    inputs["timestep"] = first_frame_clean
    stock = tiny.run(inputs)
    handle = apply_attention_plan(tiny.model, dense_at(0.9, 1.0))
    assert torch.equal(tiny.run(inputs), stock)
    handle.use(dense_at(0.0, 0.9))
    assert not torch.equal(tiny.run(inputs), stock)


def test_noise_level_at_the_border_survives_float32() -> None:
    tiny = tiny_transformer(WAN)
    inputs = tiny.inputs(GRID) | {"timestep": torch.tensor([0.502]) * 1000}
    assert inputs["timestep"].item() / 1000 < 0.502
    stock = tiny.run(inputs)
    apply_attention_plan(tiny.model, dense_at(0.502, 0.502))
    assert torch.equal(tiny.run(inputs), stock)


def test_another_depth_head_count_or_backend_is_refused() -> None:
    tiny = tiny_transformer(WAN)
    with pytest.raises(ConfigError, match="3 layers does not fit a model of 4"):
        apply_attention_plan(tiny.model, AttentionPlan(2, NARROW.layers[:3]))
    with pytest.raises(ConfigError, match="12 heads does not fit a model of 2"):
        apply_attention_plan(tiny.model, AttentionPlan(12, NARROW.layers))
    with pytest.raises(ConfigError, match="Unknown attention back-end 'flush'. Known: auto, "):
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


def test_processors_show_the_stock_signature(tiny: TinyTransformer) -> None:
    before = [inspect.signature(m.processor.__call__) for m in FAMILIES[tiny.name].attention_modules(tiny.model)]
    handle = apply_attention_plan(tiny.model, NARROW)
    assert [inspect.signature(module.processor.__call__) for module in handle.attention_modules] == before


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
    wrapped = get_peft_model(tiny.model, LoraConfig(r=1, target_modules=PROJECTIONS))
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        wrapped = DistributedDataParallel(wrapped)
        apply_attention_plan(wrapped, NARROW)
        assert torch.equal(wrapped(**inputs, return_dict=False)[0], expected)
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("name", [WAN, COGVIDEOX])
def test_compiled_blocks_compute_their_own_windows_for_every_grid(name: str) -> None:
    tiny = tiny_transformer(name)
    apply_attention_plan(tiny.model, NARROW)
    grids = [GRID, Grid(4, 2, 6), GRID]  # as many tokens, another grid
    eager = [tiny.run(tiny.inputs(grid)) for grid in grids]
    expected = [gradients(tiny.model, output) for output in eager]
    blocks = tiny.model.blocks if name == WAN else tiny.model.transformer_blocks
    for block in blocks[:2]:  # full and band; `compile_repeated_blocks` does this to all
        block.compile(fullgraph=True, backend="aot_eager")
    for grid, output, grads in zip(grids, eager, expected, strict=True):
        compiled = tiny.run(tiny.inputs(grid))
        torch.testing.assert_close(compiled, output, rtol=0, atol=2e-6)
        for found, wanted in zip(gradients(tiny.model, compiled), grads, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    torch._dynamo.reset()


def test_context_without_a_grid_is_off() -> None:
    assert not AttentionContext(grid=None).enabled
    assert AttentionContext(GRID).enabled
