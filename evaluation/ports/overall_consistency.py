"""How well a clip fits its prompt, by ViCLIP: VBench's overall consistency (arXiv:2311.17982)."""

from pathlib import Path

from torch import Tensor

from evaluation.base import ClipScore, DecodedClip, MetricSpec
from evaluation.metrics.pixels import Device, pick_device
from evaluation.ports.computing import exactly
from evaluation.ports.frames import clip_square, middle_frames
from evaluation.ports.viclip import OPENAI_TOKENIZER, shared_model


class OverallConsistency:
    """Cosine of ViCLIP's embeddings of 8 frames and of the prompt, cut to 32 tokens; about 0 to 0.36, higher is better.

    Frames are the middles of 8 equal stretches, 224 pixels square by a bicubic resize without antialiasing.
    """

    name = "overall_consistency"

    def __init__(
        self,
        weights: str | Path = "viclip_l_14",
        *,
        tokenizer: str | Path = OPENAI_TOKENIZER,
        cache_size: int = 1024,
        device: Device = "auto",
    ) -> None:
        """Load the model.

        Args:
            weights: Name in `rewards.ledger`, or ViClip-InternVid-10M-FLT.pth.
            tokenizer: Folder or Hub id of CLIP's tokenizer.
            cache_size: Prompt embeddings kept.
            device: Where it computes.

        Raises:
            RewardError: Missing or wrong weights or tokenizer.
            ConfigError: The device is not there.
        """
        self._device = pick_device(device)
        self._model = shared_model(weights, tokenizer=tokenizer, cache_size=cache_size)
        self.spec = MetricSpec(
            name=self.name,
            version="1",
            family="vbench-port",
            dimensions=(self.name,),
            unit="cosine",
            higher_is_better=True,
            uses_prompt=True,
            weights=("viclip_l_14",),
            licence="Apache-2.0",
            paper="arXiv:2311.17982, arXiv:2307.06942",
        )

    def score(self, clip: DecodedClip) -> ClipScore:
        """Score a clip, see `Metric`.

        Raises:
            RewardError: The clip has no prompt.
        """
        with exactly(self._device):
            video = clip.once((self._model, self._device), lambda: self._embed(clip.frames_on(self._device)))
            return ClipScore(values={self.name: self._model.cosine(video, clip.entry.prompt)})

    def _embed(self, frames: Tensor) -> Tensor:
        sizes = self._model.sizes
        return self._model.embed(clip_square(frames[middle_frames(len(frames), sizes.num_frames)], sizes.image_size))
