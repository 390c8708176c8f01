"""What a Wan backbone does with causal attention: contexts for training forwards, and the state of a roll-out."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from rlhf_video.attention import AttentionPlan, Full, Grid
from rlhf_video.attention.causal import (
    CausalContext,
    Recorder,
    is_causal,
    make_causal,
    restore_bidirectional,
    rotary_table,
)
from rlhf_video.attention.causal_cache import CacheFacts, KeyValue, KeyValueCache
from rlhf_video.attention.causal_layout import CausalLayout, token_mask
from rlhf_video.backbones.attention_host import AttentionHost
from rlhf_video.backbones.base import Conditioning
from rlhf_video.errors import ConfigError


@dataclass(frozen=True)
class RolloutState:
    """What a roll-out carries from chunk to chunk; every change makes a new one."""

    cache: KeyValueCache
    cond: Conditioning
    """Its prompts."""
    text: tuple[KeyValue, ...] = ()
    """Projected text of each layer; empty projects it in every forward pass."""


class CausalHost(AttentionHost):
    """Transformers that can run causally; without a context they stay the stock model, bit for bit."""

    causal_layout: CausalLayout | None = None
    """How clips are cut; None until `enable_causal`."""
    causal_plan: AttentionPlan | None = None
    """Windows inside the causal attention; None where a chunk sees all of its past."""

    def enable_causal(self, layout: CausalLayout) -> None:
        """Make causal forward passes possible; an attention plan that is on becomes part of them alone.

        The stock model, which is the teacher, is dense from then on. Windows and causality are joined: a token sees
        what both let it see.

        Args:
            layout: Chunks, window and sink.

        Raises:
            ConfigError: The model is no Wan transformer, has two experts, or a window of frames together with a plan.
        """
        if len(self.transformers) > 1:
            raise ConfigError("Causal roll-outs are built for one transformer: this model has two experts.")
        plan = self.attention_plan or self.causal_plan
        if plan is not None and layout.window_frames is not None:
            raise ConfigError(
                "An attention plan is laid out over the whole clip, and causal.window_frames moves positions: set "
                "causal.window_frames: null, or leave the plan out."
            )
        self.apply_attention(None)
        for transformer in self.transformers.values():
            make_causal(transformer)
        self.causal_layout, self.causal_plan = layout, plan

    def disable_causal(self) -> None:
        """Put the stock processors back; the plan that causal passes followed is on the model again."""
        for transformer in self.transformers.values():
            restore_bidirectional(transformer)
        plan, self.causal_layout, self.causal_plan = self.causal_plan, None, None
        if plan is not None:
            self.apply_attention(plan, backend=self.attention_backend)

    @property
    def layout(self) -> CausalLayout:
        """The layout in force.

        Raises:
            ConfigError: `enable_causal` was not called.
        """
        if self.causal_layout is None or not all(map(is_causal, self.transformers.values())):
            raise ConfigError("This backbone is not causal: call enable_causal(layout) first.")
        return self.causal_layout

    def block_causal(self, grid: Grid) -> CausalContext:
        """Return the context of a whole clip at once, every chunk seeing itself and its past.

        Args:
            grid: Tokens of the clip.
        """
        seen = self.layout.visible(grid.frames)
        return self._masked(seen, grid, rotary_table(self._transformer, grid))

    def teacher_forcing(self, grid: Grid) -> CausalContext:
        """Return the context of a clip that stands twice along its frames: clean, then noised (arXiv:2412.07772).

        Args:
            grid: Tokens of the clip itself; the forward pass has twice as many.
        """
        if self.causal_plan is not None:
            raise ConfigError("Teacher forcing does not go with an attention plan: leave the plan to the roll-out.")
        seen = self.layout.visible_after_clean(grid.frames)
        cosines, sines = rotary_table(self._transformer, grid)
        return self._masked(seen, grid, (cosines.repeat(1, 2, 1, 1), sines.repeat(1, 2, 1, 1)))

    def start_rollout(self, grid: Grid, cond: Conditioning) -> RolloutState:
        """Return the empty state of a new roll-out.

        Args:
            grid: Tokens of the clip; its height and width hold for all chunks.
            cond: Encoded prompts of the batch.
        """
        facts = CacheFacts(grid.height, grid.width, len(cond), self.adapter_in_use())
        return RolloutState(KeyValueCache(facts, self.layout), cond)

    def next_chunk(
        self,
        state: RolloutState,
        grid: Grid,
        cond: Conditioning,
        *,
        recorder: Recorder | None = None,
        text: Recorder | None = None,
    ) -> CausalContext:
        """Return the context of the next chunk.

        Args:
            state: Of this roll-out.
            grid: Tokens of the chunk.
            cond: Encoded prompts that the chunk is made for.
            recorder: Collects the chunk's keys and values.
            text: Collects the projected text.

        Raises:
            ConfigError: The state belongs to another size, batch, prompt or adapter.
        """
        cache = state.cache
        cache.facts.check(CacheFacts(grid.height, grid.width, len(cond), self.adapter_in_use()))
        if cond is not state.cond and not torch.equal(cond.prompt_embeds, state.cond.prompt_embeds):
            raise ConfigError("This key-value cache was computed for other prompts: start a new roll-out for new ones.")
        num_layers = self.num_layers
        past = tuple(kv for kv in map(cache.layer, range(num_layers)) if kv is not None) if cache.chunks else ()
        whole = Grid(cache.num_frames + grid.frames, grid.height, grid.width)
        return CausalContext(
            rotary_table(self._transformer, whole),
            layer_masks={layer: mask[..., -grid.num_tokens :, :] for layer, mask in self._windows(whole).items()},
            past=past,
            text=state.text,
            recorder=recorder,
            text_recorder=text,
        )

    def adapter_in_use(self) -> str:
        """Return what tells the active adapter and its strength from another, for caches."""
        for transformer in self.transformers.values():
            for module in transformer.modules():
                if isinstance(module, LoraLayer):
                    if module.disable_adapters:
                        return "none"
                    return ", ".join(f"{name} at {module.scaling[name]:g}" for name in module.active_adapters)
        return "none"

    @property
    def _transformer(self) -> nn.Module:
        return next(iter(self.transformers.values()))

    def _masked(self, seen: Tensor, grid: Grid, rotary: tuple[Tensor, Tensor]) -> CausalContext:
        device = next(self._transformer.parameters()).device
        mask = token_mask(seen, grid.frame_tokens).to(device)
        windows = {layer: window & mask for layer, window in self._windows(grid).items()}
        return CausalContext(rotary, None if bool(seen.all()) else mask, windows)

    def _windows(self, grid: Grid) -> Mapping[int, Tensor]:
        """Return the windows of the plan as masks over heads, (1, heads or 1, N, N)."""
        if self.causal_plan is None:
            return {}
        device = next(self._transformer.parameters()).device
        masks = {}
        for layer, window in enumerate(self.causal_plan.layers):
            if isinstance(window, Full):
                continue
            allowed = window.mask(grid)
            if len(allowed) > 1:
                heads = [window.order_of_head(head, self.num_heads) for head in range(self.num_heads)]
                allowed = allowed[heads]
            masks[layer] = allowed[None].to(device)
        return masks
