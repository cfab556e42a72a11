"""Draws the next token in a graph; the section "Sampling" of `runtime/SPEC.md` is this file in words."""

import torch
from torch import Tensor


def next_token(logits: Tensor, uniform: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """Inverse-CDF sampling over the tokens sorted from likely to unlikely (equal logits: lower token first).

    logits: float [batch, n_clusters]; uniform: float [batch] in [0, 1); temperature: float scalar, 0 is greedy;
    top_k: int64 scalar, 0 is off; top_p: float scalar in (0, 1], 1 is off. Returns int64 [batch, 1].
    """
    n_clusters = logits.shape[-1]
    ranked, tokens = torch.topk(logits, n_clusters)
    greedy = temperature <= 0
    scaled = (ranked - ranked[:, :1]) / temperature.masked_fill(greedy, 1.0)
    beyond_k = (torch.arange(n_clusters, device=logits.device) >= top_k) & (top_k > 0)
    probability = torch.softmax(scaled.masked_fill(beyond_k, -torch.inf), dim=-1)
    likelier = torch.cumsum(probability, dim=-1) - probability
    # The likeliest token is always kept, even by a top_p that has underflowed to 0.
    kept = probability.masked_fill((likelier >= top_p) & (likelier > 0), 0.0)
    cumulative = torch.cumsum(kept, dim=-1)
    passed = cumulative <= uniform[:, None] * cumulative[:, -1:]
    # A uniform just below 1 can round up to the whole mass: stay on the last kept token.
    chosen = torch.minimum(passed.sum(-1, keepdim=True), (kept > 0).sum(-1, keepdim=True) - 1)
    return torch.gather(tokens, 1, chosen.masked_fill(greedy, 0))
