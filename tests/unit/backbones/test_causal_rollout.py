"""Causal roll-outs of a backbone: cache against mask, gradients, counts, attention plans, and what is refused."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rlhf_video.attention import AttentionPlan, Band, Full, Grid, Local, Tile
from rlhf_video.attention.causal import CausalContext, Recorder
from rlhf_video.attention.causal_layout import CausalLayout, token_mask
from rlhf_video.backbones import Conditioning, VideoBackbone, VideoShape, load_backbone
from rlhf_video.backbones.causal_rollout import CallCount, ForcedRollout, RolloutConfig, roll_out
from rlhf_video.backbones.wan import WanBackbone
from rlhf_video.diffusion.samplers import sample
from rlhf_video.diffusion.step_plan import StepPlan
from rlhf_video.errors import AdapterError, ConfigError
from rlhf_video.lora import LoraConfig, adapter_off, adapter_parameters, adapter_scale, attach
from rlhf_video.lora.roles import FAKE, role
from rlhf_video.testing import TINY_PROMPTS

SHAPE = VideoShape(batch=2, frames=21, height=32, width=48)
FRAMES, GRID = 6, Grid(6, 2, 3)
LAYOUT = CausalLayout(chunk_frames=2)
LAYOUTS = [
    LAYOUT,
    CausalLayout(chunk_frames=4),  # ragged: 4 and 2
    CausalLayout(chunk_frames=1),
    CausalLayout(chunk_frames=2, window_frames=4),
    CausalLayout(chunk_frames=2, window_frames=3),  # half a chunk is dropped
    CausalLayout(chunk_frames=4, window_frames=5),  # the shorter last chunk sees more of the past
    CausalLayout(chunk_frames=2, window_frames=6, sink_frames=1),
]
PLANS = [
    AttentionPlan(6, (Full(), Band(chunk=1.0, halo=0.5))),
    AttentionPlan(6, (Band(orders=("hfw", "wfh"), chunk=0.5, halo=0.5, sink_frames=1), Tile((1, 1, 3), (3, 1, 1)))),
    AttentionPlan(6, (Local((3, 0, 0)), Local((2, 1, 3), (1, 0, 0)))),
]


@pytest.fixture
def backbone(tiny_wan: VideoBackbone) -> WanBackbone:
    """Return a tiny backbone that is causal in chunks of two frames."""
    assert isinstance(tiny_wan, WanBackbone)
    tiny_wan.enable_causal(LAYOUT)
    return tiny_wan


@pytest.fixture
def noise(tiny_wan: VideoBackbone) -> Tensor:
    """Return starting noise of six latent frames."""
    return _noise(tiny_wan)


@pytest.fixture
def cond(tiny_wan: VideoBackbone) -> Conditioning:
    """Return two encoded prompts."""
    return tiny_wan.encode_prompts(TINY_PROMPTS, "a grey triangle")


def _noise(backbone: VideoBackbone, frames: int = 21, seed: int = 3) -> Tensor:
    return backbone.noise(replace(SHAPE, frames=frames), torch.Generator().manual_seed(seed))


def _levels() -> Tensor:
    return torch.rand(2, FRAMES, generator=torch.Generator().manual_seed(8))


def _fresh(noise: Tensor, seed: int = 5) -> Callable[[int, int, slice], Tensor]:
    def draw(chunk: int, step: int, frames: slice) -> Tensor:
        generator = torch.Generator().manual_seed(1000 * seed + 10 * chunk + step)
        return torch.randn(noise.shape, generator=generator)[:, :, frames]

    return draw


def _clip(
    backbone: WanBackbone, noise: Tensor, cond: Conditioning, num_steps: int = 2, seed: int = 5, **options: Any
) -> Tensor:
    plan = StepPlan.of(num_steps, shift=3.0, first_chunk_steps=options.pop("first", None))
    return torch.cat(list(roll_out(backbone, noise, cond, plan, _fresh(noise, seed), **options)), dim=2)


def _with_adapter(backbone: WanBackbone) -> WanBackbone:
    attach(backbone, LoraConfig(rank=2, alpha=2.0), seed=0)
    generator = torch.Generator().manual_seed(1)
    for parameter in adapter_parameters(backbone):
        parameter.data.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return backbone


def _contexts(
    backbone: WanBackbone, history: Tensor, sigma: Tensor, cond: Conditioning
) -> Iterator[tuple[slice, CausalContext]]:
    """Yield each chunk's context after a cache of the history at its noise levels."""
    grid = backbone.latent_grid(history)
    state, chunks = backbone.start_rollout(grid, cond), backbone.layout.chunks(grid.frames)
    for number, frames in enumerate(chunks):
        own = grid._replace(frames=frames.stop - frames.start)
        yield frames, backbone.next_chunk(state, own, cond)
        if number + 1 == len(chunks):
            return
        recorder, following = Recorder(), chunks[number + 1]
        context = backbone.next_chunk(state, own, cond, recorder=recorder)
        backbone.velocity(history[:, :, frames], sigma[:, frames], cond, context=context)
        cache = state.cache.extended(recorder.all_layers(), next_chunk=following.stop - following.start)
        state = replace(state, cache=cache)


def _cached_velocity(backbone: WanBackbone, latents: Tensor, sigma: Tensor, cond: Conditioning) -> Tensor:
    return torch.cat(
        [
            backbone.velocity(latents[:, :, frames], sigma[:, frames], cond, context=context)
            for frames, context in _contexts(backbone, latents, sigma, cond)
        ],
        dim=2,
    )


def _watched(backbone: WanBackbone, monkeypatch: pytest.MonkeyPatch) -> list[CausalContext]:
    """Return a list that every call's context joins."""
    contexts: list[CausalContext] = []
    made = backbone.next_chunk

    def watched(*args: Any, **kwargs: Any) -> CausalContext:
        contexts.append(made(*args, **kwargs))
        return contexts[-1]

    monkeypatch.setattr(backbone, "next_chunk", watched)
    return contexts


@torch.no_grad()
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_cached_roll_out_is_the_block_causal_forward_pass(
    backbone: WanBackbone, noise: Tensor, cond: Conditioning, layout: CausalLayout
) -> None:
    backbone.enable_causal(layout)
    sigma = _levels()
    whole = backbone.velocity(noise, sigma, cond, context=backbone.block_causal(GRID))
    torch.testing.assert_close(_cached_velocity(backbone, noise, sigma, cond), whole, rtol=0, atol=1e-5)
    bidirectional = backbone.velocity(noise, sigma, cond)
    assert (whole - bidirectional).abs().max() > 1e-4


@torch.no_grad()
@pytest.mark.parametrize("layout", LAYOUTS)
def test_teacher_forcing_is_the_roll_out_on_the_clean_history(
    backbone: WanBackbone, noise: Tensor, cond: Conditioning, layout: CausalLayout
) -> None:
    backbone.enable_causal(layout)
    clean, sigma = _noise(backbone, seed=4), _levels()
    both, levels = torch.cat([clean, noise], 2), torch.cat([torch.zeros_like(sigma), sigma], 1)
    forced = backbone.velocity(both, levels, cond, context=backbone.teacher_forcing(GRID))[:, :, FRAMES:]
    for frames, context in _contexts(backbone, clean, torch.zeros_like(sigma), cond):
        rolled = backbone.velocity(noise[:, :, frames], sigma[:, frames], cond, context=context)
        torch.testing.assert_close(forced[:, :, frames], rolled, rtol=0, atol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_forced_roll_out_is_teacher_forcing_with_gradient(
    backbone: WanBackbone, noise: Tensor, cond: Conditioning, layout: CausalLayout
) -> None:
    _with_adapter(backbone)
    backbone.enable_causal(layout)
    clean = _noise(backbone, seed=4)
    both, levels = torch.cat([clean, noise], 2), torch.tensor([0.0] * FRAMES + [0.7] * FRAMES).expand(2, -1)
    with torch.no_grad():
        expected = backbone.velocity(both, levels, cond, context=backbone.teacher_forcing(GRID))[:, :, FRAMES:]
    rollout, chunks = ForcedRollout(backbone, clean, cond), layout.chunks(FRAMES)
    for number, frames in enumerate(chunks):
        velocity = rollout.velocity(noise[:, :, frames], torch.full((2,), 0.7))
        assert velocity.requires_grad
        torch.testing.assert_close(velocity.detach(), expected[:, :, frames], rtol=0, atol=1e-5)
        if number + 1 < len(chunks):
            following = chunks[number + 1]
            rollout.remember(clean[:, :, frames], 0.0, next_chunk=following.stop - following.start)


@torch.no_grad()
def test_one_chunk_over_all_frames_is_the_unmodified_model(
    backbone: WanBackbone, noise: Tensor, cond: Conditioning, make_tiny_wan: Callable[[], VideoBackbone]
) -> None:
    expected = make_tiny_wan().velocity(noise, _levels(), cond)
    assert torch.equal(backbone.velocity(noise, _levels(), cond), expected)
    backbone.enable_causal(CausalLayout(chunk_frames=FRAMES))
    assert torch.equal(backbone.velocity(noise, _levels(), cond, context=backbone.block_causal(GRID)), expected)
    assert torch.equal(_cached_velocity(backbone, noise, _levels(), cond), expected)


@torch.no_grad()
def test_one_noise_level_is_the_same_level_for_every_frame(
    backbone: WanBackbone, noise: Tensor, cond: Conditioning
) -> None:
    context, level = backbone.block_causal(GRID), torch.tensor(0.7)
    outputs = [
        backbone.velocity(noise, sigma, cond, context=context)
        for sigma in (level, level.expand(2), level.expand(2, FRAMES))
    ]
    for output in outputs[1:]:
        torch.testing.assert_close(output, outputs[0], rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_window_as_long_as_the_clip_is_the_full_cache(
    backbone: WanBackbone, noise: Tensor, cond: Conditioning
) -> None:
    full = _clip(backbone, noise, cond)
    for window, sink in ((6, 0), (6, 2), (9, 3)):
        backbone.enable_causal(CausalLayout(chunk_frames=2, window_frames=window, sink_frames=sink))
        assert torch.equal(_clip(backbone, noise, cond), full)
    backbone.enable_causal(CausalLayout(chunk_frames=2, window_frames=4))
    assert not torch.equal(_clip(backbone, noise, cond), full)


@torch.no_grad()
@pytest.mark.parametrize("sink", [0, 2, 3])
def test_a_roll_out_of_any_length_keeps_its_positions_within_the_window(
    backbone: WanBackbone, cond: Conditioning, monkeypatch: pytest.MonkeyPatch, sink: int
) -> None:
    backbone.enable_causal(CausalLayout(chunk_frames=2, window_frames=6, sink_frames=sink))
    contexts = _watched(backbone, monkeypatch)
    long = _noise(backbone, frames=101)  # 26 latent frames
    clip = _clip(backbone, long, cond, num_steps=1)
    assert clip.shape == long.shape
    assert clip.isfinite().all()
    lengths = [context.rotary[0].shape[1] // GRID.frame_tokens for context in contexts]
    assert max(lengths) == 6
    assert lengths[-1] == 6
    if sink:
        firsts = [torch.cat([keys[0][0] for keys in context.past], 1) for context in contexts[-2:]]
        first = contexts[3].past[0][0][0]  # the third chunk's, before anything is dropped
        tokens = min(sink, 2) * GRID.frame_tokens
        assert all(torch.equal(keys[:, :tokens], first[:, :tokens]) for keys in firsts)


@torch.no_grad()
@pytest.mark.parametrize("changed", range(3))
def test_other_noise_in_a_chunk_leaves_earlier_chunks_exactly_as_they_were(
    backbone: WanBackbone, noise: Tensor, cond: Conditioning, changed: int
) -> None:
    before, other, first = _clip(backbone, noise, cond), noise.clone(), 2 * changed
    other[:, :, first + 1] += 1
    after = _clip(backbone, other, cond)
    assert torch.equal(after[:, :, :first], before[:, :, :first])
    assert ((after - before).abs().amax(dim=(0, 1, 3, 4))[first:] > 1e-5).all()


@torch.no_grad()
def test_a_zero_adapter_rolls_out_like_the_base(backbone: WanBackbone, noise: Tensor, cond: Conditioning) -> None:
    expected = _clip(backbone, noise, cond)
    attach(backbone, LoraConfig(rank=2), seed=0)
    assert torch.equal(_clip(backbone, noise, cond), expected)


@torch.no_grad()
@pytest.mark.parametrize("num_steps", [1, 4, 7])
def test_one_chunk_along_the_ode_is_the_euler_sampler(
    backbone: WanBackbone, noise: Tensor, cond: Conditioning, num_steps: int
) -> None:
    levels = torch.tensor([*StepPlan.of(num_steps, shift=3.0).first, 0.0])
    for guidance in (1.0, 4.0):
        sampled = sample(lambda x, s, g=guidance: backbone.velocity(x, s, cond, guidance=g), noise, levels)
        backbone.enable_causal(CausalLayout(chunk_frames=FRAMES))
        rolled = _clip(backbone, noise, cond, num_steps, config=RolloutConfig(renoise="ode"), guidance=guidance)
        torch.testing.assert_close(rolled, sampled, rtol=0, atol=2e-5)


@pytest.mark.parametrize("recache", [True, False])
def test_no_gradient_reaches_an_earlier_chunk(
    backbone: WanBackbone, noise: Tensor, cond: Conditioning, recache: bool
) -> None:
    noise = noise.clone().requires_grad_()
    clip = _clip(backbone, noise, cond, num_steps=1, grad=True, config=RolloutConfig(recache=recache))
    for chunk in range(3):
        frames = slice(2 * chunk, 2 * chunk + 2)
        (gradient,) = torch.autograd.grad(clip[:, :, frames].square().sum(), noise, retain_graph=True)
        reached = gradient.abs().amax(dim=(0, 1, 3, 4)) > 0
        assert reached.tolist() == [frame // 2 == chunk for frame in range(FRAMES)]


@pytest.mark.parametrize(
    ("layout", "options"),
    [
        (LAYOUT, {}),
        (CausalLayout(chunk_frames=2, window_frames=3, sink_frames=1), {"exit_step": 1}),
        (LAYOUT, {"config": RolloutConfig(recache=False, renoise="ode")}),
        (LAYOUT, {"config": RolloutConfig(context_noise=0.1), "guidance": 3.0}),
    ],
)
def test_checkpointing_changes_no_gradient_of_a_roll_out(
    backbone: WanBackbone, noise: Tensor, cond: Conditioning, layout: CausalLayout, options: dict[str, Any]
) -> None:
    _with_adapter(backbone).enable_causal(layout)
    found = []
    for checkpointing in (False, True):
        backbone.set_gradient_checkpointing(checkpointing)
        clip = _clip(backbone, noise, cond, num_steps=3, grad=True, **options)
        with torch.no_grad(), adapter_off(backbone):  # the teacher, between forward and backward pass
            backbone.velocity(noise, torch.tensor(0.5), cond)
        gradients = torch.autograd.grad(clip.square().sum(), adapter_parameters(backbone))
        found.append(torch.cat([gradient.flatten() for gradient in gradients]))
    assert found[0].abs().max() > 1e-3
    torch.testing.assert_close(found[1], found[0], rtol=1e-6, atol=1e-7)


def test_the_gradient_is_that_of_each_chunks_last_call(
    backbone: WanBackbone, noise: Tensor, cond: Conditioning
) -> None:
    _with_adapter(backbone)
    parameters = adapter_parameters(backbone)
    joint = torch.autograd.grad(_clip(backbone, noise, cond, grad=True).square().sum(), parameters)
    plan = StepPlan.of(2, shift=3.0)
    for chunk in roll_out(backbone, noise, cond, plan, _fresh(noise), grad=True):  # streaming: one graph at a time
        chunk.square().sum().backward()
    for parameter, gradient in zip(parameters, joint, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-5, atol=1e-6)
    assert not any(chunk.requires_grad for chunk in roll_out(backbone, noise, cond, plan, _fresh(noise)))


@torch.no_grad()
def test_an_exit_step_ends_every_chunk_there(backbone: WanBackbone, noise: Tensor, cond: Conditioning) -> None:
    first_two = StepPlan(*(StepPlan.of(4, shift=3.0).levels(chunk)[:2] for chunk in range(2)))
    expected = torch.cat(list(roll_out(backbone, noise, cond, first_two, _fresh(noise))), dim=2)
    assert torch.equal(_clip(backbone, noise, cond, num_steps=4, exit_step=1), expected)
    assert torch.equal(_clip(backbone, noise, cond, num_steps=2, exit_step=9), _clip(backbone, noise, cond, 2))


@torch.no_grad()
@pytest.mark.parametrize(
    ("num_steps", "first", "recache", "guidance"),
    [(1, 4, True, 1.0), (2, 4, True, 1.0), (4, 4, True, 1.0), (2, None, False, 1.0), (1, 4, True, 3.0)],
)
def test_calls_are_those_of_the_plan(
    backbone: WanBackbone, cond: Conditioning, num_steps: int, first: int | None, recache: bool, guidance: float
) -> None:
    noise, count, calls, halves = _noise(backbone, frames=25), CallCount(), [], 1 if guidance == 1 else 2
    handle = backbone.transformers["transformer"].register_forward_hook(lambda *_: calls.append(1))
    config = RolloutConfig(recache=recache)
    _clip(backbone, noise, cond, num_steps, first=first, config=config, guidance=guidance, count=count)
    handle.remove()
    num_chunks = len(LAYOUT.chunks(7))  # the last one is a single frame
    plan = StepPlan.of(num_steps, shift=3.0, first_chunk_steps=first)
    recaches = (num_chunks - 1) * recache
    assert count.denoising + count.recaching == plan.num_evaluations(num_chunks, recaches=recaches) * halves
    assert count.recaching == recaches * halves
    assert count.denoising == ((first or num_steps) + 3 * num_steps) * halves
    assert len(calls) == count.denoising + count.recaching
    assert count.frames == (2 * (first or num_steps) + 5 * num_steps + 6 * recache) * halves


@torch.no_grad()
def test_the_same_noise_is_the_same_clip(backbone: WanBackbone, noise: Tensor, cond: Conditioning) -> None:
    once = _clip(backbone, noise, cond)
    assert torch.equal(_clip(backbone, noise, cond), once)
    assert not torch.equal(_clip(backbone, noise, cond, seed=6), once)
    assert not torch.equal(_clip(backbone, _noise(backbone, seed=4), cond), once)
    one_step = [_clip(backbone, noise, cond, 1, seed=seed) for seed in (5, 6)]
    assert torch.equal(*one_step), "nothing is re-noised"


@torch.no_grad()
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_cached_text_is_projected_once_and_changes_nothing(
    backbone: WanBackbone, noise: Tensor, cond: Conditioning, guidance: float
) -> None:
    expected, projections = _clip(backbone, noise, cond, guidance=guidance), []
    text_key: Any = backbone.transformers["transformer"].get_submodule("blocks.1.attn2.to_k")
    text_key.register_forward_hook(lambda *_: projections.append(1))
    assert torch.equal(_clip(backbone, noise, cond, guidance=guidance, cache_text=True), expected)
    assert len(projections) == (1 if guidance == 1 else 2)


@torch.no_grad()
def test_the_context_may_be_noisy_or_that_of_the_last_step(
    backbone: WanBackbone, noise: Tensor, cond: Conditioning
) -> None:
    configs = [RolloutConfig(), RolloutConfig(context_noise=0.2), RolloutConfig(recache=False)]
    clips = [_clip(backbone, noise, cond, config=config) for config in configs]
    for other in clips[1:]:
        assert torch.equal(other[:, :, :2], clips[0][:, :, :2])
        assert (other - clips[0]).abs().max() > 1e-5
    with pytest.raises(ConfigError, match=r"context_noise=1\.0 is not in \[0, 1\)"):
        RolloutConfig(context_noise=1.0)


@torch.no_grad()
@pytest.mark.parametrize(("recache", "of_a_chunk"), [(True, [False, False, True]), (False, [False, True])])
def test_keys_are_kept_of_the_clean_chunk_or_of_its_last_step(
    backbone: WanBackbone,
    noise: Tensor,
    cond: Conditioning,
    monkeypatch: pytest.MonkeyPatch,
    recache: bool,
    of_a_chunk: list[bool],
) -> None:
    contexts = _watched(backbone, monkeypatch)
    _clip(backbone, noise, cond, num_steps=2, config=RolloutConfig(recache=recache))
    assert [context.recorder is not None for context in contexts] == [*of_a_chunk, *of_a_chunk, False, False]


@torch.no_grad()
def test_guidance_runs_two_caches(backbone: WanBackbone, noise: Tensor, cond: Conditioning) -> None:
    same = Conditioning(cond.prompt_embeds, cond.prompt_embeds)
    plain = _clip(backbone, noise, cond)
    torch.testing.assert_close(_clip(backbone, noise, same, guidance=5.0), plain, rtol=0, atol=1e-5)
    assert (_clip(backbone, noise, cond, guidance=5.0) - plain).abs().max() > 1e-4


@torch.no_grad()
@pytest.mark.parametrize("plan", PLANS)
def test_a_plan_is_joined_with_causality(
    tiny_wan: VideoBackbone, noise: Tensor, cond: Conditioning, plan: AttentionPlan
) -> None:
    assert isinstance(tiny_wan, WanBackbone)
    stock = tiny_wan.velocity(noise, _levels(), cond)
    tiny_wan.apply_attention(plan)
    tiny_wan.enable_causal(LAYOUT)
    assert torch.equal(tiny_wan.velocity(noise, _levels(), cond), stock), "the teacher is dense"
    context = tiny_wan.block_causal(GRID)
    causal = token_mask(LAYOUT.visible(FRAMES), GRID.frame_tokens)
    for layer, window in enumerate(plan.layers):
        if isinstance(window, Full):
            assert layer not in context.layer_masks
            continue
        orders = window.mask(GRID) & causal
        for head in range(6):
            mask = context.layer_masks[layer][0]
            assert torch.equal(mask[head if len(mask) > 1 else 0], orders[window.order_of_head(head, 6)])
    whole = tiny_wan.velocity(noise, _levels(), cond, context=context)
    torch.testing.assert_close(_cached_velocity(tiny_wan, noise, _levels(), cond), whole, rtol=0, atol=1e-5)
    no_windows = tiny_wan.velocity(noise, _levels(), cond, context=replace(context, layer_masks={}))
    assert (whole - no_windows).abs().max() > 1e-5


def test_an_adapter_is_saved_with_the_plan_of_its_causal_passes(tiny_wan: VideoBackbone) -> None:
    assert isinstance(tiny_wan, WanBackbone)
    tiny_wan.apply_attention(PLANS[0])
    tiny_wan.enable_causal(LAYOUT)
    assert tiny_wan.attention_record() == PLANS[0].to_json()
    tiny_wan.match_attention(PLANS[0].to_json(), "check")
    with pytest.raises(AdapterError, match="trained with dense attention"):
        tiny_wan.match_attention(None, "check")


@torch.no_grad()
def test_disable_causal_restores_everything(tiny_wan: VideoBackbone, noise: Tensor, cond: Conditioning) -> None:
    assert isinstance(tiny_wan, WanBackbone)
    for plan in (None, PLANS[0]):
        tiny_wan.apply_attention(plan, backend="mask")
        tiny_wan.set_gradient_checkpointing(True)
        before = tiny_wan.velocity(noise, _levels(), cond)
        tiny_wan.enable_causal(LAYOUT)
        tiny_wan.enable_causal(CausalLayout(chunk_frames=3))
        _clip(tiny_wan, noise, cond)
        tiny_wan.disable_causal()
        assert (tiny_wan.attention_plan, tiny_wan.attention_backend) == (plan, "mask")
        assert (tiny_wan.causal_layout, tiny_wan.causal_plan) == (None, None)
        assert torch.equal(tiny_wan.velocity(noise, _levels(), cond), before)
        with pytest.raises(ConfigError, match=r"not causal: call enable_causal"):
            tiny_wan.block_causal(GRID)


def test_plans_that_do_not_go_with_causality_are_refused_and_stay(
    tiny_wan: VideoBackbone, tiny_two_expert_folder: Path
) -> None:
    assert isinstance(tiny_wan, WanBackbone)
    tiny_wan.apply_attention(PLANS[0], backend="mask")
    with pytest.raises(ConfigError, match=r"window_frames moves positions.*window_frames: null"):
        tiny_wan.enable_causal(CausalLayout(chunk_frames=2, window_frames=4))
    part = replace(PLANS[0], dense_sigmas=(0.8, 1.0))
    tiny_wan.apply_attention(part, backend="mask")
    with pytest.raises(ConfigError, match=r"off at some noise levels.*dense_sigmas: null"):
        tiny_wan.enable_causal(LAYOUT)
    assert (tiny_wan.attention_plan, tiny_wan.attention_backend, tiny_wan.causal_layout) == (part, "mask", None)
    tiny_wan.apply_attention(PLANS[0], backend="mask")
    text: Any = tiny_wan.transformers["transformer"].get_submodule("blocks.1.attn2")
    text.set_processor(object())
    with pytest.raises(ConfigError, match="block 1 has a object"):
        tiny_wan.enable_causal(LAYOUT)
    assert (tiny_wan.attention_plan, tiny_wan.attention_backend) == (PLANS[0], "mask")
    two = load_backbone(tiny_two_expert_folder)
    assert isinstance(two, WanBackbone)
    with pytest.raises(ConfigError, match="built for one transformer: this model has two experts"):
        two.enable_causal(LAYOUT)


def test_training_under_a_plan_or_past_a_moving_sink_is_refused(tiny_wan: VideoBackbone) -> None:
    assert isinstance(tiny_wan, WanBackbone)
    tiny_wan.apply_attention(PLANS[0])
    tiny_wan.enable_causal(LAYOUT)
    with pytest.raises(ConfigError, match="Teacher forcing does not go with an attention plan"):
        tiny_wan.teacher_forcing(GRID)
    tiny_wan.disable_causal()
    tiny_wan.apply_attention(None)
    tiny_wan.enable_causal(CausalLayout(chunk_frames=2, window_frames=5, sink_frames=1))
    for context in (tiny_wan.block_causal, tiny_wan.teacher_forcing):
        with pytest.raises(ConfigError, match=r"longer than causal\.window_frames=5.*at most 5 latent frames"):
            context(GRID)
        assert context(GRID._replace(frames=5)).rotary[0].shape[1] % GRID.frame_tokens == 0


@torch.no_grad()
def test_a_cache_of_something_else_is_refused(backbone: WanBackbone, cond: Conditioning) -> None:
    _with_adapter(backbone)
    state, chunk = backbone.start_rollout(GRID, cond), GRID._replace(frames=2)
    backbone.next_chunk(state, chunk, Conditioning(cond.prompt_embeds.clone(), cond.negative_embeds))
    other_prompts = backbone.encode_prompts(TINY_PROMPTS[::-1])
    with pytest.raises(ConfigError, match=r"for other prompts: start a new roll-out"):
        backbone.next_chunk(state, chunk, other_prompts)
    for changed, prompts, message in (
        (chunk._replace(height=3), cond, "another rows"),
        (chunk._replace(width=2, height=3), cond, "another rows and columns"),
        (chunk, cond.select([0]), "another batch"),
    ):
        with pytest.raises(ConfigError, match=rf"{message}: start a new roll-out"):
            backbone.next_chunk(state, changed, prompts)
    for switch in (adapter_off(backbone), adapter_scale(backbone, 0.5)):
        with switch, pytest.raises(ConfigError, match="another adapter"):
            backbone.next_chunk(state, chunk, cond)


@torch.no_grad()
def test_chunks_are_made_in_the_role_in_which_the_roll_out_began(
    backbone: WanBackbone, noise: Tensor, cond: Conditioning
) -> None:
    _with_adapter(backbone)
    attach(backbone, LoraConfig(rank=2, targets=("to_v",)), seed=0, name=FAKE)
    plan, fresh = StepPlan.of(1, shift=3.0), _fresh(noise)
    for name in ("teacher", "fake"):
        with role(backbone, name):  # type: ignore[arg-type]
            chunks = roll_out(backbone, noise, cond, plan, fresh)
        with pytest.raises(ConfigError, match="another adapter"):
            next(chunks)
    chunks = roll_out(backbone, noise, cond, plan, fresh)
    next(chunks)
    with role(backbone, "fake"), pytest.raises(ConfigError, match="another adapter"):
        next(chunks)


def test_wrong_arguments_are_said_before_the_first_chunk(
    backbone: WanBackbone, noise: Tensor, cond: Conditioning, make_tiny_wan: Callable[[], VideoBackbone]
) -> None:
    plan, fresh = StepPlan.of(1, shift=3.0), _fresh(noise)
    with pytest.raises(ConfigError, match="text layers would get no gradient"):
        roll_out(backbone, noise, cond, plan, fresh, grad=True, cache_text=True)
    with pytest.raises(ConfigError, match="exit_step=-1"):
        roll_out(backbone, noise, cond, plan, fresh, exit_step=-1)
    with pytest.raises(ConfigError, match="shorter than a chunk of 2"):
        roll_out(backbone, noise[:, :, :1], cond, plan, fresh)
    with pytest.raises(ConfigError, match="guidance runs two roll-out states"):
        backbone.velocity(noise, torch.tensor(0.5), cond, guidance=3.0, context=backbone.block_causal(GRID))
    stock = make_tiny_wan()
    assert isinstance(stock, WanBackbone)
    with pytest.raises(ConfigError, match=r"not causal: call enable_causal"):
        roll_out(stock, noise, cond, plan, fresh)
