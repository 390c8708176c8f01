"""A small head on CLIP or X-CLIP features: one score per question that raters were asked, and how unsure it is.

The head's outputs are the mean and, where it has them, the log standard deviation of a Gaussian score, as in HPSv3 (Ma
et al. 2025, arXiv:2508.03789); one output per question as in VideoReward (Liu et al. 2025, arXiv:2501.13918).
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rewards.base import FramePolicy, RewardOutput, RewardSpec, masked_output
from rewards.clip_preference import ClipPreference
from rewards.errors import RewardError
from rewards.inputs import CheckedClips, full_precision
from rewards.video_text import VideoText

HEAD_FACTS, HEAD_WEIGHTS = "preference_head.json", "preference_head.safetensors"


@dataclass(frozen=True)
class HeadFacts:
    """What a head is, beside its weights."""

    dimensions: tuple[str, ...]
    """Questions, in the order of its outputs."""
    hidden: int
    """Units of the hidden layer, 0 for none."""
    uncertainty: bool
    """Whether a log standard deviation per question follows the means."""


class PreferenceHead:
    """Linear layer, or one hidden layer, on [clip, prompt, clip * prompt] of a CLIPModel or XCLIPModel folder.

    Higher is better; comparable for one prompt only. A folder without a head gets a fresh one when it is built to
    train; `dimensions`, `hidden` and `uncertainty` describe that one, a saved head brings its own.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        tokenizer: str | Path | None = None,
        dimensions: Sequence[str] = ("overall",),
        hidden: int = 0,
        uncertainty: bool = False,
        frames: FramePolicy | str | Mapping[str, object] = "all",
        licence: str = "see the model card",
        trainable: bool = False,
    ) -> None:
        """Load features and head.

        Args:
            model: `CLIPModel` or `XCLIPModel` folder.
            tokenizer: Folder or Hub id of the tokenizer where it is not beside the model.
            dimensions: Questions of a fresh head.
            hidden: Units of a fresh head's hidden layer, 0 for none.
            uncertainty: Whether a fresh head has a standard deviation per score.
            frames: Of a CLIPModel: "all", "first", or {kind: uniform, count: 8}; an XCLIPModel knows its own.
            licence: Of the weights, for tables.
            trainable: Whether scores carry gradients to weights that require them, and a fresh head may be made.

        Raises:
            RewardError: As the classes below; there is no head, a broken one, or an option does not fit.
        """
        folder = Path(model)
        self._base: ClipPreference | VideoText
        if _model_type(folder) == "xclip":
            self._base = VideoText(model, tokenizer=tokenizer, licence=licence, trainable=trainable)
        else:
            self._base = ClipPreference(model, tokenizer=tokenizer, frames=frames, licence=licence, trainable=trainable)
        facts = HeadFacts(tuple(dimensions), hidden, uncertainty)
        is_saved = (folder / HEAD_FACTS).is_file()
        if is_saved:
            facts = _read_facts(folder / HEAD_FACTS)
        elif not trainable:
            raise RewardError(f"{model} holds no {HEAD_FACTS}: train a head with train_reward_model.py first.")
        self._facts = facts
        self.has_uncertainty = facts.uncertainty
        head = _build_head(int(self._base.model.config.projection_dim), facts)
        if is_saved:
            _load_head(head, folder / HEAD_WEIGHTS)
        self._model = nn.ModuleDict({"base": self._base.model, "head": head.requires_grad_(False)})
        base = self._base.spec
        self.spec = RewardSpec(
            name="preference_head",
            version="1",
            dimensions=facts.dimensions,
            range=(-math.inf, math.inf),
            higher_is_better=True,
            is_differentiable=True,
            frames=base.frames,
            resolution=base.resolution,
            licence=licence,
            paper="arXiv:2508.03789",
            uses_prompt=True,
        )

    def __call__(self, video: Tensor, prompts: Sequence[str], *, fps: float) -> RewardOutput:
        """Score a batch, see `Reward`; the mean of each score.

        Raises:
            RewardError: Input of the wrong form, or an empty prompt.
        """
        outputs, clips = self._outputs(video, prompts, fps=fps)
        columns = outputs[:, : len(self.spec.dimensions)].unbind(dim=1)
        return masked_output(dict(zip(self.spec.dimensions, columns, strict=True)), clips.valid, clips.reasons)

    def distribution(self, video: Tensor, prompts: Sequence[str], *, fps: float) -> tuple[Tensor, Tensor]:
        """Return mean and log standard deviation of each score, both (batch, dimensions), NaN where not valid.

        Raises:
            RewardError: The head has no uncertainty, or as `__call__`.
        """
        if not self.has_uncertainty:
            raise RewardError("This head was trained without uncertainty: it has a mean only.")
        outputs, clips = self._outputs(video, prompts, fps=fps)
        outputs = torch.where(clips.valid[:, None], outputs, torch.full_like(outputs, math.nan))
        mean, log_sigma = outputs.chunk(2, dim=1)
        return mean, log_sigma

    def _outputs(self, video: Tensor, prompts: Sequence[str], *, fps: float) -> tuple[Tensor, CheckedClips]:
        clip, prompt, clips = self._base.embed(video, prompts, fps=fps)
        self._model["head"].to(device=clip.device, dtype=clip.dtype)
        with full_precision(clips.video):
            clip, prompt = nn.functional.normalize(clip, dim=-1), nn.functional.normalize(prompt, dim=-1)
            # Entries of unit vectors are about 1 / sqrt(dim): all three parts come to about 1.
            size = clip.shape[-1]
            features = torch.cat([size**0.5 * clip, size**0.5 * prompt, size * clip * prompt], dim=-1)
            return self._model["head"](features), clips

    @property
    def model(self) -> nn.Module:
        """Features and head, whose weights can be trained."""
        return self._model

    def head_parameters(self) -> list[nn.Parameter]:
        """Return the head's parameters; projections belong to the features here."""
        return list(self._model["head"].parameters())

    def save_pretrained(self, folder: Path) -> None:
        """Write the folder that this class loads; `from_pretrained` of the base's class reads it, too."""
        self._base.save_pretrained(folder)
        (folder / HEAD_FACTS).write_text(json.dumps(asdict(self._facts), indent=2) + "\n")
        save_file(self._model["head"].state_dict(), folder / HEAD_WEIGHTS)


def _model_type(folder: Path) -> str | None:
    config = folder / "config.json"
    if not config.is_file():
        return None  # the classes below say what is missing
    try:
        kind = json.loads(config.read_text()).get("model_type")
    except json.JSONDecodeError as error:
        raise RewardError(f"{config} is not valid JSON: {error}") from error
    return str(kind)


def _read_facts(path: Path) -> HeadFacts:
    try:
        facts = json.loads(path.read_text())
        return HeadFacts(tuple(facts["dimensions"]), int(facts["hidden"]), bool(facts["uncertainty"]))
    except (ValueError, KeyError, TypeError) as error:
        raise RewardError(f"{path} does not describe a head ({error!r}): save the reward again.") from error


def _build_head(size: int, facts: HeadFacts) -> nn.Sequential:
    if facts.hidden < 0:
        raise RewardError(f"hidden={facts.hidden} must be 0 (a linear head) or more.")
    num_outputs = len(facts.dimensions) * (2 if facts.uncertainty else 1)
    if facts.hidden == 0:
        return nn.Sequential(nn.Linear(3 * size, num_outputs))
    return nn.Sequential(nn.Linear(3 * size, facts.hidden), nn.ReLU(), nn.Linear(facts.hidden, num_outputs))


def _load_head(head: nn.Sequential, path: Path) -> None:
    try:
        head.load_state_dict(load_file(path))
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RewardError(f"Cannot load the head from {path}: {reason}") from error
