"""What every system is timed on: the given tokens, the works, and the shape of a result.

A system is an object with the four methods of `System`. Most runtimes offer a step (tokens in, logits out), and
`stepping.Stepper` makes the four of it; a runtime with a loop of its own implements them directly.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

Tokens = npt.NDArray[np.int64]
Logits = npt.NDArray[np.float32]

SEED = 0
CHECKED = 64  # positions whose logits and greedy tokens are compared between systems
WARM_STEPS = 4  # decode steps before the timed ones
PREFILL_REPEATS = 5
DECODE_STEPS = {1: 96, 8: 64}  # timed decode steps by batch size
# A system too slow to complete in full is timed on evenly spread positions: so many stretches of so many steps.
STRETCHES, STRETCH_STEPS = 8, 5


@dataclass(frozen=True)
class Shape:
    """The part of a checkpoint's configuration that the works depend on."""

    n_positions: int
    n_embd: int
    n_layer: int
    n_head: int
    vocab_size: int  # tokens and sos, the last id
    layer_norm_epsilon: float

    @property
    def sos(self) -> int:
        """Start-of-sequence token."""
        return self.vocab_size - 1

    @property
    def n_clusters(self) -> int:
        """Number of classes of the logits."""
        return self.vocab_size - 1

    @property
    def half(self) -> int:
        """Given tokens of half a picture, which is also the number of tokens to draw."""
        return self.n_positions // 2


@dataclass(frozen=True)
class Completion:
    """One half image completed: how long it took and what came out."""

    seconds: float  # end to end: prefill, fork, every step with its sampling
    tokens: Tokens | None  # [rows, half], or None when only some steps were timed
    timed_steps: int  # of `half`; fewer means that seconds is extrapolated from evenly spread positions


class System(Protocol):
    """One runtime with a loaded model."""

    settings: str  # how it is run, in one line
    proxy: bool  # whether it computes another function of the same shape (random weights, another norm or activation)

    def prefill(self) -> float:
        """Seconds to run sos and the given half at batch 1, up to the logits of the last position."""

    def decode(self, rows: int, steps: int) -> list[float]:
        """Seconds of single decode steps of `rows` rows, from the first token after the given half on."""

    def complete(self, rows: int, *, in_full: bool) -> Completion:
        """Complete the given half `rows` times, sampling from the whole distribution at temperature 1."""

    def check(self) -> tuple[Logits | None, Tokens | None]:
        """Logits [CHECKED, n_clusters] after the given half and each of `following`; greedy tokens [CHECKED]."""


def read_shape(checkpoint: Path) -> Shape:
    """The shape in a checkpoint directory's config.json."""
    fields = json.loads((checkpoint / "config.json").read_text())
    return Shape(**{name: fields[name] for name in Shape.__dataclass_fields__})


def given(shape: Shape) -> Tokens:
    """The half that is given, without sos: fixed random tokens, since the work does not depend on what they show."""
    return np.random.default_rng(SEED).integers(0, shape.n_clusters, shape.half)


def prompt(shape: Shape) -> Tokens:
    """What is fed before the first token is drawn: sos and the given half."""
    return np.concatenate([[shape.sos], given(shape)])


def following(shape: Shape) -> Tokens:
    """Fixed tokens after the given half, to compare logits at more than one position."""
    return np.random.default_rng(SEED + 1).integers(0, shape.n_clusters, CHECKED - 1)


def draw(logits: Logits, generator: np.random.Generator) -> Tokens:
    """One token a row from the whole distribution at temperature 1. logits: [rows, n_clusters]."""
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    cumulative = np.cumsum(weights, axis=1, out=weights)
    threshold = generator.random((len(logits), 1), dtype=np.float32) * cumulative[:, -1:]
    drawn: Tokens = np.minimum((cumulative <= threshold).sum(axis=1), logits.shape[1] - 1)
    return drawn


def stretch_starts(shape: Shape) -> Iterable[int]:
    """First positions of the stretches that stand for a whole completion, each in the middle of its share."""
    share = shape.half / STRETCHES
    return [shape.half + 1 + round(share * (i + 0.5) - STRETCH_STEPS / 2) for i in range(STRETCHES)]
