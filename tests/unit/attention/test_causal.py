"""Causal attention on Wan's stock transformer: masks, positions, the past, recomputation, and the way back."""

import functools
from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanAttnProcessor
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from rlhf_video.attention import AttentionPlan, Band, Full, Grid, apply_attention_plan
from rlhf_video.attention.causal import (
    CausalContext,
    Recorder,
    causal_attention,
    is_causal,
    make_causal,
    restore_bidirectional,
    rotary_table,
)
from rlhf_video.attention.causal_layout import CausalLayout, token_mask
from rlhf_video.errors import ConfigError
from rlhf_video.testing.tiny_transformers import TinyTransformer, tiny_transformer

GRID = Grid(6, 2, 2)
WAN = "WanTransformer3DModel"
LAYOUT = CausalLayout(chunk_frames=2)


@pytest.fixture
def wan() -> TinyTransformer:
    """Return a tiny Wan that is causal."""
    tiny = tiny_transformer(WAN)
    make_causal(tiny.model)
    return tiny


def block_causal(model: Any, layout: CausalLayout = LAYOUT) -> CausalContext:
    return CausalContext(rotary_table(model, GRID), token_mask(layout.visible(GRID.frames), GRID.frame_tokens))


def run(tiny: TinyTransformer, inputs: dict[str, Any], context: CausalContext | None) -> Tensor:
    if context is None:
        return tiny.run(inputs)
    with causal_attention(tiny.model, context):
        return tiny.run(inputs)


def gradients(tiny: TinyTransformer, *outputs: Tensor) -> list[Tensor]:
    loss = torch.stack([output.square().sum() for output in outputs]).sum()
    return list(torch.autograd.grad(loss, list(tiny.model.parameters())))


def equal(left: list[Tensor], right: list[Tensor]) -> bool:
    return all(map(torch.equal, left, right))


def past_and_present(tiny: TinyTransformer, *runs: range, present: range) -> tuple[list[Any], dict[str, Any]]:
    """Return the recorded keys and values of runs of frames, each alone, and the inputs of later frames."""
    inputs, recorded = tiny.inputs(GRID), []
    for frames in runs:
        recorder = Recorder()
        context = CausalContext(rotary_table(tiny.model, GRID._replace(frames=len(frames))), recorder=recorder)
        run(tiny, _frames(inputs, frames), context)
        recorded.append(recorder.all_layers())
    return recorded, _frames(inputs, present)


def _frames(inputs: dict[str, Any], frames: range) -> dict[str, Any]:
    return {**inputs, "hidden_states": inputs["hidden_states"][:, :, frames.start : frames.stop]}


@torch.no_grad()
def test_outside_of_a_context_the_model_is_the_stock_one() -> None:
    tiny = tiny_transformer(WAN)
    names, processors = list(tiny.model.state_dict()), dict(tiny.model.attn_processors)
    inputs = tiny.inputs(GRID, batch=2)
    stock = tiny.run(inputs)
    make_causal(tiny.model)
    make_causal(tiny.model)
    assert is_causal(tiny.model)
    assert list(tiny.model.state_dict()) == names
    assert torch.equal(tiny.run(inputs), stock)
    assert not torch.equal(run(tiny, inputs, block_causal(tiny.model)), stock)
    assert torch.equal(tiny.run(inputs), stock)
    restore_bidirectional(tiny.model)
    assert not is_causal(tiny.model)
    assert tiny.model.attn_processors == processors
    assert torch.equal(tiny.run(inputs), stock)


@torch.no_grad()
def test_one_chunk_over_all_frames_is_the_stock_model(wan: TinyTransformer) -> None:
    inputs = wan.inputs(GRID, batch=2)
    unmasked = run(wan, inputs, CausalContext(rotary_table(wan.model, GRID)))
    assert torch.equal(unmasked, wan.run(inputs))
    masked = run(wan, inputs, block_causal(wan.model, CausalLayout(chunk_frames=6)))
    torch.testing.assert_close(masked, unmasked, rtol=0, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("changed", range(6))
def test_a_changed_chunk_leaves_the_earlier_ones_exactly_as_they_were(wan: TinyTransformer, changed: int) -> None:
    context, inputs = block_causal(wan.model), wan.inputs(GRID)
    before = run(wan, inputs, context)
    inputs["hidden_states"] = inputs["hidden_states"].clone()
    inputs["hidden_states"][:, :, changed] += 1
    after, first = run(wan, inputs, context), changed // 2 * 2
    assert torch.equal(after[:, :, :first], before[:, :, :first])
    difference = (after - before).abs().amax(dim=(0, 1, 3, 4))
    assert (difference[first:] > 1e-4).all()


@torch.no_grad()
def test_a_mask_of_one_layer_holds_there_alone(wan: TinyTransformer) -> None:
    inputs, rotary = wan.inputs(GRID), rotary_table(wan.model, GRID)
    mask = block_causal(wan.model).mask
    assert mask is not None
    everywhere = run(wan, inputs, CausalContext(rotary, mask))
    by_layer = dict.fromkeys(range(4), mask)
    assert torch.equal(run(wan, inputs, CausalContext(rotary, layer_masks=by_layer)), everywhere)
    del by_layer[3]
    assert not torch.equal(run(wan, inputs, CausalContext(rotary, layer_masks=by_layer)), everywhere)


@torch.no_grad()
def test_keys_are_kept_before_the_rotary_embedding(wan: TinyTransformer) -> None:
    inputs, kept = wan.inputs(GRID), []
    for offset in (0, 7):
        recorder = Recorder()
        run(wan, inputs, CausalContext(_table(wan, offset, GRID.frames), recorder=recorder))
        kept.append(recorder.all_layers())
    assert len(kept[0]) == 4
    assert torch.equal(kept[0][0][0], kept[1][0][0]), "the first layer's keys do not depend on positions"
    for (keys, values), (shifted_keys, shifted_values) in zip(*kept, strict=True):
        torch.testing.assert_close(shifted_keys, keys, rtol=0, atol=1e-5)
        torch.testing.assert_close(shifted_values, values, rtol=0, atol=1e-5)


def _table(wan: TinyTransformer, offset: int, frames: int) -> tuple[Tensor, Tensor]:
    """Return the table of frames that are counted from an offset."""
    cosines, sines = rotary_table(wan.model, GRID._replace(frames=offset + frames))
    first = offset * GRID.frame_tokens
    return cosines[:, first:], sines[:, first:]


@torch.no_grad()
def test_only_distances_between_frames_matter(wan: TinyTransformer) -> None:
    past, present = past_and_present(wan, range(4), present=range(4, 6))
    outputs = [run(wan, present, CausalContext(_table(wan, offset, 6), past=tuple(past))) for offset in (0, 1, 20)]
    for shifted in outputs[1:]:
        torch.testing.assert_close(shifted, outputs[0], rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_wrong_offset_is_another_output(wan: TinyTransformer) -> None:
    past, present = past_and_present(wan, range(4), present=range(4, 6))
    right = run(wan, present, CausalContext(_table(wan, 0, 6), past=tuple(past)))
    of_past, tokens = 4 * GRID.frame_tokens, 6 * GRID.frame_tokens
    for gap in (-4, -1, 1):  # -4: every chunk counted from 0
        late = [table[:, (4 + gap) * GRID.frame_tokens :] for table in rotary_table(wan.model, GRID._replace(frames=9))]
        parts = zip(_table(wan, 0, 6), late, strict=True)
        cosines, sines = (torch.cat([table[:, :of_past], shifted], 1)[:, :tokens] for table, shifted in parts)
        wrong = run(wan, present, CausalContext((cosines, sines), past=tuple(past)))
        assert (wrong - right).abs().max() > 1e-3


@torch.no_grad()
def test_the_past_may_lie_in_runs_of_any_length(wan: TinyTransformer) -> None:
    (whole,), present = past_and_present(wan, range(4), present=range(4, 6))
    cut = GRID.frame_tokens
    runs = tuple(
        tuple((keys[:, tokens], values[:, tokens]) for keys, values in whole)
        for tokens in (slice(cut), slice(cut, None))
    )
    outputs = [run(wan, present, CausalContext(_table(wan, 0, 6), past=past)) for past in ((whole,), runs)]
    assert torch.equal(*outputs)


def test_a_recorder_takes_no_graph_and_no_second_call(wan: TinyTransformer) -> None:
    recorder, text = Recorder(), Recorder()
    context = CausalContext(rotary_table(wan.model, GRID), recorder=recorder, text_recorder=text)
    wan.model.enable_gradient_checkpointing()
    output = run(wan, wan.inputs(GRID), context)
    before = recorder.all_layers()
    output.square().sum().backward()
    for kept in (recorder.all_layers(), text.all_layers()):
        assert len(kept) == 4
        assert not any(tensor.requires_grad for pair in kept for tensor in pair)
    for old, new in zip(before, recorder.all_layers(), strict=True):
        assert equal(list(old), list(new))


@torch.no_grad()
def test_recorded_text_stands_for_the_text(wan: TinyTransformer) -> None:
    inputs, text = wan.inputs(GRID), Recorder()
    rotary = rotary_table(wan.model, GRID)
    expected = run(wan, inputs, CausalContext(rotary, text_recorder=text))
    kept = text.all_layers()
    assert torch.equal(run(wan, inputs, CausalContext(rotary, text=kept)), expected)
    other = tuple((keys + 1, values + 1) for keys, values in kept)
    assert not torch.equal(run(wan, inputs, CausalContext(rotary, text=other)), expected)


def three_passes(wan: TinyTransformer) -> list[Tensor]:
    """Return what a student, its teacher, and a student under another window compute."""
    inputs = wan.inputs(GRID)
    narrow = block_causal(wan.model, CausalLayout(chunk_frames=2, window_frames=2))
    return [run(wan, inputs, context) for context in (block_causal(wan.model), None, narrow)]


@pytest.mark.parametrize("enable_first", [True, False])
def test_a_block_is_recomputed_under_the_context_of_its_forward_pass(enable_first: bool) -> None:
    wan = tiny_transformer(WAN)
    if enable_first:
        wan.model.enable_gradient_checkpointing()
    make_causal(wan.model)
    if not enable_first:
        wan.model.enable_gradient_checkpointing()
    outputs = three_passes(wan)
    assert not torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])
    recomputed = gradients(wan, *outputs)
    wan.model.disable_gradient_checkpointing()
    assert equal(recomputed, gradients(wan, *three_passes(wan)))


def test_without_memory_a_recomputed_block_would_silently_see_other_frames(wan: TinyTransformer) -> None:
    inputs, context = wan.inputs(GRID), block_causal(wan.model)
    other = block_causal(wan.model, CausalLayout(chunk_frames=2, window_frames=2))
    expected = gradients(wan, run(wan, inputs, context))
    plain = functools.partial(checkpoint, use_reentrant=False)
    found = []
    for forgets in (False, True):
        wan.model.enable_gradient_checkpointing(plain)
        with causal_attention(wan.model, context):
            if forgets:
                wan.model._gradient_checkpointing_func = plain
            output = wan.run(inputs)
        with causal_attention(wan.model, other):
            found.append(gradients(wan, output))
    assert equal(found[0], expected)
    assert max((left - right).abs().max() for left, right in zip(found[1], expected, strict=True)) > 1e-2


def test_going_back_before_the_backward_pass_is_refused_and_leaves_the_plain_checkpoint(wan: TinyTransformer) -> None:
    plain = functools.partial(checkpoint, use_reentrant=False)
    wan.model.enable_gradient_checkpointing(plain)
    loss = run(wan, wan.inputs(GRID), block_causal(wan.model)).square().sum()
    assert wan.model._gradient_checkpointing_func is not plain
    restore_bidirectional(wan.model)
    assert wan.model._gradient_checkpointing_func is plain
    with pytest.raises(ConfigError, match=r"causal attention, was taken off .* run the backward pass first"):
        loss.backward()


@torch.no_grad()
def test_contexts_nest_and_an_exception_ends_them(wan: TinyTransformer) -> None:
    inputs, context = wan.inputs(GRID), block_causal(wan.model)
    stock, masked = run(wan, inputs, None), run(wan, inputs, context)
    with causal_attention(wan.model, context):
        with (
            pytest.raises(ZeroDivisionError),
            causal_attention(wan.model, CausalContext(rotary_table(wan.model, GRID))),
        ):
            raise ZeroDivisionError
        assert torch.equal(wan.run(inputs), masked)
    assert torch.equal(wan.run(inputs), stock)


def test_settings_made_meanwhile_stay(wan: TinyTransformer) -> None:
    wan.model.set_attention_backend("_native_math")
    inputs = wan.inputs(GRID)
    with_causal = wan.run(inputs)
    restore_bidirectional(wan.model)
    processor = wan.model.blocks[0].attn1.processor
    assert type(processor) is WanAttnProcessor
    assert processor._attention_backend == "_native_math"
    assert torch.equal(wan.run(inputs), with_causal)


def test_what_cannot_be_causal_is_refused() -> None:
    with pytest.raises(ConfigError, match="built for WanTransformer3DModel, not for CogVideoXTransformer3DModel"):
        make_causal(tiny_transformer("CogVideoXTransformer3DModel").model)
    windowed = tiny_transformer(WAN).model
    apply_attention_plan(windowed, AttentionPlan(2, (Full(), Full(), Band(chunk=1.0), Full())))
    with pytest.raises(ConfigError, match=r"attention plan is on this transformer.*restore\(\) it first"):
        make_causal(windowed)
    plain = tiny_transformer(WAN)
    with pytest.raises(ConfigError, match=r"not causal.*enable_causal"):
        run(plain, plain.inputs(GRID), CausalContext(rotary_table(plain.model, GRID)))
    with pytest.raises(ConfigError, match=r"33 frames are more than the model's 32 positions.*window_frames"):
        rotary_table(plain.model, GRID._replace(frames=33))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch_size": (2, 2, 2)}, "patches of one latent frame, not of 2"),
        ({"added_kv_proj_dim": 8}, "reads an image"),
    ],
)
def test_a_wan_of_another_make_is_refused(options: dict[str, Any], message: str) -> None:
    config = {"num_attention_heads": 1, "attention_head_dim": 6, "in_channels": 1, "out_channels": 1, "text_dim": 4}
    small = {"freq_dim": 4, "ffn_dim": 4, "num_layers": 1, "rope_max_seq_len": 8}
    model = WanTransformer3DModel(**config, **small, **options)
    with pytest.raises(ConfigError, match=message):
        make_causal(model)


def test_processors_of_others_are_refused_and_nothing_changes(wan: TinyTransformer) -> None:
    class Other(WanAttnProcessor):
        pass

    model = tiny_transformer(WAN).model
    model.blocks[2].attn2.set_processor(Other())
    before = dict(model.attn_processors)
    with pytest.raises(ConfigError, match=r"block 2 has a Other.*put the stock one back"):
        make_causal(model)
    assert model.attn_processors == before
    fused = tiny_transformer(WAN).model
    fused.fuse_qkv_projections()
    with pytest.raises(ConfigError, match="fused projections"):
        make_causal(fused)
    context = block_causal(wan.model)
    wan.model.blocks[1].attn1.set_processor(WanAttnProcessor())
    with pytest.raises(ConfigError, match=r"not any more in all of its layers"):
        run(wan, wan.inputs(GRID), context)
