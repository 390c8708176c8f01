"""MPS: preference from image tokens that read the prompt's (Zhang et al. 2024, arXiv:2405.14705; Kwai-Kolors/MPS)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerBase
from transformers.initialization import no_init_weights

from rewards.architectures import read_config
from rewards.base import FramePolicy, RewardOutput, RewardSpec, parse_frame_policy, version_of
from rewards.clip_towers import LAION_H_14, LAION_H_14_TOKENIZER, transformers_state
from rewards.errors import RewardError
from rewards.frame_scores import FrameReduction, check_frames_per_pass, parse_frame_reduction, score_frames
from rewards.mps_layers import ImageTextLayers, image_text_state
from rewards.pretrained import square_size
from rewards.tower_inputs import SquareInput, text_embeddings
from rewards.weight_files import load_strictly, read_state, resolve

OVERALL = (
    "light, color, clarity, tone, style, ambiance, artistry, shape, face, hair, hands, limbs, structure, instance, "
    "texture, quantity, attributes, position, number, location, word, things."
)
"""The authors' condition for overall preference: prompt tokens unlike all of these words are not read."""
NUM_LAYERS = 4


class MpsModel(nn.Module):
    """CLIP and the layers in which image tokens read text tokens."""

    def __init__(self, config: CLIPConfig) -> None:
        """Build the model.

        Args:
            config: Of the CLIP; the layers are as wide as its projection, with as many heads as its text tower.
        """
        super().__init__()
        self.clip = CLIPModel(config)
        heads = config.text_config.num_attention_heads
        self.image_text = ImageTextLayers(config.projection_dim, heads=heads, num_layers=NUM_LAYERS)

    def embed_text(self, token_ids: Tensor) -> Tensor:
        """Map token ids (n, tokens) to (n, 1 + tokens, dim): the sentence, then each of its tokens."""
        text = self.clip.text_model(input_ids=token_ids)
        together = torch.cat((text.pooler_output[:, None], text.last_hidden_state), dim=1)
        return cast(Tensor, self.clip.text_projection(together))

    def embed_image(self, pixels: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        """Map pixels (n, 3, size, size), text tokens (n, tokens, dim) and a mask (n, tokens) to (n, dim)."""
        tokens = self.clip.visual_projection(self.clip.vision_model(pixel_values=pixels).last_hidden_state)
        return cast(Tensor, self.image_text(tokens, text, mask)[:, 0])


def mps_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the authors' state dict: "model." is the CLIP, "cross_model." the layers."""
    clip = {name.removeprefix("model."): value for name, value in state.items() if name.startswith("model.")}
    layers = {name.removeprefix("cross_model."): v for name, v in state.items() if name.startswith("cross_model.")}
    renamed = {f"clip.{name}": value for name, value in transformers_state(clip).items()}
    renamed |= {f"image_text.{name}": value for name, value in image_text_state(layers).items()}
    return renamed | {name: v for name, v in state.items() if not name.startswith(("model.", "cross_model."))}


class Mps:
    """exp(logit_scale) * cosine(prompt, image tokens that have read the prompt), frame by frame.

    Range [-100, 100] with the published weights. Higher is better; comparable for one prompt only.

    The image reads only prompt tokens that resemble the condition. The original divides that resemblance by the largest
    of the batch, so that its scores depend on batch mates; here it is the largest of the prompt itself (the original at
    batch size 1), unless `similarity_over` is "batch". The original's forward pass reads tokens above 0.01 of the
    largest, its evaluation scripts tokens above 0.3: see `mask_threshold`.
    """

    def __init__(
        self,
        weights: str | Path = "mps",
        *,
        condition: str = OVERALL,
        mask_threshold: float = 0.01,
        similarity_over: Literal["prompt", "batch"] = "prompt",
        config: str | Path | None = None,
        tokenizer: str | Path | None = None,
        frames: FramePolicy | str | Mapping[str, object] = "all",
        reduction: FrameReduction | str | Mapping[str, object] = "mean",
        frames_per_pass: int | None = None,
        cache_size: int = 4096,
        accept_licence: bool = False,
    ) -> None:
        """Load the model.

        Args:
            weights: Name in the ledger, or a file: the authors' state dict (VideoX-Fun's copy; the authors' own file
                is a pickled module, which is not read).
            condition: What the preference is about.
            mask_threshold: Share of the largest resemblance above which a prompt token is read, in [0, 1).
            similarity_over: "prompt", or "batch" for the original's dependence on batch mates.
            config: `config.json` of a `transformers.CLIPModel` of another size, or its folder; None for ViT-H/14.
            tokenizer: Folder or Hub id, None for the published one. Its padding token matters: padding is read.
            frames: "all", "first", or {kind: uniform, count: 8}.
            reduction: "mean", "min", "first" or {kind: softmin, temperature: 0.5}: from frames to the clip.
            frames_per_pass: Frames through the vision tower at a time, None for all; bounds memory, changes no score.
            cache_size: Prompt embeddings kept, 78 vectors each.
            accept_licence: Not needed for the published weights (MIT).

        Raises:
            RewardError: Missing, corrupt or truncated weights, another architecture, a tokenizer that does not fit or
                cannot pad, a bad option.
        """
        if not 0 <= mask_threshold < 1:
            raise RewardError(f"mask_threshold must be in [0, 1), got {mask_threshold}.")
        if similarity_over not in ("prompt", "batch"):
            raise RewardError(f"Unknown similarity_over {similarity_over!r}. Known: prompt, batch.")
        self._threshold = mask_threshold
        self._over_batch = similarity_over == "batch"
        self._condition_text = condition
        self._frames_per_pass = check_frames_per_pass(frames_per_pass)
        self._reduction = parse_frame_reduction(reduction)
        self._model = _load(weights, config, accept_licence)
        clip = self._model.clip.config
        self._pixels = SquareInput(square_size(clip.vision_config.image_size, weights), "processor_crop")
        self._num_tokens = clip.text_config.max_position_embeddings
        end = clip.text_config.eos_token_id
        self._text = text_embeddings(
            tokenizer or LAION_H_14_TOKENIZER,
            self._embed_text,
            config=clip.text_config,
            pools_at=None if end == 2 else end,
            cache_size=cache_size,
        )
        self._padding = _padding_id(self._text.tokenizer)
        scale = float(self._model.clip.logit_scale.exp())
        self._scale = scale
        self.spec = RewardSpec(
            name="mps",
            version=version_of(
                condition=(condition, OVERALL),
                mask_threshold=(mask_threshold, 0.01),
                similarity_over=(similarity_over, "prompt"),
            ),
            dimensions=("preference",),
            range=(-scale, scale),
            higher_is_better=True,
            is_differentiable=True,
            frames=parse_frame_policy(frames),
            resolution=(self._pixels.size, self._pixels.size),
            licence="MIT",
            paper="arXiv:2405.14705",
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

    def _condition(self, prompts: Sequence[str], like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return per prompt the sentence (n, dim), its tokens (n, tokens, dim) and which are read (n, tokens)."""
        text = self._text(prompts, like=like)
        condition = self._text([self._condition_text], like=like)[0]
        sentence, tokens = text[:, 0], text[:, 1:]
        similarity = (tokens @ condition[1:].T).amax(dim=-1)
        largest = similarity.amax() if self._over_batch else similarity.amax(dim=1, keepdim=True)
        is_read = similarity / largest > self._threshold
        mask = torch.zeros_like(similarity).masked_fill(~is_read, float("-inf"))
        return functional.normalize(sentence, dim=-1), tokens, mask

    def _score(self, frames: Tensor, sentence: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return the score (n,) of frames (n, 3, height, width), each for the text in its row."""
        image = self._model.embed_image(self._pixels(frames), tokens, mask)
        return self._scale * (functional.normalize(image, dim=-1) * sentence).sum(-1)

    def _embed_text(self, token_ids: Tensor) -> Tensor:
        """Map token ids (1, tokens) to (1, 1 + max tokens, dim), padded as the original does."""
        padded = functional.pad(token_ids, (0, self._num_tokens - token_ids.shape[1]), value=self._padding)
        return self._model.embed_text(padded)


def _load(weights: str | Path, config: str | Path | None, accept_licence: bool) -> MpsModel:
    architecture = read_config(config, CLIPConfig, LAION_H_14)
    path = resolve(weights, accept_licence=accept_licence)
    state = mps_state(read_state(path, key="state_dict"))
    with no_init_weights():  # every weight comes from the file
        model = MpsModel(architecture)
    load_strictly(model, state, source=path)
    return model


def _padding_id(tokenizer: PreTrainedTokenizerBase) -> int:
    if tokenizer.pad_token_id is None:
        raise RewardError("MPS reads padding, but its tokenizer has no padding token: set pad_token, CLIP's end token.")
    return cast(int, tokenizer.pad_token_id)
