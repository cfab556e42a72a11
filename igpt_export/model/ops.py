"""The operations that ONNX Runtime has one kernel each for.

Eagerly each function computes torch maths. While `torch.onnx.export` traces, it emits `com.microsoft` nodes instead;
`igpt_export.model.portable` has the same maths for runtimes without these kernels.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from igpt_runtime.bundle.graph_io import SHARED_CHANNELS

MICROSOFT = "com.microsoft"
_QUICK_GELU_ALPHA = 1.702


def _node(
    name: str, inputs: Sequence[Tensor | None], attrs: dict[str, Any], like: Sequence[Tensor], version: int | None = 1
) -> list[Tensor]:
    """Emit one node, called domain::name, whose outputs have the dtypes and shapes of `like`."""
    dtypes, shapes = [t.dtype for t in like], [t.shape for t in like]
    return list(torch.onnx.ops.symbolic_multi_out(name, inputs, attrs, dtypes=dtypes, shapes=shapes, version=version))


def _fused(name: str, inputs: Sequence[Tensor | None], attrs: dict[str, Any], like: Sequence[Tensor]) -> list[Tensor]:
    """Emit one `com.microsoft` node."""
    return _node(f"{MICROSOFT}::{name}", inputs, attrs, like)


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
        mean = x[..., :1].float()
        like = [x, mean, mean, x]
        attrs = {"epsilon": epsilon}
        normed, _, _, total = _fused("SkipSimplifiedLayerNormalization", (x, skip, weight), attrs, like)
        return normed, total
    total = x + skip
    return functional.rms_norm(total, (total.shape[-1],), weight, epsilon), total


def integer_linear(
    x: Tensor, weight: Tensor, weight_scale: Tensor, input_scale: Tensor, input_zero_point: Tensor, bias: Tensor | None
) -> Tensor:
    """A linear layer in 8-bit integers (W8A8): x is quantised with a scale known beforehand, so rows stay independent.

    x: float [..., n_in]; weight: int8 [n_in, n_out]; weight_scale: [n_out]; input_scale, input_zero_point: scalars,
    float and uint8; bias: [n_out], or None.
    """
    if torch.compiler.is_exporting():
        like = x.new_empty(x.shape, dtype=torch.uint8)
        quantised = _node("::QuantizeLinear", (x, input_scale, input_zero_point), {}, [like], version=None)[0]
        inputs: tuple[Tensor | None, ...] = (quantised, weight, input_scale, weight_scale, input_zero_point)
        inputs += () if bias is None else (None, bias)
        return _fused("MatMulIntegerToFloat", inputs, {}, [x.new_empty((*x.shape[:-1], weight.shape[1]))])[0]
    levels = torch.clamp(torch.round(x / input_scale) + input_zero_point, 0, 255) - input_zero_point
    # float64 holds these sums of products exactly.
    product = (levels.double() @ weight.double()).to(x.dtype) * (input_scale * weight_scale)
    return product if bias is None else product + bias


def nibble_linear(x: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None) -> Tensor:
    """A linear layer with 4-bit weights and activations in floating point.

    x: float [..., n_in]; weight: uint8 [n_out, blocks, block / 2], two weights a byte, low half first, zero at 8;
    weight_scale: [n_out, blocks]; bias: [n_out], or None.
    """
    block = 2 * weight.shape[2]
    if torch.compiler.is_exporting():
        n_out, blocks = weight_scale.shape
        # accuracy_level 4: the kernel multiplies in 8-bit integers, each block of x with a scale of its own.
        attrs = {"K": blocks * block, "N": n_out, "bits": 4, "block_size": block, "accuracy_level": 4}
        inputs: tuple[Tensor | None, ...] = (x, weight, weight_scale)
        inputs += () if bias is None else (None, None, bias)
        return _fused("MatMulNBits", inputs, attrs, [x.new_empty((*x.shape[:-1], n_out))])[0]
    levels = torch.stack([weight & 15, weight >> 4], dim=-1).reshape(*weight.shape[:2], block).to(x.dtype) - 8
    product = x @ (levels * weight_scale[..., None]).flatten(1).t()
    return product if bias is None else product + bias


def block_size(n_in: int, largest: int) -> int:
    """The largest power of two up to `largest` that divides `n_in`; MatMulNBits takes 16 and more."""
    block = largest
    while n_in % block:
        block //= 2
    return block


CacheScales = tuple[Tensor, Tensor]  # of keys and of values, each float [1, n_head, 1, head_dim]


def cached_attention(
    qkv: Tensor,
    past_key: Tensor,
    past_value: Tensor,
    past_length: Tensor,
    n_head: int,
    scale: float,
    scales: CacheScales | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Causal self-attention of new tokens over a static-capacity cache of which `past_length` slots are filled.

    qkv: [batch, sequence, 3 * n_embd], packed query | key | value; past_key, past_value: [batch, n_head, capacity,
    head_dim], int8 if there are `scales`; past_length: int64 scalar.
    Returns the mixed values [batch, sequence, n_embd] and the cache with the new slots filled.
    """
    batch, sequence = qkv.shape[0], qkv.shape[1]
    n_embd = qkv.shape[2] // 3
    if torch.compiler.is_exporting():
        total, seqlens_k = _lengths(past_key, past_length, batch, sequence)
        attrs: dict[str, Any] = {"num_heads": n_head, "kv_num_heads": n_head, "scale": scale}
        inputs: tuple[Tensor | None, ...] = (qkv, None, None, past_key, past_value, seqlens_k, total)
        if scales is not None:
            kind = "PER_CHANNEL"
            attrs |= {"k_quant_type": kind, "v_quant_type": kind, "kv_cache_bit_width": 8}
            inputs += (None, None, None, None, None, *scales)
        mixed, key, value = _fused("GroupQueryAttention", inputs, attrs, [qkv[..., :n_embd], past_key, past_value])
        return mixed, key, value
    past = int(past_length)
    query, new_key, new_value = _split_heads(qkv, n_head)
    key, value = past_key.clone(), past_value.clone()
    key[:, :, past : past + sequence] = new_key if scales is None else quantize_cache(new_key, scales[0])
    value[:, :, past : past + sequence] = new_value if scales is None else quantize_cache(new_value, scales[1])
    seen_key, seen_value = key[:, :, : past + sequence], value[:, :, : past + sequence]
    if scales is not None:
        seen_key, seen_value = seen_key * scales[0], seen_value * scales[1]
    visible = torch.ones(sequence, past + sequence, dtype=torch.bool, device=qkv.device).tril(past)
    mixed = functional.scaled_dot_product_attention(query, seen_key, seen_value, attn_mask=visible, scale=scale)
    return _merge_heads(mixed), key, value


def _lengths(past_key: Tensor, past_length: Tensor, batch: int, sequence: int) -> tuple[Tensor, Tensor]:
    """Inputs of the attention kernel: the longest row's length, int32 scalar, and every row's less one, int32 [batch].

    CUDA's kernel wants the first on the host and the second on the device. With a float16 cache, which is for CUDA, the
    first is therefore an upper bound that no step changes, the capacity (kernels read the real lengths from the second
    only), and the second does not mix device and host numbers: a step can be captured as a CUDA graph.
    """
    if past_key.dtype != torch.float16:
        total = (past_length + sequence).to(torch.int32)
        return total, (total - 1).expand(batch)
    capacity = torch.scalar_tensor(past_key.shape[2], dtype=torch.int32)
    return capacity, (torch.arange(sequence) + past_length)[-1:].to(torch.int32).expand(batch)


def quantize_cache(x: Tensor, scale: Tensor) -> Tensor:
    """Keys or values [batch, n_head, slots, head_dim] as int8, rounded half to even as the kernel does.

    scale: [1, n_head, 1, head_dim], which is one more axis than the operator that rounds takes.
    """
    x = x * scale.reciprocal()
    if torch.compiler.is_exporting():
        one, zero = torch.ones(()), torch.zeros((), dtype=torch.int8)
        return _node("::QuantizeLinear", (x, one, zero), {}, [x.to(torch.int8)], version=None)[0]
    return torch.clamp(torch.round(x), -128, 127).to(torch.int8)


def shared_prefix_attention(
    qkv: Tensor,
    prefix: tuple[Tensor, Tensor],
    own: tuple[Tensor, Tensor],
    past_length: Tensor,
    n_head: int,
    scale: float,
    scales: CacheScales | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Self-attention of one new token a row over a prefix that all rows share and the row's own tokens since.

    qkv: [batch, 1, 3 * n_embd]; prefix: key [1, n_head, prefix, head_dim] and value [1, n_head, head_dim, prefix],
    float, those of an int8 cache not yet times their scales; own: key and value of the own tokens, [batch, n_head,
    capacity, head_dim + SHARED_CHANNELS], of which slot 0 is the sentinel; past_length: tokens before this one, the
    prefix included.
    Returns the mixed values [batch, 1, n_embd] and the own cache.

    The prefix takes part as real matrix products over all rows, and joins the own tokens' softmax as one more of them,
    the sentinel: its score is the logarithm of the prefix' sum of e^score, which is the weight all of the prefix has.
    The sentinel's value is zero but for a one in the first extra channel, where the kernel that attends to the own
    tokens thus returns the prefix' share w of the whole softmax, so that

        mixed = own mixed + w * prefix mixed
    """
    batch, head_dim = qkv.shape[0], prefix[0].shape[3]
    heads = qkv.reshape(batch, 3 * n_head, head_dim)
    # The prefix is the left factor of both products, which the kernel reads as it lies, while it would rearrange a
    # right one at every step; and it stays four-dimensional, as taking its only row would copy it.
    query = heads[:, :n_head].permute(1, 2, 0)[None]  # [1, n_head, head_dim, batch]
    # [1, n_head, prefix, batch]
    scores = prefix[0] @ (query * (scale if scales is None else scales[0].transpose(2, 3) * scale))
    peak = scores.amax(2, keepdim=True)
    weights = torch.exp(scores - peak)
    total = weights.sum(2, keepdim=True)
    prefix_mixed = (prefix[1] @ weights) / total  # [1, n_head, head_dim, batch]
    if scales is not None:
        prefix_mixed = prefix_mixed * scales[1].transpose(2, 3)
    sentinel = (peak + torch.log(total)) / scale
    # The extra channels: the query's first one meets the sentinel key's one, every other key has zero there.
    extra = functional.pad(_by_row(sentinel), (0, SHARED_CHANNELS - 1, 0, 2 * n_head))
    widened = torch.cat([heads, extra], -1).reshape(batch, 1, -1)
    if scales is not None:
        scales = tuple(functional.pad(s, (0, SHARED_CHANNELS), value=1 / 127) for s in scales)  # type: ignore[assignment]
    own_length = past_length - prefix[0].shape[2] + 1  # and the sentinel
    mixed, key, value = cached_attention(widened, *own, own_length, n_head, scale, scales)
    by_head = mixed.reshape(batch, n_head, head_dim + SHARED_CHANNELS)
    own_mixed, w, _ = torch.split(by_head, [head_dim, 1, SHARED_CHANNELS - 1], -1)
    merged = own_mixed + w * _by_row(prefix_mixed)
    return merged.reshape(batch, 1, -1), key, value


def _by_row(x: Tensor) -> Tensor:
    """[1, n_head, channels, batch] as [batch, n_head, channels]."""
    return x.permute(3, 1, 2, 0).squeeze(-1)


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
