"""ImageGPT as one torch module: explicit cache in, explicit cache out, every hidden state on the way.

The arithmetic is transformers' `modeling_imagegpt.py` (itself image-gpt's `src/model.py`), restated so that every
residual addition happens inside the layer norm that follows it: that is the form ONNX Runtime has one kernel for.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from igpt_export.model.ops import (
    CacheScales,
    block_size,
    cached_attention,
    causal_attention,
    integer_linear,
    nibble_linear,
    quick_gelu,
    shared_prefix_attention,
    skip_rms_norm,
)
from igpt_runtime.bundle.config import PROTOCOLS, Classifier, ImageGPTConfig

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "quick_gelu": quick_gelu,
    "gelu_new": lambda x: functional.gelu(x, approximate="tanh"),
    "gelu": functional.gelu,
    "relu": functional.relu,
}

Cache = Sequence[Tensor]  # key and value of block 0, key and value of block 1, ...


class Conv1D(nn.Module):
    """A linear layer whose weight lies as ONNX MatMul wants it, [n_in, n_out] (GPT-2's Conv1D)."""

    def __init__(self, n_in: int, n_out: int, *, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_in, n_out))
        self.bias = nn.Parameter(torch.empty(n_out)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        product = x @ self.weight
        return product if self.bias is None else product + self.bias


class IntegerConv1D(nn.Module):
    """A Conv1D in 8-bit integers: see `igpt_export.model.ops.integer_linear`."""

    def __init__(self, n_in: int, n_out: int, *, bias: bool) -> None:
        super().__init__()
        self.weight = _constant(n_in, n_out, dtype=torch.int8)
        self.weight_scale = _constant(n_out)
        self.input_scale = _constant()
        self.input_zero_point = _constant(dtype=torch.uint8)
        self.bias = _constant(n_out) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return integer_linear(x, self.weight, self.weight_scale, self.input_scale, self.input_zero_point, self.bias)


class NibbleConv1D(nn.Module):
    """A Conv1D with 4-bit weights: see `igpt_export.model.ops.nibble_linear`."""

    def __init__(self, n_in: int, n_out: int, *, bias: bool) -> None:
        super().__init__()
        block = block_size(n_in, NIBBLE_BLOCK)
        self.weight = _constant(n_out, n_in // block, block // 2, dtype=torch.uint8)
        self.weight_scale = _constant(n_out, n_in // block)
        self.bias = _constant(n_out) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return nibble_linear(x, self.weight, self.weight_scale, self.bias)


def _constant(*shape: int, dtype: torch.dtype = torch.float32) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape, dtype=dtype), requires_grad=False)


NIBBLE_BLOCK = 128  # 4-bit weights that share a scale

Linear = Callable[[int, int], nn.Module]  # makes a linear layer of n_in inputs and n_out outputs

LINEAR: dict[str, Callable[..., nn.Module]] = {
    "float": Conv1D,
    "integer": IntegerConv1D,
    "nibble": NibbleConv1D,
}


@dataclass(frozen=True)
class Parts:
    """What some checkpoints have and others lack."""

    lm_head: bool = True
    n_labels: int = 0  # 0 for no classifier
    n_features: int | None = None  # that the classifier reads; None for n_embd, those of one layer
    classifier_bias: bool = False
    linear_bias: bool = True  # in the blocks; OpenAI's own checkpoints have none

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> "Parts":
        """The parts that tensors named as ImageGPT's parameters are for."""
        classes = tensors.get("classifier.weight")
        return cls(
            lm_head="lm_head.weight" in tensors,
            n_labels=0 if classes is None else len(classes),
            n_features=None if classes is None else classes.shape[1],
            classifier_bias="classifier.bias" in tensors,
            linear_bias="h.0.attn.c_attn.bias" in tensors,
        )


class RMSNorm(nn.Module):
    """ImageGPT's layer norm over a sum: no mean, no bias."""

    def __init__(self, config: ImageGPTConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.n_embd))
        self.epsilon = config.layer_norm_epsilon

    def forward(self, x: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        return skip_rms_norm(x, skip, self.weight, self.epsilon)


class Attention(nn.Module):
    """Multi-head causal self-attention."""

    def __init__(self, config: ImageGPTConfig, layer: int, linear: Linear, *, int8_cache: bool) -> None:
        super().__init__()
        self.n_head, self.scale = config.n_head, config.attention_scale(layer)
        self.c_attn = linear(config.n_embd, 3 * config.n_embd)
        self.c_proj = linear(config.n_embd, config.n_embd)
        self.k_scale = _constant(1, config.n_head, 1, config.head_dim) if int8_cache else None
        self.v_scale = _constant(1, config.n_head, 1, config.head_dim) if int8_cache else None

    def forward(self, x: Tensor, past: Cache | None, past_length: Tensor, prefix: Cache | None) -> tuple[Tensor, Cache]:
        qkv = self.c_attn(x)
        if past is None:
            return self.c_proj(causal_attention(qkv, self.n_head, self.scale)), ()
        n_head, scale, own = self.n_head, self.scale, (past[0], past[1])
        # A float cache may be asked of a model with int8 scales: prefill quantises it afterwards.
        scales: CacheScales | None = None
        if past[0].dtype == torch.int8 and self.k_scale is not None and self.v_scale is not None:
            scales = self.k_scale, self.v_scale
        if prefix is None:
            mixed, key, value = cached_attention(qkv, *own, past_length, n_head, scale, scales)
        else:
            shared = (prefix[0], prefix[1])
            mixed, key, value = shared_prefix_attention(qkv, shared, own, past_length, n_head, scale, scales)
        return self.c_proj(mixed), (key, value)


class MLP(nn.Module):
    """Two linear layers around the activation."""

    def __init__(self, config: ImageGPTConfig, linear: Linear) -> None:
        super().__init__()
        self.c_fc = linear(config.n_embd, config.inner_dim)
        self.c_proj = linear(config.inner_dim, config.n_embd)
        self.activation = ACTIVATIONS[config.activation_function]

    def forward(self, x: Tensor) -> Tensor:
        projected: Tensor = self.c_proj(self.activation(self.c_fc(x)))
        return projected


class Block(nn.Module):
    """One transformer block. The stream is a pair (x, residual) whose sum is the hidden state."""

    def __init__(self, config: ImageGPTConfig, layer: int, linear: Linear, *, int8_cache: bool) -> None:
        super().__init__()
        self.ln_1, self.attn = RMSNorm(config), Attention(config, layer, linear, int8_cache=int8_cache)
        self.ln_2, self.mlp = RMSNorm(config), MLP(config, linear)

    def forward(
        self, x: Tensor, residual: Tensor, past: Cache | None, past_length: Tensor, prefix: Cache | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Cache]:
        normed, hidden = self.ln_1(x, residual)
        mixed, present = self.attn(normed, past, past_length, prefix)
        middle, residual = self.ln_2(mixed, hidden)
        return self.mlp(middle), residual, hidden, normed, present


class States(NamedTuple):
    """What a run of the transformer leaves."""

    last: Tensor  # the last hidden state, after the final layer norm [batch, sequence, n_embd]
    hidden: list[Tensor]  # n_layer + 1: the input of every block and `last`, as transformers counts them
    normed: list[Tensor]  # n_layer + 1: the layer-normed input of every block's attention and `last`
    present: list[Tensor]  # the cache with the new slots filled: per block key and value


def pooled(states: Sequence[Tensor]) -> Tensor:
    """The mean over the sequence of each, in float32 [batch, len(states), n_embd]."""
    return torch.cat([mean(state) for state in states], dim=1)


def mean(state: Tensor) -> Tensor:
    """The mean over the sequence, in float32 [batch, 1, n_embd]."""
    return state.float().mean(1, keepdim=True)


class ImageGPT(nn.Module):
    """The transformer with the heads its checkpoint has: `lm_head`, and a linear `classifier` over pooled features.

    Parameter names are those of the Hugging Face checkpoints below `transformer.`, plus `lm_head` and `classifier`.
    """

    def __init__(
        self, config: ImageGPTConfig, parts: Parts | None = None, *, linear: str = "float", int8_cache: bool = False
    ) -> None:
        """A model with weights not yet set.

        linear: what the blocks' linear layers are, a key of LINEAR; int8_cache: whether it has scales for one.
        """
        super().__init__()
        self.config = config
        parts = parts or Parts()
        make_linear = partial(LINEAR[linear], bias=parts.linear_bias)
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.n_positions, config.n_embd)
        self.h = nn.ModuleList(
            Block(config, layer, make_linear, int8_cache=int8_cache) for layer in range(config.n_layer)
        )
        self.ln_f = RMSNorm(config)
        self.lm_head = nn.Linear(config.n_embd, config.n_clusters, bias=False) if parts.lm_head else None
        self.classifier = None
        if parts.n_labels:
            n_features = parts.n_features or config.n_embd
            self.classifier = nn.Linear(n_features, parts.n_labels, bias=parts.classifier_bias)

    def forward(
        self,
        input_ids: Tensor,
        past_length: Tensor | int = 0,
        past: Cache | None = None,
    ) -> States:
        """Run new tokens through all blocks.

        input_ids: int64 [batch, sequence]; past_length: filled slots of the cache; past: per block key and value
        [batch, n_head, capacity, head_dim], or None to run without a cache.
        """
        past_length = torch.as_tensor(past_length)
        x, residual = self.embed(input_ids, past_length)
        hidden_states: list[Tensor] = []
        normed_states: list[Tensor] = []
        present: list[Tensor] = []
        for layer, block in enumerate(self.h):
            layer_past = None if past is None else past[2 * layer : 2 * layer + 2]
            x, residual, hidden, normed, layer_present = block(x, residual, layer_past, past_length, None)
            hidden_states.append(hidden)
            normed_states.append(normed)
            present.extend(layer_present)
        last, _ = self.ln_f(x, residual)
        return States(last, [*hidden_states, last], [*normed_states, last], present)

    def embed(self, input_ids: Tensor, past_length: Tensor) -> tuple[Tensor, Tensor]:
        """The stream that the first block reads: x [batch, sequence, n_embd]; residual too, or one row for all."""
        positions = torch.arange(input_ids.shape[1], device=input_ids.device) + past_length
        x, residual = self.wte(input_ids), self.wpe(positions)[None]
        if x.dtype == torch.float16:
            # CUDA's norm with float32 sums ("strict mode") takes no broadcast skip.
            residual = residual.expand_as(x)
        return x, residual

    def class_logits(self, states: States, classifier: Classifier) -> Tensor:
        """Logits of the classes [batch, n_labels], from what a run over inputs of the classifier's protocol left.

        Of the states only their means count: those may be given instead, as states of one position.
        """
        read = states.normed if PROTOCOLS[classifier.protocol].normed else states.hidden
        return self.classify(pooled([read[layer] for layer in classifier.layers]))

    def classify(self, features: Tensor) -> Tensor:
        """Logits of the classes [batch, n_labels], from the features that they depend on [batch, layers, n_embd]."""
        assert self.classifier is not None, "this model has no classifier"
        logits: Tensor = self.classifier(features.flatten(1).to(self.classifier.weight.dtype))
        return logits.float()

    def logits(self, input_ids: Tensor) -> Tensor:
        """Next-token logits [batch, sequence, n_clusters] of whole sequences [batch, sequence], without a cache."""
        assert self.lm_head is not None, "this model has no lm_head"
        logits: Tensor = self.lm_head(self(input_ids).last)
        return logits

    @torch.no_grad()
    def initialize(self, seed: int) -> "ImageGPT":
        """GPT-2's initialisation. One seed, one result."""
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            initialize_parameter(parameter, name, self.config, generator)
        return self


def initialize_parameter(parameter: Tensor, name: str, config: ImageGPTConfig, generator: torch.Generator) -> None:
    """GPT-2's initialisation: normal 0.02, residual projections by 1/sqrt(2 n_layer)."""
    if name.endswith("bias"):
        parameter.zero_()
    elif parameter.dim() == 1:
        parameter.fill_(1.0)
    else:
        residual = name.endswith("c_proj.weight")
        std = 0.02 * ((2 * config.n_layer) ** -0.5 if residual else 1.0)
        parameter.normal_(0.0, std, generator=generator)
