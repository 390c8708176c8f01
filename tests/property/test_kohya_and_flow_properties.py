import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf_video.diffusion.flow import interpolate, velocity_target
from rlhf_video.diffusion.sigmas import flow_sigmas
from rlhf_video.lora.kohya import from_kohya, to_kohya

MODULES = [f"{a}.{p}" for a in ("attn1", "attn2") for p in ("to_q", "to_k", "to_v", "to_out.0")] + [
    "ffn.net.0.proj",
    "ffn.net.2",
]


@given(
    modules=st.sets(st.tuples(st.integers(0, 40), st.sampled_from(MODULES)), min_size=1, max_size=12),
    rank=st.integers(1, 4),
    alpha=st.floats(0.125, 1024, width=32),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
)
def test_kohya_round_trip_changes_no_bit(
    modules: set[tuple[int, str]], rank: int, alpha: float, dtype: torch.dtype
) -> None:
    state = {}
    for block, module in modules:
        name = f"transformer.blocks.{block}.{module}"
        state[f"{name}.lora_A.weight"] = torch.randn(rank, 5).to(dtype)
        state[f"{name}.lora_B.weight"] = torch.randn(6, rank).to(dtype)
    back, found_rank, found_alpha = from_kohya(to_kohya(state, alpha=alpha))
    assert (found_rank, found_alpha) == (rank, alpha)
    assert set(back) == set(state)
    assert all(torch.equal(back[name], value) and back[name].dtype == dtype for name, value in state.items())


@given(num_steps=st.integers(1, 60), shift=st.floats(0.2, 12))
def test_sigmas_always_fall_from_one_to_zero(num_steps: int, shift: float) -> None:
    sigmas = flow_sigmas(num_steps, shift)
    assert sigmas.shape == (num_steps + 1,)
    torch.testing.assert_close(sigmas[0], torch.tensor(1.0), rtol=0, atol=1e-6)
    assert sigmas[-1] == 0
    assert (sigmas.diff() < 0).all()


@given(seed=st.integers(0, 1000), sigma=st.floats(0, 1))
def test_clean_latents_follow_from_the_true_velocity_at_every_sigma(seed: int, sigma: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    clean, noise = (torch.randn(1, 2, 2, 2, 2, generator=generator) for _ in range(2))
    level = torch.tensor(sigma)
    recovered = interpolate(clean, noise, level) - level * velocity_target(clean, noise)
    torch.testing.assert_close(recovered, clean, rtol=0, atol=1e-5)
