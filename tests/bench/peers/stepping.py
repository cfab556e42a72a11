"""The works of `workload.System` for runtimes that offer one step: prefill once, copy the prefix, step and draw."""

import time
from abc import ABC, abstractmethod

import numpy as np

from peers import workload
from peers.workload import Completion, Logits, Shape, Tokens


class Stepper(ABC):
    """A runtime as four primitives; everything timed is made of them."""

    settings: str
    proxy: bool

    def __init__(self, shape: Shape) -> None:
        self.shape = shape

    @abstractmethod
    def begin(self, tokens: Tokens, rows: int) -> Logits:
        """Forget everything and run `tokens` [length] as one row; logits [n_clusters] of the last position.

        rows: how many rows the cache will be forked to, for runtimes that reserve it beforehand.
        """

    @abstractmethod
    def fork(self, rows: int) -> None:
        """Copy the one row's cache to `rows` rows."""

    @abstractmethod
    def step(self, tokens: Tokens) -> Logits:
        """Feed one token a row [rows]; logits [rows, n_clusters]."""

    @abstractmethod
    def seek(self, length: int) -> None:
        """Have the cache hold at least its present and exactly `length` tokens a row, whatever they are: for timing."""

    def prefill(self) -> float:
        """See `workload.System`."""
        begin = time.perf_counter()
        self.begin(workload.prompt(self.shape), 1)
        return time.perf_counter() - begin

    def decode(self, rows: int, steps: int) -> list[float]:
        """See `workload.System`."""
        self.begin(workload.prompt(self.shape), rows)
        self.fork(rows)
        tokens = workload.given(self.shape)[:rows]
        return [self._timed_step(tokens) for _ in range(steps)]

    def complete(self, rows: int, *, in_full: bool) -> Completion:
        """See `workload.System`."""
        generator = np.random.default_rng(workload.SEED)
        begin = time.perf_counter()
        logits = self.begin(workload.prompt(self.shape), rows)
        self.fork(rows)
        logits = np.repeat(logits[None], rows, axis=0)
        if not in_full:
            return self._extrapolate(rows, time.perf_counter() - begin)
        drawn = np.empty((rows, self.shape.half), np.int64)
        for column in range(self.shape.half):
            drawn[:, column] = workload.draw(logits, generator)
            if column + 1 < self.shape.half:  # the last token of a picture is never fed
                logits = self.step(drawn[:, column])
        return Completion(time.perf_counter() - begin, drawn, self.shape.half)

    def _extrapolate(self, rows: int, seconds_before: float) -> Completion:
        tokens = np.resize(workload.given(self.shape), rows)
        generator = np.random.default_rng(workload.SEED)
        timed = []
        for start in workload.stretch_starts(self.shape):
            self.seek(start - 1)
            self.step(tokens)  # the first step after a seek pays for it
            for _ in range(workload.STRETCH_STEPS):
                begin = time.perf_counter()
                workload.draw(self.step(tokens), generator)
                timed.append(time.perf_counter() - begin)
        steps = (self.shape.half - 1) * float(np.mean(timed))
        return Completion(seconds_before + steps, None, len(timed))

    def _timed_step(self, tokens: Tokens) -> float:
        begin = time.perf_counter()
        self.step(tokens)
        return time.perf_counter() - begin

    def check(self) -> tuple[Logits | None, Tokens | None]:
        """See `workload.System`."""
        logits = [self.begin(workload.prompt(self.shape), 1)]
        self.fork(1)
        for token in workload.following(self.shape):
            logits.append(self.step(np.array([token]))[0])
        greedy = [int(np.argmax(self.begin(workload.prompt(self.shape), 1)))]
        self.fork(1)
        while len(greedy) < workload.CHECKED:
            greedy.append(int(np.argmax(self.step(np.array(greedy[-1:]))[0])))
        return np.stack(logits), np.array(greedy)
