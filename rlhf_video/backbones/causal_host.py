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
    windows: Mapping[int, Tensor]
    """Layer -> mask of a plan's windows over the whole clip, (1, heads or 1, N, N)."""
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
            ConfigError: The model is no Wan transformer, has two experts, processors of others, or a plan that does
                not go with causality; nothing is changed then.
        """
        if len(self.transformers) > 1:
            raise ConfigError("Causal roll-outs are built for one transformer: this model has two experts.")
        plan, backend = self.policy_plan, self.attention_backend
        if plan is not None and plan.dense_sigmas is not None:
            raise ConfigError(
                "An attention plan whose windows are off at some noise levels does not go with causal attention, where "
                "one pass holds clean and noised frames: set attention.dense_sigmas: null."
            )
        if plan is not None and layout.window_frames is not None:
            raise ConfigError(
                "An attention plan is laid out over the whole clip, and causal.window_frames moves positions: set "
                "causal.window_frames: null, or leave the plan out."
            )
        on_model = self.attention_plan
        self.apply_attention(None, backend=backend)
        try:
            make_causal(self._transformer)
        except ConfigError:
            self.apply_attention(on_model, backend=backend)
            raise
        self.causal_layout, self.causal_plan = layout, plan

    def disable_causal(self) -> None:
        """Put the stock processors back; the plan that causal passes followed is on the model again."""
        restore_bidirectional(self._transformer)
        plan, self.causal_layout, self.causal_plan = self.causal_plan, None, None
        if plan is not None:
            self.apply_attention(plan, backend=self.attention_backend)

    @property
    def policy_plan(self) -> AttentionPlan | None:
        """The plan that the adapter runs under, in causal passes or in all; None where that is dense attention."""
        return self.causal_plan or self.attention_plan

    @property
    def layout(self) -> CausalLayout:
        """The layout in force.

        Raises:
            ConfigError: `enable_causal` was not called.
        """
        if self.causal_layout is None or not is_causal(self._transformer):
            raise ConfigError("This backbone is not causal: call enable_causal(layout) first.")
        return self.causal_layout

    def block_causal(self, grid: Grid) -> CausalContext:
        """Return the context of a whole clip at once, every chunk seeing itself and its past.

        Args:
            grid: Tokens of the clip.

        Raises:
            ConfigError: The clip is shorter than a chunk, or outgrows a window that has a sink.
        """
        seen = self._layout_for(grid).visible(grid.frames)
        return self._masked(seen, grid, rotary_table(self._transformer, grid))

    def teacher_forcing(self, grid: Grid) -> CausalContext:
        """Return the context of a clip that stands twice along its frames: clean, then noised (arXiv:2412.07772).

        Args:
            grid: Tokens of the clip itself; the forward pass has twice as many.

        Raises:
            ConfigError: As `block_causal`, or there is an attention plan.
        """
        if self.causal_plan is not None:
            raise ConfigError("Teacher forcing does not go with an attention plan: leave the plan to the roll-out.")
        seen = self._layout_for(grid).visible_after_clean(grid.frames)
        cosines, sines = rotary_table(self._transformer, grid)
        return self._masked(seen, grid, (cosines.repeat(1, 2, 1, 1), sines.repeat(1, 2, 1, 1)))

    def start_rollout(self, grid: Grid, cond: Conditioning) -> RolloutState:
        """Return the empty state of a new roll-out.

        Args:
            grid: Tokens of the clip that will be made.
            cond: Encoded prompts of the batch.
        """
        facts = CacheFacts(grid.height, grid.width, len(cond), self.adapter_in_use())
        return RolloutState(KeyValueCache(facts, self.layout), cond, self._windows(grid))

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
        window = grid._replace(frames=cache.num_frames + grid.frames)
        first = cache.num_made * grid.frame_tokens
        stop = first + grid.num_tokens  # the past is whole where there are windows of a plan
        return CausalContext(
            rotary_table(self._transformer, window),
            layer_masks={layer: mask[..., first:stop, :stop] for layer, mask in state.windows.items()},
            past=cache.chunks,
            text=state.text,
            recorder=recorder,
            text_recorder=text,
        )

    def adapter_in_use(self) -> str:
        """Return what tells the active adapter and its strength from another, for caches."""
        for layer in self._transformer.modules():
            if not isinstance(layer, LoraLayer):
                continue
            if layer.disable_adapters:  # they are switched all together
                return "none"
            if names := [name for name in layer.active_adapters if name in layer.scaling]:
                return ", ".join(f"{name} at {layer.scaling[name]:g}" for name in names)
        return "none"

    def _layout_for(self, grid: Grid) -> CausalLayout:
        """Return the layout for a clip in one pass, where every frame has one position for all that see it."""
        layout = self.layout
        if layout.window_frames is not None and layout.sink_frames and grid.frames > layout.window_frames:
            raise ConfigError(
                f"A clip of {grid.frames} latent frames is longer than causal.window_frames={layout.window_frames}: "
                "in a roll-out the sink then moves along with the window, which one pass over the clip cannot show. "
                f"Train on clips of at most {layout.window_frames} latent frames, or set causal.sink_frames: 0."
            )
        return layout

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
