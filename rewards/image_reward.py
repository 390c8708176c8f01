"""ImageReward 1.0, human preference of an image for a prompt, frame by frame (Xu et al. 2023, arXiv:2304.05977).

Equal to the package image-reward 1.5 (`score_gard`, its differentiable path) with the modern stack; frames are resized
as float tensors, where the package resizes 8-bit pictures, which moves pixels by about one grey level.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor
from torch.nn import functional
from transformers import BlipConfig, PreTrainedTokenizerBase

from rewards.architectures import read_config
from rewards.base import FramePolicy, RewardOutput, RewardSpec, parse_frame_policy, version_of
from rewards.errors import RewardError
from rewards.frame_scores import FrameReduction, check_frames_per_pass, parse_frame_reduction, score_frames
from rewards.image_reward_model import PUBLISHED, ImageRewardModel, rename_original
from rewards.inputs import Precision, check_precision, tower_precision
from rewards.pretrained import TextEmbeddings, load_tokenizer, square_size
from rewards.video_ops import CLIP_MEAN, CLIP_STD, fit_square, normalise
from rewards.weight_files import load_strictly, read_state, resolve

MEAN, STD = 0.16717362830052426, 1.0333394966054072
"""Of the raw score, from the package: with them scores are about standard normal over its training images."""
MAX_TOKENS = 35
"""Tokens that a prompt is padded or cut to, the first and the last special."""


class ImageReward:
    """(raw score - 0.167) / 1.033 of a frame with the prompt; over the chosen frames their mean or another reduction.

    No fixed range: about N(0, 1) over the images that it was trained on. Higher is better; comparable for one prompt.
    A frame's short side is resized to 224 (bicubic, antialiased) and the centre is cut out. Every step is float32; the
    model moves to the clip's device and never trains.
    """

    def __init__(
        self,
        weights: str | Path = "image_reward",
        *,
        config: str | Path | None = None,
        tokenizer: str | Path = "bert-base-uncased",
        frames: FramePolicy | str | Mapping[str, object] = "all",
        reduction: FrameReduction | str | Mapping[str, object] = "mean",
        frames_per_pass: int | None = None,
        precision: Precision = "float32",
        cache_size: int = 4096,
        accept_licence: bool = False,
    ) -> None:
        """Load the model.

        Args:
            weights: Name in `rewards.ledger`, or a file: ImageReward.pt as published, or safetensors with its names.
            config: `config.json` of a `transformers.BlipConfig`, or its folder, for another architecture; its
                `vision_config.layer_norm_eps` should be 1e-6. None for the published one.
            tokenizer: Folder or Hub id of a BERT tokenizer; its vocabulary has two tokens less than the model.
            frames: "all", "first", or {kind: uniform, count: 8}.
            reduction: "mean", "min", "first" or {kind: softmin, temperature: 0.5}: from frames to the clip.
            frames_per_pass: Frames through the model at a time, None for all; bounds memory, changes no score.
            precision: Of both towers: "bfloat16" is 3 times faster; the weights and the head stay float32.
            cache_size: Prompts whose token ids are kept.
            accept_licence: Not asked by the published weights (Apache-2.0).

        Raises:
            RewardError: Missing or wrong weights, config or tokenizer, or an option out of range.
        """
        self._frames_per_pass = check_frames_per_pass(frames_per_pass)
        self._precision = check_precision(precision)
        self._reduction = parse_frame_reduction(reduction)
        architecture = read_config(config, BlipConfig, PUBLISHED)
        vision, text = architecture.vision_config, architecture.text_config
        if not text.is_decoder:
            raise RewardError(f"{config}: text_config.is_decoder must be true, without it there is no cross-attention.")
        self._size = square_size(vision.image_size, config or "ImageReward")
        bert = _load_bert_tokenizer(tokenizer, vocab_size=text.vocab_size)
        self._padding = bert.pad_token_id
        self._tokens = TextEmbeddings(bert, self._pad, max_tokens=MAX_TOKENS, cache_size=cache_size)
        path = resolve(weights, accept_licence=accept_licence)
        self._model = ImageRewardModel(architecture)
        load_strictly(self._model, rename_original(read_state(path)), source=path)
        self.spec = RewardSpec(
            name="image_reward",
            version=version_of(precision=(precision, "float32")),
            dimensions=("image_reward",),
            range=(float("-inf"), float("inf")),
            higher_is_better=True,
            is_differentiable=True,
            frames=parse_frame_policy(frames),
            resolution=(self._size, self._size),
            licence="Apache-2.0",
            paper="arXiv:2304.05977",
            uses_prompt=True,
        )

    def __call__(self, video: Tensor, prompts: Sequence[str], *, fps: float) -> RewardOutput:
        """Score a batch, see `Reward`.

        Raises:
            RewardError: Input of the wrong form, or an empty prompt.
        """
        return score_frames(
            video,
            prompts,
            fps=fps,
            spec=self.spec,
            model=self._model,
            score=self._score,
            condition=self._condition,
            reduction=self._reduction,
            frames_per_pass=self._frames_per_pass,
        )

    def _condition(self, prompts: Sequence[str], like: Tensor) -> tuple[Tensor]:
        """Return token ids (prompts, 35)."""
        return (self._tokens(prompts, like=like),)

    def _score(self, frames: Tensor, token_ids: Tensor) -> Tensor:
        """Return the score (n,) of frames (n, 3, height, width), each for the prompt whose token ids are in its row."""
        mask = (token_ids != self._padding).long()
        with tower_precision(self._precision, frames):
            features = self._model.features(self._pixels(frames), token_ids, mask)
        return (self._model.head(features.to(frames.dtype)).squeeze(-1) - MEAN) / STD

    def _pixels(self, frames: Tensor) -> Tensor:
        """Map frames (n, 3, height, width) in [0, 1] to the vision tower's normalised square."""
        return normalise(fit_square(frames, self._size, "crop"), CLIP_MEAN, CLIP_STD)

    def _pad(self, token_ids: Tensor) -> Tensor:
        """Map token ids (1, tokens) to (1, 35)."""
        return functional.pad(token_ids, (0, MAX_TOKENS - token_ids.shape[1]), value=self._padding)


def _load_bert_tokenizer(folder: str | Path, *, vocab_size: int) -> PreTrainedTokenizerBase:
    """Load BERT's tokenizer with BLIP's two additional tokens.

    Args:
        folder: Folder or Hub id.
        vocab_size: Rows of the model's token embedding.

    Raises:
        RewardError: None is there, it is no BERT tokenizer, or of another size than the model's.
    """
    tokenizer = load_tokenizer(folder, needs_end=False)
    if tokenizer.cls_token_id is None or tokenizer.pad_token_id is None:
        raise RewardError(f"The tokenizer of {folder} has no [CLS] or no [PAD], so it is not BERT's.")
    # A prompt never means them, but the package adds them, and one that quotes them is cut there, not into letters.
    tokenizer.add_special_tokens({"bos_token": "[DEC]", "additional_special_tokens": ["[ENC]"]})
    if len(tokenizer) != vocab_size:
        raise RewardError(
            f"The tokenizer of {folder} has {len(tokenizer)} tokens with [DEC] and [ENC], the text model {vocab_size} "
            "embeddings: they do not belong together."
        )
    return tokenizer
