"""Tells the category of an emoji: convolutional networks trained on real emoji only, never on anything a model drew."""

import math
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.emoji import rendering
from models.emoji.emoji import SIDE, Bytes, Ints
from models.emoji.held_out import categories
from models.emoji.sources import Demo

_STEPS, _BATCH, _RATE = 1500, 64, 3e-3
_WIDTHS = (32, 64, 128, 192)
_SEED = 700
HALF = SIDE // 2  # rows


class Judge(nn.Module):
    """Four stages of two convolutions, each half as large as the one before, and a mean over what is left."""

    def __init__(self, classes: int, rows: int) -> None:
        """rows: how many upper rows of a picture it looks at."""
        super().__init__()
        self.rows = rows
        layers: list[nn.Module] = []
        width = 3
        for stage, wider in enumerate(_WIDTHS):
            for first in (True, False):
                stride = 2 if first and stage else 1
                layers += [nn.Conv2d(width, wider, 3, stride, 1, bias=False), nn.BatchNorm2d(wider), nn.ReLU()]
                width = wider
        self.network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))

    def forward(self, pictures: Tensor) -> Tensor:
        """Logits [n, classes] of pictures uint8 [n, 32, 32, 3]."""
        scaled = pictures[:, : self.rows].permute(0, 3, 1, 2).float() / 127.5 - 1
        logits: Tensor = self.network(scaled)
        return logits

    @torch.inference_mode()
    def labels(self, pictures: Bytes) -> Ints:
        """The category of each picture, uint8 [n, 32, 32, 3]."""
        found = [self(torch.from_numpy(part)).argmax(1) for part in np.array_split(pictures, len(pictures) // 256 + 1)]
        result: Ints = torch.cat(found).numpy()
        return result


def trained_judge(source: Demo, rows: int, kept: Path) -> Judge:
    """A judge of the upper `rows` of a picture, trained as long as a file of that name does not keep its weights."""
    names = categories(source)
    judge = Judge(len(names), rows)
    if kept.exists():
        judge.load_state_dict(torch.load(kept, weights_only=True))
        return judge.eval()
    torch.manual_seed(_SEED)
    judge = Judge(len(names), rows)
    labels = np.array([names.index(category) for category in source.emoji.categories])
    optimizer = torch.optim.AdamW(judge.parameters(), lr=_RATE, weight_decay=0.05)
    rng = np.random.default_rng([_SEED, rows])
    for step in range(_STEPS):
        optimizer.param_groups[0]["lr"] = _RATE * (0.5 + 0.5 * math.cos(math.pi * step / _STEPS))
        chosen = source.draw(_BATCH, rng)
        # Half of them as they are measured, on white.
        pictures = np.concatenate([
            rendering.vary(source.emoji, chosen[::2], rng), rendering.on_white(source.emoji, chosen[1::2]),
        ])  # fmt: skip
        expected = torch.from_numpy(labels[np.concatenate([chosen[::2], chosen[1::2]])])
        loss = functional.cross_entropy(judge(torch.from_numpy(pictures)), expected, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    kept.parent.mkdir(parents=True, exist_ok=True)
    torch.save(judge.state_dict(), kept.with_suffix(".partial"))
    os.replace(kept.with_suffix(".partial"), kept)
    return judge.eval()
