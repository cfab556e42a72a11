"""The three operations that ONNX Runtime has one kernel each for.

Eagerly each function computes torch maths. While `torch.onnx.export` traces, it emits one `com.microsoft` node instead;
`igpt_export.portable` has the same maths for runtimes without these kernels.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

MICROSOFT = "com.microsoft"
_QUICK_GELU_ALPHA = 1.702


def _fused(name: str, inputs: Sequence[Tensor | None], attrs: dict[str, Any], like: Sequence[Tensor]) -> list[Tensor]:
    """Emit one `com.microsoft` node whose outputs have the dtypes and shapes of `like`."""
    outputs = torch.onnx.ops.symbolic_multi_out(
        f"{MICROSOFT}::{name}", inputs, attrs, dtypes=[t.dtype for t in like], shapes=[t.shape for t in like], version=1
    )
    return list(outputs)


def quick_gelu(x: Tensor) -> Tensor:
    """`x * sigmoid(1.702 x)`, the gelu of image-gpt's `model.py` (gelu2). Any shape."""
    if torch.compiler.is_exporting():
        return _fused("QuickGelu", (x,), {"alpha": _QUICK_GELU_ALPHA}, [x])[0]
    return x * torch.sigmoid(_QUICK_GELU_ALPHA * x)


def skip_rms_norm(x: Tensor, skip: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """ImageGPT's layer norm (no mean, no bias) of `x + skip`; returns the normed sum and the sum.

    x: [batch, sequence, n_embd]; skip: the same shape, or [1, sequence, n_embd]; weight: [n_embd].
    """
    if torch.compiler.is_exporting():
        like = [x, x[..., :1], x[..., :1], x]
        attrs = {"epsilon": epsilon}
        normed, _, _, total = _fused("SkipSimplifiedLayerNormalization", (x, skip, weight), attrs, like)
        return normed, total
    total = x + skip
    return functional.rms_norm(total, (total.shape[-1],), weight, epsilon), total


def cached_attention(
    qkv: Tensor, past_key: Tensor, past_value: Tensor, past_length: Tensor, n_head: int, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Causal self-attention of new tokens over a static-capacity cache of which `past_length` slots are filled.

    qkv: [batch, sequence, 3 * n_embd], packed query | key | value; past_key, past_value: [batch, n_head, capacity,
    head_dim]; past_length: int64 scalar.
    Returns the mixed values [batch, sequence, n_embd] and the cache with the new slots filled.
    """
    batch, sequence = qkv.shape[0], qkv.shape[1]
    n_embd = qkv.shape[2] // 3
    if torch.compiler.is_exporting():
        total = (past_length + sequence).to(torch.int32)
        seqlens_k = (total - 1).expand(batch)
        attrs = {"num_heads": n_head, "kv_num_heads": n_head, "scale": scale}
        inputs = (qkv, None, None, past_key, past_value, seqlens_k, total)
        mixed, key, value = _fused("GroupQueryAttention", inputs, attrs, [qkv[..., :n_embd], past_key, past_value])
        return mixed, key, value
    past = int(past_length)
    query, new_key, new_value = _split_heads(qkv, n_head)
    key, value = past_key.clone(), past_value.clone()
    key[:, :, past : past + sequence] = new_key
    value[:, :, past : past + sequence] = new_value
    visible = torch.ones(sequence, past + sequence, dtype=torch.bool, device=qkv.device).tril(past)
    mixed = functional.scaled_dot_product_attention(
        query, key[:, :, : past + sequence], value[:, :, : past + sequence], attn_mask=visible, scale=scale
    )
    return _merge_heads(mixed), key, value


def causal_attention(qkv: Tensor, n_head: int, scale: float) -> Tensor:
    """Causal self-attention of a whole sequence without a cache (for training). qkv: [batch, sequence, 3 * n_embd]."""
    query, key, value = _split_heads(qkv, n_head)
    return _merge_heads(functional.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale))


def _split_heads(qkv: Tensor, n_head: int) -> tuple[Tensor, Tensor, Tensor]:
    batch, sequence, width = qkv.shape
    query, key, value = (t.view(batch, sequence, n_head, -1).transpose(1, 2) for t in torch.split(qkv, width // 3, -1))
    return query, key, value


def _merge_heads(mixed: Tensor) -> Tensor:
    return mixed.transpose(1, 2).flatten(2)
