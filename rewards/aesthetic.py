"""LAION's aesthetic predictors: a linear map of CLIP ViT-L/14's image embedding (Schuhmann 2022).

Two heads: the linear one (version 1, VBench's aesthetic quality) and the "improved" MLP (version 2). The MLP has no
activation between its layers, so it is one linear map, too, and is loaded as that.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPConfig, CLIPVisionModelWithProjection
from transformers.initialization import no_init_weights

from rewards.architectures import read_config
from rewards.base import FramePolicy, RewardOutput, RewardSpec, parse_frame_policy
from rewards.clip_towers import OPENAI_L_14, transformers_state
from rewards.errors import RewardError
from rewards.frame_scores import FrameReduction, check_frames_per_pass, parse_frame_reduction, score_frames
from rewards.ledger import LEDGER
from rewards.pretrained import square_size
from rewards.tower_inputs import SquareInput
from rewards.weight_files import load_strictly, read_state, resolve

_MLP_LAYERS = (0, 2, 4, 6, 7)
"""Places of the linear layers in the MLP; the others are dropout."""
_TEXT_TOWER = ("text_model.", "text_projection.", "logit_scale")


class AestheticModel(nn.Module):
    """CLIP's vision tower and a linear head on its unit embedding."""

    def __init__(self, config: CLIPConfig) -> None:
        """Build the model.

        Args:
            config: Of the CLIP.
        """
        super().__init__()
        vision = config.vision_config
        vision.projection_dim = config.projection_dim
        self.clip = CLIPVisionModelWithProjection(vision)
        self.head = nn.Linear(config.projection_dim, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map pixels (n, 3, size, size) to scores (n,)."""
        embedding = functional.normalize(self.clip(pixel_values=pixels).image_embeds, dim=-1)
        return cast(Tensor, self.head(embedding)[:, 0])


def linear_head(state: Mapping[str, Tensor], *, source: str | Path) -> dict[str, Tensor]:
    """Return weight (1, dim) and bias (1,) of either head.

    Args:
        state: {"weight", "bias"}, or the MLP's "layers.0.weight" and so on.
        source: For the message.

    Raises:
        RewardError: Neither head.
    """
    if set(state) == {"weight", "bias"}:
        return dict(state)
    names = {f"layers.{place}.{kind}" for place in _MLP_LAYERS for kind in ("weight", "bias")}
    if set(state) != names:
        known = "weight and bias, or the MLP's layers.0.weight to layers.7.bias"
        raise RewardError(f"{source} is no aesthetic head: expected {known}, got {', '.join(sorted(state)[:4])}.")
    weight, bias = state["layers.0.weight"].double(), state["layers.0.bias"].double()
    for place in _MLP_LAYERS[1:]:
        matrix, shift = state[f"layers.{place}.weight"].double(), state[f"layers.{place}.bias"].double()
        weight, bias = matrix @ weight, matrix @ bias + shift
    return {"weight": weight, "bias": bias}


class Aesthetic:
    """How much people like a frame's looks, whatever the prompt: 1 to 10 in training, 4 to 7 is usual.

    The range is exact: bias plus or minus the length of the linear map. Higher is better.
    """

    def __init__(
        self,
        weights: str | Path = "aesthetic_mlp",
        *,
        clip_weights: str | Path = "clip_vit_l_14",
        config: str | Path | None = None,
        frames: FramePolicy | str | Mapping[str, object] = "all",
        reduction: FrameReduction | str | Mapping[str, object] = "mean",
        frames_per_pass: int | None = None,
        accept_licence: bool = False,
    ) -> None:
        """Load the model.

        Args:
            weights: The head: "aesthetic_mlp", "aesthetic_linear", or a file of either form.
            clip_weights: Name in the ledger, or a file: the state dict of a `transformers.CLIPModel`.
            config: `config.json` of another architecture, or its folder; None for ViT-L/14.
            frames: "all", "first", or {kind: uniform, count: 8}.
            reduction: "mean", "min", "first" or {kind: softmin, temperature: 0.1}: from frames to the clip.
            frames_per_pass: Frames through the vision tower at a time, None for all; bounds memory, changes no score.
            accept_licence: Not needed for the published weights (MIT, Apache-2.0).

        Raises:
            RewardError: Missing, corrupt or truncated weights, another architecture, a bad option.
        """
        self._frames_per_pass = check_frames_per_pass(frames_per_pass)
        self._reduction = parse_frame_reduction(reduction)
        self._model = _load(weights, clip_weights, config, accept_licence)
        self._pixels = SquareInput(square_size(self._model.clip.config.image_size, clip_weights), "crop")
        head = self._model.head
        middle, reach = float(head.bias), float(head.weight.norm())
        self.spec = RewardSpec(
            name="aesthetic",
            version="1",
            dimensions=("aesthetic",),
            range=(middle - reach, middle + reach),
            higher_is_better=True,
            is_differentiable=True,
            frames=parse_frame_policy(frames),
            resolution=(self._pixels.size, self._pixels.size),
            licence=LEDGER[str(weights)].licence if str(weights) in LEDGER else "see the weights",
            paper="arXiv:2210.08402",
            uses_prompt=False,
        )

    def __call__(self, video: Tensor, prompts: Sequence[str], *, fps: float) -> RewardOutput:
        """Score a batch, see `Reward`.

        Raises:
            RewardError: Input of the wrong form.
        """
        return score_frames(
            video,
            prompts,
            fps=fps,
            spec=self.spec,
            model=self._model,
            score=self._score,
            reduction=self._reduction,
            frames_per_pass=self._frames_per_pass,
        )

    def _score(self, frames: Tensor) -> Tensor:
        """Return the score (n,) of frames (n, 3, height, width)."""
        return cast(Tensor, self._model(self._pixels(frames)))


def _load(
    weights: str | Path, clip_weights: str | Path, config: str | Path | None, accept_licence: bool
) -> AestheticModel:
    architecture = read_config(config, CLIPConfig, OPENAI_L_14)
    head_path = resolve(weights, accept_licence=accept_licence)
    head = linear_head(read_state(head_path, key="state_dict"), source=head_path)
    clip_path = resolve(clip_weights, accept_licence=accept_licence)
    clip = transformers_state(read_state(clip_path, key="state_dict"))
    with no_init_weights():  # every weight comes from the files
        model = AestheticModel(architecture)
    load_strictly(model.clip, {k: v for k, v in clip.items() if not k.startswith(_TEXT_TOWER)}, source=clip_path)
    load_strictly(model.head, {name: value.to(torch.float32) for name, value in head.items()}, source=head_path)
    return model.requires_grad_(False).eval()
