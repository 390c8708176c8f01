"""Saved adapters against plain diffusers, in both key layouts."""

import errno
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import WanPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor

from rlhf_video.backbones import VideoBackbone, VideoShape, load_backbone
from rlhf_video.data import sha256_file
from rlhf_video.errors import AdapterError
from rlhf_video.lora import (
    LoraConfig,
    adapter_parameters,
    adapter_state,
    attach,
    load_adapter,
    read_adapter_metadata,
    save_adapter,
)
from rlhf_video.lora.files import SECOND_WEIGHT_NAME, WEIGHT_NAME, adapter_sha256, write_safetensors
from rlhf_video.lora.kohya import from_kohya, targets_of, to_kohya
from rlhf_video.testing import TINY_PROMPTS

SIZE = {"height": 32, "width": 32, "num_frames": 9, "num_inference_steps": 2, "max_sequence_length": 32}
METADATA: dict[str, object] = {"base": "tiny", "attention_plan": "full", "method": "test"}


def _trained(backbone: VideoBackbone, config: LoraConfig) -> dict[str, Tensor]:
    attach(backbone, config, seed=0)
    generator = torch.Generator().manual_seed(9)
    for parameter in adapter_parameters(backbone):
        parameter.data.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)
    return adapter_state(backbone)


def _velocities(
    backbone: VideoBackbone, pipeline: WanPipeline, component: str = "transformer"
) -> tuple[Tensor, Tensor]:
    noise = backbone.noise(VideoShape(batch=2, frames=9, height=32, width=32), torch.Generator().manual_seed(1))
    cond = backbone.encode_prompts(TINY_PROMPTS)
    sigma = 0.75 if component == "transformer" else 0.25
    with torch.no_grad():
        ours = backbone.velocity(noise, torch.tensor(sigma), cond)
        theirs = pipeline.components[component](
            hidden_states=noise,
            timestep=torch.full((2,), sigma * 1000),
            encoder_hidden_states=cond.prompt_embeds,
            return_dict=False,
        )[0]
    return ours, theirs


@pytest.mark.parametrize(
    "config", [LoraConfig(rank=4, alpha=4), LoraConfig(rank=3, alpha=7, targets=("to_q", "ffn.net.2"))]
)
def test_plain_pipeline_loads_the_file_with_the_same_output(
    tiny_wan: VideoBackbone, tiny_wan_folder: Path, tmp_path: Path, config: LoraConfig
) -> None:
    state = _trained(tiny_wan, config)
    save_adapter(tmp_path, state, backbone=tiny_wan, config=config, metadata=METADATA)
    pipeline = WanPipeline.from_pretrained(tiny_wan_folder)
    ours, base = _velocities(tiny_wan, pipeline)
    assert (ours - base).abs().max() > 0.01
    pipeline.load_lora_weights(tmp_path)
    assert torch.equal(*_velocities(tiny_wan, pipeline))


def test_two_expert_adapter_loads_into_both_experts(tiny_two_expert_folder: Path, tmp_path: Path) -> None:
    backbone = load_backbone(tiny_two_expert_folder)
    config = LoraConfig(rank=2, alpha=3)
    save_adapter(tmp_path, _trained(backbone, config), backbone=backbone, config=config, metadata=METADATA)
    pipeline = WanPipeline.from_pretrained(tiny_two_expert_folder)
    pipeline.load_lora_weights(tmp_path)
    pipeline.load_lora_weights(tmp_path, weight_name=SECOND_WEIGHT_NAME, load_into_transformer_2=True)
    for component in ("transformer", "transformer_2"):
        assert torch.equal(*_velocities(backbone, pipeline, component))
    both = adapter_sha256(tmp_path)
    again = load_backbone(tiny_two_expert_folder)
    load_adapter(again, tmp_path)
    expected = adapter_state(backbone)
    assert all(torch.equal(value, expected[name]) for name, value in adapter_state(again).items())
    with (tmp_path / SECOND_WEIGHT_NAME).open("ab") as file:
        file.write(b" ")
    assert adapter_sha256(tmp_path) != both, "the second expert's weights are part of the hash"


def test_metadata_and_weights_survive(make_tiny_wan: Callable[[], VideoBackbone], tmp_path: Path) -> None:
    source, target = make_tiny_wan(), make_tiny_wan()
    config = LoraConfig(rank=3, alpha=7)
    state = _trained(source, config)
    file = save_adapter(tmp_path, state, backbone=source, config=config, metadata=METADATA)
    metadata = load_adapter(target, tmp_path)
    assert metadata == read_adapter_metadata(file)
    assert {key: metadata[key] for key in METADATA} == METADATA
    assert (metadata["rank"], metadata["alpha"]) == (3, 7)
    assert tuple(metadata["targets"]) == source.spec.lora_targets
    loaded = adapter_state(target)
    assert list(loaded) == list(state)
    assert all(torch.equal(value, state[name]) for name, value in loaded.items())
    assert [path.name for path in tmp_path.iterdir()] == [WEIGHT_NAME]
    assert adapter_sha256(tmp_path) == sha256_file(file)


def test_unreadable_adapters_are_named(tiny_wan: VideoBackbone, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="no adapter at"):
        load_adapter(tiny_wan, tmp_path)
    (tmp_path / WEIGHT_NAME).write_bytes(b"not a safetensors file")
    with pytest.raises(AdapterError, match="not a readable"):
        load_adapter(tiny_wan, tmp_path)
    save_file({"x": torch.zeros(1)}, tmp_path / WEIGHT_NAME)
    with pytest.raises(AdapterError, match="no rank and alpha"):
        load_adapter(tiny_wan, tmp_path)


def test_kohya_layout_goes_round_bit_equal(tiny_wan: VideoBackbone) -> None:
    state = _trained(tiny_wan, LoraConfig(rank=3, alpha=7))
    kohya = to_kohya(state, alpha=7)
    back, rank, alpha = from_kohya(kohya)
    assert (rank, alpha) == (3, 7)
    assert set(back) == set(state)
    assert all(torch.equal(back[name], value) for name, value in state.items())
    again = to_kohya(back, alpha=alpha)
    assert all(torch.equal(again[name], value) for name, value in kohya.items())
    assert set(targets_of(back)) == set(tiny_wan.spec.lora_targets)


def test_kohya_keys_are_those_of_comfyui_and_musubi(tiny_wan: VideoBackbone) -> None:
    modules = [f"{a}_{p}" for a in ("self_attn", "cross_attn") for p in "qkvo"] + ["ffn_0", "ffn_2"]
    expected = {
        f"lora_unet_blocks_{block}_{module}.{tensor}"
        for block in range(2)
        for module in modules
        for tensor in ("lora_down.weight", "lora_up.weight", "alpha")
    }
    assert set(to_kohya(_trained(tiny_wan, LoraConfig(rank=3, alpha=7)), alpha=7)) == expected


@pytest.mark.parametrize("config", [LoraConfig(rank=4, alpha=8), LoraConfig(rank=3, alpha=7)])
def test_plain_pipeline_loads_the_kohya_file_with_the_same_output(
    tiny_wan: VideoBackbone, tiny_wan_folder: Path, tmp_path: Path, config: LoraConfig
) -> None:
    state = _trained(tiny_wan, config)
    save_file(to_kohya(state, alpha=config.alpha), tmp_path / "kohya.safetensors")
    pipeline = WanPipeline.from_pretrained(tiny_wan_folder)
    pipeline.load_lora_weights(tmp_path / "kohya.safetensors")
    torch.testing.assert_close(*_velocities(tiny_wan, pipeline), rtol=0, atol=1e-6)


def test_kohya_reads_the_double_underscore_of_videox_fun(tiny_wan: VideoBackbone) -> None:
    state = _trained(tiny_wan, LoraConfig(rank=3, alpha=7))
    foreign = {name.replace("lora_unet_", "lora_unet__"): value for name, value in to_kohya(state, alpha=7).items()}
    assert all(torch.equal(from_kohya(foreign)[0][name], value) for name, value in state.items())


def test_kohya_names_modules_outside_the_blocks() -> None:
    outside = ("proj_out", "condition_embedder.time_proj", "condition_embedder.text_embedder.linear_2")
    state = {
        f"transformer.{module}.{matrix}.weight": torch.ones(2, 2)
        for module in outside
        for matrix in ("lora_A", "lora_B")
    }
    kohya = to_kohya(state, alpha=2)
    assert "lora_unet_head_head.alpha" in kohya
    assert set(from_kohya(kohya)[0]) == set(state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda kohya: kohya.pop("lora_unet_blocks_0_ffn_0.alpha"), "incomplete"),
        (lambda kohya: kohya.pop("lora_unet_blocks_0_ffn_0.lora_up.weight"), "incomplete"),
        (lambda kohya: kohya.update({"lora_unet_blocks_0_ffn_0.alpha": torch.tensor(1.0)}), "mixes"),
        (lambda kohya: kohya.update({"lora_te_x.alpha": torch.tensor(1.0)}), "not a key"),
        (lambda kohya: kohya.update({"lora_unet_blocks_0_ffn_1.alpha": torch.tensor(1.0)}), "not one of"),
        (lambda kohya: kohya.update({"lora_unet_blocks_0_ffn_0.diff": torch.tensor(1.0)}), "not a LoRA weight"),
    ],
)
def test_odd_kohya_files_are_refused(
    tiny_wan: VideoBackbone, change: Callable[[dict[str, Tensor]], object], message: str
) -> None:
    kohya = to_kohya(_trained(tiny_wan, LoraConfig(rank=3, alpha=7)), alpha=7)
    change(kohya)
    with pytest.raises(AdapterError, match=message):
        from_kohya(kohya)


def test_a_module_without_a_kohya_name_is_refused() -> None:
    with pytest.raises(AdapterError, match="no name in the kohya layout"):
        to_kohya({"transformer.patch_embedding.lora_A.weight": torch.ones(1, 1)}, alpha=1)


def test_saving_overwrites_an_adapter_whole(tiny_wan: VideoBackbone, tmp_path: Path) -> None:
    config = LoraConfig(rank=3, alpha=7)
    state = _trained(tiny_wan, config)
    for factor in (1, 2):
        doubled = {name: factor * value for name, value in state.items()}
        file = save_adapter(tmp_path, doubled, backbone=tiny_wan, config=config)
    assert all(torch.equal(value, 2 * state[name]) for name, value in load_file(file).items())


def test_a_write_that_the_system_refuses_is_an_oserror_with_the_files_name_and_keeps_the_old_file(
    tmp_path: Path,
) -> None:
    file = tmp_path / WEIGHT_NAME
    write_safetensors(file, {"x": torch.zeros(1)}, {})
    before, (soft, hard) = file.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # a full disk for everyone; its errno is EFBIG, not ENOSPC
    try:
        with pytest.raises(OSError, match=WEIGHT_NAME) as raised:
            write_safetensors(file, {"x": torch.zeros(2048)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert raised.value.errno == errno.EFBIG
    assert raised.value.filename == str(file)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]
