"""What differs between video transformers: where self-attention is, and how the clip's shape is read.

| class | sequence | grid from | text |
|---|---|---|---|
| WanTransformer3DModel | video | latents, patch_size (frames, height, width) | cross-attention |
| LTXVideoTransformer3DModel | video | arguments num_frames, height, width | cross-attention |
| CogVideoXTransformer3DModel | text, video | latents, frames first; patch_size, patch_size_t | all tokens real |
| EasyAnimateTransformer3DModel | text, video | latents, patch_size | both encoders, all tokens real |
| HunyuanVideoTransformer3DModel | video, text | latents, patch_size, patch_size_t | padded: counts from the mask |

Read in diffusers 0.42; all keep video tokens frame-major.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

from rlhf_video.attention.grid import Grid
from rlhf_video.errors import ConfigError


class Geometry(NamedTuple):
    """The sequence of one forward pass, from shapes alone."""

    grid: Grid
    text_length: int = 0
    """Text tokens in the self-attention's sequence."""
    text_position: Literal["first", "last"] = "first"
    text_mask: Tensor | None = None
    """Shape (batch, text_length), nonzero for real tokens; None: all are real."""


@dataclass(frozen=True)
class Family:
    """One transformer class."""

    geometry: Callable[[Any, Mapping[str, Any]], Geometry]
    """Reads the geometry from a transformer and the named arguments of its forward pass."""
    blocks: tuple[str, ...] = ("transformer_blocks",)
    """Lists of blocks, in the order in which they run."""
    attention: str = "attn1"
    """Self-attention in a block."""

    def attention_modules(self, transformer: nn.Module) -> list[Any]:
        """Return the self-attention modules, first layer first."""
        blocks = (block for name in self.blocks for block in transformer.get_submodule(name).children())
        return [block.get_submodule(self.attention) for block in blocks]


def _wan(transformer: Any, inputs: Mapping[str, Any]) -> Geometry:
    sizes = inputs["hidden_states"].shape[2:]
    return Geometry(Grid(*(size // patch for size, patch in zip(sizes, transformer.config.patch_size, strict=True))))


def _ltx(transformer: Any, inputs: Mapping[str, Any]) -> Geometry:
    frames, height, width = (inputs.get(name) or 0 for name in ("num_frames", "height", "width"))
    grid, num_tokens = Grid(frames, height, width), inputs["hidden_states"].shape[1]
    if grid.num_tokens != num_tokens:
        raise ConfigError(
            f"num_frames={frames}, height={height}, width={width} do not describe the {num_tokens} tokens of this LTX "
            "forward pass: windows need the latent sizes, as LTXPipeline passes them, and no condition tokens behind "
            "the clip. Pass the three arguments, or switch the plan off with handle.disabled()."
        )
    return Geometry(grid)


def _cogvideox(transformer: Any, inputs: Mapping[str, Any]) -> Geometry:
    frames, _, height, width = inputs["hidden_states"].shape[1:]
    patch, patch_t = transformer.config.patch_size, transformer.config.patch_size_t or 1
    return Geometry(Grid(frames // patch_t, height // patch, width // patch), inputs["encoder_hidden_states"].shape[1])


def _easyanimate(transformer: Any, inputs: Mapping[str, Any]) -> Geometry:
    frames, height, width = inputs["hidden_states"].shape[2:]
    patch = transformer.config.patch_size
    texts = [inputs.get(name) for name in ("encoder_hidden_states", "encoder_hidden_states_t5")]
    length = sum(text.shape[1] for text in texts if text is not None)
    return Geometry(Grid(frames, height // patch, width // patch), length)


def _hunyuan(transformer: Any, inputs: Mapping[str, Any]) -> Geometry:
    frames, height, width = inputs["hidden_states"].shape[2:]
    patch, patch_t = transformer.config.patch_size, transformer.config.patch_size_t
    grid = Grid(frames // patch_t, height // patch, width // patch)
    return Geometry(grid, inputs["encoder_hidden_states"].shape[1], "last", inputs["encoder_attention_mask"])


FAMILIES: dict[str, Family] = {
    "WanTransformer3DModel": Family(_wan, blocks=("blocks",)),
    "CogVideoXTransformer3DModel": Family(_cogvideox),
    "HunyuanVideoTransformer3DModel": Family(
        _hunyuan, blocks=("transformer_blocks", "single_transformer_blocks"), attention="attn"
    ),
    "LTXVideoTransformer3DModel": Family(_ltx),
    "EasyAnimateTransformer3DModel": Family(_easyanimate),
}
"""By the name of the diffusers class; names, so that no model is imported before it is used."""


def find_transformer(model: nn.Module) -> tuple[Any, Family]:
    """Return the one known transformer in a model, inside DDP, PEFT or compiled wrappers, with its family.

    Raises:
        ConfigError: There is none, or more than one.
    """
    if (own := _family_of(model)) is not None:  # no walk over its modules: a roll-out asks in every call
        return model, own
    families = ((module, _family_of(module)) for module in model.modules())
    found = [(module, family) for module, family in families if family is not None]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(
            f"{type(model).__name__} holds {len(found)} transformers: apply an attention plan to each of them."
        )
    raise ConfigError(
        f"Attention plans know no {type(model).__name__}. Known transformers: {', '.join(FAMILIES)}, plain or inside a "
        "DDP or PEFT wrapper."
    )


def _family_of(module: nn.Module) -> Family | None:
    names = (cls.__name__ for cls in type(module).__mro__)
    return next((FAMILIES[name] for name in names if name in FAMILIES), None)
