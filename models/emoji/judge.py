"""Tells which category a picture is of: a small convolutional network, trained on real emoji only."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.emoji import rendering
from models.emoji.emoji import Bytes, Emoji, Ints

_EPOCHS, _BATCH, _RATE = 24, 64, 2e-3
_WIDTHS = (32, 64, 128)


class Judge(nn.Module):
    """From pictures float32 [n, 3, 32, 32] in [-1, 1] to logits of the categories [n, categories]."""

    def __init__(self, categories: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for n_in, n_out in zip((3, *_WIDTHS), _WIDTHS, strict=False):
            for source in (n_in, n_out):
                layers += [nn.Conv2d(source, n_out, 3, padding=1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()]
            layers.append(nn.MaxPool2d(2))
        self.body, self.head = nn.Sequential(*layers), nn.Linear(_WIDTHS[-1] * 16, categories)

    def forward(self, pictures: Tensor) -> Tensor:
        found: Tensor = self.head(functional.dropout(self.body(pictures).flatten(1), 0.3, self.training))
        return found

    @torch.inference_mode()
    def categories(self, pictures: Bytes) -> Ints:
        """The category of each of pictures uint8 [n, 32, 32, 3]."""
        self.eval()
        return torch.cat(
            [self(as_floats(part)).argmax(1) for part in np.array_split(pictures, -(-len(pictures) // 256))]
        ).numpy()


def as_floats(pictures: Bytes) -> Tensor:
    """Pictures uint8 [n, 32, 32, 3] as the network takes them."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def train_judge(emoji: Emoji, rows: Ints, labels: Ints, seed: int) -> Judge:
    """Train on varied pictures of some rows, all categories alike. labels: [len(rows)]."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    counts = np.bincount(labels)
    weights = 1 / counts[labels] ** 0.5
    weights /= weights.sum()
    judge = Judge(len(counts)).train()
    steps = _EPOCHS * len(rows) // _BATCH
    optimizer = torch.optim.AdamW(judge.parameters(), lr=_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps)
    for _ in range(steps):
        chosen = rng.choice(len(rows), _BATCH, p=weights)
        pictures = as_floats(rendering.vary(emoji, rows[chosen], rng))
        loss = functional.cross_entropy(judge(pictures), torch.from_numpy(labels[chosen]), label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return judge
