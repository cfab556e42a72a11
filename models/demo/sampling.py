"""Continues token sequences with the product's own sampler."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from igpt_export.model.model import ImageGPT
from igpt_export.model.sampling import next_token

_BATCH = 128  # sequences sampled at once


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn."""

    temperature: float = 1.0
    top_k: int = 0  # 0 is off
    top_p: float = 1.0  # 1 is off


@torch.inference_mode()
def continue_sequences(model: ImageGPT, primers: Tensor, sampling: Sampling, seed: int) -> Tensor:
    """Complete primers int64 [n, given] (given may be 0) to whole sequences int64 [n, n_positions]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.cat([_continue(model, chunk, sampling, generator) for chunk in primers.split(_BATCH)])


def _continue(model: ImageGPT, primers: Tensor, sampling: Sampling, generator: torch.Generator) -> Tensor:
    config = model.config
    assert model.lm_head is not None
    shape = (len(primers), config.n_head, config.n_positions, config.head_dim)
    cache = [torch.zeros(shape) for _ in range(2 * config.n_layer)]
    temperature, top_p = torch.tensor(sampling.temperature), torch.tensor(sampling.top_p)
    top_k = torch.tensor(sampling.top_k)
    sequence = functional.pad(primers, (1, 0), value=config.sos)
    new, past_length = sequence, 0
    while sequence.shape[1] <= config.n_positions:
        states = model(new, past_length, cache)
        cache = states.present
        past_length += new.shape[1]
        uniform = torch.rand(len(primers), generator=generator)
        new = next_token(model.lm_head(states.last[:, -1]), uniform, temperature, top_k, top_p)
        sequence = torch.cat([sequence, new], 1)
    return sequence[:, 1:]
