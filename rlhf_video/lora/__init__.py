"""Adapters: attaching, switching, saving, converting and describing them."""

from rlhf_video.lora.adapter import (
    LoraConfig,
    adapter_layers,
    adapter_parameters,
    adapter_state,
    attach,
    load_adapter_state,
)
from rlhf_video.lora.card import AdapterCard, read_card, write_card
from rlhf_video.lora.ema import Ema, FrozenAdapter
from rlhf_video.lora.files import load_adapter, read_adapter_metadata, recorded_attention, save_adapter
from rlhf_video.lora.switches import adapter_off, adapter_scale

__all__ = [
    "AdapterCard",
    "Ema",
    "FrozenAdapter",
    "LoraConfig",
    "adapter_layers",
    "adapter_off",
    "adapter_parameters",
    "adapter_scale",
    "adapter_state",
    "attach",
    "load_adapter",
    "load_adapter_state",
    "read_adapter_metadata",
    "read_card",
    "recorded_attention",
    "save_adapter",
    "write_card",
]
