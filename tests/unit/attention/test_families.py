"""What is read from each transformer class: its self-attention layers and the shape of its clip."""

import copy

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel
from peft import LoraConfig, get_peft_model
from torch import nn

from rlhf_video.attention import Grid
from rlhf_video.attention.families import FAMILIES, find_transformer
from rlhf_video.errors import ConfigError
from rlhf_video.testing.tiny_transformers import TINY_TRANSFORMERS, TinyTransformer, tiny_transformer

GRID = Grid(2, 3, 4)
TEXT = {  # tokens in the self-attention's sequence, and where
    "WanTransformer3DModel": (0, "first"),
    "LTXVideoTransformer3DModel": (0, "first"),
    "CogVideoXTransformer3DModel": (5, "first"),
    "EasyAnimateTransformer3DModel": (5, "first"),
    "HunyuanVideoTransformer3DModel": (5, "last"),
}


def test_every_known_class_has_a_tiny_one() -> None:
    assert set(FAMILIES) == set(TINY_TRANSFORMERS)


def test_grid_and_text_are_read_from_the_inputs(tiny: TinyTransformer) -> None:
    geometry = FAMILIES[tiny.name].geometry(tiny.model, tiny.inputs(GRID, batch=2))
    assert geometry.grid == GRID
    assert (geometry.text_length, geometry.text_position) == TEXT[tiny.name]
    assert (geometry.text_mask is not None) == (tiny.name == "HunyuanVideoTransformer3DModel")


def test_sequences_of_self_attention_have_the_tokens_that_were_read(tiny: TinyTransformer) -> None:
    layers = FAMILIES[tiny.name].attention_modules(tiny.model)
    lengths: list[int] = []
    for layer in layers:
        layer.to_q.register_forward_hook(lambda module, args, output: lengths.append(output.shape[1]))
    tiny.run(tiny.inputs(GRID))
    in_one_projection = {  # MMDiT blocks project their text apart
        "HunyuanVideoTransformer3DModel": [24, 24, 29, 29],
        "EasyAnimateTransformer3DModel": [24, 24, 29, 29],
    }
    expected = in_one_projection.get(tiny.name, [24 + TEXT[tiny.name][0]] * 4)
    assert lengths == expected
    assert [layer.heads for layer in layers] == [2, 2, 2, 2]


def test_self_attention_modules_are_the_blocks_own_in_their_order(tiny: TinyTransformer) -> None:
    modules = FAMILIES[tiny.name].attention_modules(tiny.model)
    names = {module: name for name, module in tiny.model.named_modules()}
    if tiny.name == "HunyuanVideoTransformer3DModel":
        expected = [
            f"{kind}.{block}.attn" for kind in ("transformer_blocks", "single_transformer_blocks") for block in (0, 1)
        ]
    else:
        blocks = "blocks" if tiny.name == "WanTransformer3DModel" else "transformer_blocks"
        expected = [f"{blocks}.{block}.attn1" for block in range(4)]
    assert [names[module] for module in modules] == expected


def test_cogvideox_with_patches_in_time_has_fewer_frames_of_tokens() -> None:
    model = CogVideoXTransformer3DModel(
        num_attention_heads=1,
        attention_head_dim=8,
        num_layers=1,
        patch_size=2,
        patch_size_t=2,
        patch_bias=False,
        use_rotary_positional_embeddings=True,
    )
    inputs = {"hidden_states": torch.zeros(1, 4, 16, 6, 8), "encoder_hidden_states": torch.zeros(1, 7, 8)}
    geometry = FAMILIES["CogVideoXTransformer3DModel"].geometry(model, inputs)
    assert (geometry.grid, geometry.text_length) == (GRID, 7)


def test_both_texts_of_easyanimate_count() -> None:
    tiny = tiny_transformer("EasyAnimateTransformer3DModel")
    inputs = tiny.inputs(GRID) | {"encoder_hidden_states_t5": torch.zeros(1, 3, 8)}
    assert FAMILIES[tiny.name].geometry(tiny.model, inputs).text_length == 8


@pytest.mark.parametrize("given", [{"num_frames": None}, {"height": 4}])
def test_ltx_without_the_sizes_of_its_tokens_is_refused(given: dict[str, int | None]) -> None:
    tiny = tiny_transformer("LTXVideoTransformer3DModel")
    with pytest.raises(ConfigError, match=r"24 tokens.*Pass the three arguments"):
        FAMILIES[tiny.name].geometry(tiny.model, tiny.inputs(GRID) | given)


def test_transformer_is_found_in_wrappers_and_subclasses() -> None:
    model = tiny_transformer("WanTransformer3DModel").model
    family = FAMILIES["WanTransformer3DModel"]
    assert find_transformer(model) == (model, family)
    assert find_transformer(nn.Sequential(model)) == (model, family)
    assert find_transformer(get_peft_model(model, LoraConfig(r=1, target_modules=["to_q"]))) == (model, family)
    copied = copy.deepcopy(model)
    copied.__class__ = type("ShardedWan", (type(model),), {})
    assert find_transformer(copied) == (copied, family)


def test_unknown_and_several_transformers_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"no Linear\. Known transformers: WanTransformer3DModel, "):
        find_transformer(nn.Linear(1, 1))
    pair = nn.ModuleList([tiny_transformer("WanTransformer3DModel").model for _ in range(2)])
    with pytest.raises(ConfigError, match="holds 2 transformers"):
        find_transformer(pair)
