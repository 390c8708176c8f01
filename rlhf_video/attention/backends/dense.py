"""What a window that covers the clip is: plain attention, bit for bit what the model computes without a plan."""

import torch
from torch import Tensor
from torch.nn import functional

from rlhf_video.attention.problem import Problem


def dense_attention(query: Tensor, key: Tensor, value: Tensor, problem: Problem) -> Tensor:
    """Return full attention, (B, N, S, D); padded text is no key."""
    q_BSND, k_BSND, v_BSND = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
    mask = None
    text = problem.text
    if text is not None and text.valid is not None and min(text.valid) < text.length:
        place = torch.arange(problem.num_tokens, device=query.device)
        count = torch.tensor(text.valid, device=query.device)[:, None]
        first = problem.first_text_token
        mask = ((place < first + count) | (place >= first + text.length))[:, None, None]
    out = functional.scaled_dot_product_attention(q_BSND, k_BSND, v_BSND, attn_mask=mask, scale=problem.scale)
    return out.transpose(1, 2)
