"""How differently a CLIP tower sees a clip and its reference, at every depth: LPIPS's recipe without its weights."""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from transformers import CLIPModel

from evaluation.base import MetricSpec
from evaluation.metrics.frame_distance import FrameDistance
from evaluation.metrics.pixels import Device
from rewards.pretrained import load_model
from rewards.tower_inputs import SquareInput
from rewards.video_ops import Fit


class ClipDistance(FrameDistance):
    """Mean over frames, layers and tokens of 1 - cosine between the hidden states of a clip and its reference.

    No unit. Range [0, 2], 0 for equal clips. Lower is better. This is the unweighted form of Zhang et al. 2018
    (arXiv:1801.03924, section 3) on all layers of a CLIP vision tower; it is not LPIPS, whose weights were fitted to
    people's judgements, and numbers of two towers cannot be compared: the name says which one. Float32; the curve has
    one value per frame.
    """

    def __init__(
        self,
        references: str | Path,
        *,
        model: str | Path,
        fit: Fit = "squash",
        device: Device = "auto",
        frames_per_pass: int = 16,
    ) -> None:
        """Load the tower.

        Args:
            references: Folder, see `ReferenceClips`.
            model: `CLIPModel` folder or Hub id, for example assets/sprite-clip.
            fit: How a frame becomes the tower's square; "squash" keeps the whole picture.
            device: Where it computes.
            frames_per_pass: Frames at a time; bounds memory, changes no score.

        Raises:
            DataError: No usable references.
            ConfigError: Unknown device.
            RewardError: No such model, a bad fit, or no number of frames.
        """
        super().__init__(references, device=device, frames_per_pass=frames_per_pass)
        loaded = load_model(model, CLIPModel)
        self._square = SquareInput.of(loaded.config.vision_config.image_size, fit=fit, folder=model)
        self._tower = loaded.vision_model.to(self._device)
        name = f"clip_distance_{Path(model).name}"
        self.spec = MetricSpec(
            name=name,
            version="1",
            family="measure",
            dimensions=(name,),
            unit="1 - cosine",
            higher_is_better=False,
            uses_prompt=False,
            licence="the folder's",
            paper="arXiv:1801.03924",
        )

    def _distance(self, first: Tensor, second: Tensor) -> Tensor:
        pairs = zip(self._read(first), self._read(second), strict=True)
        layers = [1 - functional.cosine_similarity(one, other, dim=-1).mean(dim=1) for one, other in pairs]
        return torch.stack(layers).double().mean(dim=0).cpu()

    def _read(self, frames: Tensor) -> tuple[Tensor, ...]:
        """Return the hidden states (n, tokens, width) after every layer."""
        pixels = self._square(self._pixels(frames))
        states: tuple[Tensor, ...] = self._tower(pixel_values=pixels, output_hidden_states=True).hidden_states
        return states[1:]
