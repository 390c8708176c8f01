"""Any reward of the zoo, or anybody's own, as a metric: the same number as in training and validation."""

from collections.abc import Mapping

import torch

from evaluation.base import ClipScore, DecodedClip, MetricSpec, SkipClipError
from evaluation.metrics.pixels import Device, pick_device
from rewards import registry
from rewards.catalogue import CATALOGUE
from rewards.ledger import LEDGER
from rlhf_video.errors import ConfigError

_UNITS = {
    "dynamic_degree": "share",
    "exposure": "share",
    "flow_motion": "pixels per 1/8 s",
    "frame_difference": "grey levels of 1 per second",
    "saturation": "chroma of 1",
    "sharpness": "grey levels of 1",
    "sprite_judge": "share correct",
    "temporal_flicker": "share",
    "warp_error": "grey levels of 1",
}
"""What the values of known rewards are; the others are a model's score in a unit of its own."""


class RewardMetric:
    """A reward on the whole clip, one dimension for each of the reward's.

    Unit, range and source are the reward's own (rewards/catalogue.py). A clip that the reward masks is skipped with the
    reward's reason. The value equals `rlhf_video.validation.score_clips` on the same pixels.
    """

    def __init__(
        self,
        name: str,
        *,
        options: Mapping[str, object] | None = None,
        unit: str | None = None,
        device: Device = "auto",
    ) -> None:
        """Build the reward.

        Args:
            name: Reward of `rewards.registry`, or "package.module:Class".
            options: Of the reward, for example {model: assets/sprite-clip}.
            unit: As tables say it; None takes what is known of the reward, "score" for a model's.
            device: Where the clip is scored; the reward follows it.

        Raises:
            RewardError: Unknown name or option, absent or wrong weights.
            ConfigError: The device is not there.
        """
        self._device = pick_device(device)
        options = dict(options or {})
        self._reward = registry.build(name, **options)
        facts = self._reward.spec
        self.spec = MetricSpec(
            name=facts.name,
            version=facts.version,
            family="reward",
            dimensions=facts.dimensions,
            unit=unit or _UNITS.get(facts.name, "score"),
            higher_is_better=facts.higher_is_better,
            uses_prompt=facts.uses_prompt,
            weights=_weights(name, options),
            licence=facts.licence,
            paper=facts.paper,
        )

    @torch.no_grad()
    def score(self, clip: DecodedClip) -> ClipScore:
        """Score a clip, see `Metric`.

        Raises:
            SkipClipError: The reward masks the clip.
            RewardError: The clip does not fit the reward, for example a single frame for a motion reward.
        """
        video = clip.pixels[None].to(self._device)
        output = self._reward(video, [clip.entry.prompt], fps=clip.fps)
        if not bool(output.valid[0]):
            raise SkipClipError(output.reasons[0] or f"the reward {self.spec.name} masks it and gives no reason")
        if set(output.values) != set(self.spec.dimensions):
            raise ConfigError(
                f"Reward '{self.spec.name}' declares the dimensions {', '.join(self.spec.dimensions)} and returned "
                f"{', '.join(output.values)}: mend its spec."
            )
        return ClipScore(values={key: float(output.values[key][0]) for key in self.spec.dimensions})


def _weights(name: str, options: Mapping[str, object]) -> tuple[str, ...]:
    """Return the ledger's names of what the reward loads; files that options name are not in the ledger."""
    named = tuple(value for value in options.values() if isinstance(value, str) and value in LEDGER)
    given = bool({"model", "weights"} & set(options))
    default = CATALOGUE[name].weights if name in CATALOGUE and not given else ()
    return tuple(dict.fromkeys((*default, *named)))
