"""Losses of clips with a thumb up or down: KTO (arXiv:2402.01306) and Diffusion-KTO (arXiv:2404.04465).

No clip needs a partner: a liked one should gain more on the reference than the batch does (z), a disliked one less.
With gain = e_ref - e and logit = beta h of the gain (conventions of `dpo_loss`), a liked clip costs 1 - sigmoid(logit -
z), a disliked one 1 - sigmoid(z - logit). Pairs are thumbs too, and here a pair that is both bad says something.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from rlhf_video.algorithms.dpo_loss import (
    DpoLossConfig,
    DpoTerms,
    PairErrors,
    dpo_loss,
    label_target,
    logit_per_beta,
    mean_where,
)


class PairThumbs(NamedTuple):
    """Probability in [0, 1] that each clip of a pair got a thumb up; NaN where nobody said."""

    chosen: Tensor
    """Shape (rows, segments)."""
    rejected: Tensor
    """The same for the other member; two disliked clips are a pair that is both bad."""


def pair_thumbs(preference: Tensor, both_bad: Tensor) -> PairThumbs:
    """Return what the labels of pairs say of single clips.

    The preferred clip is liked and the other disliked, both with the label's probability; two bad clips are disliked.

    Args:
        preference: Probability in [0, 1] that "chosen" is the better clip, shape (rows, segments); NaN where nobody
            said.
        both_bad: Whether both clips are bad, bool, of the same shape.
    """
    return PairThumbs(*(share.masked_fill(both_bad, 0.0) for share in (preference, 1 - preference)))


class KtoTerms(NamedTuple):
    """The loss of single clips and what is logged of it; only `loss` carries a gradient."""

    loss: Tensor
    """Shape (rows,): mean over the labelled segments, 0 where nothing is labelled."""
    gain: Tensor
    """Error of the reference minus error of the model, shape (rows, segments)."""


def kto_loss(
    policy_error: Tensor,
    reference_error: Tensor,
    *,
    liked: Tensor,
    sigma: Tensor,
    config: DpoLossConfig,
    beta: float,
    reference_point: Tensor,
) -> KtoTerms:
    """Return the loss of every clip, unreduced, and its gain.

    Args:
        policy_error: Errors of the trained model, shape (rows, segments).
        reference_error: Errors of the reference at the same noise.
        liked: Probability in [0, 1] of a thumb up, shape (rows, segments); NaN where nobody said.
        sigma: Noise level of each row, shape (rows,).
        config: Conventions, label smoothing, weights.
        beta: Pull to the reference.
        reference_point: z of `kto_reference_point`, scalar.
    """
    gain = reference_error - policy_error
    logit = beta * logit_per_beta(gain, sigma, config) - reference_point.detach()
    share = liked.nan_to_num(nan=0.5)
    target = label_target(share, config)
    losses = target * torch.sigmoid(-logit) + config.disliked_weight * (1 - target) * torch.sigmoid(logit)
    losses = losses + config.sft_weight * share * policy_error
    return KtoTerms(mean_where(~liked.isnan(), losses), gain.detach())


def kto_pair_loss(
    policy: PairErrors,
    reference: PairErrors,
    *,
    thumbs: PairThumbs,
    sigma: Tensor,
    config: DpoLossConfig,
    beta: float,
    reference_point: Tensor,
) -> DpoTerms:
    """Return `kto_loss` of the clips of pairs, each by its own thumb: the mean over what is labelled of either member.

    Args:
        policy: Errors of the trained model.
        reference: Errors of the reference at the same noise.
        thumbs: Whether each clip is liked.
        sigma: Noise level of each row, shape (rows,).
        config: Conventions, label smoothing, weights.
        beta: Pull to the reference.
        reference_point: z of `kto_reference_point` over both members' gains, scalar.
    """
    rows, gain = kto_loss(
        torch.cat(policy, dim=1),
        torch.cat(reference, dim=1),
        liked=torch.cat(thumbs, dim=1),
        sigma=sigma,
        config=config,
        beta=beta,
        reference_point=reference_point,
    )
    chosen_gain, rejected_gain = gain.chunk(2, dim=1)
    return DpoTerms(rows, chosen_gain - rejected_gain, chosen_gain, rejected_gain)


def pair_loss(
    policy: PairErrors,
    reference: PairErrors,
    *,
    preference: Tensor,
    both_bad: Tensor,
    sigma: Tensor,
    config: DpoLossConfig,
    beta: float,
    reference_point: Tensor,
) -> DpoTerms:
    """Return the loss of any kind of every row: `dpo_loss`, or `kto_pair_loss` with the pair's thumbs.

    Args:
        policy: Errors of the trained model.
        reference: Errors of the reference at the same noise.
        preference: Probability in [0, 1] that "chosen" is the better clip, shape (rows, segments), NaN where nobody
            said.
        both_bad: Whether both clips are bad, bool, of the same shape; read by kto alone.
        sigma: Noise level of each row, shape (rows,).
        config: Kind and conventions.
        beta: Pull to the reference.
        reference_point: z of the global batch, scalar; read by kto alone.
    """
    if config.kind != "kto":
        return dpo_loss(policy, reference, preference=preference, sigma=sigma, config=config, beta=beta)
    return kto_pair_loss(
        policy,
        reference,
        thumbs=pair_thumbs(preference, both_bad),
        sigma=sigma,
        config=config,
        beta=beta,
        reference_point=reference_point,
    )


def kto_reference_point(gain: Tensor, *, sigma: Tensor, config: DpoLossConfig, beta: float) -> Tensor:
    """Return z, the mean logit of the batch, clipped at 0: KTO's estimate of the divergence from the reference.

    Args:
        gain: Error of the reference minus error of the model for the GLOBAL batch (gathered), shape (rows, segments);
            NaN where nobody said.
        sigma: Noise level of each row, shape (rows,).
        config: Conventions.
        beta: Pull to the reference.

    Returns:
        Scalar >= 0, detached.
    """
    logits = beta * logit_per_beta(gain.detach(), sigma, config)
    return logits.nanmean().nan_to_num(nan=0.0).clamp(min=0.0)
