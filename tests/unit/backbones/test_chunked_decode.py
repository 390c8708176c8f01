"""The hand-made gradient of a whole clip equals autograd's, whatever is kept, dropped or recomputed."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from rlhf_video.backbones import load_backbone
from rlhf_video.backbones.chunked_decode import Clamp, chunked_decode, clamp_to_unit
from rlhf_video.errors import BackboneError, ConfigError
from rlhf_video.testing import tiny_wan_pipeline

WAN_21 = {
    "base_dim": 4, "z_dim": 4, "dim_mult": [1, 2, 2], "num_res_blocks": 1,
    "temperal_downsample": [True, True], "latents_mean": [0.0] * 4, "latents_std": [1.0] * 4,
}  # fmt: skip
WAN_22 = {**WAN_21, "is_residual": True, "patch_size": 2, "in_channels": 12, "out_channels": 12}


@pytest.fixture(params=[WAN_21, WAN_22], ids=["wan2.1", "wan2.2-residual-patchified"])
def vae(request: pytest.FixtureRequest) -> AutoencoderKLWan:
    torch.manual_seed(0)
    model = AutoencoderKLWan(**request.param).double().eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.mul_(1.5)  # pushes some pixels over the edge, so that the clamp matters
    return model


def latents_of(num_frames: int = 5) -> Tensor:
    return torch.randn(2, 4, num_frames, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def joint_decode(vae: AutoencoderKLWan, latents: Tensor, clamp: Clamp) -> Tensor:
    """Everything in the graph, written without the module under test: the library's own loop up to its final clamp."""
    from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify

    vae.clear_cache()
    hidden = vae.post_quant_conv(latents)
    pieces = []
    for index in range(latents.shape[2]):
        vae._conv_idx = [0]
        frame = hidden[:, :, index : index + 1]
        pieces.append(vae.decoder(frame, feat_cache=vae._feat_map, feat_idx=vae._conv_idx, first_chunk=index == 0))
    video = torch.cat(pieces, dim=2)
    if vae.config.patch_size is not None:
        video = unpatchify(video, patch_size=vae.config.patch_size)
    return clamp_to_unit(video.float(), clamp).transpose(1, 2)


def gradient(video: Tensor, latents: Tensor, probe: Tensor) -> Tensor:
    return torch.autograd.grad(((video - 0.3) ** 2 * probe).sum(), latents)[0]


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("clamp", ["hard", "straight_through"])
@pytest.mark.parametrize("border_every", [1, 2, 3, 7])
def test_chunked_gradient_equals_joint_gradient(vae: AutoencoderKLWan, clamp: Clamp, border_every: int) -> None:
    latents = latents_of().requires_grad_()
    expected = joint_decode(vae, latents, clamp)
    probe = torch.rand(expected.shape, generator=torch.Generator().manual_seed(2))
    found = chunked_decode(vae, latents, clamp=clamp, border_every=border_every, cache_device="cpu")
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert relative_error(gradient(found, latents, probe), gradient(expected, latents, probe)) <= 1e-5


def test_decoded_video_equals_the_autoencoders_own(vae: AutoencoderKLWan) -> None:
    latents = latents_of()
    own = vae.decode(latents).sample.transpose(1, 2) / 2 + 0.5
    torch.testing.assert_close(chunked_decode(vae, latents), own.float(), rtol=0, atol=1e-6)


def test_chosen_frames_have_the_pixels_and_the_gradient_they_have_in_the_whole_clip(vae: AutoencoderKLWan) -> None:
    latents = latents_of().requires_grad_()
    whole = joint_decode(vae, latents, "hard")
    chosen = torch.cat([whole[:, :1], whole[:, 9:13]], dim=1)
    probe = torch.rand(chosen.shape, generator=torch.Generator().manual_seed(2))
    found = chunked_decode(vae, latents, frames=[0, 3])
    torch.testing.assert_close(found, chosen, rtol=0, atol=1e-6)
    found_grad = gradient(found, latents, probe)
    assert relative_error(found_grad, gradient(chosen, latents, probe)) <= 1e-5
    assert found_grad[:, :, 2].abs().max() > 0, "frame 2 reaches frame 3 through the causal cache"
    assert found_grad[:, :, 4].abs().max() == 0, "a later frame reaches no earlier one"


def test_hard_clamp_stops_the_gradient_of_a_burnt_pixel_and_straight_through_does_not() -> None:
    raw = torch.tensor([-3.0, 0.0, 3.0], requires_grad=True)
    for clamp, expected in (("hard", [0.0, 0.5, 0.0]), ("straight_through", [0.5, 0.5, 0.5])):
        unit = clamp_to_unit(raw, clamp)  # type: ignore[arg-type]
        assert unit.tolist() == [0.0, 0.5, 1.0]
        assert torch.autograd.grad(unit.sum(), raw)[0].tolist() == expected


def test_no_activation_is_kept_between_forward_and_backward(vae: AutoencoderKLWan) -> None:
    kept: list[int] = []
    latents = latents_of().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda t: t):
        chunked_decode(vae, latents)
    assert sum(kept) == latents.numel(), "only the latents themselves"


def test_the_frozen_decoder_gets_no_gradient_even_when_it_could(vae: AutoencoderKLWan) -> None:
    vae.requires_grad_(True)
    chunked_decode(vae, latents_of().requires_grad_()).sum().backward()
    assert all(parameter.grad is None for parameter in vae.parameters())


def test_tiling_is_refused(vae: AutoencoderKLWan) -> None:
    vae.enable_tiling()
    with pytest.raises(BackboneError, match="tiling"):
        chunked_decode(vae, latents_of())


@pytest.mark.parametrize("frames", [[], [5], [2, 1], [-1, 0]])
def test_frames_out_of_range_are_refused(vae: AutoencoderKLWan, frames: list[int]) -> None:
    with pytest.raises(ConfigError, match=r"decode\.frames"):
        chunked_decode(vae, latents_of(), frames=frames)


def test_backbone_decodes_chunked_as_it_decodes_plainly(tmp_path: Path) -> None:
    backbone = load_backbone(tiny_wan_pipeline(tmp_path / "tiny"))
    latents = torch.randn(2, 4, 3, 4, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
    plain, chunked = backbone.decode(latents), backbone.decode_chunked(latents, cache_every=2, cache_on_cpu=True)
    torch.testing.assert_close(chunked, plain, rtol=0, atol=1e-6)
    probe = torch.rand(plain.shape, generator=torch.Generator().manual_seed(2))
    assert relative_error(gradient(chunked, latents, probe), gradient(plain, latents, probe)) <= 1e-5
