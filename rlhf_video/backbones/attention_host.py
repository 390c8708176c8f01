"""What a backbone does with attention plans: put one on all its transformers, switch it off, agree with an adapter."""

import contextlib
import logging
from collections.abc import Iterator, Mapping

from torch import nn

from rlhf_video.attention import AttentionPlan, PlanHandle, apply_attention_plan, find_plan
from rlhf_video.attention.plan_text import text_of_layers, text_of_window
from rlhf_video.errors import AdapterError, ConfigError
from rlhf_video.lora.files import DENSE, AttentionRule

logger = logging.getLogger(__name__)


class AttentionHost:
    """Transformers of one depth whose self-attention is dense, or follows one plan."""

    transformers: dict[str, nn.Module]
    num_layers: int
    """Layers of self-attention over the video tokens, in each transformer."""
    num_heads: int
    """Heads of each of these layers."""
    attention_backend: str = "auto"
    """What computes the windows, as last asked for."""

    @property
    def attention_handles(self) -> tuple[PlanHandle, ...]:
        """One for each transformer that follows a plan, in their order, whoever put it on."""
        handles = (find_plan(transformer) for transformer in self.transformers.values())
        return tuple(handle for handle in handles if handle is not None)

    @property
    def attention_plan(self) -> AttentionPlan | None:
        """The plan that `velocity` computes; None where attention is dense."""
        handles = self.attention_handles
        if not handles:
            return None
        plan = handles[0].plan
        if len(handles) < len(self.transformers) or any(handle.plan != plan for handle in handles):
            raise ConfigError(
                "The two experts run different attention plans: put one on both, backbone.apply_attention."
            )
        return None if plan.is_full else plan

    def apply_attention(self, plan: AttentionPlan | None, *, backend: str = "auto") -> None:
        """Make all transformers follow a plan, in sampling and in training alike; weights stay what they are.

        Call it before the distributed runtime wraps the transformers.

        Args:
            plan: Replaces the one before; None, or a plan of full layers alone, restores the stock attention.
            backend: Name of an attention back-end, or "auto".

        Raises:
            ConfigError: The plan is for another depth or head count, or the back-end is unknown.
        """
        if plan is not None:
            plan.check(num_layers=self.num_layers, num_heads=self.num_heads)
        for handle in self.attention_handles:
            handle.restore()
        self.attention_backend = backend
        if plan is None or plan.is_full:
            return
        try:
            for transformer in self.transformers.values():
                apply_attention_plan(transformer, plan, backend=backend)
        except ConfigError:
            for handle in self.attention_handles:  # not one expert under windows and the other without
                handle.restore()
            raise

    @contextlib.contextmanager
    def dense_attention(self) -> Iterator[None]:
        """Run with the stock attention on the same weights: inside, the plan is off."""
        with contextlib.ExitStack() as stack:
            for handle in self.attention_handles:
                stack.enter_context(handle.disabled())
            yield

    @property
    def policy_plan(self) -> AttentionPlan | None:
        """The plan that the adapter runs under; None where that is dense attention."""
        return self.attention_plan

    def attention_record(self) -> dict[str, object] | None:
        """Return the plan as plain values for an adapter's header; None where attention is dense."""
        plan = self.policy_plan
        return None if plan is None else plan.to_json()

    def match_attention(self, recorded: Mapping[str, object] | None, rule: AttentionRule) -> None:
        """Compare the plan an adapter was trained under with this model's, and do what the rule says.

        Args:
            recorded: What `attention_record` returned when the adapter was saved.
            rule: On a difference, "check" refuses, "apply" puts the adapter's plan on this model, "ignore" warns.

        Raises:
            AdapterError: The plans differ and the rule is "check".
            ConfigError: The record is no plan, or no plan for this model.
        """
        trained = None if recorded is None else AttentionPlan.from_json(recorded)
        if trained is not None and trained.is_full:
            trained = None
        own = self.policy_plan
        if trained == own:
            return
        if rule == "apply":
            self.apply_attention(trained, backend=self.attention_backend)
            logger.info("Attention is now the adapter's: %s", _name(trained))
            return
        difference = f"The adapter was trained with {_name(trained)}, this model runs {_name(own)}"
        if rule == "check":
            raise AdapterError(
                f"{difference}: its clips would not be the ones it was trained for. Load it with attention='apply' to "
                "take the adapter's plan, or with attention='ignore' to mix them on purpose."
            )
        logger.warning("%s: the adapter is used outside what it was trained for.", difference)


def describe_plan(plan: AttentionPlan | None) -> str:
    """Return a plan in one line for cards and messages; "full" is dense attention."""
    if plan is None or plan.is_full:
        return DENSE
    parts = [
        f"layers {text_of_layers(layers)} {text_of_window(window)}" for window, layers in plan.layers_of_window.items()
    ]
    if plan.dense_sigmas is not None:
        parts.append("dense at noise levels {:g} to {:g}".format(*plan.dense_sigmas))
    return f"{'; '.join(parts)} (fingerprint {plan.fingerprint})"


def _name(plan: AttentionPlan | None) -> str:
    return "dense attention" if plan is None else f"the attention plan {describe_plan(plan)}"
