"""Losses of preference optimisation on denoising errors: Diffusion-DPO and its relatives (`kto_loss` for thumbs).

Diffusion-DPO (Wallace et al. 2023, arXiv:2311.12908) and Flow-DPO (Liu et al. 2025, arXiv:2501.13918). With e the
squared prediction error of a clip at one noise level, w the chosen and l the rejected clip under the same noise,

    margin = (e_ref(w) - e(w)) - (e_ref(l) - e(l))        how much more the model improved on the chosen clip
    h      = margin / 2   (half=false: margin)            the implicit log-ratio; "flow" multiplies (1 - sigma)^2
    logit  = beta h

Every loss is a function l(h) of "the chosen clip is better"; a label of probability p costs p l(h) + (1 - p) l(-h), so
swapping the clips and p with 1 - p changes nothing. Beta has a meaning only with `reduction` and `half`: Wan latents of
81 frames at 480p have 2.1 million elements, so beta 2000 on means is about 0.001 on sums.
"""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, relu

from rlhf_video.diffusion.prediction_errors import PredictionError
from rlhf_video.errors import ConfigError
from rlhf_video.settings import check_range

Kind = Literal["sigmoid", "hinge", "ipo", "robust", "simpo", "kto"]


@dataclass(frozen=True, kw_only=True)
class AutoBetaConfig:
    """How beta follows the margins where `loss.beta` is null."""

    target: float = 0.25
    """Gradient factor sigmoid(-logit) of a pair with the mean absolute margin, in (0, 0.5)."""
    decay: float = 0.95
    """Decay of the running mean of the absolute margin, per optimiser step."""
    start: float = 500.0
    """Beta of the first `warmup` steps, and the middle of its range."""
    warmup: int = 10
    """Optimiser steps whose margins are only measured: an adapter that starts at zero has none."""
    span: float = 20.0
    """Beta stays between start / span and start * span."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("loss.auto_beta.target", self.target, above=0.0, below=0.5)
        check_range("loss.auto_beta.decay", self.decay, least=0.0, below=1.0)
        check_range("loss.auto_beta.start", self.start, above=0.0)
        check_range("loss.auto_beta.warmup", self.warmup, least=1)
        check_range("loss.auto_beta.span", self.span, least=1.0)


@dataclass(frozen=True, kw_only=True)
class DpoLossConfig:
    """What a preference says about denoising errors."""

    kind: Kind = "sigmoid"
    """sigmoid (DPO), hinge (SLiC, arXiv:2305.10425), ipo (arXiv:2310.12036; its gradients are smaller by about beta^2),
    robust (arXiv:2403.00409: unbiased where a share `label_smoothing` of the labels is flipped), simpo
    (arXiv:2405.14734: no reference, so nothing bounds the rejected clip's error) or kto (arXiv:2402.01306: thumbs)."""
    beta: float | None = 500.0
    """Pull to the reference, for the `reduction` and `half` below; null follows the margins (`auto_beta`)."""
    half: bool = True
    """Whether h is half the margin, as in the papers; scripts that leave the half out need half the beta."""
    reduction: Literal["mean", "sum"] = "mean"
    """Of squared errors over the latent elements of a clip (or of a segment)."""
    beta_over_noise: Literal["constant", "flow"] = "constant"
    """constant, or the derived beta (1 - sigma)^2, whose pull vanishes at high noise (Flow-DPO prefers constant)."""
    error: PredictionError = "velocity"
    """Which prediction error is compared: of the flow's velocity, of the noise, or of VP's v."""
    label_smoothing: float = 0.0
    """Probability in [0, 0.5) that a label is wrong: smoothed (conservative DPO), or corrected for where robust."""
    sft_weight: float = 0.0
    """Weight of the preferred clip's own error beside the preference (Reg-DPO, arXiv:2511.01450)."""
    simpo_margin: float = 0.0
    """Logit by which simpo wants the chosen clip ahead (gamma), >= 0."""
    disliked_weight: float = 1.0
    """How much a disliked clip counts in kto against a liked one; balance the numbers of both with it."""
    auto_beta: AutoBetaConfig = field(default_factory=AutoBetaConfig)
    """Used where `beta` is null."""

    def __post_init__(self) -> None:
        """Check ranges and what does not go together."""
        if self.beta is not None:
            check_range("loss.beta", self.beta, above=0.0)
        check_range("loss.label_smoothing", self.label_smoothing, least=0.0, below=0.5)
        check_range("loss.sft_weight", self.sft_weight, least=0.0)
        check_range("loss.simpo_margin", self.simpo_margin, least=0.0)
        check_range("loss.disliked_weight", self.disliked_weight, above=0.0)
        if self.beta is None and self.kind not in ("sigmoid", "robust"):
            raise ConfigError(
                f"loss.beta=null has no target for loss.kind={self.kind}: auto-beta aims at the gradient factor of a "
                "sigmoid. Give loss.beta a number, or set loss.kind=sigmoid."
            )
        if self.beta_over_noise == "flow" and self.error != "velocity":
            raise ConfigError(
                f"loss.beta_over_noise=flow turns a velocity error into a noise error, and loss.error={self.error} is "
                "none: set loss.error=velocity, or loss.beta_over_noise=constant."
            )
        if self.kind == "robust" and self.label_smoothing == 0:
            raise ConfigError(
                "loss.kind=robust corrects for flipped labels: set loss.label_smoothing to their share, for example "
                "0.1, or loss.kind=sigmoid."
            )
        if self.kind != "simpo" and self.simpo_margin:
            raise ConfigError(f"loss.simpo_margin belongs to loss.kind=simpo, not {self.kind}: leave it out.")
        if self.kind != "kto" and self.disliked_weight != 1:
            raise ConfigError(f"loss.disliked_weight belongs to loss.kind=kto, not {self.kind}: leave it out.")


class PairErrors(NamedTuple):
    """Reduced errors of both members of each pair, float32."""

    chosen: Tensor
    """Shape (rows, segments); a row is a pair at one draw of noise, one segment where whole clips are compared."""
    rejected: Tensor
    """The same for the other member, at the same noise."""


class DpoTerms(NamedTuple):
    """The loss and what is logged of it; only `loss` carries a gradient."""

    loss: Tensor
    """Shape (rows,): mean over the labelled segments, 0 where nothing is labelled."""
    margin: Tensor
    """What the logit is made of, > 0 where the model improved more on the chosen clip, shape (rows, segments)."""
    chosen_gain: Tensor
    """Error of the reference minus error of the model on the chosen clip, shape (rows, segments)."""
    rejected_gain: Tensor
    """The same on the rejected clip."""


def segment_errors(squared: Tensor, segments: Tensor, reduction: Literal["mean", "sum"]) -> Tensor:
    """Return the error of each segment of latent frames, shape (rows, segments); 0 for an empty segment.

    Args:
        squared: Squared errors, shape (rows, channels, latent_frames, latent_height, latent_width).
        segments: How much of each latent frame belongs to a segment, in [0, 1], shape (rows, segments, latent_frames).
        reduction: mean or sum over the elements of a segment.
    """
    per_frame = squared.sum(dim=(1, 3, 4)) if reduction == "sum" else squared.mean(dim=(1, 3, 4))
    members = segments.to(per_frame)
    total = (members * per_frame[:, None]).sum(dim=-1)
    if reduction == "sum":
        return total
    length = members.sum(dim=-1)
    return total / torch.where(length > 0, length, torch.ones_like(length))


def logit_per_beta(margin: Tensor, sigma: Tensor, config: DpoLossConfig) -> Tensor:
    """Return h, what beta multiplies, in the config's conventions; the shape of `margin`.

    Args:
        margin: Difference of errors (or gain of one clip), shape (rows, segments).
        sigma: Noise level of each row, shape (rows,).
        config: `half` and `beta_over_noise`.
    """
    scale = torch.full_like(sigma, 0.5 if config.half else 1.0)
    if config.beta_over_noise == "flow":
        scale = scale * (1 - sigma) ** 2
    return scale[:, None].to(margin) * margin


def dpo_loss(
    policy: PairErrors,
    reference: PairErrors,
    *,
    preference: Tensor,
    sigma: Tensor,
    config: DpoLossConfig,
    beta: float,
) -> DpoTerms:
    """Return the loss of every row, unreduced, and its margins.

    Args:
        policy: Errors of the trained model.
        reference: Errors of the reference at the same noise; simpo uses them for the gains only.
        preference: Probability in [0, 1] that "chosen" is the better clip, shape (rows, segments): 1 a hard label, 0.5
            a tie; NaN where nobody said, and there is no loss.
        sigma: Noise level of each row, shape (rows,).
        config: Kind and conventions; any kind but kto.
        beta: Pull to the reference: the config's, or auto-beta's.

    Raises:
        ConfigError: The kind is kto.
    """
    if config.kind == "kto":
        raise ConfigError("loss.kind=kto learns from thumbs (kto_loss, kto_pair_loss), not from preferences.")
    chosen_gain, rejected_gain = reference.chosen - policy.chosen, reference.rejected - policy.rejected
    margin = policy.rejected - policy.chosen if config.kind == "simpo" else chosen_gain - rejected_gain
    ratio = logit_per_beta(margin, sigma, config)
    share = preference.nan_to_num(nan=0.5)
    target = label_target(share, config)
    losses = target * _one_sided(ratio, config, beta) + (1 - target) * _one_sided(-ratio, config, beta)
    losses = losses + config.sft_weight * (share * policy.chosen + (1 - share) * policy.rejected)
    rows = mean_where(~preference.isnan(), losses)
    return DpoTerms(rows, margin.detach(), chosen_gain.detach(), rejected_gain.detach())


def _one_sided(ratio: Tensor, config: DpoLossConfig, beta: float) -> Tensor:
    """Return l(h), the loss where the label says "chosen"; same shape."""
    if config.kind == "hinge":
        return relu(1 - beta * ratio)
    if config.kind == "ipo":
        return (ratio - 1 / (2 * beta)).square()
    if config.kind == "simpo":
        return -logsigmoid(beta * ratio - config.simpo_margin)
    return -logsigmoid(beta * ratio)


def label_target(share: Tensor, config: DpoLossConfig) -> Tensor:
    """Return the weight of l(h): labels that are wrong with probability c spread it, robust undoes what they spread."""
    wrong = config.label_smoothing
    if config.kind == "robust":
        return (share - wrong) / (1 - 2 * wrong)
    return wrong + (1 - 2 * wrong) * share


def mean_where(labelled: Tensor, losses: Tensor) -> Tensor:
    """Return the mean of each row over its labelled segments, 0 where there is none, shape (rows,)."""
    return torch.where(labelled, losses, torch.zeros_like(losses)).sum(dim=1) / labelled.sum(dim=1).clamp(min=1)
