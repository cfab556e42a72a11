"""Nats per token: of the model, and of two count models that any model should beat."""

from dataclasses import dataclass

import digits
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from igpt_export.model.model import ImageGPT

_BATCH = 60
_OUTSIDE = 256  # stands for a neighbour beyond the picture's edge
_STRENGTHS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)  # pseudo-counts tried on validation pictures

Counts = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]


def prepend_sos(tokens: Tensor, sos: int) -> Tensor:
    """Model input of token sequences [n, n_positions]: sos and all tokens but the last."""
    return functional.pad(tokens[:, :-1].long(), (1, 0), value=sos)


@torch.inference_mode()
def model_nats(model: ImageGPT, tokens: Tensor) -> Doubles:
    """The model's nats for every token of sequences [n, n_positions]; same shape."""
    nats = []
    for chunk in tokens.long().split(_BATCH):
        logits = model.logits(prepend_sos(chunk, model.config.sos))
        nats.append(functional.cross_entropy(logits.transpose(1, 2), chunk, reduction="none"))
    result: Doubles = torch.cat(nats).double().numpy()
    return result


@dataclass(frozen=True, eq=False)
class CountModel:
    """Token counts of training pictures; backs off from (left, up) to left to the unigram."""

    both: Counts  # [257, 257, 256], by left and up neighbour
    strength: float = 1.0  # pseudo-counts given to the shorter context

    def unigram_nats(self, tokens: digits.Bytes) -> Doubles:
        """Nats of tokens [n, 256] without context (add-one smoothing)."""
        result: Doubles = -np.log(self._unigram())[tokens]
        return result

    def neighbour_nats(self, tokens: digits.Bytes) -> Doubles:
        """Nats of tokens [n, 256] given their left and up neighbours."""
        left, up = _neighbours(tokens)
        by_left = self.both.sum(1)
        given_left = _back_off(by_left, self._unigram()[None], self.strength)[left, tokens]
        total = self.both.sum(-1)[left, up]
        result: Doubles = -np.log((self.both[left, up, tokens] + self.strength * given_left) / (total + self.strength))
        return result

    def _unigram(self) -> Doubles:
        counts = self.both.sum((0, 1)) + 1
        return counts / counts.sum()


def fit_counts(training: digits.Bytes, validation: digits.Bytes) -> CountModel:
    """Count training tokens [n, 256]; the back-off strength is the best one on validation tokens."""
    left, up = _neighbours(training)
    flat = (left * 257 + up) * 256 + training
    both = np.bincount(flat.ravel(), minlength=257 * 257 * 256).reshape(257, 257, 256)
    candidates = [CountModel(both, strength) for strength in _STRENGTHS]
    return min(candidates, key=lambda model: model.neighbour_nats(validation).mean())


def _back_off(counts: Counts, shorter: Doubles, strength: float) -> Doubles:
    return (counts + strength * shorter) / (counts.sum(-1, keepdims=True) + strength)


def _neighbours(tokens: digits.Bytes) -> tuple[Counts, Counts]:
    """Left and up neighbour of every token, int64 [n, 256] each."""
    grid = tokens.reshape(-1, digits.SIDE, digits.SIDE).astype(np.int64)
    padded = np.pad(grid, ((0, 0), (1, 0), (1, 0)), constant_values=_OUTSIDE)
    return padded[:, 1:, :-1].reshape(len(tokens), -1), padded[:, :-1, 1:].reshape(len(tokens), -1)
