"""ImageGPT as transformers' GPT-2 with its norms replaced: the very function, through the code that peers optimise.

transformers' own ImageGPT class has neither fused attention nor a static cache, and the exporters of OpenVINO and
optimum do not know it. With RMS norms, quick gelu and a head of one class less, their GPT-2 computes the same.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from peers.workload import Shape


class RMSNorm(nn.Module):
    """ImageGPT's layer norm, in the spelling that exporters recognise."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.epsilon) * self.weight


def empty_gpt2(shape: Any, norm: type[nn.Module] = RMSNorm) -> Any:
    """`GPT2LMHeadModel` with ImageGPT's arithmetic and no weights yet.

    shape: a `Shape`, or whatever has its fields; norm: made of a width and an epsilon.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=shape.vocab_size,
        n_positions=shape.n_positions,
        n_embd=shape.n_embd,
        n_layer=shape.n_layer,
        n_head=shape.n_head,
        activation_function="quick_gelu",
        layer_norm_epsilon=shape.layer_norm_epsilon,
        tie_word_embeddings=False,
        bos_token_id=shape.sos,
        eos_token_id=shape.sos,
        attn_implementation="sdpa",
    )
    model = GPT2LMHeadModel(config)
    model.lm_head = nn.Linear(shape.n_embd, shape.n_clusters, bias=False)
    body = model.transformer
    body.ln_f = norm(shape.n_embd, shape.layer_norm_epsilon)
    for block in body.h:
        block.ln_1 = norm(shape.n_embd, shape.layer_norm_epsilon)
        block.ln_2 = norm(shape.n_embd, shape.layer_norm_epsilon)
    return model


def load_as_gpt2(checkpoint: Path, shape: Shape) -> Any:
    """The same with a checkpoint's weights, in eval mode."""
    activation = json.loads((checkpoint / "config.json").read_text())["activation_function"]
    assert activation == "quick_gelu", f"{activation} is not expected"
    model = empty_gpt2(shape)
    model.load_state_dict(load_file(checkpoint / "model.safetensors"))
    return model.requires_grad_(False).eval()
