"""What a reward offers to whoever trains its weights; training itself is none of a reward's business."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rewards.base import Reward

TOWERS = ("text_model", "vision_model")
"""Modules of CLIPModel and XCLIPModel that hold the features; everything else of them is their head."""


@runtime_checkable
class TrainableReward(Reward, Protocol):
    """A reward built with `trainable=True`: its scores carry gradients to its weights.

    Weights are frozen until somebody lets them require gradients; what is called is what is trained, so the score of a
    trained reward is the score that its folder gives afterwards.
    """

    @property
    def model(self) -> nn.Module:
        """Everything that can be trained."""
        ...

    def head_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that read the score off frozen features."""
        ...

    def save_pretrained(self, folder: Path) -> None:
        """Write the folder that the same reward class loads."""
        ...


@runtime_checkable
class UncertainReward(Protocol):
    """A reward that also says how unsure it is of each score."""

    @property
    def has_uncertainty(self) -> bool:
        """Whether its head has the outputs for it."""
        ...

    def distribution(self, video: Tensor, prompts: Sequence[str], *, fps: float) -> tuple[Tensor, Tensor]:
        """Return mean and log standard deviation of each score, both (batch, dimensions), NaN where not valid."""
        ...


def parameters_outside_towers(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of a CLIPModel or XCLIPModel behind its towers: projections, temperature, X-CLIP's rest."""
    return [value for name, value in model.named_parameters() if name.split(".")[0] not in TOWERS]


def save_folder(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    mean: Sequence[float],
    std: Sequence[float],
) -> None:
    """Write model, tokenizer and image statistics so that `from_pretrained` and this package read them.

    Args:
        folder: Made if missing.
        model: CLIPModel or XCLIPModel.
        tokenizer: Its tokenizer.
        mean: Channel means of its pixels.
        std: Channel deviations.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    for key in ("is_local", "local_files_only"):  # how it was loaded is no fact of the tokenizer
        tokenizer.init_kwargs.pop(key, None)
    tokenizer.save_pretrained(folder)
    size = model.config.vision_config.image_size
    facts: dict[str, object] = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": size}}
    facts |= {"crop_size": {"height": size, "width": size}, "image_mean": list(mean), "image_std": list(std)}
    (folder / "preprocessor_config.json").write_text(json.dumps(facts, indent=2) + "\n")
