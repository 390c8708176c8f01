"""CLIP for rewards: published architectures, strict loading of one weight file, and unit embeddings of both towers."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from torch import Tensor
from torch.nn import functional
from transformers import CLIPConfig, CLIPModel
from transformers.initialization import no_init_weights

from rewards.architectures import read_config
from rewards.base import FramePolicy, RewardOutput, RewardSpec, parse_frame_policy, version_of
from rewards.frame_scores import FrameReduction, check_frames_per_pass, parse_frame_reduction, score_frames
from rewards.inputs import Precision, check_precision, tower_precision
from rewards.pretrained import square_size
from rewards.tower_inputs import SquareInput, text_embeddings
from rewards.video_ops import Fit
from rewards.weight_files import load_strictly, read_state, resolve

OPENAI_B_32: dict[str, Any] = {"projection_dim": 512}
"""OpenAI's ViT-B/32: the defaults of `CLIPConfig`."""
OPENAI_L_14: dict[str, Any] = {
    "projection_dim": 768,
    "text_config": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_attention_heads": 12,
        "projection_dim": 768,
    },
    "vision_config": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "patch_size": 14,
        "projection_dim": 768,
    },
}
"""OpenAI's ViT-L/14."""
LAION_H_14: dict[str, Any] = {
    "projection_dim": 1024,
    "text_config": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "hidden_act": "gelu",
        "projection_dim": 1024,
    },
    "vision_config": {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "patch_size": 14,
        "hidden_act": "gelu",
        "projection_dim": 1024,
    },
}
"""LAION's ViT-H/14 (open_clip's ViT-H-14): exact GELU, where OpenAI's have the quick one."""
LAION_H_14_TOKENIZER = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
"""Hub id; the vocabulary is OpenAI's."""
POSITION_IDS = ("text_model.embeddings.position_ids", "vision_model.embeddings.position_ids")
"""Counters 0, 1, 2, ... that older versions of transformers stored beside the weights."""


def transformers_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict of `CLIPModel` without the counters that it no longer keeps."""
    return {name: value for name, value in state.items() if name not in POSITION_IDS}


def load_clip(
    weights: str | Path,
    *,
    config: str | Path | None,
    published: Mapping[str, Any],
    accept_licence: bool,
    translate: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] = transformers_state,
) -> CLIPModel:
    """Load a CLIP from one file, frozen, in float32.

    Args:
        weights: Name in the ledger, or a file.
        config: `config.json` of a `CLIPModel`, or its folder; None for the published one.
        published: Architecture of the published file.
        accept_licence: Whether the user accepts a licence that asks for consent.
        translate: From the file's names to those of `CLIPModel`.

    Raises:
        RewardError: The file or the config is missing, corrupt, truncated, or they do not fit each other.
    """
    architecture = read_config(config, CLIPConfig, published)
    path = resolve(weights, accept_licence=accept_licence)
    state = translate(read_state(path, key="state_dict"))
    with no_init_weights():  # 20 s for ViT-H/14 that the next line would throw away
        model = CLIPModel(architecture)
    load_strictly(model, state, source=path)
    return model


class ClipTowers:
    """Unit embeddings of frames and of prompts, each distinct prompt encoded once."""

    def __init__(
        self,
        model: CLIPModel,
        *,
        pixels: SquareInput,
        tokenizer: str | Path,
        cache_size: int,
        precision: Precision = "float32",
        prepare: Callable[[str], str] | None = None,
        trainable: bool = False,
    ) -> None:
        """Join the towers with their inputs.

        Args:
            model: Frozen.
            pixels: From a frame to the vision tower's input.
            tokenizer: Folder or Hub id.
            cache_size: Prompt embeddings kept.
            precision: Of the vision tower; prompts are encoded once, in full precision.
            prepare: Applied to a prompt that is not empty, before its tokens.
            trainable: Whether the weights may change.

        Raises:
            RewardError: A tokenizer that does not fit, or a bad cache size.
        """
        self.model = model
        self.pixels = pixels
        self.scale = float(model.logit_scale.exp())
        self._precision = check_precision(precision)
        self._prepare = prepare
        config = model.config.text_config
        # eos_token_id 2 is transformers' mark of folders from before its fix; they pool at the highest id.
        pools_at = None if config.eos_token_id == 2 else config.eos_token_id
        self.text = text_embeddings(
            tokenizer,
            self._embed_text,
            config=config,
            pools_at=pools_at,
            cache_size=cache_size,
            trainable=trainable,
        )

    @property
    def version(self) -> str:
        """Version of a score made of these embeddings: another precision is another score."""
        return version_of(precision=(self._precision, "float32"))

    @classmethod
    def from_file(
        cls,
        weights: str | Path,
        *,
        config: str | Path | None,
        published: Mapping[str, Any],
        tokenizer: str | Path,
        fit: Fit,
        cache_size: int,
        accept_licence: bool,
        translate: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] = transformers_state,
        precision: Precision = "float32",
        prepare: Callable[[str], str] | None = None,
    ) -> "ClipTowers":
        """Load the towers from one weight file, see `load_clip` and `ClipTowers`.

        Raises:
            RewardError: Missing, corrupt or truncated weights, another architecture, a tokenizer that does not fit.
        """
        model = load_clip(
            weights, config=config, published=published, accept_licence=accept_licence, translate=translate
        )
        pixels = SquareInput(square_size(model.config.vision_config.image_size, weights), fit)
        return cls(
            model, pixels=pixels, tokenizer=tokenizer, cache_size=cache_size, precision=precision, prepare=prepare
        )

    def embed_prompts(self, prompts: Sequence[str], like: Tensor) -> Tensor:
        """Return unit embeddings (prompts, dim) on the device and in the precision of `like`."""
        if self._prepare is not None:  # an empty prompt stays one, and is refused
            prompts = [self._prepare(prompt) if prompt.strip() else prompt for prompt in prompts]
        return self.text(prompts, like=like)

    def embed_frames(self, frames: Tensor) -> Tensor:
        """Map frames (n, 3, height, width) in [0, 1] to unit embeddings (n, dim)."""
        with tower_precision(self._precision, frames):
            pooled = self.model.vision_model(pixel_values=self.pixels(frames)).pooler_output
        return functional.normalize(self.model.visual_projection(pooled.to(frames.dtype)), dim=-1)

    def _embed_text(self, token_ids: Tensor) -> Tensor:
        """Map token ids (1, tokens) to a unit embedding (1, dim)."""
        features = cast(Tensor, self.model.get_text_features(input_ids=token_ids).pooler_output)
        return functional.normalize(features, dim=-1)


class ClipCosine:
    """An image reward that is `scale` times the cosine of a frame with its prompt, or a function of that."""

    def __init__(
        self,
        towers: ClipTowers,
        *,
        name: str,
        dimension: str,
        scale: float,
        licence: str,
        paper: str,
        frames: FramePolicy | str | Mapping[str, object],
        reduction: FrameReduction | str | Mapping[str, object],
        frames_per_pass: int | None,
        lowest: float | None = None,
        version: str | None = None,
    ) -> None:
        """State the facts.

        Args:
            towers: Loaded.
            name: Registry name.
            dimension: Key of the score.
            scale: Score of cosine 1.
            licence: Of the weights.
            paper: Source of the formula.
            frames: "all", "first", or {kind: uniform, count: 8}.
            reduction: "mean", "min", "first" or {kind: softmin, temperature: 0.1}: from frames to the clip.
            frames_per_pass: Frames through the vision tower at a time, None for all.
            lowest: Lowest score, None for `-scale`.
            version: Of the score, None where only the towers' options change it.

        Raises:
            RewardError: A bad option.
        """
        self._towers = towers
        self._scale = scale
        self._frames_per_pass = check_frames_per_pass(frames_per_pass)
        self._reduction = parse_frame_reduction(reduction)
        self.spec = RewardSpec(
            name=name,
            version=version or towers.version,
            dimensions=(dimension,),
            range=(-scale if lowest is None else lowest, scale),
            higher_is_better=True,
            is_differentiable=True,
            frames=parse_frame_policy(frames),
            resolution=(towers.pixels.size, towers.pixels.size),
            licence=licence,
            paper=paper,
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
            model=self._towers.model,
            score=self._score,
            condition=self._condition,
            reduction=self._reduction,
            frames_per_pass=self._frames_per_pass,
        )

    def _condition(self, prompts: Sequence[str], like: Tensor) -> tuple[Tensor]:
        return (self._towers.embed_prompts(prompts, like),)

    def _score(self, frames: Tensor, text: Tensor) -> Tensor:
        """Return the score (n,) of frames (n, 3, height, width), each for the text embedding in its row."""
        return self._scale * (self._towers.embed_frames(frames) * text).sum(-1)
