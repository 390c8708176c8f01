"""How badly a world model predicts a clip's future from its past (WMReward: Yuan et al. 2026, arXiv:2601.10553).

V-JEPA 2 (Assran et al. 2025, arXiv:2506.09985) encodes the first half of a window of frames, predicts the tokens of the
second half, and is compared with what it encodes there. Objects that vanish, teleport or fall upwards surprise it. So
does nothing about a still clip: its future is its past. Always pair this reward with a motion reward.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from transformers import VJEPA2Config, VJEPA2Model

from rewards.architectures import read_config
from rewards.base import FramePolicy, RewardOutput, RewardSpec, masked_output
from rewards.errors import RewardError
from rewards.inputs import check_clips, full_precision
from rewards.pretrained import follow, in_passes
from rewards.video_ops import centre_crop, normalise, resize_short_side
from rewards.weight_files import load_strictly, read_state, resolve

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Per channel, of V-JEPA 2's own preprocessing."""


class VJepaSurprise:
    """1 - cosine of predicted and encoded future tokens, mean over tokens and sliding windows.

    Range [0, 2], 0 where every prediction is right. LOWER is better. Prediction and target are layer-normalised, and
    the past is encoded without a look at the future, as in WMReward's code; `VJEPA2Model.forward` with masks encodes
    the whole clip and lets the future leak. WMReward cuts the gradient at the prediction; here it is the score's own.
    Frames are taken at the clip's rate. Every step is float32; the model moves to the clip's device and never trains.
    """

    def __init__(
        self,
        weights: str | Path = "v_jepa2_vitl",
        *,
        config: str | Path | None = None,
        window: int = 16,
        context: int = 8,
        stride: int = 2,
        windows_per_pass: int | None = 1,
        accept_licence: bool = False,
    ) -> None:
        """Load the model.

        Args:
            weights: Name in `rewards.ledger`, or the file of a `VJEPA2Model`.
            config: `config.json` of a `VJEPA2Model`, or its folder; None for ViT-L at 256 pixels.
            window: Frames of a window; 16 is WMReward's.
            context: Frames of it that are seen, the others are predicted; 8 is WMReward's.
            stride: Frames from one window to the next; 2 is WMReward's. Frames that fill no window are not looked at.
            windows_per_pass: Windows through the model at a time, None for all; bounds memory, changes no score.
            accept_licence: Not asked by the published weights (MIT).

        Raises:
            RewardError: Missing or wrong weights or config, or an option out of range.
        """
        architecture = read_config(config, VJEPA2Config, {})
        tubelet = architecture.tubelet_size
        if not 0 < context < window or context % tubelet or window % tubelet:
            raise RewardError(
                f"V-JEPA sees {tubelet} frames per token: window and context must be multiples of {tubelet} with "
                f"0 < context < window, got window={window}, context={context}."
            )
        for name, number in (("stride", stride), ("windows_per_pass", windows_per_pass)):
            if number is not None and number < 1:
                raise RewardError(f"{name} must be 1 or more, got {number}.")
        self._window, self._context, self._stride = window, context, stride
        self._windows_per_pass = windows_per_pass
        self._size = architecture.crop_size
        path = resolve(weights, accept_licence=accept_licence)
        self._model = VJEPA2Model(architecture)
        load_strictly(self._model, read_state(path), source=path)
        self.spec = RewardSpec(
            name="v_jepa_surprise",
            version="1",
            dimensions=("surprise",),
            range=(0.0, 2.0),
            higher_is_better=False,
            is_differentiable=True,
            frames=FramePolicy("all"),
            resolution=(self._size, self._size),
            licence="MIT",
            paper="arXiv:2601.10553",
            uses_prompt=False,
        )

    def __call__(self, video: Tensor, prompts: Sequence[str], *, fps: float) -> RewardOutput:
        """Score a batch, see `Reward`.

        Raises:
            RewardError: Input of the wrong form, or fewer frames than a window has.
        """
        clips = check_clips(video, prompts, fps=fps, min_frames=self._window)
        follow(self._model, clips.video)
        with full_precision(clips.video):
            windows = self._prepare(clips.video).unfold(1, self._window, self._stride).movedim(-1, 2)
            surprise = in_passes(self._surprise, (windows.flatten(0, 1),), self._windows_per_pass)
            surprise = surprise.unflatten(0, windows.shape[:2]).mean(dim=1)
        return masked_output({"surprise": surprise}, clips.valid, clips.reasons)

    def _prepare(self, video: Tensor) -> Tensor:
        """Map pixels (batch, frames, 3, height, width) in [0, 1] to the model's normalised square.

        V-JEPA 2's own preprocessing: the short side bilinearly to 256 / 224 of the crop, then the centre.
        """
        resized = resize_short_side(video, self._size * 256 // 224, mode="bilinear")
        return normalise(centre_crop(resized, (self._size, self._size)), IMAGENET_MEAN, IMAGENET_STD)

    def _surprise(self, windows: Tensor) -> Tensor:
        """Return the surprise (n,) at prepared windows (n, window, 3, size, size)."""
        predicted, encoded = (_layer_norm(tokens) for tokens in self._futures(windows))
        return 1 - functional.cosine_similarity(predicted, encoded, dim=-1).mean(dim=1)

    def _futures(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the future tokens as predicted and as encoded, both (n, tokens, width).

        Args:
            windows: (n, window, 3, size, size), prepared.
        """
        past = self._model.encoder(pixel_values_videos=windows[:, : self._context]).last_hidden_state
        whole = self._model.encoder(pixel_values_videos=windows).last_hidden_state
        num_past = past.shape[1]
        places = torch.arange(whole.shape[1], device=windows.device).expand(len(windows), -1)
        predicted = self._model.predictor(
            encoder_hidden_states=past, context_mask=[places[:, :num_past]], target_mask=[places[:, num_past:]]
        ).last_hidden_state
        return predicted, whole[:, num_past:]


def _layer_norm(tokens: Tensor) -> Tensor:
    return functional.layer_norm(tokens, tokens.shape[-1:])
