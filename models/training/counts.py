"""Nats per token of two count models that any model should beat: of a token alone, and after its neighbours."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_STRENGTHS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)  # pseudo-counts tried on validation pictures

Ints = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Counts:
    """How often keys were seen; those never seen are not stored."""

    keys: Ints  # sorted
    counts: Ints

    @classmethod
    def of(cls, keys: Ints) -> "Counts":
        """Count keys, of any shape."""
        return cls(*np.unique(keys, return_counts=True))

    def __getitem__(self, keys: Ints) -> Ints:
        """The counts of keys, of any shape."""
        places = np.searchsorted(self.keys, keys).clip(max=len(self.keys) - 1)
        found: Ints = np.where(self.keys[places] == keys, self.counts[places], 0)
        return found


@dataclass(frozen=True, eq=False)
class CountModel:
    """Token counts of training pictures; backs off from (left, up) to left to the token alone."""

    colours: int
    both: Counts  # by left and up neighbour and token
    left: Counts  # by left neighbour and token
    both_total: Counts
    left_total: Counts
    alone: Doubles  # [colours], the probability of each token
    strength: float = 1.0  # pseudo-counts given to the shorter context

    def alone_nats(self, tokens: Ints) -> Doubles:
        """Nats of tokens, of any shape."""
        result: Doubles = -np.log(self.alone)[tokens]
        return result

    def neighbour_nats(self, tokens: Ints) -> Doubles:
        """Nats of the tokens of pictures [n, height, width], given their left and up neighbours."""
        left, both = _contexts(tokens, self.colours)
        after_left = self._mix(self.left, self.left_total, left, tokens, self.alone[tokens])
        result: Doubles = -np.log(self._mix(self.both, self.both_total, both, tokens, after_left))
        return result

    def _mix(self, counts: Counts, totals: Counts, context: Ints, tokens: Ints, shorter: Doubles) -> Doubles:
        seen = counts[context * self.colours + tokens]
        mixed: Doubles = (seen + self.strength * shorter) / (totals[context] + self.strength)
        return mixed


def fit_counts(training: Ints, validation: Ints, colours: int) -> CountModel:
    """Count the tokens of pictures [n, height, width]; the strength is the best one on validation pictures."""
    left, both = _contexts(training, colours)
    alone = np.bincount(training.ravel(), minlength=colours) + 1.0
    fitted = [
        CountModel(
            colours, Counts.of(both * colours + training), Counts.of(left * colours + training), Counts.of(both),
            Counts.of(left), alone / alone.sum(),
        )
    ]  # fmt: skip
    tried = [CountModel(**{**fitted[0].__dict__, "strength": strength}) for strength in _STRENGTHS]
    return min(tried, key=lambda model: float(model.neighbour_nats(validation).mean()))


def _contexts(tokens: Ints, colours: int) -> tuple[Ints, Ints]:
    """Numbers of the left neighbour, and of left and up, of every token; one more colour stands for the outside."""
    padded = np.pad(tokens, ((0, 0), (1, 0), (1, 0)), constant_values=colours)
    left, up = padded[:, 1:, :-1], padded[:, :-1, 1:]
    return left, left * (colours + 1) + up
