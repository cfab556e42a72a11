"""How a model of pictures starts: knowing rows from columns, and which colours are alike."""

import math

import torch
from torch import Tensor

from igpt_export.model.model import ImageGPT
from igpt_runtime.bundle.config import ImageGPTConfig

_PLACES, _COLOURS = 0.1, 0.05  # root mean squares of what is known, beside the usual noise of 0.02


@torch.no_grad()
def start(config: ImageGPTConfig, height: int, clusters: Tensor, seed: int) -> ImageGPT:
    """A model to be trained.

    Positions are learnt in ImageGPT, and a picture's 1,024 are many to learn: they start as sines of row and column,
    by which looking one row up is a turn. Tokens start with a part that is linear in their colour, in [-1, 1] [n, 3].
    """
    model = ImageGPT(config).initialize(seed)
    width = config.n_positions // height
    model.wpe.weight += _PLACES * _grid(height, width, config.n_embd)
    generator = torch.Generator().manual_seed(seed)
    spread = torch.randn(3, config.n_embd, generator=generator) / clusters.pow(2).sum(1).mean().sqrt()
    model.wte.weight[:-1] += _COLOURS * clusters @ spread
    return model


def _grid(height: int, width: int, n_embd: int) -> Tensor:
    """Sines and cosines of rows and columns [height * width, n_embd], of root mean square 1."""
    rows, columns = _waves(height, n_embd // 2), _waves(width, n_embd - n_embd // 2)
    both = torch.cat([rows[:, None].expand(-1, width, -1), columns[None].expand(height, -1, -1)], -1)
    return both.flatten(0, 1) * math.sqrt(2)


def _waves(length: int, n: int) -> Tensor:
    """Waves of lengths from 2 pi to that times `length` [length, n]."""
    frequencies = length ** -torch.linspace(0, 1, -(-n // 2))
    angles = torch.arange(length)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], 1)[:, :n]
