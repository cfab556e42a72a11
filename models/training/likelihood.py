"""Nats per token of two count models that any model should beat."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_STRENGTHS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)  # pseudo-counts tried on validation pictures

Ints = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Counts:
    """How often tokens followed contexts, both numbered; most pairs never occur, so only the others are kept."""

    pairs: Ints  # context * vocabulary + token, rising
    of_pair: Ints
    contexts: Ints  # rising
    of_context: Ints
    vocabulary: int

    @classmethod
    def of(cls, contexts: Ints, tokens: Ints, vocabulary: int) -> "_Counts":
        pairs, of_pair = np.unique(contexts * vocabulary + tokens, return_counts=True)
        return cls(pairs, of_pair, *np.unique(contexts, return_counts=True), vocabulary)

    def backed_off(self, contexts: Ints, tokens: Ints, shorter: Doubles, strength: float) -> Doubles:
        """Probabilities of tokens, mixed with those that a shorter context gives them."""
        pair = _looked_up(self.pairs, self.of_pair, contexts * self.vocabulary + tokens)
        total = _looked_up(self.contexts, self.of_context, contexts)
        result: Doubles = (pair + strength * shorter) / (total + strength)
        return result


@dataclass(frozen=True, eq=False)
class CountModel:
    """Token counts of training pictures; backs off from (left, up) to left to the unigram."""

    unigram: Doubles  # [vocabulary], add-one smoothed
    left: _Counts
    both: _Counts
    width: int
    strength: float  # pseudo-counts given to the shorter context

    def unigram_nats(self, tokens: Ints) -> Doubles:
        """Nats of tokens [n, n_positions] without context."""
        result: Doubles = -np.log(self.unigram[tokens])
        return result

    def neighbour_nats(self, tokens: Ints) -> Doubles:
        """Nats of tokens [n, n_positions] given their left and up neighbours."""
        left, both = _contexts(tokens, self.width, len(self.unigram))
        given_left = self.left.backed_off(left, tokens, self.unigram[tokens], self.strength)
        result: Doubles = -np.log(self.both.backed_off(both, tokens, given_left, self.strength))
        return result


def fit_counts(training: Ints, validation: Ints, width: int, vocabulary: int) -> CountModel:
    """Count training tokens [n, n_positions]; the back-off strength is the best one on validation tokens."""
    left, both = _contexts(training, width, vocabulary)
    counts = np.bincount(training.ravel(), minlength=vocabulary) + 1
    tables = (_Counts.of(context.ravel(), training.ravel(), vocabulary) for context in (left, both))
    unigram, (by_left, by_both) = counts / counts.sum(), tables
    candidates = [CountModel(unigram, by_left, by_both, width, strength) for strength in _STRENGTHS]
    return min(candidates, key=lambda model: model.neighbour_nats(validation).mean())


def _contexts(tokens: Ints, width: int, vocabulary: int) -> tuple[Ints, Ints]:
    """What is left of every token, and that with what is above it, as numbers [n, n_positions]."""
    grid = np.pad(tokens.reshape(len(tokens), -1, width), ((0, 0), (1, 0), (1, 0)), constant_values=vocabulary)
    left, up = (part.reshape(len(tokens), -1) for part in (grid[:, 1:, :-1], grid[:, :-1, 1:]))
    return left, left * (vocabulary + 1) + up


def _looked_up(keys: Ints, counts: Ints, wanted: Ints) -> Ints:
    place = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    found: Ints = np.where(keys[place] == wanted, counts[place], 0)
    return found
