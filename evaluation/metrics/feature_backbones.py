"""From a clip to features for distances of sets: frames by CLIP, whole clips by X-CLIP or V-JEPA 2. No torchvision."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from transformers import CLIPModel, VJEPA2Config, VJEPA2Model, XCLIPModel

from evaluation.base import DecodedClip, SkipClipError
from evaluation.metrics.pixels import Device, per_frame, pick_device
from rewards.architectures import read_config
from rewards.base import FramePolicy, parse_frame_policy
from rewards.pretrained import load_model
from rewards.tower_inputs import SquareInput
from rewards.v_jepa_surprise import IMAGENET_MEAN, IMAGENET_STD
from rewards.video_ops import centre_crop, normalise, resize_short_side
from rewards.weight_files import load_strictly, read_state, resolve
from rlhf_video.errors import ConfigError

Backbone = Literal["clip_frames", "xclip_clips", "v_jepa_clips"]
"""clip_frames: projected CLIP embedding of each chosen frame (Kynkaanniemi et al. 2023, arXiv:2203.06026, put CLIP in
the place of Inception); xclip_clips: X-CLIP's embedding of the whole clip; v_jepa_clips: V-JEPA 2's encoder, mean over
tokens (Luo et al. 2025, arXiv:2410.05203, put V-JEPA in the place of I3D). The first two were trained on cosines, so
only their direction means anything: they are scaled to the length sqrt(width)."""

Frames = FramePolicy | str | Mapping[str, object]
Encoder = Callable[[Tensor], Tensor]
"""8-bit frames (n, 3, height, width) -> features (items, width)."""


class FeatureBackbone:
    """A model, the frames it looks at, and its name with that of its weights."""

    def __init__(
        self,
        backbone: Backbone,
        model: str | Path,
        *,
        config: str | Path | None = None,
        frames: Frames | None = None,
        device: Device = "auto",
    ) -> None:
        """Load the model.

        Args:
            backbone: See `Backbone`.
            model: `CLIPModel` folder (clip_frames), `XCLIPModel` folder (xclip_clips), or for v_jepa_clips the file of
                a `VJEPA2Model` or its name in `rewards.ledger`.
            config: `config.json` of a `VJEPA2Model`, or its folder; None for ViT-L at 256 pixels.
            frames: Frames to look at, for example {kind: uniform, count: 8}; None takes all (clip_frames), as many as
                the model was made for (xclip_clips), or 16 (v_jepa_clips).
            device: Where it computes.

        Raises:
            ConfigError: Unknown backbone or device, or frames that do not fit the model.
            RewardError: Absent or wrong weights, or unreadable frames.
        """
        if backbone not in get_args(Backbone):
            raise ConfigError(f"Unknown feature backbone {backbone!r}. Known: {', '.join(get_args(Backbone))}.")
        self._device = pick_device(device)
        self.name = f"{backbone}_{Path(model).stem}"
        wanted = None if frames is None else parse_frame_policy(frames)
        if backbone == "v_jepa_clips":
            self._encode, self.frames = self._v_jepa(model, config, wanted)
        elif config is not None:
            raise ConfigError(f"config={config} is for v_jepa_clips: the folder of {backbone} holds its own.")
        elif backbone == "xclip_clips":
            self._encode, self.frames = self._xclip(model, wanted)
        else:
            self._encode, self.frames = self._clip(model), wanted or FramePolicy("all")

    @torch.no_grad()
    def __call__(self, clip: DecodedClip) -> NDArray[np.float32]:
        """Return the features of a clip, shape (items, width).

        Raises:
            SkipClipError: The model gave a feature that is not finite.
        """
        chosen = self.frames.select(len(clip.frames), fps=clip.fps)
        features = self._encode(clip.frames[list(chosen)]).float().cpu()
        if not bool(torch.isfinite(features).all()):
            raise SkipClipError(f"{self.name} gave features that are not finite")
        return cast(NDArray[np.float32], features.numpy())

    def _pixels(self, frames: Tensor) -> Tensor:
        return frames.to(self._device, torch.float32) / 255.0

    def _clip(self, folder: str | Path) -> Encoder:
        model = load_model(folder, CLIPModel).to(self._device)
        square = SquareInput.of(model.config.vision_config.image_size, fit="crop", folder=folder)

        def embed(frames: Tensor) -> Tensor:
            pooled = model.vision_model(pixel_values=square(self._pixels(frames))).pooler_output
            return _direction(model.visual_projection(pooled))

        return lambda frames: per_frame(embed, frames)

    def _xclip(self, folder: str | Path, wanted: FramePolicy | None) -> tuple[Encoder, FramePolicy]:
        model = load_model(folder, XCLIPModel).to(self._device)
        vision = model.config.vision_config
        policy = FramePolicy("uniform", vision.num_frames)
        if wanted not in (None, policy):
            raise ConfigError(f"{folder} takes exactly {vision.num_frames} uniform frames: leave out 'frames'.")
        square = SquareInput.of(vision.image_size, fit="crop", folder=folder)

        def encode(frames: Tensor) -> Tensor:
            pooled = model.vision_model(pixel_values=square(self._pixels(frames))).pooler_output
            return _direction(model.mit(model.visual_projection(pooled)[None]).pooler_output)

        return encode, policy

    def _v_jepa(
        self, weights: str | Path, config: str | Path | None, wanted: FramePolicy | None
    ) -> tuple[Encoder, FramePolicy]:
        architecture = read_config(config, VJEPA2Config, {})
        policy, tubelet = wanted or FramePolicy("uniform", 16), architecture.tubelet_size
        if policy.kind != "uniform" or (policy.count or 0) % tubelet:
            raise ConfigError(
                f"V-JEPA sees {tubelet} frames per token: frames must be {{kind: uniform, count: N}} with N a multiple "
                f"of {tubelet}, for example 16."
            )
        path = resolve(weights)
        model = VJEPA2Model(architecture)
        load_strictly(model, read_state(path), source=path)
        model.to(self._device)
        size = architecture.crop_size

        def encode(frames: Tensor) -> Tensor:
            # V-JEPA 2's own preprocessing, as in rewards/v_jepa_surprise.py.
            whole = resize_short_side(self._pixels(frames), size * 256 // 224, mode="bilinear")
            pixels = normalise(centre_crop(whole, (size, size)), IMAGENET_MEAN, IMAGENET_STD)
            return cast(Tensor, model.encoder(pixel_values_videos=pixels[None]).last_hidden_state.mean(dim=1))

        return encode, policy


def _direction(embeddings: Tensor) -> Tensor:
    """Return embeddings (n, width) at the length sqrt(width): x . y / width is then their cosine."""
    return functional.normalize(embeddings, dim=-1) * embeddings.shape[-1] ** 0.5
