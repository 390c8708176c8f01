"""Dense attention with a boolean mask: the definition itself, for tests and small grids. It saves no work."""

from torch import Tensor
from torch.nn import functional

from rlhf_video.attention.problem import Problem
from rlhf_video.attention.window_spec import MAX_MASK_TOKENS


class MaskOracle:
    """Computes all pairs and forgets those outside the window."""

    name = "mask"
    has_backward = True

    def unsuitable(self, query: Tensor, problem: Problem) -> str | None:
        """Refuse grids whose mask would not fit."""
        if problem.grid.num_tokens > MAX_MASK_TOKENS:
            return f"its mask is made for grids up to {MAX_MASK_TOKENS} tokens, {problem.grid} has more"
        return None

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, problem: Problem) -> Tensor:
        """Return the output, (B, N, S, D)."""
        mask = problem.mask(query.shape[2]).to(query.device)
        q_BSND, k_BSND, v_BSND = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
        out = functional.scaled_dot_product_attention(q_BSND, k_BSND, v_BSND, attn_mask=mask, scale=problem.scale)
        return out.transpose(1, 2)
