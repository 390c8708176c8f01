"""The adapter card: what an adapter is, how it was made, what it changed and how to use it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rlhf_video.errors import AdapterError
from rlhf_video.lora.files import DENSE

CARD_JSON = "adapter_card.json"
CARD_MARKDOWN = "README.md"


@dataclass(frozen=True, kw_only=True)
class AdapterCard:
    """Facts of one adapter; `write_card` turns them into a model card."""

    title: str
    """One line, for example "Sprite-Wan, reward backpropagation"."""
    base: str
    """Folder or Hub id of the base model."""
    method: str
    """How it was trained, with the paper."""
    command: str
    """The exact command."""
    data: str
    """Prompts and clips it was trained on."""
    config_hash: str
    """`settings.config_hash` of the run's config."""
    licence: str
    """Licence of the weights, as a Hub identifier such as "apache-2.0"."""
    rank: int
    alpha: float
    targets: Sequence[str]
    """Module name endings it attaches to."""
    scale: float = 1.0
    """Recommended strength."""
    table: str = ""
    """Before and after, a Markdown table with its intervals."""
    attention_plan: str = DENSE
    """The attention plan it was trained with, in one line; "full" is dense attention."""
    hardware: str = "not recorded"
    notes: Sequence[str] = ()
    """Limits and side effects, one sentence each."""


def write_card(folder: Path, card: AdapterCard) -> Path:
    """Write README.md (for people and the Hub) and adapter_card.json (the same facts for programs).

    Args:
        folder: The adapter's folder; made if missing.
        card: The facts.

    Returns:
        The path of README.md.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CARD_JSON).write_text(json.dumps(asdict(card), indent=1, ensure_ascii=False) + "\n")
    file = folder / CARD_MARKDOWN
    file.write_text(render_card(card))
    return file


def read_card(folder: Path) -> AdapterCard:
    """Return the card that lies beside an adapter.

    Raises:
        AdapterError: There is none, or it is damaged.
    """
    file = folder / CARD_JSON
    if not file.is_file():
        raise AdapterError(f"{folder} has no {CARD_JSON}: it lies beside every adapter that a training run writes.")
    try:
        return AdapterCard(**json.loads(file.read_text()))
    except (json.JSONDecodeError, TypeError) as error:
        raise AdapterError(f"{file} is damaged: {error}") from error


def card_from_metadata(
    metadata: Mapping[str, object], *, title: str, base: str, licence: str, attention_plan: str = DENSE
) -> AdapterCard:
    """Return a card for an adapter that came without one; what is not known is said to be not recorded.

    Args:
        metadata: The header that `save_adapter` wrote, or {"rank", "alpha", "targets"} of a converted file.
        title: One line.
        base: Folder or Hub id of the base model.
        licence: Hub identifier.
        attention_plan: The plan that `metadata` holds, in one line.
    """
    unknown = "not recorded"
    targets = metadata["targets"]
    return AdapterCard(
        title=title,
        base=base,
        method=str(metadata.get("method", unknown)),
        command=str(metadata.get("command", unknown)),
        data=str(metadata.get("data", unknown)),
        config_hash=str(metadata.get("config_hash", unknown)),
        licence=licence,
        rank=int(str(metadata["rank"])),
        alpha=float(str(metadata["alpha"])),
        targets=tuple(str(target) for target in targets) if isinstance(targets, list | tuple) else (str(targets),),
        attention_plan=attention_plan,
    )


def _attention_use(card: AdapterCard) -> str:
    """Return how to run the adapter under its attention plan; empty where it was trained dense."""
    if card.attention_plan == DENSE:
        return ""
    return f"""
**This adapter was trained under an attention plan** ({card.attention_plan}), which `load_lora_weights` knows nothing
of: the lines above alone run it with dense attention, which it was not trained for. Its file carries the plan; with
rlhf-video installed, put it on the pipeline too (`rlhf_video/generate.py` does so by itself):

```python
from rlhf_video.attention import AttentionPlan, apply_attention_plan
from rlhf_video.lora import read_adapter_metadata

plan = AttentionPlan.from_json(read_adapter_metadata("path/to/this/folder")["attention_plan"])
for transformer in (pipe.transformer, pipe.transformer_2):  # Wan 2.2 has two, Wan 2.1 one
    if transformer is not None:
        apply_attention_plan(transformer, plan)
```

ComfyUI and kohya files have no place for a plan: programs that read those run the adapter dense.
"""


def render_card(card: AdapterCard) -> str:
    """Return the card as Markdown with the Hub's front matter."""
    front = "\n".join(
        (
            "---",
            f"license: {card.licence}",
            f"base_model: {card.base}",
            "library_name: diffusers",
            "pipeline_tag: text-to-video",
            "tags: [lora, text-to-video, rlhf-video]",
            "---",
        )
    )
    results = f"\n## Before and after\n\n{card.table.strip()}\n" if card.table.strip() else ""
    notes = "".join(f"\n- {note}" for note in card.notes)
    limits = f"\n## Limits\n{notes}\n" if notes else ""
    return f"""{front}

# {card.title}

LoRA adapter (rank {card.rank}, alpha {card.alpha:g}) for `{card.base}`. Recommended strength {card.scale:g}.
{results}
## Use

```python
import torch
from diffusers import WanPipeline

pipe = WanPipeline.from_pretrained("{card.base}", torch_dtype=torch.bfloat16)
pipe.load_lora_weights("path/to/this/folder", adapter_name="default")
pipe.set_adapters("default", {card.scale:g})
```
{_attention_use(card)}
## How it was made

| | |
|---|---|
| Base | `{card.base}` |
| Method | {card.method} |
| Command | `{card.command}` |
| Data | {card.data} |
| Config hash | `{card.config_hash}` |
| Hardware | {card.hardware} |
| Attaches to | {", ".join(f"`{target}`" for target in card.targets)} |
| Attention plan | {card.attention_plan} |
| Licence | {card.licence} |
{limits}"""
