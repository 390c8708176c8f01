"""What the two recorders share: stubs for what an inference does not use, tiny models, samples of tensors."""

import hashlib
import importlib.machinery
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from transformers import Qwen2VLConfig, Qwen2VLImageProcessor, Qwen2VLProcessor

from rewards.random_weights import random_array

CHAT = (
    "{% for message in messages %}{% if loop.first %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}<|im_start|>{{ message['role'] }}\n{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif content['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% else %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""chat_template.json of Qwen2-VL-2B-Instruct, without the branches for text-only messages and numbered pictures."""


def install_stubs() -> None:
    """Put modules in place that the originals import and inference does not need, and torchvision's `resize`."""

    def resize(image: torch.Tensor, size: list[int], interpolation: object, antialias: bool) -> torch.Tensor:
        if list(image.shape[-2:]) == list(size):
            return image
        resized = functional.interpolate(image.float(), size=size, mode="bicubic", antialias=antialias)
        if image.dtype == torch.uint8:
            resized = resized.clamp(0, 255).round().to(torch.uint8)
        return resized

    _stub("torchvision", __version__="0.28.0", io=None)
    _stub("torchvision.io")
    _stub("torchvision.transforms", InterpolationMode=types.SimpleNamespace(BICUBIC="bicubic"))
    _stub("torchvision.transforms.functional", resize=resize)
    sys.modules["torchvision"].io = sys.modules["torchvision.io"]
    sys.modules["torchvision"].transforms = sys.modules["torchvision.transforms"]
    sys.modules["torchvision.transforms"].functional = sys.modules["torchvision.transforms.functional"]


def _stub(name: str, **members: object) -> None:
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    module.__path__ = []
    vars(module).update(members)
    sys.modules[name] = module


def processor(stand_in: dict[str, object], instruction: str, reward_tokens: list[str]) -> Qwen2VLProcessor:
    """Return Qwen2-VL's processor around the stand-in tokenizer, with reward tokens added as the originals add them."""
    tokenizer = stand_in["stand_in_tokenizer"](instruction)
    tokenizer.padding_side, tokenizer.model_input_names = "right", ["input_ids", "attention_mask"]
    tokenizer.add_special_tokens({"additional_special_tokens": reward_tokens})
    Qwen2VLProcessor.tokenizer_class = "PreTrainedTokenizerFast"  # it would insist on Qwen's own class
    return Qwen2VLProcessor(Qwen2VLImageProcessor(), tokenizer, chat_template=CHAT)


def build(
    model_class: type,
    stand_in: dict[str, object],
    processor: Qwen2VLProcessor,
    reward_tokens: list[str],
    seed: int,
    *,
    wrap: Callable[[torch.nn.Module], torch.nn.Module] = lambda model: model,
    **options: object,
) -> torch.nn.Module:
    """Build the original's model with seeded weights that bfloat16 holds, and its position tables in bfloat16."""
    tokenizer = processor.tokenizer
    config = Qwen2VLConfig(**stand_in["tiny_config"](len(tokenizer)), attn_implementation="sdpa")
    config.image_token_id = tokenizer.convert_tokens_to_ids("<|image_pad|>")
    config.video_token_id = tokenizer.convert_tokens_to_ids("<|video_pad|>")
    config.use_cache = False
    config.pad_token_id = tokenizer.pad_token_id
    ids = tokenizer.convert_tokens_to_ids(reward_tokens)
    model = wrap(model_class(config, special_token_ids=ids, **options))
    state = {key: torch.from_numpy(random_array(key, value.shape, seed)) for key, value in model.state_dict().items()}
    model.load_state_dict(state)
    model.to(torch.bfloat16)
    for parameter in model.parameters():
        parameter.data = parameter.data.float()
    return model.eval()


def watch_head(model: torch.nn.Module) -> Callable[[], torch.Tensor]:
    """Return a function that tells the hidden states of the first 64 tokens that the head was last given."""
    head = dict(model.named_modules()).get("base_model.model.rm_head") or model.rm_head
    seen = {}
    head.register_forward_hook(lambda module, inputs, output: seen.update(hidden=inputs[0].detach()))
    return lambda: seen["hidden"][:, :64]


def samples(tensor: torch.Tensor) -> dict[str, object]:
    """Return a tensor's shape, norm, and 64 entries at places that depend on its size only."""
    flat = tensor.detach().double().flatten()
    places = np.linspace(0, len(flat) - 1, 64).astype(int)
    return {"shape": list(tensor.shape), "norm": float(flat.norm()), "values": flat[places].tolist()}


def digests(batch: dict[str, torch.Tensor]) -> list[str]:
    """Return a hash of each row's token ids, padding left out."""
    rows = zip(batch["input_ids"], batch["attention_mask"], strict=True)
    return [hashlib.sha256(",".join(map(str, ids[mask.bool()].tolist())).encode()).hexdigest() for ids, mask in rows]


def write(name: str, seed: int, cases: list[dict[str, object]], **more: object) -> None:
    """Write the golden file."""
    content = {"torch": torch.__version__, "transformers": "4.45.2", "seed": seed, "cases": cases, **more}
    path = Path(__file__).parent / "golden" / f"{name}.json"
    path.write_text(json.dumps(content, indent=1) + "\n")
