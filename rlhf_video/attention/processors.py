"""The stock attention processors of diffusers, with windows where they call attention.

A processor projects, normalises and rotates, calls one attention function, and projects back. Only that one call is
ours: a subclass is made of the stock class whose `__call__` is the stock code over a copy of its globals, in which
`dispatch_attention_fn` or `F.scaled_dot_product_attention` is ours. So no model code is repeated here, changes in
diffusers arrive by themselves, LoRA on the projections is untouched, and a layer that attends to everything calls the
stock function with the stock arguments: bit for bit the stock model, on the attention back-end set there.
Five processors of our own, the alternative, would be 150 lines that have to follow diffusers.

`torch.compile` traces the rebuilt code (tested, one graph for each block). It needs three things: the state is
plain values on the processor, not in the globals, or each layer would compile alone; the copy has no `__name__`, or
guards would look up the stock module; the signature is the stock one, by which modules filter their arguments.
Letters: B batch, N tokens, S heads, D head_dim.
"""

import functools
import inspect
import threading
import types
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from rlhf_video.attention.context import AttentionContext, LayerSlot, SlottedProcessor
from rlhf_video.attention.problem import Problem
from rlhf_video.attention.window_spec import WindowSpec
from rlhf_video.attention.windowed import attend_in_windows
from rlhf_video.errors import ConfigError

_Attention = Callable[..., Tensor]


class _Running(threading.local):
    processor: "WindowedProcessor | None" = None


_running = _Running()
"""Whose stock code runs in this thread: that code does not hand its processor on to the attention function."""

_PLAIN = {"dropout_p": 0.0, "is_causal": False, "enable_gqa": False, "parallel_config": None}
"""Options of the stock attention functions, at the only values that windows know."""


class WindowedProcessor(SlottedProcessor):
    """What the subclasses made here have in common."""

    slot: LayerSlot
    stock: Any
    """The processor that this one stands for."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle by the stock class: the class itself is made at run time."""
        return _blank, (type(self.stock),), self.__dict__


def windowed_processor(stock: Any, backend: str) -> Any:
    """Return a processor like a stock one, with a slot for the layer's window.

    Args:
        stock: A processor of diffusers; its settings are taken over.
        backend: Name of the back-end, as in `windowed_attention`.

    Raises:
        ConfigError: It is no processor of diffusers, or one that calls no attention function we know.
    """
    processor = _blank(type(stock))
    processor.__dict__.update(stock.__dict__)
    processor.slot, processor.stock = LayerSlot(backend), stock
    return processor


def stock_processor(processor: Any) -> Any:
    """Return the stock processor, with settings made on ours in the meantime (`set_attention_backend`)."""
    settings = {name: value for name, value in processor.__dict__.items() if name not in ("slot", "stock", "layer")}
    processor.stock.__dict__.update(settings)
    return processor.stock


def _blank(stock_class: type) -> Any:
    return object.__new__(_windowed_class(stock_class))


@functools.cache
def _windowed_class(stock_class: Any) -> type[Any]:
    stock_call = stock_class.__call__
    rebuilt = types.FunctionType(
        stock_call.__code__, _scope(stock_class), "__call__", stock_call.__defaults__, stock_call.__closure__
    )
    rebuilt.__kwdefaults__ = stock_call.__kwdefaults__

    def call(self: WindowedProcessor, *args: Any, **kwargs: Any) -> Any:
        _running.processor = self
        try:
            return rebuilt(self, *args, **kwargs)
        finally:
            _running.processor = None

    call.__signature__ = inspect.signature(stock_call)  # type: ignore[attr-defined]
    return type(f"Windowed{stock_class.__name__}", (WindowedProcessor, stock_class), {"__call__": call})


def _scope(stock_class: Any) -> dict[str, Any]:
    """Return the globals of a processor's `__call__`, with our attention function in the place of the stock one."""
    if stock_class.__module__.startswith("diffusers.") and isinstance(stock_class.__call__, types.FunctionType):
        names = stock_class.__call__.__code__.co_names
        scope = {name: value for name, value in stock_class.__call__.__globals__.items() if name != "__name__"}
        if "dispatch_attention_fn" in names:
            return {**scope, "dispatch_attention_fn": _by_plan(scope["dispatch_attention_fn"])}
        if "scaled_dot_product_attention" in names and scope.get("F") is functional:
            ours = {**vars(functional), "scaled_dot_product_attention": _by_plan_heads_first}
            return {**scope, "F": types.SimpleNamespace(**ours)}
    raise ConfigError(
        f"Attention plans stand in for the stock processors of diffusers, and {stock_class.__name__} is none that they "
        "know: put the stock one back first (module.set_processor), plans come before other changes."
    )


def _by_plan(stock: _Attention) -> _Attention:
    """Return an attention function on (B, N, S, D) that does what the running processor's slot says."""

    def attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **options: Any) -> Tensor:
        assert _running.processor is not None
        slot = _running.processor.slot
        if slot.state is None:
            raise ConfigError(
                "A windowed attention layer runs outside of its transformer's forward pass, where its grid is unknown. "
                "If a backward pass recomputes it, switch on the transformer's own enable_gradient_checkpointing() "
                "instead of another wrapper; if a wrapper calls `.forward`, let it call the transformer itself."
            )
        spec, context = slot.state
        if spec is None:
            return stock(query, key, value, attn_mask=attn_mask, **options)
        _check(attn_mask, context, options)
        windows = functools.partial(_windows, spec, slot.backend, options.get("scale"))
        if not context.dense_items:
            return windows(context, query, key, value)
        dense = list(context.dense_items)
        windowed = [item for item in range(len(query)) if item not in context.dense_items]
        mask = attn_mask if attn_mask is None or len(attn_mask) == 1 else attn_mask[dense]
        parts = [
            stock(query[dense], key[dense], value[dense], attn_mask=mask, **options),
            windows(_of_items(context, windowed), query[windowed], key[windowed], value[windowed]),
        ]
        place = {item: row for row, item in enumerate(dense + windowed)}
        return torch.cat(parts)[[place[item] for item in range(len(query))]]

    return attention


def _windows(
    spec: WindowSpec,
    backend: str,
    scale: float | None,
    context: AttentionContext,
    query: Tensor,
    key: Tensor,
    value: Tensor,
) -> Tensor:
    assert context.grid is not None
    problem = Problem(context.grid, spec, context.text, query.shape[-1] ** -0.5 if scale is None else scale)
    return attend_in_windows(query, key, value, problem, backend=backend)


def _of_items(context: AttentionContext, items: list[int]) -> AttentionContext:
    text = context.text
    if text is None or text.valid is None:
        return context
    return replace(context, text=replace(text, valid=tuple(text.valid[item] for item in items)))


def _check(mask: Tensor | None, context: AttentionContext, options: Mapping[str, Any]) -> None:
    """Refuse what windows would ignore; a text mask is in the context already."""
    if mask is not None and (context.text is None or context.text.valid is None):
        raise ConfigError("This forward pass has an attention mask, which windows do not take: leave it out.")
    for name, value in options.items():
        if name in _PLAIN and value != _PLAIN[name]:
            raise ConfigError(f"Windows do not support {name}={value} of the model's attention call.")


def _heads_first(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **options: Any) -> Tensor:
    """Call torch's attention on (B, N, S, D)."""
    q_BSND, k_BSND, v_BSND = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
    out = functional.scaled_dot_product_attention(q_BSND, k_BSND, v_BSND, attn_mask=attn_mask, **options)
    return out.transpose(1, 2)


_tokens_first_by_plan = _by_plan(_heads_first)


def _by_plan_heads_first(query: Tensor, key: Tensor, value: Tensor, *args: Any, **options: Any) -> Tensor:
    """Stand in for torch's attention, on (B, S, N, D)."""
    q_BNSD, k_BNSD, v_BNSD = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
    return _tokens_first_by_plan(q_BNSD, k_BNSD, v_BNSD, *args, **options).transpose(1, 2)
